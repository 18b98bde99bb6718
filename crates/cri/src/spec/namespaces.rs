//! Which namespaces a container shares with its pod, with another container, or with the host.

use api::cri::{
    IdMapping as WireMapping, LinuxContainerSecurityContext, NamespaceMode, PodSandboxConfig, UserNamespace,
};
use snapshots::shift;
use types::oci::spec::IdMapping as Range;
use types::{Error, Labels, Result};

use super::document::{Document, IdMapping};

/// The maps of a user namespace; none for a container of the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMaps {
    /// Users.
    pub(super) uids: Vec<IdMapping>,
    /// Groups.
    pub(super) gids: Vec<IdMapping>,
}

impl IdMaps {
    /// The maps that a request asks for, if they are such as can be had: one range each.
    pub fn parse(options: Option<&UserNamespace>) -> Result<Option<Self>> {
        let Some(options) = options else { return Ok(None) };
        let uids = range(&options.uids).map_err(|e| e.context("UID mapping"))?;
        let gids = range(&options.gids).map_err(|e| e.context("GID mapping"))?;
        match mode(options.mode)? {
            NamespaceMode::Node if !uids.is_empty() || !gids.is_empty() => Err(Error::invalid(format!(
                "can't use user namespace mode \"NODE\" with mappings. Got {} UID mappings and {} GID mappings",
                uids.len(),
                gids.len()
            ))),
            NamespaceMode::Node => Ok(None),
            NamespaceMode::Pod if uids.is_empty() || gids.is_empty() => {
                Err(Error::invalid("can't use user namespace mode \"POD\" without UID and GID mappings"))
            }
            NamespaceMode::Pod => Ok(Some(Self { uids, gids })),
            mode => Err(Error::invalid(format!("unsupported user namespace mode: {:?}", mode.as_str_name()))),
        }
    }

    /// Labels of a snapshot whose files are to have these owners.
    pub fn snapshot_labels(&self) -> Labels {
        let (uid, gid, size) = self.root();
        let map = |host| vec![Range { container: 0, host, size }];
        shift::IdMaps { uids: map(uid), gids: map(gid) }.labels()
    }

    /// The host's ids of root in there, and how many ids there are: what a snapshot is remapped to.
    pub fn root(&self) -> (u32, u32, u32) {
        let first = |maps: &[IdMapping]| maps.first().map_or((0, 0), |map| (map.host, map.size));
        let ((uid, size), (gid, _)) = (first(&self.uids), first(&self.gids));
        (uid, gid, size)
    }
}

/// Labels of the snapshot of a sandbox: the user namespace that it is for.
pub fn snapshot_labels(config: &PodSandboxConfig) -> Result<Labels> {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = security.and_then(|security| security.namespace_options.as_ref());
    let maps = IdMaps::parse(options.and_then(|options| options.userns_options.as_ref()));
    let maps = maps.map_err(|e| e.context("user namespace configuration"))?;
    Ok(maps.map(|maps| maps.snapshot_labels()).unwrap_or_default())
}

/// One range at most: a snapshot can only be remapped by one.
fn range(mappings: &[WireMapping]) -> Result<Vec<IdMapping>> {
    let [mapping] = mappings else {
        return match mappings.len() {
            0 => Ok(Vec::new()),
            n => Err(Error::invalid(format!("only one mapping line supported, got {n} mapping lines"))),
        };
    };
    if mapping.length < 1 {
        return Err(Error::invalid(format!("invalid mapping length: {}", mapping.length)));
    }
    Ok(vec![wire(mapping)])
}

/// A range of a request.
pub(super) fn wire(mapping: &WireMapping) -> IdMapping {
    IdMapping { container: mapping.container_id, host: mapping.host_id, size: mapping.length }
}

fn mode(value: i32) -> Result<NamespaceMode> {
    value.try_into().map_err(|_| Error::invalid(format!("unsupported namespace mode: {value}")))
}

/// Whose namespaces a container joins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whose {
    /// The sandbox's init.
    pub(super) pod: u32,
    /// The init of the container whose processes are shared, where the request asks for another's.
    pub(super) target: Option<u32>,
}

/// Joins the pod's namespaces. `pod_options` are what the sandbox was made with.
pub(super) fn apply(
    document: &mut Document,
    security: &LinuxContainerSecurityContext,
    pod_userns: Option<&UserNamespace>,
    whose: Whose,
) -> Result<()> {
    let options = security.namespace_options.clone().unwrap_or_default();
    let maps = IdMaps::parse(options.userns_options.as_ref())
        .map_err(|e| e.context("user namespace configuration"))?;
    let own = options.userns_options.as_ref();
    if !same(pod_userns, own) {
        return Err(Error::invalid(format!(
            "user namespace config for sandbox is different from container. Sandbox userns config: {pod_userns:?} - Container userns config: {own:?}"
        )));
    }
    let path = |pid: u32, name: &str| format!("/proc/{pid}/ns/{name}");
    for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        document.namespace(kind, path(whose.pod, name));
    }
    match mode(options.pid)? {
        NamespaceMode::Container => {}
        NamespaceMode::Target => {
            let target =
                whose.target.ok_or_else(|| Error::invalid("invalid target container: target_id is empty"))?;
            document.namespace("pid", path(target, "pid"));
        }
        // The host's too: the sandbox is in it.
        NamespaceMode::Pod | NamespaceMode::Node => document.namespace("pid", path(whose.pod, "pid")),
    }
    if let Some(maps) = maps {
        document.namespace("user", path(whose.pod, "user"));
        document.linux.uid_mappings.extend(maps.uids);
        document.linux.gid_mappings.extend(maps.gids);
    }
    Ok(())
}

/// Whether a container asks for the user namespace that its sandbox has.
fn same(pod: Option<&UserNamespace>, own: Option<&UserNamespace>) -> bool {
    match (pod, own) {
        (None, None) => true,
        (Some(pod), Some(own)) => {
            let maps = |of| IdMaps::parse(Some(of)).ok();
            pod.mode == own.mode && maps(pod).is_some_and(|pod| maps(own) == Some(pod))
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}
