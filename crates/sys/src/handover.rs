//! A process that goes on as another program: what it has open is handed over by number through execve(2), which keeps the
//! process's number, its children, its session, its control group, and that it is their subreaper.
//!
//! ```text
//!  before:  keep(fd) for each, then execute(...)          after:  Inherited::collect(), then take(number) for each
//! ```

#![allow(unsafe_code, reason = "execve and descriptors known by number have no safe wrapper")]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};

/// Leaves `fd` open across execve. Its number, for the program that goes on.
pub fn keep(fd: impl AsFd) -> io::Result<i32> {
    fcntl_setfd(&fd, FdFlags::empty())?;
    Ok(fd.as_fd().as_raw_fd())
}

/// Takes back what [`keep`] has done, when nobody goes on.
pub fn keep_not(fd: impl AsFd) -> io::Result<()> {
    Ok(fcntl_setfd(&fd, FdFlags::CLOEXEC)?)
}

/// Goes on as the program at `path`. Returns only if that fails; nothing has changed then.
pub fn execute(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: a C string and two null-terminated lists of C strings, all of which outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// The descriptors that this process was started with, beside the standard streams.
#[derive(Debug)]
pub struct Inherited(BTreeMap<i32, OwnedFd>);

impl Inherited {
    /// Takes all of them; from now on they are closed on exec. To be called once, by a process that has not opened anything
    /// yet: what is open belongs to nobody in it.
    pub fn collect() -> io::Result<Self> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "inherited descriptors are taken once"));
        }
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir("/proc/self/fd")? {
            numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
        }
        let mut all = BTreeMap::new();
        for number in numbers.into_iter().filter(|number| *number > 2) {
            // The one that the directory was read through is closed by now.
            // SAFETY: F_GETFD takes a number and changes nothing.
            if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
                continue;
            }
            // SAFETY: the descriptor is open; as this is the first thing that the process does with descriptors, and happens
            // once, nobody else owns it.
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            keep_not(&fd)?;
            all.insert(number, fd);
        }
        Ok(Self(all))
    }

    /// The descriptor `number`, once.
    pub fn take(&mut self, number: i32) -> io::Result<OwnedFd> {
        let missing =
            || io::Error::new(io::ErrorKind::NotFound, format!("descriptor {number} was not handed over"));
        self.0.remove(&number).ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::fcntl_getfd;

    #[test]
    fn what_is_kept_stays_open_across_an_execution_until_it_is_not_kept() {
        let file = std::fs::File::open("/").unwrap();
        assert_eq!(fcntl_getfd(&file).unwrap(), FdFlags::CLOEXEC);
        assert_eq!(keep(&file).unwrap(), file.as_raw_fd());
        assert_eq!(fcntl_getfd(&file).unwrap(), FdFlags::empty());
        keep_not(&file).unwrap();
        assert_eq!(fcntl_getfd(&file).unwrap(), FdFlags::CLOEXEC);
    }

    #[test]
    fn a_program_that_is_not_there_leaves_everything_as_it_was() {
        let error = execute(c"/nonexistent", &[c"x".to_owned()], &[]);
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
