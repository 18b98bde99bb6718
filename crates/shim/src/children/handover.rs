//! Children, handed over by their descriptors.

use api::containerdrs::shim::v1 as wire;
use sys::epoll::Epoll;
use sys::handover::Inherited;
use sys::pidfd::PidFd;
use types::{Error, Result};

use super::{Child, Children, Purpose};
use crate::handover::{Kept, required};
use crate::streams::{read_owner, write_owner};

/// Purposes on the wire.
const GIVEN_UP: u32 = 0;
const PROCESS: u32 = 1;
const CARRIER: u32 = 2;
const PROGRAM: u32 = 3;

/// Whether a child that was written down means something to us.
pub fn check(child: &wire::Child) -> Result<()> {
    purpose(child).map(drop)
}

fn purpose(child: &wire::Child) -> Result<Purpose> {
    let owner = || required(child.owner.clone(), "owner of a child");
    match child.purpose {
        GIVEN_UP => Ok(Purpose::Abandoned),
        PROCESS => owner().map(|wire::Owner { container, exec }| Purpose::Process { container, exec }),
        CARRIER => Ok(Purpose::Carrier),
        PROGRAM => owner().map(|owner| Purpose::Logger(read_owner(owner))),
        other => Err(Error::unimplemented(format!("a child for purpose {other}: not implemented"))),
    }
}

impl Purpose {
    /// Whether it is soon over, and must be before another program goes on.
    fn is_brief(&self) -> bool {
        match self {
            Self::Runtime { .. } | Self::Offload { .. } | Self::Teller => true,
            // A trial has been looked at, or is given up.
            Self::Process { .. } | Self::Carrier | Self::Logger(_) | Self::Abandoned | Self::Trial => false,
        }
    }

    fn write_down(&self) -> (u32, Option<wire::Owner>) {
        match self {
            Self::Process { container, exec } => {
                (PROCESS, Some(wire::Owner { container: container.clone(), exec: exec.clone() }))
            }
            Self::Carrier => (CARRIER, None),
            Self::Logger(owner) => (PROGRAM, Some(write_owner(owner))),
            // The brief ones are over when it counts; a trial only reads.
            Self::Runtime { .. } | Self::Offload { .. } | Self::Teller => (GIVEN_UP, None),
            Self::Abandoned | Self::Trial => (GIVEN_UP, None),
        }
    }
}

impl Children {
    /// Whether nothing is under way but what may last.
    pub fn is_quiet(&self) -> bool {
        !self.known.values().any(|child| child.purpose.is_brief())
    }

    /// Puts them into `state`.
    pub fn write_down<'a>(&'a self, state: &mut wire::State, kept: &mut Kept<'a>) {
        let Self { known, next } = self;
        state.next_child = *next;
        let child = |(serial, child): (&u64, &'a Child)| {
            let Child { process, purpose } = child;
            let (purpose, owner) = purpose.write_down();
            wire::Child { serial: *serial, fd: kept.add(process), pid: process.pid(), purpose, owner }
        };
        state.children = known.iter().map(child).collect();
    }

    /// Those of `state`.
    pub fn read_back(state: &mut wire::State, inherited: &mut Inherited, epoll: &Epoll) -> Result<Self> {
        let mut children = Self::default();
        for child in std::mem::take(&mut state.children) {
            let process = PidFd::adopt(inherited.take(child.fd)?, child.pid);
            children.next = child.serial.saturating_sub(1);
            children.track(process, purpose(&child)?, epoll)?;
        }
        children.next = state.next_child;
        Ok(children)
    }
}
