//! The spec of a pod's sandbox: the container that holds what the pod's containers share.

use std::path::{Path, PathBuf};

use api::cri::{LinuxSandboxSecurityContext, NamespaceMode, PodSandboxConfig};
use serde_json::Value;
use sys::mount::View;
use types::oci::ImageConfig;
use types::{Error, Result};

use super::document::{Capabilities, Document, Mount};
use super::machine::{self, Machine};
use super::namespaces::IdMaps;
use super::selinux::Labels;
use super::user::{self, User};
use super::{annotations, base, capabilities, cgroup, checks, resources, seccomp, sysctls};
use crate::config::{Handler, PAUSE_IMAGE, Runtime};

/// The kernel ends a sandbox last but one (kubernetes#47938).
const OOM_SCORE_ADJ: i64 = -998;
/// It pauses.
const CPU_SHARES: u64 = 2;
/// As the pause image has it.
const NOBODY: &str = "65535:65535";
/// For mounts that a user namespace could not have otherwise.
const SAFE: [&str; 3] = ["nosuid", "nodev", "noexec"];

/// What a sandbox is made of.
#[derive(Clone, Debug)]
pub struct Sandbox<'a> {
    /// The pod's id.
    pub id: &'a str,
    /// What the kubelet has asked for.
    pub config: &'a PodSandboxConfig,
    /// Where the pod's network namespace is; empty on the host's network.
    pub netns: &'a str,
    /// Where the pod's user namespace is kept, if it has one beside its network namespace.
    pub user_namespace: Option<PathBuf>,
    /// What runs in it.
    pub pause: Pause<'a>,
    /// The name of the pause image, or empty.
    pub image_name: &'a str,
    /// The pod's runtime handler.
    pub handler: &'a Handler,
    /// What the administrator has set.
    pub settings: &'a Runtime,
    /// The pod's directory: resolv.conf is there.
    pub files: &'a Path,
    /// The pod's shared memory: not used with the host's.
    pub shm: &'a Path,
    /// SELinux labels, empty without SELinux.
    pub labels: &'a Labels,
    /// Where it runs.
    pub machine: &'a Machine,
}

/// What runs in a sandbox.
#[derive(Clone, Copy, Debug)]
pub enum Pause<'a> {
    /// The shim's own program.
    Builtin(&'a runtime::Pause),
    /// An image that somebody has configured.
    Image(&'a ImageConfig, &'a [types::mount::Mount]),
}

/// The spec.
pub fn spec(sandbox: &Sandbox<'_>) -> Result<Value> {
    let linux = sandbox.config.linux.clone().unwrap_or_default();
    let security = linux.security_context.clone().unwrap_or_default();
    let mut document = base::sandbox(sandbox.id)?;
    checks::hostname(&sandbox.config.hostname)?;
    document.hostname.clone_from(&sandbox.config.hostname);
    document.root.readonly = true;
    document.process.user = user(sandbox.pause, &security)?;
    pause(&mut document, sandbox.pause)?;
    cgroup::set(&mut document, &linux.cgroup_parent, sandbox.id, sandbox.handler)?;
    let maps = namespaces(&mut document, sandbox, &security)?;
    mounts(&mut document, sandbox, &security, maps.is_some());
    document.process.selinux_label.clone_from(&sandbox.labels.process);
    document.linux.mount_label.clone_from(&sandbox.labels.mount);
    let remapped = maps.is_some() || sandbox.machine.in_userns;
    document.linux.sysctl.extend(sysctls::of(sandbox.config, sandbox.settings, remapped)?);
    document.linux.resources.cpu.get_or_insert_default().shares = Some(CPU_SHARES);
    let own = sandbox.settings.restrict_oom_score_adj.then(machine::own_oom_score_adj).transpose()?;
    document.process.oom_score_adj = Some(resources::oom_score_adj(OOM_SCORE_ADJ, own)?);
    annotate(&mut document, sandbox);
    filter(&mut document, sandbox, &security)?;
    if security.privileged {
        privilege(&mut document);
    }
    base::to_value(&document)
}

/// What containers of the pod may do needs it to be possible here: the sysfs of a network namespace is read-only for everybody
/// if whoever mounts it first says so.
fn privilege(document: &mut Document) {
    document.process.selinux_label.clear();
    let sysfs = document.mounts.iter_mut().filter(|mount| mount.destination == "/sys");
    for option in sysfs.flat_map(|mount| &mut mount.options).filter(|option| *option == "ro") {
        "rw".clone_into(option);
    }
}

/// What runs, and in which root filesystem.
fn pause(document: &mut Document, pause: Pause<'_>) -> Result<()> {
    match pause {
        Pause::Builtin(pause) => {
            document.process.args = runtime::Pause::args();
            // It needs nothing, and can get nothing.
            document.process.capabilities = Some(Capabilities::default());
            document.root.path = pause.rootfs.display().to_string();
            let types::mount::Mount { target, kind, source, options } = pause.mount();
            document.mounts.push(Mount { destination: target, kind, source, options, ..Mount::default() });
        }
        Pause::Image(config, _) => {
            let image = &config.config;
            document.env(&image.env);
            if !image.working_dir.is_empty() {
                document.process.cwd.clone_from(&image.working_dir);
            }
            document.process.args = image.entrypoint.iter().chain(&image.cmd).cloned().collect();
            if document.process.args.is_empty() {
                return Err(Error::invalid("invalid empty entrypoint and cmd in image config"));
            }
        }
    }
    capabilities::clear_inherited(document);
    Ok(())
}

/// Whom it runs as: nobody's uid where it is ours.
fn user(pause: Pause<'_>, security: &LinuxSandboxSecurityContext) -> Result<User> {
    match pause {
        Pause::Builtin(_) => user::of_sandbox(None, NOBODY, security),
        Pause::Image(config, rootfs) => {
            let view = View::of_mounts(rootfs)?;
            let user = user::of_sandbox(Some(&view), &config.config.user, security);
            view.close()?;
            user
        }
    }
}

/// Makes the namespaces that the pod's containers will join.
fn namespaces(
    document: &mut Document,
    sandbox: &Sandbox<'_>,
    security: &LinuxSandboxSecurityContext,
) -> Result<Option<IdMaps>> {
    let options = security.namespace_options.clone().unwrap_or_default();
    let of_host = |mode: i32| mode == NamespaceMode::Node as i32;
    if of_host(options.network) {
        document.without_namespace("network");
        document.without_namespace("uts");
    } else {
        document.namespace("network", sandbox.netns.to_owned());
    }
    if of_host(options.pid) {
        document.without_namespace("pid");
    }
    if of_host(options.ipc) {
        document.without_namespace("ipc");
    }
    let maps = IdMaps::parse(options.userns_options.as_ref())
        .map_err(|e| e.context("user namespace configuration"))?;
    if let Some(maps) = &maps {
        let path = sandbox.user_namespace.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        document.namespace("user", path);
        document.linux.uid_mappings.extend(&maps.uids);
        document.linux.gid_mappings.extend(&maps.gids);
    }
    Ok(maps)
}

fn mounts(
    document: &mut Document,
    sandbox: &Sandbox<'_>,
    security: &LinuxSandboxSecurityContext,
    userns: bool,
) {
    let options = security.namespace_options.clone().unwrap_or_default();
    let shm = if options.ipc == NamespaceMode::Node as i32 { Path::new("/dev/shm") } else { sandbox.shm };
    document.without_mount("/dev/shm");
    let bind = |destination: &str, source: &Path, write: &str| Mount {
        destination: destination.to_owned(),
        kind: "bind".to_owned(),
        source: source.display().to_string(),
        options: ["rbind", write].into_iter().chain(SAFE).map(str::to_owned).collect(),
        ..Mount::default()
    };
    document.mounts.push(bind("/dev/shm", shm, "ro"));
    // For sandboxes that are virtual machines.
    document.mounts.push(bind("/etc/resolv.conf", &sandbox.files.join("resolv.conf"), "ro"));
    if options.network == NamespaceMode::Node as i32 && userns {
        host_sysfs(document);
    }
}

/// A user namespace cannot mount the sysfs of a network namespace that is not its own.
pub(super) fn host_sysfs(document: &mut Document) {
    document.without_mount("/sys");
    document.mounts.push(Mount {
        destination: "/sys".to_owned(),
        kind: "bind".to_owned(),
        source: "/sys".to_owned(),
        options: ["rbind", "rro"].into_iter().chain(SAFE).map(str::to_owned).collect(),
        ..Mount::default()
    });
}

fn annotate(document: &mut Document, sandbox: &Sandbox<'_>) {
    let config = sandbox.config;
    if let Some(resources) = config.linux.as_ref().and_then(|linux| linux.resources.as_ref()) {
        annotations::of_resources(document, resources);
    }
    annotations::pass(document, &config.annotations, &sandbox.handler.pod_annotations);
    annotations::of_pod(document, sandbox.id, config);
    // Runtimes of virtual machines look at it, also where there is no image.
    let image = if sandbox.image_name.is_empty() { PAUSE_IMAGE } else { sandbox.image_name };
    annotations::of_sandbox(document, &config.log_directory, image);
}

#[expect(deprecated, reason = "old kubelets name profiles so")]
fn filter(
    document: &mut Document,
    sandbox: &Sandbox<'_>,
    security: &LinuxSandboxSecurityContext,
) -> Result<()> {
    let asked = seccomp::Asked {
        profile: security.seccomp.as_ref(),
        path: &security.seccomp_profile_path,
        privileged: security.privileged,
    };
    seccomp::apply(document, &asked, sandbox.settings, sandbox.machine)
}
