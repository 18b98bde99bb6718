//! The answers of several plugins as one: [`Creation`] for a container that is made, [`Updating`] for one that is updated,
//! [`Others`] for what is asked of other containers meanwhile.
//!
//! Each plugin is asked about the container as the ones before it have adjusted it. Two that set the same thing are a conflict,
//! and the call fails; who removes first may set. Nothing here waits, or looks at anything but its arguments.

mod hooks;
mod lists;
mod maps;
mod resources;
mod updates;

use types::Result;

use crate::owners::{By, Owners};
use crate::wire::{
    Container, ContainerAdjustment, CreateContainerRequest, CreateContainerResponse, Field,
    LinuxContainerAdjustment, LinuxRdt, LinuxResources, OwningPlugins, PodSandbox,
};

pub use updates::{Others, Updating};

/// A container that is being made.
#[derive(Clone, Debug)]
pub struct Creation {
    /// What the next plugin is asked.
    pub request: CreateContainerRequest,
    adjust: ContainerAdjustment,
    owners: Owners,
    /// What is asked of other containers.
    pub others: Others,
}

impl Creation {
    /// Of which nothing is adjusted yet.
    pub fn new(pod: PodSandbox, container: Container) -> Self {
        Self {
            others: Others::without(&container.id),
            request: CreateContainerRequest { pod: Some(pod), container: Some(container) },
            adjust: ContainerAdjustment::default(),
            owners: Owners::default(),
        }
    }

    /// Adds what a plugin answers. After an error nothing of it is to be used.
    pub fn add(&mut self, answer: CreateContainerResponse, plugin: &str) -> Result<()> {
        let id = self.request.container.as_ref().map(|container| container.id.clone()).unwrap_or_default();
        let by = By { plugin, container: &id };
        if let Some(adjust) = answer.adjust {
            self.adjust(adjust, by)?;
        }
        self.others.add(&mut self.owners, answer.update, plugin)?;
        self.others.evict(answer.evict);
        Ok(())
    }

    /// What is adjusted, all in all.
    pub fn adjustment(&self) -> &ContainerAdjustment {
        &self.adjust
    }

    /// Whose each thing is.
    pub fn owners(&self) -> OwningPlugins {
        self.owners.to_wire()
    }

    /// Ends in the adjustment and what is asked of others.
    pub fn finish(self) -> (ContainerAdjustment, Others) {
        (self.adjust, self.others)
    }

    fn adjust(&mut self, asked: ContainerAdjustment, by: By<'_>) -> Result<()> {
        let owners = &mut self.owners;
        let container = self.request.container.get_or_insert_default();
        let adjust = &mut self.adjust;
        let annotations = (&mut container.annotations, &mut adjust.annotations);
        maps::adjust(owners, by, Field::Annotations, asked.annotations, annotations)?;
        lists::mounts(owners, by, asked.mounts, (&mut container.mounts, &mut adjust.mounts))?;
        lists::env(owners, by, asked.env, (&mut container.env, &mut adjust.env))?;
        args(owners, by, asked.args, (&mut container.args, &mut adjust.args))?;
        if let Some(hooks) = asked.hooks {
            hooks::add(owners, by, hooks, (&mut container.hooks, &mut adjust.hooks));
        }
        if let Some(linux) = asked.linux {
            self.adjust_linux(linux, by)?;
        }
        let container = self.request.container.get_or_insert_default();
        for limit in asked.rlimits {
            self.owners.claim_entry(by, Field::Rlimits, &limit.r#type)?;
            container.rlimits.push(limit.clone());
            self.adjust.rlimits.push(limit);
        }
        // What stands behind a name is found out later, so that plugins do not see it.
        for device in asked.cdi_devices {
            self.owners.claim_entry(by, Field::CdiDevices, &device.name)?;
            self.adjust.cdi_devices.push(device);
        }
        Ok(())
    }

    fn adjust_linux(&mut self, asked: LinuxContainerAdjustment, by: By<'_>) -> Result<()> {
        let owners = &mut self.owners;
        let container = self.request.container.get_or_insert_default().linux.get_or_insert_default();
        let adjust = self.adjust.linux.get_or_insert_default();
        lists::devices(owners, by, asked.devices, (&mut container.devices, &mut adjust.devices))?;
        if let Some(asked) = asked.resources {
            let now = container.resources.get_or_insert_with(LinuxResources::default);
            let all = adjust.resources.get_or_insert_with(LinuxResources::default);
            resources::set(owners, by, &asked, &mut [now, all])?;
        }
        if !asked.cgroups_path.is_empty() {
            owners.claim(by, Field::CgroupsPath)?;
            container.cgroups_path.clone_from(&asked.cgroups_path);
            adjust.cgroups_path = asked.cgroups_path;
        }
        macro_rules! one {
            ($($name:ident => $field:ident),*) => {$(
                if let Some(value) = asked.$name {
                    owners.claim(by, Field::$field)?;
                    container.$name = Some(value.clone());
                    adjust.$name = Some(value);
                }
            )*};
        }
        one!(oom_score_adj => OomScoreAdj, io_priority => IoPriority, seccomp_policy => SeccompPolicy);
        lists::namespaces(owners, by, asked.namespaces, (&mut container.namespaces, &mut adjust.namespaces))?;
        let sysctls = (&mut container.sysctl, &mut adjust.sysctl);
        maps::adjust(owners, by, Field::Sysctl, asked.sysctl, sysctls)?;
        let devices = (&mut container.net_devices, &mut adjust.net_devices);
        maps::adjust(owners, by, Field::LinuxNetDevices, asked.net_devices, devices)?;
        one!(scheduler => LinuxSched);
        if let Some(asked) = asked.rdt {
            rdt(owners, by, asked, adjust.rdt.get_or_insert_default())?;
        }
        if let Some(policy) = asked.memory_policy {
            owners.claim(by, Field::MemoryPolicy)?;
            adjust.memory_policy = Some(policy);
        }
        Ok(())
    }
}

/// What is seen by the next plugin, and what is adjusted.
type Both<'a, T> = (&'a mut T, &'a mut T);

/// An empty first argument removes what another one has set.
fn args(
    owners: &mut Owners,
    by: By<'_>,
    mut asked: Vec<String>,
    (now, all): Both<'_, Vec<String>>,
) -> Result<()> {
    if asked.is_empty() {
        return Ok(());
    }
    if asked.first().is_some_and(String::is_empty) {
        owners.clear(by, Field::Args);
        asked.remove(0);
    }
    owners.claim(by, Field::Args)?;
    now.clone_from(&asked);
    *all = asked;
    Ok(())
}

fn rdt(owners: &mut Owners, by: By<'_>, asked: LinuxRdt, all: &mut LinuxRdt) -> Result<()> {
    if asked.remove {
        for field in [Field::RdtClosId, Field::RdtSchemata, Field::RdtEnableMonitoring] {
            owners.clear(by, field);
        }
        *all = LinuxRdt { remove: true, ..LinuxRdt::default() };
    }
    macro_rules! one {
        ($($name:ident => $field:ident),*) => {$(
            if let Some(value) = asked.$name {
                owners.claim(by, Field::$field)?;
                all.$name = Some(value);
            }
        )*};
    }
    one!(clos_id => RdtClosId, schemata => RdtSchemata, enable_monitoring => RdtEnableMonitoring);
    Ok(())
}

#[cfg(test)]
mod tests;
