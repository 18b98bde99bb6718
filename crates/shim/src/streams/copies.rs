//! Who is attached to processes whose output is logged: pipes that get a copy of it.
//!
//! A copy is lossy: what does not fit into the pipe when it is said is not in the copy. The carrier of the stream writes it
//! (`carrier`); what is here keeps the pipe open between two carriers, and hears when its reader has gone.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{FileType, Mode, OFlags};
use sys::epoll::{Epoll, Ready};
use types::{Error, Result, ResultExt};

use super::Owner;
use crate::errno::Os;
use crate::logfile::Channel;
use crate::token::{Kind, Token};

/// One of them.
pub(super) struct Attached {
    pub(super) owner: Owner,
    pub(super) channel: Channel,
    pub(super) fd: OwnedFd,
}

/// All of them.
#[derive(Default)]
pub(super) struct Copies {
    pub(super) open: BTreeMap<u64, Attached>,
    pub(super) next: u64,
}

/// Opens a pipe of a client, who reads it already.
pub fn open(path: &str) -> Result<OwnedFd> {
    let doing = || format!("open {path:?} for a copy of the output");
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, Mode::empty()).os().context(doing)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd).os().context(doing)?.st_mode);
    if kind != FileType::Fifo {
        return Err(Error::invalid(format!("{path:?} is no pipe")));
    }
    Ok(fd)
}

impl Copies {
    /// One more, of what `of` says.
    pub(super) fn add(&mut self, of: (&Owner, Channel), fd: OwnedFd, epoll: &Epoll) -> io::Result<()> {
        self.next += 1;
        let copy = Attached { owner: Rc::clone(of.0), channel: of.1, fd };
        self.put(self.next, copy, epoll)
    }

    /// One that has a number.
    pub(super) fn put(&mut self, serial: u64, copy: Attached, epoll: &Epoll) -> io::Result<()> {
        // Nothing to wait for but the end of its reader, which is always told.
        epoll.add(&copy.fd, Token { kind: Kind::Copy, serial }.pack(), Ready::empty())?;
        self.open.insert(serial, copy);
        Ok(())
    }

    /// The pipes of a stream.
    pub(super) fn of(&self, owner: &Owner, channel: Channel) -> Vec<BorrowedFd<'_>> {
        let of_stream = |copy: &&Attached| copy.owner == *owner && copy.channel == channel;
        self.open.values().filter(of_stream).map(|copy| copy.fd.as_fd()).collect()
    }

    /// The stream has ended.
    pub(super) fn end(&mut self, owner: &Owner, channel: Channel, epoll: &Epoll) {
        let ended = |(serial, copy): (&u64, &Attached)| {
            (copy.owner == *owner && copy.channel == channel).then_some(*serial)
        };
        for serial in self.open.iter().filter_map(ended).collect::<Vec<_>>() {
            self.remove(serial, epoll);
        }
    }

    /// Forgets one.
    pub(super) fn remove(&mut self, serial: u64, epoll: &Epoll) {
        if let Some(copy) = self.open.remove(&serial) {
            // Carriers may hold it still, and then the loop would be told of it for ever.
            let _ = epoll.remove(&copy.fd);
        }
    }
}
