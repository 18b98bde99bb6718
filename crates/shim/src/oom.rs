//! Memory that ran out: a watch over the groups of each container.
//!
//! ```text
//!  cgroup v1   an eventfd, registered in cgroup.event_control for memory.oom_control: told before anything is killed
//!  cgroup v2   memory.events, ready for EPOLLPRI when a number in it changes
//! ```
//!
//! The loop hears of it like of anything else, but a process that was killed may be heard of first. So the watch is asked
//! ([`Watches::is_due`]) before an exit is told; both files are only counters, and reading them waits for nothing.

mod handover;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::event::{EventfdFlags, eventfd};
use sys::cgroup::{Groups, Mode};
use sys::epoll::{Epoll, Ready};

use crate::token::{Kind, Token};

/// The watch over one container.
struct Watch {
    container: String,
    /// Version 1: told by the kernel; closed with its registration.
    notice: Option<OwnedFd>,
    /// `memory.oom_control` or `memory.events`.
    counters: File,
    /// How many processes had been killed when it was last asked.
    killed: u64,
    /// A notice of version 1 was told, and the killing that follows it not counted yet.
    told: bool,
}

/// All watches.
#[derive(Default)]
pub struct Watches {
    open: BTreeMap<u64, Watch>,
    next: u64,
}

impl Watches {
    /// Watches over the container whose groups these are.
    pub fn add(&mut self, container: &str, groups: &Groups, epoll: &Epoll) -> io::Result<()> {
        let watch = match sys::cgroup::mode() {
            Mode::Unified => {
                let group = groups.unified().ok_or(io::ErrorKind::NotFound)?;
                Watch::unified(container, &group)?
            }
            Mode::Legacy => {
                let group = groups.legacy("memory").ok_or(io::ErrorKind::NotFound)?;
                Watch::legacy(container, &group)?
            }
        };
        self.insert(watch, epoll)
    }

    fn insert(&mut self, watch: Watch, epoll: &Epoll) -> io::Result<()> {
        self.next += 1;
        let token = Token { kind: Kind::Memory, serial: self.next }.pack();
        match &watch.notice {
            Some(notice) => epoll.add(notice, token, Ready::IN)?,
            None => epoll.add(&watch.counters, token, Ready::PRI)?,
        }
        self.open.insert(self.next, watch);
        Ok(())
    }

    /// A watch is ready: the container whose memory ran out, if it did.
    pub fn ready(&mut self, serial: u64) -> Option<String> {
        let watch = self.open.get_mut(&serial)?;
        let due = watch.is_due();
        let container = watch.container.clone();
        if !watch.is_alive() {
            // Its group is gone, and would be ready for ever.
            self.open.remove(&serial);
        }
        due.then_some(container)
    }

    /// Whether memory ran out since this was last asked; to be told before any exit.
    pub fn is_due(&mut self, container: &str) -> bool {
        self.open.values_mut().filter(|watch| watch.container == container).any(Watch::is_due)
    }

    /// Watches over the container no more.
    pub fn remove(&mut self, container: &str) {
        self.open.retain(|_, watch| watch.container != container);
    }
}

impl Watch {
    fn unified(container: &str, group: &Path) -> io::Result<Self> {
        let counters = File::open(group.join("memory.events"))?;
        // Reading also says from which change on the file shall be ready.
        let killed = kills(&counters)?;
        Ok(Self { container: container.to_owned(), notice: None, counters, killed, told: false })
    }

    fn legacy(container: &str, group: &Path) -> io::Result<Self> {
        let notice = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let counters = File::open(group.join("memory.oom_control"))?;
        let registration = format!("{} {}", notice.as_raw_fd(), counters.as_raw_fd());
        std::fs::write(group.join("cgroup.event_control"), registration)?;
        // Kernels before 4.13 do not count; there the notice has to do.
        let killed = kills(&counters).unwrap_or(0);
        Ok(Self { container: container.to_owned(), notice: Some(notice), counters, killed, told: false })
    }

    fn is_alive(&self) -> bool {
        kills(&self.counters).is_ok()
    }

    fn is_due(&mut self) -> bool {
        let mut count = [0; 8];
        let noticed = self.notice.as_ref().is_some_and(|notice| rustix::io::read(notice, &mut count).is_ok());
        let Ok(killed) = kills(&self.counters) else {
            // The removal of a group is noticed as well.
            return false;
        };
        let more = killed > self.killed;
        self.killed = self.killed.max(killed);
        if noticed {
            self.told = !more;
            return true;
        }
        more && !std::mem::take(&mut self.told)
    }
}

/// How many processes of a group were killed for want of memory. A file of before 4.13 has no such line: none.
fn kills(counters: &File) -> io::Result<u64> {
    let mut buffer = [0; 512];
    let length = counters.read_at(&mut buffer, 0)?;
    let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    Ok(count.and_then(|count| count.trim().parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn watch(dir: &Path, notice: bool) -> Watch {
        std::fs::write(dir.join("memory.events"), "oom 0\noom_kill 0\noom_group_kill 9\n").unwrap();
        let mut watch = Watch::unified("c", dir).unwrap();
        if notice {
            watch.notice = Some(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        }
        watch
    }

    fn kill(dir: &Path, count: u64) {
        std::fs::write(dir.join("memory.events"), format!("oom 7\noom_kill {count}\n")).unwrap();
    }

    #[test]
    fn each_growth_of_the_counter_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = watch(dir.path(), false);
        assert!(!watch.is_due());
        kill(dir.path(), 2);
        assert!(watch.is_due() && !watch.is_due());
        kill(dir.path(), 3);
        assert!(watch.is_due());
    }

    #[test]
    fn a_notice_and_the_killing_behind_it_are_one_event() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = watch(dir.path(), true);
        let mut notice = File::from(watch.notice.as_ref().unwrap().try_clone().unwrap());
        notice.write_all(&1u64.to_ne_bytes()).unwrap();
        assert!(watch.is_due());
        kill(dir.path(), 1);
        assert!(!watch.is_due());
        // A killing without a notice: another group's was under way.
        kill(dir.path(), 2);
        assert!(watch.is_due());
    }
}
