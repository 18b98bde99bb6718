//! What the running kernel must offer: an older one is refused by name of what it lacks, before anything is touched.

use std::io;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, getpid, pidfd_open, waitid};
use types::{Error, Result};

/// The oldest kernel that this is made for.
const OLDEST: &str = "5.10";

/// A system call that we cannot do without.
struct Call {
    name: &'static str,
    /// The first Linux that has it.
    since: &'static str,
    /// Makes the call to no effect.
    probe: fn() -> rustix::io::Result<()>,
}

const CALLS: [Call; 3] = [
    Call {
        name: "pidfd_open(2)",
        since: "5.3",
        probe: || pidfd_open(getpid(), PidfdFlags::empty()).map(drop),
    },
    Call { name: "waitid(2) with P_PIDFD", since: "5.4", probe: wait_for_myself },
    Call {
        name: "openat2(2)",
        since: "5.6",
        probe: || {
            openat2(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty()).map(drop)
        },
    },
];

/// Fails if the kernel lacks a system call that containers here cannot do without.
pub fn require() -> Result<()> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    check(&CALLS, &release)
}

fn check(calls: &[Call], release: &str) -> Result<()> {
    for Call { name, since, probe } in calls {
        match probe() {
            Ok(()) => {}
            Err(Errno::NOSYS) => {
                return Err(Error::unimplemented(format!(
                    "this kernel ({release}) lacks {name}, which Linux has since {since}: containerd-rs needs Linux {OLDEST} \
                     or newer"
                )));
            }
            Err(errno) => {
                // Forbidden, most likely: the same to us, but not for want of a kernel.
                let error = Error::from(io::Error::from(errno));
                return Err(error.context(format!("try {name}, which containerd-rs cannot do without")));
            }
        }
    }
    Ok(())
}

/// Asks for the end of this process, which is no child of its own.
fn wait_for_myself() -> rustix::io::Result<()> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::PidFd(std::os::fd::AsFd::as_fd(&own)), options) {
        Ok(_) | Err(Errno::CHILD) => Ok(()),
        // A kernel that does not know the kind of id.
        Err(Errno::INVAL) => Err(Errno::NOSYS),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_all() {
        require().unwrap();
    }

    #[test]
    fn a_call_that_is_missing_or_forbidden_is_named() {
        let old = Call { name: "future(2)", since: "9.1", probe: || Err(Errno::NOSYS) };
        let error = check(&[old], "4.19.0").unwrap_err().to_string();
        for word in ["4.19.0", "future(2)", "9.1", OLDEST] {
            assert!(error.contains(word), "{error}");
        }
        let forbidden = Call { name: "future(2)", since: "9.1", probe: || Err(Errno::PERM) };
        assert!(check(&[forbidden], "6.1.0").unwrap_err().to_string().contains("future(2)"));
    }
}
