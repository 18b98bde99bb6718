//! One thing at a time: a container that is being started is not removed, one that is being removed is not started.

use api::cri::ContainerState;
use types::{Error, Result};

use super::{Container, Phase, Status};

/// What is being done to a container, until this is dropped.
#[derive(Debug)]
pub struct Entered<'a>(&'a Container);

impl Container {
    /// Begins to start it, if it may be.
    pub fn starting(&self) -> Result<Entered<'_>> {
        let doing = || format!("failed to set starting state for container {:?}", self.id());
        self.enter(Phase::Starting, may_start).map_err(|e| e.context(doing()))
    }

    /// Begins to remove it, if it may be.
    pub fn removing(&self) -> Result<Entered<'_>> {
        let doing = || format!("failed to set removing state for container {:?}", self.id());
        self.enter(Phase::Removing, may_be_removed).map_err(|e| e.context(doing()))
    }

    fn enter(&self, phase: Phase, may: impl FnOnce(&Status) -> Result<()>) -> Result<Entered<'_>> {
        self.status.enter(|status| {
            may(status)?;
            status.phase = phase;
            Ok(())
        })?;
        Ok(Entered(self))
    }
}

impl Entered<'_> {
    /// It never ends: nothing else may be done to the container.
    pub fn for_good(self) {
        std::mem::forget(self);
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let quiet = |status: &mut Status| {
            status.phase = Phase::Quiet;
            Ok(())
        };
        // It never refuses.
        drop(self.0.status.enter(quiet));
    }
}

fn may_start(status: &Status) -> Result<()> {
    match (status.state(), status.phase) {
        (ContainerState::ContainerCreated, Phase::Quiet) => Ok(()),
        (ContainerState::ContainerCreated, Phase::Starting) => {
            Err(Error::precondition("container is already in starting state"))
        }
        (ContainerState::ContainerCreated, Phase::Removing) => {
            Err(Error::precondition("container is in removing state, can't be started"))
        }
        (state, _) => Err(Error::precondition(format!("container is in {} state", state.as_str_name()))),
    }
}

fn may_be_removed(status: &Status) -> Result<()> {
    let why = match (status.state(), status.phase) {
        (ContainerState::ContainerRunning, _) => "container is still running, to stop first",
        (ContainerState::ContainerUnknown, _) => "container state is unknown, to stop first",
        (_, Phase::Starting) => "container is in starting state, can't be removed",
        (_, Phase::Removing) => "container is already in removing state",
        (ContainerState::ContainerCreated | ContainerState::ContainerExited, Phase::Quiet) => return Ok(()),
    };
    Err(Error::precondition(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_created_and_is_left_alone_is_started() {
        let created = Status { created_at: 1, ..Status::default() };
        may_start(&created).unwrap();
        for phase in [Phase::Starting, Phase::Removing] {
            assert!(may_start(&Status { phase, ..created.clone() }).is_err());
        }
        let exited = Status { finished_at: 2, ..created };
        let error = may_start(&exited).unwrap_err();
        assert_eq!(error.to_string(), "container is in CONTAINER_EXITED state");
    }

    #[test]
    fn what_runs_or_is_being_started_is_not_removed() {
        let created = Status { created_at: 1, ..Status::default() };
        may_be_removed(&created).unwrap();
        may_be_removed(&Status { finished_at: 3, started_at: 2, ..created.clone() }).unwrap();
        assert!(may_be_removed(&Status { started_at: 2, ..created.clone() }).is_err());
        assert!(may_be_removed(&Status { unknown: true, ..created.clone() }).is_err());
        assert!(may_be_removed(&Status { phase: Phase::Starting, ..created }).is_err());
    }
}
