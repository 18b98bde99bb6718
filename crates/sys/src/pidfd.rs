//! Processes by descriptor: a pid names whoever has it now, a pidfd the one process it was opened on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code.
    Code(u32),
    /// This signal killed it.
    Signal(u32),
}

impl Ended {
    /// The exit status as shells and containerd count: the code, or 128 + signal.
    pub fn status(self) -> u32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// Whether it exited with code 0.
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

/// A process.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    pid: u32,
}

impl PidFd {
    /// Opens the process that has the number `pid` now. For a child, or a process that will become one, that is the
    /// right one as long as nobody has collected it: its number cannot be given away before.
    pub fn open(pid: u32) -> io::Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::INVAL)?;
        Ok(Self { fd: pidfd_open(raw, PidfdFlags::empty())?, pid })
    }

    /// Takes over a descriptor of the process `pid` that another program of this one had opened.
    pub fn adopt(fd: OwnedFd, pid: u32) -> Self {
        Self { fd, pid }
    }

    /// Wraps a descriptor that the kernel gave with the process.
    pub(crate) fn from_parts(fd: OwnedFd, pid: u32) -> Self {
        Self { fd, pid }
    }

    /// The number it has, or had.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Collects the process if it is a child of ours and has ended; `ECHILD` if it is no child of ours.
    pub fn collect(&self) -> io::Result<Option<Ended>> {
        self.wait(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    /// Waits for the child's end and collects it.
    pub fn collect_blocking(&self) -> io::Result<Ended> {
        loop {
            match self.wait(WaitIdOptions::EXITED) {
                Ok(Some(ended)) => return Ok(ended),
                Ok(None) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Whether the process is a child of ours, ended or not.
    pub fn is_child(&self) -> bool {
        self.wait(WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT).is_ok()
    }

    fn wait(&self, options: WaitIdOptions) -> io::Result<Option<Ended>> {
        let status = waitid(WaitId::PidFd(self.fd.as_fd()), options)?;
        Ok(status.map(|s| match (s.exit_status(), s.terminating_signal()) {
            (Some(code), _) => Ended::Code(u32::try_from(code).unwrap_or(255)),
            (None, signal) => Ended::Signal(signal.and_then(|s| u32::try_from(s).ok()).unwrap_or(0)),
        }))
    }

    /// Sends a signal; `ESRCH` if the process has ended, `EINVAL` if there is no such signal.
    pub fn signal(&self, signal: u32) -> io::Result<()> {
        let Some(number) = i32::try_from(signal).ok().filter(|n| (0..=64).contains(n)) else {
            return Err(Errno::INVAL.into());
        };
        crate::process::pidfd_signal(self.fd.as_fd(), number)
    }

    /// Kills the process; one that has ended already is no error.
    pub fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.fd, rustix::process::Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

impl PidFd {
    /// How a process ended that somebody else has collected, as the kernel remembers it (Linux 6.15). None where it does
    /// not, or the process has not ended or was not collected yet.
    pub fn remembered(&self) -> Option<Ended> {
        let status = crate::process::exit_info(self.fd.as_fd())?;
        Some(match status & 0x7f {
            0 => Ended::Code((status >> 8) & 0xff),
            signal => Ended::Signal(signal),
        })
    }

    /// Waits until the process has ended and, if the kernel tells, was collected; at most so many milliseconds.
    pub fn await_end(&self, milliseconds: u32) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, poll};
        let until = std::time::Instant::now() + std::time::Duration::from_millis(milliseconds.into());
        loop {
            let rest = until.saturating_duration_since(std::time::Instant::now());
            if rest.is_zero() {
                return Ok(());
            }
            // Readable when it has ended, which it then stays; hung up when it was collected.
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            let wait =
                rustix::time::Timespec { tv_sec: 0, tv_nsec: i64::from(rest.subsec_nanos()).min(5_000_000) };
            poll(&mut fds, Some(&wait))?;
            if fds[0].revents().contains(PollFlags::HUP) || self.remembered().is_some() {
                return Ok(());
            }
            if !fds[0].revents().is_empty() {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
    }
}

impl PidFd {
    /// Kills a child that leads a process group, and whatever else is in the group. It must not have been collected: its
    /// number could be somebody else's by then.
    pub fn kill_group(&self) -> io::Result<()> {
        let group = i32::try_from(self.pid).ok().and_then(Pid::from_raw).ok_or(Errno::INVAL)?;
        match rustix::process::kill_process_group(group, rustix::process::Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

impl PidFd {
    /// Kills the processes that a child of ours has started and not collected, and leaves itself to deal with that. It
    /// must not have been collected.
    pub fn kill_children(&self) -> io::Result<()> {
        for task in std::fs::read_dir(format!("/proc/{}/task", self.pid))? {
            // A thread may end meanwhile.
            let children = std::fs::read_to_string(task?.path().join("children")).unwrap_or_default();
            for child in children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()) {
                let Ok(process) = Self::open(child) else { continue };
                // Now that there is a descriptor the number stays its own: is it still the child that was listed?
                if parent(child) == Some(self.pid) {
                    process.kill()?;
                }
            }
        }
        Ok(())
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::zombie_processes, reason = "collected by the descriptor, which is what is tested")]
    fn a_child_is_collected_once_with_its_code_or_signal() {
        let child = std::process::Command::new("/bin/sh").args(["-c", "exit 3"]).spawn().unwrap();
        let fd = PidFd::open(child.id()).unwrap();
        assert_eq!(fd.collect_blocking().unwrap(), Ended::Code(3));
        assert!(fd.collect().is_err());
        let child = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
        let fd = PidFd::open(child.id()).unwrap();
        assert_eq!(fd.collect().unwrap(), None);
        fd.signal(15).unwrap();
        assert_eq!(fd.collect_blocking().unwrap().status(), 143);
        assert_eq!(fd.signal(15).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn an_end_that_somebody_else_collected_is_remembered_where_the_kernel_can() {
        for (script, wanted) in [("exit 7", Ended::Code(7)), ("kill -9 $$", Ended::Signal(9))] {
            let mut child = std::process::Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
            let fd = PidFd::open(child.id()).unwrap();
            child.wait().unwrap();
            fd.await_end(1000).unwrap();
            // Before Linux 6.15 it is not.
            assert!(fd.remembered().is_none_or(|ended| ended == wanted), "{script}");
        }
    }

    #[test]
    fn a_stranger_is_no_child() {
        assert!(!PidFd::open(1).unwrap().is_child());
        assert!(PidFd::open(0).is_err());
    }
}
