//! Other limits, for a container that the kubelet updates and for those that plugins update on the way.

use types::{Error, Result};

use super::resources;
use crate::owners::{By, Owners};
use crate::wire::{
    Container, ContainerEviction, ContainerUpdate, LinuxResources, PodSandbox, UpdateContainerRequest,
    UpdateContainerResponse,
};

/// What plugins ask of containers that a call is not about.
#[derive(Clone, Debug, Default)]
pub struct Others {
    /// The container that is being made: it is no other.
    making: Option<String>,
    updates: Vec<ContainerUpdate>,
    evictions: Vec<ContainerEviction>,
}

impl Others {
    /// While the container `id` is made.
    pub fn without(id: &str) -> Self {
        Self { making: Some(id.to_owned()), ..Self::default() }
    }

    /// Adds what a plugin asks for.
    pub fn add(&mut self, owners: &mut Owners, asked: Vec<ContainerUpdate>, plugin: &str) -> Result<()> {
        for asked in asked {
            let id = asked.container_id.clone();
            if self.making.as_ref() == Some(&id) {
                let text = format!("plugin {plugin:?} asked update of {id:?} during creation");
                return Err(Error::invalid(text));
            }
            let by = By { plugin, container: &id };
            let ignore_failure = asked.ignore_failure;
            let at = self.updates.iter().position(|update| update.container_id == id);
            let update = match at.and_then(|at| self.updates.get_mut(at)) {
                Some(update) => {
                    update.ignore_failure &= ignore_failure;
                    update
                }
                None => {
                    let new = ContainerUpdate { container_id: id.clone(), ignore_failure, linux: None };
                    self.updates.push(new);
                    let Some(update) = self.updates.last_mut() else { continue };
                    update
                }
            };
            let into = update.linux.get_or_insert_default().resources.get_or_insert_default();
            change(owners, by, asked, into)?;
        }
        Ok(())
    }

    /// Adds containers that are to end.
    pub fn evict(&mut self, asked: Vec<ContainerEviction>) {
        for eviction in asked {
            if !self.evictions.iter().any(|had| had.container_id == eviction.container_id) {
                self.evictions.push(eviction);
            }
        }
    }

    /// Updates, so far.
    pub fn updates(&self) -> &[ContainerUpdate] {
        &self.updates
    }

    /// All of it.
    pub fn finish(self) -> (Vec<ContainerEviction>, Vec<ContainerUpdate>) {
        (self.evictions, self.updates)
    }
}

/// A container that is being updated.
#[derive(Clone, Debug)]
pub struct Updating {
    /// What the next plugin is asked.
    pub request: UpdateContainerRequest,
    owners: Owners,
    others: Others,
    changed: bool,
}

impl Updating {
    /// To limits that no plugin has changed yet.
    pub fn new(pod: PodSandbox, container: Container, resources: LinuxResources) -> Self {
        let request = UpdateContainerRequest {
            pod: Some(pod),
            container: Some(container),
            linux_resources: Some(resources),
        };
        Self { request, owners: Owners::default(), others: Others::default(), changed: false }
    }

    /// Adds what a plugin answers.
    pub fn add(&mut self, answer: UpdateContainerResponse, plugin: &str) -> Result<()> {
        let own = self.request.container.as_ref().map(|container| container.id.clone()).unwrap_or_default();
        let (mine, others): (Vec<_>, Vec<_>) =
            answer.update.into_iter().partition(|update| update.container_id == own);
        for asked in mine {
            let into = self.request.linux_resources.get_or_insert_default();
            change(&mut self.owners, By { plugin, container: &own }, asked, into)?;
            self.changed = true;
        }
        self.others.add(&mut self.owners, others, plugin)?;
        self.others.evict(answer.evict);
        Ok(())
    }

    /// The limits, if a plugin has changed them, and what is asked of others.
    pub fn finish(self) -> (Option<LinuxResources>, Others) {
        (self.request.linux_resources.filter(|_| self.changed), self.others)
    }
}

/// Changes `into` and the owners, or neither.
fn change(owners: &mut Owners, by: By<'_>, asked: ContainerUpdate, into: &mut LinuxResources) -> Result<()> {
    let Some(mut wanted) = asked.linux.and_then(|linux| linux.resources) else { return Ok(()) };
    // Devices of a container that is there do not change.
    wanted.devices.clear();
    let (mut claimed, mut changed) = (owners.clone(), into.clone());
    match resources::set(&mut claimed, by, &wanted, &mut [&mut changed]) {
        Ok(()) => {
            (*owners, *into) = (claimed, changed);
            Ok(())
        }
        Err(_) if asked.ignore_failure => Ok(()),
        Err(error) => Err(error),
    }
}
