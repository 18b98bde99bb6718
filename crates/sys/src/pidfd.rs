//! Processes by descriptor: a pid names whoever has it now, a pidfd the one process it was opened on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::{fmt, io};

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

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
        }
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
    /// How a process ended that is not, or no more, our child: as its parent will be told, or, after it was, as the kernel
    /// remembers (Linux 6.15). None if it has not ended, or nobody knows.
    pub fn how_it_ended(&self) -> Option<Ended> {
        // It may be collected between the two questions.
        let status = self.remembered().or_else(|| self.of_zombie()).or_else(|| self.remembered())?;
        Some(match status & 0x7f {
            0 => Ended::Code((status >> 8) & 0xff),
            signal => Ended::Signal(signal),
        })
    }

    fn remembered(&self) -> Option<u32> {
        crate::process::exit_info(self.fd.as_fd())
    }

    /// The wait status of a process that nobody has collected yet.
    fn of_zombie(&self) -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split_ascii_whitespace();
        let (state, status) = (fields.next()?, fields.next_back()?.parse().ok()?);
        // If it is there still, the number was its own when that was read.
        let uncollected = state == "Z" && self.signal(0).is_ok();
        uncollected.then_some(status)
    }

    /// Waits until the process has ended, for so many milliseconds at most.
    pub fn await_end(&self, milliseconds: u32) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let limit = std::time::Duration::from_millis(milliseconds.into());
        let seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
        let limit = rustix::time::Timespec { tv_sec: seconds, tv_nsec: limit.subsec_nanos().into() };
        match poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
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
    fn how_a_process_ended_is_known_before_it_is_collected_and_after_where_the_kernel_can() {
        for (script, wanted) in [("exit 7", Ended::Code(7)), ("kill -9 $$", Ended::Signal(9))] {
            let mut child = std::process::Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
            let fd = PidFd::open(child.id()).unwrap();
            fd.await_end(10_000).unwrap();
            assert_eq!(fd.how_it_ended(), Some(wanted));
            child.wait().unwrap();
            // Before Linux 6.15 it is not.
            assert!(fd.how_it_ended().is_none_or(|ended| ended == wanted), "{script}");
        }
        let mut child = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
        let fd = PidFd::open(child.id()).unwrap();
        fd.await_end(1).unwrap();
        assert_eq!(fd.how_it_ended(), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_stranger_is_no_child() {
        assert!(!PidFd::open(1).unwrap().is_child());
        assert!(PidFd::open(0).is_err());
    }
}
