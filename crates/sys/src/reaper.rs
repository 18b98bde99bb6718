//! Child subreaper, signals as a descriptor, and the collecting of processes that nobody else waits for.

#![allow(
    unsafe_code,
    reason = "signalfd, sigprocmask and waitid with a pid in its answer have no safe wrapper"
)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// Makes the calling process the parent of all its descendants whose own parents end.
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Signals that arrive as readiness of a descriptor.
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks `signals` for this thread (and those it starts) and delivers them through the descriptor instead.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        // SAFETY: the set lives on this stack and is initialised by sigemptyset before the other calls use it; a
        // descriptor that signalfd returns is open and nobody else's.
        unsafe {
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut set);
            for signal in signals {
                libc::sigaddset(&raw mut set, *signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
                -1 => Err(io::Error::last_os_error()),
                fd => Ok(Self(OwnedFd::from_raw_fd(fd))),
            }
        }
    }

    /// The next signal that has arrived, if any. Several of one kind may have become one.
    pub fn next(&self) -> io::Result<Option<i32>> {
        // `ssi_signo` is the first field of the record.
        let mut record = [0u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.0, &mut record) {
            Ok(n) if n == record.len() => {
                let [a, b, c, d, ..] = record;
                Ok(Some(i32::from_ne_bytes([a, b, c, d])))
            }
            Ok(_) => Ok(None),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The number of some child that has ended and was not collected yet. It stays a zombie, so the number stays its own.
pub fn ended_child() -> io::Result<Option<u32>> {
    // SAFETY: waitid writes at most one siginfo_t to the place we own; si_pid is what it fills in for an exited child,
    // and zero stays there where nobody has ended.
    let pid = unsafe {
        let mut info = std::mem::zeroed::<libc::siginfo_t>();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        if libc::waitid(libc::P_ALL, 0, &raw mut info, flags) != 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ECHILD) { Ok(None) } else { Err(error) };
        }
        info.si_pid()
    };
    Ok(u32::try_from(pid).ok().filter(|pid| *pid != 0))
}

/// Collects the ended child `pid`, whatever it was.
pub fn discard(pid: u32) -> io::Result<()> {
    let raw = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::waitpid(raw, rustix::process::WaitOptions::NOHANG)?;
    Ok(())
}
