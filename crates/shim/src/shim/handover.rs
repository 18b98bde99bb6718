//! The parts of the shim, gathered and put together again.

use std::collections::BTreeMap;

use api::containerdrs::shim::v1 as wire;
use sys::handover::Inherited;
use sys::reaper::Signals;
use types::Result;

use super::Shim;
use crate::carriage::Logger;
use crate::context::Context;
use crate::debug::Door;
use crate::driver::Driver;
use crate::handover::{Kept, required};
use crate::serve::Settings;
use crate::terminal::Terminals;

impl Shim {
    /// Whether nothing is under way that ends by itself, so that what is there is all that there is.
    pub fn is_quiet(&self) -> bool {
        self.cx.children.is_quiet()
            && self.cx.awaiting.is_empty()
            && self.containers.values().all(Driver::is_quiet)
    }

    /// Whether it is about to end.
    pub fn is_ending(&self) -> bool {
        self.ending
    }

    /// All of it, but what the replacement itself adds.
    pub fn write_down_parts<'a>(&'a self, kept: &mut Kept<'a>) -> wire::State {
        let Self {
            cx,
            containers,
            signals: _,
            settings,
            socket,
            debug,
            upgrade: _,
            ending: _,
            ends_when_empty,
            late: _,
            busy: _,
        } = self;
        let Context {
            namespace: _,
            // Made anew.
            epoll: _,
            log: _,
            // Nothing is handed over while there are any.
            awaiting: _,
            // Of those that are under way; what only waits for an end is understood in either words.
            wordings: _,
            server,
            children,
            streams,
            watches,
            loggers,
            publisher,
            timers,
            console_prefix,
            consoles,
        } = cx;
        let mut state = wire::State {
            settings: Some(settings.write_down()),
            socket: Some(socket.write_down()),
            publisher: Some(publisher.write_down(kept)),
            timers: timers.write_down(),
            loggers: loggers.iter().map(Logger::write_down).collect(),
            console_prefix: console_prefix.to_string_lossy().into_owned(),
            consoles: *consoles,
            ends_when_empty: *ends_when_empty,
            ..wire::State::default()
        };
        if let Some(door) = debug {
            door.write_down(&mut state, kept);
        }
        server.write_down(&mut state, kept);
        children.write_down(&mut state, kept);
        streams.write_down(&mut state, kept);
        watches.write_down(&mut state, kept);
        state.containers = containers.values().map(|driver| driver.write_down(kept)).collect();
        state
    }

    /// The shim of `state`, in `cx`.
    pub fn read_back(
        cx: Context,
        signals: Signals,
        settings: Settings,
        mut state: wire::State,
        (inherited, terminals): (&mut Inherited, &Terminals),
    ) -> Result<Self> {
        let socket = crate::address::Socket::read_back(required(state.socket.take(), "socket")?);
        let debug = Door::read_back(&mut state, inherited)?;
        let mut containers = BTreeMap::new();
        for container in state.containers {
            let driver = Driver::read_back(container, &cx.namespace, terminals)?;
            containers.insert(driver.id().to_owned(), driver);
        }
        let ends_when_empty = state.ends_when_empty;
        let mut shim = Self { containers, ends_when_empty, ..Self::new(cx, signals, settings, socket) };
        shim.open_to_debuggers(debug)?;
        Ok(shim)
    }

    /// Looks at everything that may have become ready while nobody looked.
    pub fn look_around(&mut self) {
        for serial in self.cx.streams.uncarried() {
            self.stream_ready(serial);
        }
        self.reap();
        let again = self.cx.publisher.advance(&self.cx.epoll);
        self.cx.publish_again(again);
    }
}
