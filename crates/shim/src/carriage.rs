//! What streams need of the rest of the shim: carriers, programs that take output, and deadlines for both.

mod handover;

use std::rc::Rc;
use std::time::Duration;

use sys::fifo;
use sys::pidfd::{Ended, PidFd};
use types::output::Program;
use types::{Result, ResultExt};

use crate::carrier::{self, Outcome};
use crate::children::Purpose;
use crate::context::Context;
use crate::io::Plan;
use crate::logfile::Channel;
use crate::logger::{self, FIRST_DELAY, GRACE, LAST_DELAY, Subject};
use crate::streams::{Owner, Turn, Which};
use crate::timers::Deadline;
use crate::token::{Kind, Token};
use sys::epoll::Ready;

/// How long a terminal whose process has ended may be silent before it is taken to be done.
const QUIET: Duration = Duration::from_millis(500);
/// How long to wait before a carrier is tried again that failed.
const AGAIN: Duration = Duration::from_secs(1);

/// A program that takes the output of a process.
pub struct Logger {
    owner: Owner,
    program: Program,
    subject: Subject,
    /// Its number among the children when it was first started, by which it says that it is ready.
    number: u64,
    /// Its number among the children, while it runs.
    child: Option<u64>,
    /// How long to wait before it is started again.
    delay: Duration,
}

impl Context {
    /// Moves what can be moved of a stream, or has it carried.
    pub fn turn(&mut self, serial: u64) -> Turn {
        let turn = self.streams.turn(serial, &self.epoll);
        self.follow(serial, turn)
    }

    fn follow(&mut self, serial: u64, turn: Turn) -> Turn {
        let carried = match turn {
            Turn::Carry => self.carry(serial),
            Turn::Failed => Err(types::Error::unknown("a carrier failed")),
            turn => return turn,
        };
        if let Err(error) = carried {
            self.log.error(&format!("carry output: {error}"), &self.namespace);
            self.timers.set(AGAIN, Deadline::Carry(serial));
        }
        Turn::Open
    }

    fn carry(&mut self, serial: u64) -> Result<()> {
        self.streams.prepare(serial)?;
        let mut name = String::new();
        let Some(job) = self.streams.job(serial, &mut name) else { return Ok(()) };
        let child = carrier::start(&job)?;
        let carrier = self.track(child, Purpose::Carrier)?;
        self.streams.carried_by(serial, carrier);
        Ok(())
    }

    /// A carrier is to be tried again.
    pub fn carry_again(&mut self, serial: u64) {
        self.follow(serial, Turn::Carry);
    }

    /// A carrier has ended.
    pub fn carrier_ended(&mut self, carrier: u64, ended: Ended) -> Turn {
        let outcome = Outcome::from(ended);
        let ended = self.streams.carrier_ended(carrier, outcome, &self.epoll);
        self.carrier_gone(carrier);
        let Some((serial, turn)) = ended else { return Turn::Open };
        let turn = self.follow(serial, turn);
        if turn == Turn::Empty {
            self.timers.set(QUIET, Deadline::Quiet(serial));
        }
        turn
    }

    /// The process of `owner` has ended: its terminal is read to the end.
    pub fn end_streams(&mut self, owner: &Owner) -> Vec<Owner> {
        let terminals = self.streams.process_ended(owner, &self.epoll);
        let mut closed = Vec::new();
        for serial in terminals {
            // One that carries the terminal's output must know.
            self.stop(self.streams.carrier(serial));
            match self.turn(serial) {
                Turn::Closed(owner) | Turn::Unread(owner) => closed.push(owner),
                // What the process wrote last may still be on its way through the terminal.
                Turn::Empty => self.timers.set(QUIET, Deadline::Quiet(serial)),
                Turn::Open | Turn::Carry | Turn::Failed => {}
            }
        }
        closed
    }

    /// Whether all output of a process that is being deleted was delivered. What nobody takes is given up.
    pub fn is_drained(&mut self, owner: &Owner) -> bool {
        if self.logger(owner).is_some_and(|logger| logger.child.is_none() && logger.delay <= 2 * FIRST_DELAY)
        {
            self.restart_logger(owner);
        }
        self.give_up(owner, Which::Unread);
        self.streams.is_drained(owner) && self.logger(owner).is_none_or(|logger| logger.child.is_none())
    }

    /// Ends all streams of a process, delivered or not.
    pub fn abandon(&mut self, owner: &Owner) {
        self.give_up(owner, Which::All);
        if let Some(index) = self.loggers.iter().position(|logger| logger.owner == *owner) {
            let logger = self.loggers.swap_remove(index);
            self.stop(logger.child);
            if let Some(child) = logger.child {
                self.timers.set(GRACE, Deadline::Kill(child));
            }
        }
        self.timers.clear(&Deadline::Logger(Rc::clone(owner)));
    }

    fn give_up(&mut self, owner: &Owner, which: Which) {
        let mut spools = Vec::new();
        for given_up in self.streams.give_up(owner, which, &self.epoll) {
            if let Some(carrier) = given_up.carrier {
                self.children.abandon(carrier);
                self.carrier_gone(carrier);
            }
            spools.extend(given_up.spool);
        }
        if !spools.is_empty()
            && let Err(error) = self.remove(spools)
        {
            self.log.warn(&format!("remove what nobody read: {error}"), &owner.0);
        }
    }

    /// Removes files in a fork.
    fn remove(&mut self, paths: Vec<std::path::PathBuf>) -> Result<()> {
        let (child, _) = crate::offload::start(move || {
            paths.iter().for_each(|path| drop(std::fs::remove_file(path)));
            Ok(Vec::new())
        })?;
        self.track(child, Purpose::Abandoned).map(drop)
    }

    /// Asks a child to end.
    pub fn stop(&self, child: Option<u64>) {
        if let Some(process) = child.and_then(|child| self.children.process(child)) {
            // One that has ended already is collected soon.
            let _ = process.signal(libc::SIGTERM.unsigned_abs());
        }
    }

    /// Kills a child that did not end when it was asked to.
    pub fn kill(&self, child: u64) {
        if let Some(process) = self.children.process(child) {
            let _ = process.kill();
        }
    }

    /// Watches over the program that takes the output of `owner`, if the plan has one.
    pub fn adopt_logger(&mut self, owner: &Owner, plan: &mut Plan) -> Result<()> {
        let Some(planned) = plan.logger() else { return Ok(()) };
        let Some(child) = planned.child.take() else { return Ok(()) };
        let (program, subject) = (planned.program.clone(), planned.subject.clone());
        let child = self.track(child, Purpose::Logger(Rc::clone(owner)))?;
        if let Some(ready) = plan.awaits() {
            let token = Token { kind: Kind::Logger, serial: child };
            self.epoll.add(ready, token.pack(), Ready::IN).context(|| "watch a logging binary")?;
        }
        let (owner, number, child) = (Rc::clone(owner), child, Some(child));
        self.loggers.push(Logger { owner, program, subject, number, child, delay: FIRST_DELAY });
        Ok(())
    }

    /// Whose program says that it is ready.
    pub fn logger_owner(&self, number: u64) -> Option<Owner> {
        self.loggers.iter().find(|logger| logger.number == number).map(|logger| Rc::clone(&logger.owner))
    }

    fn logger(&self, owner: &Owner) -> Option<&Logger> {
        self.loggers.iter().find(|logger| logger.owner == *owner)
    }

    /// The program that takes output has ended. It is started again if there is more of that, and nobody to whom it has
    /// left its pipes.
    pub fn logger_ended(&mut self, owner: &Owner, ended: Ended, awaited: bool) {
        let Some(index) = self.loggers.iter().position(|logger| logger.owner == *owner) else { return };
        let pipes = self.streams.to_logger(owner);
        if pipes.is_empty() && !awaited {
            self.loggers.swap_remove(index);
            return;
        }
        let left = pipes.iter().any(|(_, _, pipe)| !fifo::is_read(pipe));
        let Some(logger) = self.loggers.get_mut(index) else { return };
        logger.child = None;
        if left {
            let delay = logger.delay;
            logger.delay = (delay * 2).min(LAST_DELAY);
            let said = format!("logging binary ended with {}, it is started again", ended.status());
            self.log.error(&said, &owner.0);
            self.timers.set(delay, Deadline::Logger(Rc::clone(owner)));
        }
    }

    /// Starts a program again that has died.
    pub fn restart_logger(&mut self, owner: &Owner) {
        self.timers.clear(&Deadline::Logger(Rc::clone(owner)));
        let Some(logger) = self.loggers.iter().find(|logger| logger.owner == *owner) else { return };
        let mut pipes = self.streams.to_logger(owner);
        pipes.retain(|(_, _, pipe)| !fifo::is_read(pipe));
        if pipes.is_empty() {
            return;
        }
        let of = |wanted| pipes.iter().find(|(_, channel, _)| *channel == wanted).map(|(_, _, fd)| *fd);
        let started =
            logger::start_again(&logger.program, &logger.subject, [of(Channel::Out), of(Channel::Err)]);
        let serials: Vec<u64> = pipes.into_iter().map(|(serial, _, _)| serial).collect();
        let tracked = started.and_then(|child: PidFd| self.track(child, Purpose::Logger(Rc::clone(owner))));
        let Some(logger) = self.loggers.iter_mut().find(|logger| logger.owner == *owner) else { return };
        match tracked {
            Ok(child) => logger.child = Some(child),
            Err(error) => {
                let delay = logger.delay;
                logger.delay = (delay * 2).min(LAST_DELAY);
                self.timers.set(delay, Deadline::Logger(Rc::clone(owner)));
                self.log.error(&error.to_string(), &owner.0);
                return;
            }
        }
        for serial in serials {
            // A carrier that waits for a reader is not told of one that comes like this.
            self.stop(self.streams.carrier(serial));
            self.turn(serial);
        }
    }
}
