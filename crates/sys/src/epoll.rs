//! Readiness of descriptors, for the shim's loop: level-triggered, one token a descriptor.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll;

pub use rustix::event::epoll::EventFlags as Ready;

/// An epoll instance.
pub struct Epoll(OwnedFd);

/// A descriptor that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it was registered with.
    pub token: u64,
    /// What it is ready for; errors and hang-ups are always told.
    pub ready: Ready,
}

/// The most events that one [`Epoll::wait`] answers.
pub const BATCH: usize = 32;

impl Epoll {
    /// A new instance, closed on exec.
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Watches `fd` for `interest`; events carry `token`.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Ready) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, epoll::EventData::new_u64(token), interest)?)
    }

    /// Changes what a watched `fd` is watched for.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Ready) -> io::Result<()> {
        Ok(epoll::modify(&self.0, fd, epoll::EventData::new_u64(token), interest)?)
    }

    /// Stops watching `fd`. A descriptor whose file nobody else holds need not be removed before it is closed.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.0, fd)?)
    }

    /// Waits until something is ready, or `timeout` has passed (none: for ever), and puts it into `events`.
    pub fn wait(&self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        let timeout = timeout.map(|t| rustix::time::Timespec {
            tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        let mut buffer = [const { MaybeUninit::<epoll::Event>::uninit() }; BATCH];
        match epoll::wait(&self.0, &mut buffer[..], timeout.as_ref()) {
            Ok((ready, _)) => {
                events.extend(ready.iter().map(|e| Event { token: e.data.u64(), ready: e.flags }));
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_pipe_is_ready_and_an_empty_one_times_out() {
        let epoll = Epoll::new().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        epoll.add(&reader, 7, Ready::IN).unwrap();
        let mut events = Vec::new();
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(events.is_empty());
        rustix::io::write(&writer, b"x").unwrap();
        epoll.wait(&mut events, None).unwrap();
        assert_eq!((events.len(), events[0].token), (1, 7));
        epoll.remove(&reader).unwrap();
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(events.is_empty());
    }
}
