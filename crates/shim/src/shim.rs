//! The loop: one thread, one epoll, requests before output.

mod handover;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use sys::epoll::Event;
use sys::reaper::Signals;
use types::{Error, Result, ResultExt};

use crate::address::Socket;
use crate::call::Call;
use crate::children::{Purpose, Work};
use crate::context::Context;
use crate::debug::Door;
use crate::driver::{CreateRequest, Driver};
use crate::handover::Upgrade;
use crate::offload;
use crate::runtime::Task;
use crate::serve::Settings;
use crate::state::Input;
use crate::streams::Turn;
use crate::timers::Deadline;
use crate::token::{Kind, Token};

/// How long events may take to be sent at the end.
const FAREWELL: Duration = Duration::from_secs(3);

/// After so long without anything to do, memory is given back.
const IDLE: Duration = Duration::from_millis(250);

/// The running shim.
pub struct Shim {
    /// What all containers share.
    pub cx: Context,
    containers: BTreeMap<String, Driver>,
    signals: Signals,
    /// What it was started with.
    pub settings: Settings,
    socket: Socket,
    /// Where debuggers ask.
    pub debug: Option<Door>,
    /// The program that it is about to go on as.
    pub upgrade: Option<Upgrade>,
    ending: bool,
    /// Whether it ends with its last container, without being asked again.
    ends_when_empty: bool,
    /// Whether the end has waited long enough for events to be sent.
    late: bool,
    /// Whether anything was done since it was last asked.
    busy: bool,
}

impl Shim {
    /// A shim without containers.
    pub fn new(cx: Context, signals: Signals, settings: Settings, socket: Socket) -> Self {
        let (containers, debug, upgrade) = (BTreeMap::new(), None, None);
        Self {
            cx,
            containers,
            signals,
            settings,
            socket,
            debug,
            upgrade,
            ending: false,
            ends_when_empty: false,
            late: false,
            busy: true,
        }
    }

    /// Lets debuggers ask, if there is a door for them.
    pub fn open_to_debuggers(&mut self, door: Option<Door>) -> Result<()> {
        self.debug = door;
        self.debug.as_ref().map_or(Ok(()), |door| door.watch(&self.cx.epoll))
    }

    /// Serves until it is shut down.
    pub fn run(&mut self) -> Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(sys::epoll::BATCH);
        while !self.is_done() {
            if self.busy && !self.cx.timers.has(&Deadline::Tidy) {
                self.busy = false;
                self.cx.timers.set(IDLE, Deadline::Tidy);
            }
            self.cx.epoll.wait(&mut events, self.cx.timers.next()).context(|| "wait for events")?;
            events.sort_unstable_by_key(|event| event.token);
            self.busy |= !events.is_empty();
            for event in &events {
                self.ready(event);
            }
            while let Some(deadline) = self.cx.timers.take_due() {
                self.expire(deadline);
            }
            self.hand_over_if_quiet();
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.late || self.ending && self.cx.publisher.is_idle() && !self.cx.server.has_unsent()
    }

    fn ready(&mut self, event: &Event) {
        let Some(token) = Token::unpack(event.token) else { return };
        match token.kind {
            Kind::Listener => {
                if let Err(error) = self.cx.server.accept(&self.cx.epoll) {
                    self.cx.log.error(&format!("accept: {error}"), "shim");
                }
                // Perhaps it is the daemon, which is back.
                let again = self.cx.publisher.hurry(&self.cx.epoll);
                self.cx.publish_again(again);
            }
            Kind::Client => self.client_ready(token.serial, event),
            Kind::Memory => {
                if let Some(id) = self.cx.watches.ready(token.serial) {
                    self.tell(&id, |driver, cx| driver.feed(cx, Input::OutOfMemory));
                }
            }
            Kind::Child => self.child_ended(token.serial),
            Kind::Signal => self.signalled(),
            Kind::Publisher => {
                let again = self.cx.publisher.ready(event.ready, &self.cx.epoll);
                self.cx.publish_again(again);
            }
            Kind::Logger => {
                if let Some(owner) = self.cx.logger_owner(token.serial) {
                    self.tell(&owner.0, |driver, cx| driver.logger_said(cx, &owner.1));
                }
            }
            Kind::Reader => {
                for serial in self.cx.streams.readers_came() {
                    self.stream_ready(serial);
                }
            }
            Kind::Debugger => self.debugger_came(),
            Kind::Copy => self.cx.streams.detach(token.serial, &self.cx.epoll),
            Kind::Terminal => {
                for serial in self.cx.streams.at_terminal(token.serial, event.ready).into_iter().flatten() {
                    self.stream_ready(serial);
                }
            }
            Kind::Stream => self.stream_ready(token.serial),
        }
    }

    fn client_ready(&mut self, client: u64, event: &Event) {
        let arrived = self.cx.server.ready(client, event.ready, &self.cx.epoll);
        for (call, request) in arrived.requests {
            self.request(call, request);
        }
        if arrived.gone {
            self.cx.server.close(client, &self.cx.epoll);
            self.cx.wordings.retain(|(call, _)| call.client != client);
            for driver in self.containers.values_mut() {
                driver.state_mut().cancel_client(client);
            }
        }
    }

    fn child_ended(&mut self, serial: u64) {
        let Some((purpose, ended)) = self.cx.children.collect(serial) else { return };
        match purpose {
            Purpose::Process { container, exec } => {
                self.tell(&container, |driver, cx| driver.process_ended(cx, exec, ended));
            }
            Purpose::Runtime { container, run } => {
                let named = run.task.names_a_process();
                if !self.containers.contains_key(&container) {
                    // It was deleted meanwhile: others are served on, and whoever asked waits for an answer.
                    if let Task::Kill(call) | Task::Pids(call) = run.task {
                        self.cx.reply(call, Err(Error::not_found("process already finished: not found")));
                    }
                    return self.reap();
                }
                self.tell(&container, |driver, cx| driver.runtime_ended(cx, run, ended));
                if named {
                    // Orphans that ended meanwhile were left alone, as one might have been the process it named.
                    self.reap();
                }
            }
            Purpose::Offload { container, work, report } => {
                self.cx.timers.clear(&Deadline::Offload(serial));
                self.offload_ended(&container, work, offload::outcome(ended, report));
            }
            Purpose::Carrier => {
                let turn = self.cx.carrier_ended(serial, ended);
                self.turned(turn);
            }
            Purpose::Logger(owner) => {
                let waits = |s: &Self| s.containers.get(&owner.0).is_some_and(|d| d.awaits_logger(&owner.1));
                if waits(self) {
                    self.tell(&owner.0, |driver, cx| driver.logger_said(cx, &owner.1));
                }
                let waits = waits(self);
                self.cx.logger_ended(&owner, ended, waits);
                self.tell(&owner.0, |driver, cx| driver.stream_closed(cx, &owner.1));
            }
            Purpose::Teller => self.cx.told(serial, ended.is_success()),
            Purpose::Trial => {
                self.cx.timers.clear(&Deadline::Trial(serial));
                self.trial_ended(ended);
            }
            Purpose::Abandoned => {}
        }
    }

    fn offload_ended(&mut self, container: &str, work: Work, result: Result<Vec<u8>>) {
        match work {
            // Whoever asked is answered even if the container is gone.
            Work::Stats(call) | Work::Reopen(call) => self.cx.reply(call, result),
            work => self.tell(container, |driver, cx| driver.offload_ended(cx, work, result)),
        }
    }

    fn signalled(&mut self) {
        while let Ok(Some(signal)) = self.signals.next() {
            match signal {
                libc::SIGCHLD => {}
                libc::SIGUSR1 => self.dump().lines().for_each(|line| self.cx.log.info(line, "dump")),
                _ => {
                    self.cx.log.warn("ended by a signal", &signal.to_string());
                    self.end();
                }
            }
        }
        self.reap();
    }

    fn reap(&mut self) {
        loop {
            match self.cx.children.reap_orphans() {
                Ok(Some(serial)) => self.child_ended(serial),
                Ok(None) => return,
                Err(error) => {
                    self.cx.log.error(&format!("reap: {error}"), "shim");
                    return;
                }
            }
        }
    }

    fn stream_ready(&mut self, serial: u64) {
        let turn = self.cx.turn(serial);
        self.turned(turn);
    }

    fn turned(&mut self, turn: Turn) {
        match turn {
            // Whoever deletes the process need not wait for a reader.
            Turn::Closed(owner) | Turn::Unread(owner) => {
                self.tell(&owner.0, |driver, cx| driver.stream_closed(cx, &owner.1));
            }
            Turn::Open | Turn::Empty | Turn::Carry | Turn::Failed => {}
        }
    }

    fn expire(&mut self, deadline: Deadline) {
        match deadline {
            Deadline::Wait(call) => {
                let waited = self.containers.values_mut().any(|driver| driver.state_mut().cancel_wait(call));
                if waited {
                    self.cx.reply(call, Err(Error::deadline("context deadline exceeded")));
                }
            }
            Deadline::Drain { container, exec } => {
                self.tell(&container, |driver, cx| driver.drain_expired(cx, exec));
            }
            Deadline::Quiet(serial) => {
                let turn = self.cx.streams.silence(serial, &self.cx.epoll);
                self.turned(turn);
            }
            Deadline::Carry(serial) => self.cx.carry_again(serial),
            Deadline::Logger(owner) => self.cx.restart_logger(&owner),
            Deadline::Kill(child) => self.cx.kill(child),
            Deadline::Offload(serial) => {
                if let Some(Purpose::Offload { container, work, .. }) = self.cx.children.abandon(serial) {
                    let error = Error::deadline(format!("{} hangs", work.name()));
                    self.offload_ended(&container, work, Err(error));
                }
            }
            Deadline::Create(call) => {
                let late = self.containers.iter().find(|(_, driver)| driver.is_being_made_for(call));
                if let Some(id) = late.map(|(id, _)| id.clone()) {
                    self.end_creation(&id);
                }
            }
            Deadline::Stop(id) => self.stop_expired(&id),
            Deadline::Removal(id) => self.cx.children.end_calls(&id),
            Deadline::GiveUp(id) => {
                if self.containers.get(&id).is_some_and(Driver::is_given_up) {
                    self.end_creation(&id);
                }
            }
            Deadline::Publish => {
                let again = self.cx.publisher.advance(&self.cx.epoll);
                self.cx.publish_again(again);
            }
            Deadline::Trial(serial) => {
                self.cx.children.abandon(serial);
                self.trial_hangs();
            }
            Deadline::Handover => self.handover_expired(),
            Deadline::Tidy => {
                if !self.busy {
                    sys::memory::settle();
                }
            }
            Deadline::End => self.late = true,
        }
    }

    /// A container that clients may know of.
    pub fn with<T>(
        &mut self,
        id: &str,
        work: impl FnOnce(&mut Driver, &mut Context) -> Result<T>,
    ) -> Result<T> {
        let driver = self.containers.get_mut(id).filter(|driver| driver.is_made());
        let driver = driver.ok_or_else(|| Error::not_found("container not created: not found"))?;
        work(driver, &mut self.cx)
    }

    /// All containers.
    pub fn containers(&self) -> impl Iterator<Item = &Driver> {
        self.containers.values()
    }

    /// The ids of all containers.
    pub fn ids(&self) -> Vec<String> {
        self.containers.keys().cloned().collect()
    }

    /// An input of a client.
    pub fn feed(&mut self, id: &str, input: Input) -> Result<()> {
        self.with(id, |driver, cx| {
            driver.feed(cx, input);
            Ok(())
        })?;
        self.forget_if_gone(id);
        Ok(())
    }

    /// Something that happened to a container.
    fn tell(&mut self, id: &str, what: impl FnOnce(&mut Driver, &mut Context)) {
        if let Some(driver) = self.containers.get_mut(id) {
            what(driver, &mut self.cx);
        }
        self.forget_if_gone(id);
    }

    fn forget_if_gone(&mut self, id: &str) {
        if self.containers.get(id).is_some_and(Driver::is_gone) {
            self.containers.remove(id);
            self.cx.timers.clear(&Deadline::Stop(id.to_owned()));
            if self.ends_when_empty {
                self.shutdown();
            }
        }
    }

    /// Begins to make a container.
    pub fn add(&mut self, request: CreateRequest, call: Call) -> Result<()> {
        let id = request.id().to_owned();
        match self.containers.entry(id.clone()) {
            Entry::Occupied(_) => {
                return Err(Error::already_exists(format!("container {id} already exists: already exists")));
            }
            Entry::Vacant(place) => {
                let driver = Driver::create(&mut self.cx, request, call)?;
                place.insert(driver).begin(&mut self.cx);
            }
        }
        self.forget_if_gone(&id);
        Ok(())
    }

    /// Ends the making of a container, which hangs perhaps. Whether there was one that was being made.
    pub fn end_creation(&mut self, id: &str) -> bool {
        let Some(driver) = self.containers.get_mut(id).filter(|driver| !driver.is_made()) else {
            return false;
        };
        driver.give_up(&mut self.cx);
        self.forget_if_gone(id);
        true
    }

    /// A client does not want to wait for ever for its container.
    pub fn limit_create(&mut self, call: Call, nanoseconds: i64) {
        if let Ok(nanoseconds @ 1..) = u64::try_from(nanoseconds) {
            self.cx.timers.set(Duration::from_nanos(nanoseconds), Deadline::Create(call));
        }
    }

    /// A client does not want to wait for ever.
    pub fn limit_wait(&mut self, call: Call, nanoseconds: i64) {
        if let Ok(nanoseconds @ 1..) = u64::try_from(nanoseconds) {
            self.cx.timers.set(Duration::from_nanos(nanoseconds), Deadline::Wait(call));
        }
    }

    /// A client needs the shim no more. Ignored while there are containers.
    pub fn shutdown(&mut self) {
        if self.containers.is_empty() {
            self.end();
        }
    }

    /// The sandbox that the shim is for goes: so does the shim, with its last container.
    pub fn end_when_empty(&mut self) {
        self.ends_when_empty = true;
        self.shutdown();
    }

    /// Ends when answers and events are on their way.
    fn end(&mut self) {
        if !self.ending {
            self.ending = true;
            self.cx.server.stop_listening();
            self.cx.timers.set(FAREWELL, Deadline::End);
        }
    }
}
