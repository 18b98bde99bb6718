//! What the drivers of all containers share: the loop's parts, and the words they use with them.

use std::path::PathBuf;
use std::time::Duration;

use sys::epoll::Epoll;
use sys::pidfd::PidFd;
use types::{Any, Result, ResultExt};

use crate::call::Call;
use crate::children::{Children, Purpose};
use crate::log::Log;
use crate::oom::Watches;
use crate::publisher::{Again, Publisher};
use crate::server::Server;
use crate::streams::{Owner, Streams, Turn};
use crate::timers::{Deadline, Timers};

/// How long a terminal whose process has ended may be silent before it is taken to be done.
const QUIET: Duration = Duration::from_millis(500);

/// The shim's parts.
pub struct Context {
    /// The namespace of all its containers.
    pub namespace: String,
    /// Readiness.
    pub epoll: Epoll,
    /// Clients.
    pub server: Server,
    /// Processes.
    pub children: Children,
    /// Output and input.
    pub streams: Streams,
    /// Memory that runs out.
    pub watches: Watches,
    /// Events.
    pub publisher: Publisher,
    /// Deadlines.
    pub timers: Timers,
    /// Log lines.
    pub log: Log,
    /// Where console sockets are made: a prefix of their paths.
    pub console_prefix: PathBuf,
    /// How many console sockets were made.
    pub consoles: u64,
}

impl Context {
    /// Answers a call.
    pub fn reply(&mut self, call: Call, result: Result<Vec<u8>>) {
        self.server.reply(call, result, &self.epoll);
    }

    /// Watches over a child.
    pub fn track(&mut self, process: PidFd, purpose: Purpose) -> Result<u64> {
        self.children.track(process, purpose, &self.epoll).context(|| "watch a process")
    }

    /// Tells the daemon of an event.
    pub fn publish(&mut self, topic: &str, event: Any) {
        self.publisher.push(topic, event);
        let again = self.publisher.advance(&self.epoll);
        self.publish_again(again);
    }

    /// Arranges for the publisher to be called again.
    pub fn publish_again(&mut self, again: Again) {
        if self.publisher.dropped > 0 {
            let dropped = std::mem::take(&mut self.publisher.dropped);
            self.log.error("events were dropped", &dropped.to_string());
        }
        self.timers.clear(&Deadline::Publish);
        if let Again::After(delay) = again {
            self.timers.set(delay, Deadline::Publish);
        }
    }

    /// A path for a new console socket.
    pub fn console_path(&mut self) -> PathBuf {
        self.consoles += 1;
        let mut path = self.console_prefix.clone().into_os_string();
        path.push(self.consoles.to_string());
        path.into()
    }

    /// The process of `owner` has ended: its terminal is read to the end.
    pub fn end_streams(&mut self, owner: &Owner) -> Vec<Owner> {
        let terminals = self.streams.process_ended(owner);
        let mut closed = Vec::new();
        for serial in terminals {
            match self.streams.turn(serial, &self.epoll) {
                Turn::Closed(owner) | Turn::Unread(owner) => closed.push(owner),
                // What the process wrote last may still be on its way through the terminal.
                Turn::Empty => self.timers.set(QUIET, Deadline::Quiet(serial)),
                Turn::Open => {}
            }
        }
        closed
    }
}
