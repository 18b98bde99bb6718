//! From requests to OCI runtime specs: [`container`], [`sandbox()`], and for a container that runs [`process()`] and [`resources()`].
//!
//! ```text
//!  document      the fields              base          what a spec begins with
//!  machine       what is here            checks        texts that are refused
//!
//!  process       arguments, environment  user          ids and groups
//!  capabilities  privileged              seccomp       apparmor      selinux       profile (names of profiles)
//!  paths         masked, read-only       namespaces    mounts        devices       cdi
//!  resources     limits                  cgroup        sysctls       classes       block I/O, cache
//!  annotations   for runtime and hooks   glob          patterns of annotations
//!  sandbox       the pod's own container exec, update  for containers that run
//! ```
//!
//! The order is upstream's, on which the result depends. A request that asks for what cannot be had is refused by the name of the
//! field. Nothing is changed on the machine but what kubelets rely on: directories of the host that are mounted and not there are
//! made, files are relabelled where the request says so, and the default AppArmor profile is loaded. Paths of the host are looked
//! at, which blocks as long as their filesystem does: call it on the blocking pool.

mod annotations;
mod apparmor;
mod base;
mod capabilities;
mod cdi;
mod cgroup;
mod checks;
mod classes;
mod devices;
mod document;
mod exec;
mod glob;
mod machine;
mod mounts;
mod namespaces;
mod path;
mod paths;
mod privileged;
mod process;
mod profile;
mod resources;
mod sandbox;
mod seccomp;
mod selinux;
mod sysctls;
mod update;
pub mod user;

use api::cri::{
    ContainerConfig, LinuxContainerConfig, LinuxContainerSecurityContext, LinuxPodSandboxConfig, Mount,
    NamespaceMode, PodSandboxConfig,
};
use serde_json::Value;
use types::oci::ImageConfig;
use types::{Error, Result};

#[cfg(test)]
mod corpus;

pub use exec::{process, process_any};
pub use machine::Machine;
pub use mounts::{Files, image_volumes, of_pod};
pub use namespaces::{IdMaps, snapshot_labels};
pub use sandbox::{Pause, Sandbox, spec as sandbox};
pub use selinux::{Labels, Level, labels, of_program, with_label};
pub use update::resources;
pub use user::User;

use crate::config::{Handler, Runtime};
use crate::pod;
use document::Document;

/// Runtimes whose containers run in virtual machines, as upstream knows them.
const VIRTUAL_MACHINES: &str = "io.containerd.kata";

/// What a container's spec is made of.
#[derive(Clone, Debug)]
pub struct Container<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its pod.
    pub pod: &'a pod::Record,
    /// The pod's configuration, as the request repeats it.
    pub pod_config: &'a PodSandboxConfig,
    /// The sandbox's init.
    pub pod_pid: u32,
    /// The init of the container whose processes it shares, where the request says TARGET: a running one of the same pod.
    pub target_pid: Option<u32>,
    /// What the kubelet has asked for.
    pub config: &'a ContainerConfig,
    /// Its image.
    pub image: &'a ImageConfig,
    /// The image as the user has called it, else its name here.
    pub image_name: &'a str,
    /// The pod's runtime handler.
    pub handler: &'a Handler,
    /// What the administrator has set.
    pub settings: &'a Runtime,
    /// What it has without asking: [`of_pod`], [`image_volumes`].
    pub mounts: Vec<Mount>,
    /// Whom it runs as: [`user::resolve_in`].
    pub user: User,
    /// SELinux labels, empty without SELinux.
    pub labels: &'a Labels,
    /// Whether the runtime can make whole trees of mounts read-only.
    pub recursive_read_only: bool,
    /// Where it runs: [`Machine::here`].
    pub machine: &'a Machine,
}

/// The spec of a container.
pub fn container(of: &Container<'_>) -> Result<Value> {
    let linux = of.config.linux.clone().unwrap_or_default();
    let security = linux.security_context.clone().unwrap_or_default();
    let pod_linux = of.pod_config.linux.clone().unwrap_or_default();
    let mut document = base::container(of.id, of.handler)?;
    process::apply(&mut document, of.config, of.image, &of.pod_config.hostname)?;
    document.process.user = of.user.clone();
    document.process.no_new_privileges = security.no_new_privs;
    filesystems(&mut document, of, &security)?;
    privileges(&mut document, of, &security, &pod_linux)?;
    limits(&mut document, of, &linux, &pod_linux)?;
    surroundings(&mut document, of, &security, &pod_linux)?;
    told(&mut document, of);
    cdi::apply(&mut document, of.config, of.settings)?;
    base::to_value(&document)
}

/// Gives a spec that is made already devices of vendors, by their names.
pub fn inject_devices(spec: &mut Value, names: &[String], settings: &Runtime) -> Result<()> {
    let mut document = base::from_value(spec.take())?;
    cdi::inject_by_name(&mut document, names, settings)?;
    *spec = base::to_value(&document)?;
    Ok(())
}

/// Root filesystem, mounts, devices.
fn filesystems(
    document: &mut Document,
    of: &Container<'_>,
    security: &LinuxContainerSecurityContext,
) -> Result<()> {
    // On v1 and for privileged containers cgroups are the host's, for compatibility.
    if of.machine.cgroup2 && !security.privileged {
        document.namespace("cgroup", String::new());
    }
    let wanted = mounts::Wanted {
        asked: &of.config.mounts,
        own: &of.mounts,
        label: &of.labels.mount,
        cgroup_writable: of.handler.cgroup_writable,
        recursive_read_only: of.recursive_read_only,
    };
    mounts::apply(document, &wanted)?;
    paths::apply(document, security, of.settings.disable_proc_mount)?;
    devices::apply(document, of.config, of.settings.device_ownership)
}

/// Capabilities, labels, filters.
#[expect(deprecated, reason = "old kubelets name profiles so")]
fn privileges(
    document: &mut Document,
    of: &Container<'_>,
    security: &LinuxContainerSecurityContext,
    pod: &LinuxPodSandboxConfig,
) -> Result<()> {
    capabilities::apply(document, security, of.machine);
    document.linux.mount_label.clone_from(&of.labels.mount);
    if security.privileged {
        if !pod.security_context.as_ref().is_some_and(|pod| pod.privileged) {
            let why = "failed to generate spec opts: no privileged container allowed in sandbox";
            return Err(Error::invalid(why));
        }
        privileged::apply(document, of.handler, of.machine)?;
    } else {
        document.process.selinux_label = if of.handler.runtime_type.contains(VIRTUAL_MACHINES) {
            selinux::of_virtual_machine(&of.labels.process, of.machine)?
        } else {
            of.labels.process.clone()
        };
    }
    apparmor::apply(document, security, of.settings, of.machine)?;
    let asked = seccomp::Asked {
        profile: security.seccomp.as_ref(),
        path: &security.seccomp_profile_path,
        privileged: security.privileged,
    };
    seccomp::apply(document, &asked, of.settings, of.machine)
}

/// What it may use, and where that is counted.
fn limits(
    document: &mut Document,
    of: &Container<'_>,
    linux: &LinuxContainerConfig,
    pod: &LinuxPodSandboxConfig,
) -> Result<()> {
    if let Some(asked) = &linux.resources {
        resources::apply(document, asked, of.settings, of.machine)?;
    }
    cgroup::set(document, &pod.cgroup_parent, of.id, of.handler)?;
    classes::check(name(of), &of.config.annotations, &of.pod_config.annotations, of.settings)
}

/// The pod's namespaces.
fn surroundings(
    document: &mut Document,
    of: &Container<'_>,
    security: &LinuxContainerSecurityContext,
    pod: &LinuxPodSandboxConfig,
) -> Result<()> {
    let options = pod.security_context.as_ref().and_then(|security| security.namespace_options.as_ref());
    let userns = options.and_then(|options| options.userns_options.as_ref());
    let whose = namespaces::Whose { pod: of.pod_pid, target: of.target_pid };
    namespaces::apply(document, security, userns, whose)?;
    let host_network = options.is_some_and(|options| options.network == NamespaceMode::Node as i32);
    if host_network && !document.linux.uid_mappings.is_empty() {
        sandbox::host_sysfs(document);
    }
    Ok(())
}

/// What runtime and hooks are told.
fn told(document: &mut Document, of: &Container<'_>) {
    annotations::pass(document, &of.pod_config.annotations, &of.handler.pod_annotations);
    annotations::pass(document, &of.config.annotations, &of.handler.container_annotations);
    annotations::of_pod(document, &of.pod.id, of.pod_config);
    annotations::of_container(document, name(of), of.image_name);
}

fn name<'a>(of: &Container<'a>) -> &'a str {
    of.config.metadata.as_ref().map(|metadata| metadata.name.as_str()).unwrap_or_default()
}
