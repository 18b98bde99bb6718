//! What the drivers of all containers share: the loop's parts, and the words they use with them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sys::epoll::Epoll;
use sys::pidfd::PidFd;
use types::{Any, Result, ResultExt};

use crate::call::Call;
use crate::carriage::Logger;
use crate::children::{Children, Purpose};
use crate::log::Log;
use crate::oom::Watches;
use crate::output::Awaiting;
use crate::publisher::{Again, Publisher};
use crate::sandbox::Wording;
use crate::server::Server;
use crate::streams::Streams;
use crate::timers::{Deadline, Timers};

/// How long a program may take to tell the daemon of an event.
const TELLING: Duration = Duration::from_secs(10);

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
    /// Programs that take output.
    pub loggers: Vec<Logger>,
    /// Calls whose answer is put into other words.
    pub wordings: Vec<(Call, Wording)>,
    /// Calls about output that wait for carriers.
    pub awaiting: Vec<Awaiting>,
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
        let result = match self.wordings.iter().position(|(of, _)| *of == call) {
            Some(index) => {
                let (_, wording) = self.wordings.swap_remove(index);
                result.and_then(|payload| wording.put(&payload))
            }
            None => result,
        };
        self.server.reply(call, result, &self.epoll);
    }

    /// The answer to a call is to be put into other words.
    pub fn word(&mut self, call: Call, wording: Wording) {
        self.wordings.push((call, wording));
    }

    /// Watches over a child.
    pub fn track(&mut self, process: PidFd, purpose: Purpose) -> Result<u64> {
        self.children.track(process, purpose, &self.epoll).context(|| "watch a process")
    }

    /// Tells the daemon of an event of the container in `bundle`.
    pub fn publish(&mut self, bundle: &Path, topic: &str, event: Any) {
        self.publisher.push(bundle, topic, event);
        let again = self.publisher.advance(&self.epoll);
        self.publish_again(again);
    }

    /// Arranges for the publisher to be called again.
    pub fn publish_again(&mut self, again: Again) {
        for complaint in self.publisher.complaints() {
            self.log.error(&complaint, &self.namespace);
        }
        self.timers.clear(&Deadline::Publish);
        match again {
            Again::WhenReady => {}
            Again::After(delay) => self.timers.set(delay, Deadline::Publish),
            Again::Told(teller) => match self.track(teller.0, Purpose::Teller) {
                Ok(child) => self.timers.set(TELLING, Deadline::Kill(child)),
                Err(error) => self.log.error(&error.to_string(), &self.namespace),
            },
        }
    }

    /// A program that told the daemon of an event has ended.
    pub fn told(&mut self, child: u64, success: bool) {
        self.timers.clear(&Deadline::Kill(child));
        let again = self.publisher.told(success, &self.epoll);
        self.publish_again(again);
    }

    /// A path for a new console socket.
    pub fn console_path(&mut self) -> PathBuf {
        self.consoles += 1;
        let mut path = self.console_prefix.clone().into_os_string();
        path.push(self.consoles.to_string());
        path.into()
    }
}
