//! The process's own environment, which C libraries read behind our back.

#![allow(unsafe_code, reason = "setenv is only sound in a process of one thread")]

use std::ffi::OsStr;
use std::io;

/// Sets a variable for this process and what it starts. Refused as soon as the process has a second thread.
pub fn set(name: &str, value: &OsStr) -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("the process has several threads"));
    }
    // SAFETY: there is one thread, this one, so nobody reads or changes the environment meanwhile, and nobody can start
    // a thread but us.
    unsafe { std::env::set_var(name, value) };
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_of_several_threads_is_refused() {
        // The test harness runs this on a thread of its own.
        assert!(super::set("CONTAINERD_RS_TEST", "x".as_ref()).is_err());
    }
}
