//! What is mounted in a container: upstream's default, what its pod has for all containers, and what the request says, each in the
//! place of what came before. Shorter paths first, so that nothing is hidden.
//!
//! A path of the host that is not there is made, as a directory: kubelets rely on it. Looking at it may block as long as its
//! filesystem does.
//!
//! ```text
//!  pod           files that a pod has for all of its containers, volumes of images
//!  propagation   whether mounts that are made later are seen, on either side
//! ```

mod pod;
mod propagation;

use std::path::Path;

use api::cri::{Mount as WireMount, MountPropagation};
use types::{Error, Result, ResultExt};

pub use pod::{Files, image_volumes, of_pod};

use super::document::{Document, Mount};
use super::namespaces::wire;
use super::{checks, path, selinux};
use propagation::Table;

/// What is mounted, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// Said by the request.
    pub(super) asked: &'a [WireMount],
    /// What containers of the pod have where the request mounts nothing else.
    pub(super) own: &'a [WireMount],
    /// The SELinux label of files.
    pub(super) label: &'a str,
    /// Whether the container may change its cgroup.
    pub(super) cgroup_writable: bool,
    /// Whether the runtime can make whole trees of mounts read-only.
    pub(super) recursive_read_only: bool,
}

/// Mounts all of it.
pub(super) fn apply(document: &mut Document, wanted: &Wanted<'_>) -> Result<()> {
    let mut table = Table::default();
    let cgroup = cgroup(document, wanted.cgroup_writable, &mut table);
    document.mounts.push(cgroup);
    let mounts = ordered(wanted);
    let destinations: Vec<String> = mounts.iter().map(|mount| path::clean(&mount.container_path)).collect();
    let has = |destination: &str| destinations.iter().any(|d| d == destination);
    document.mounts.retain(|mount| {
        let destination = path::clean(&mount.destination);
        let below_dev = destination.starts_with("/dev/") && has("/dev");
        !(below_dev || has(&destination))
    });
    for mount in &mounts {
        check(mount, wanted)?;
    }
    for mount in mounts {
        let made = bind(mount, wanted, &mut table, &mut document.linux.rootfs_propagation)
            .map_err(|e| e.context(format!("mount {:?}", mount.container_path)))?;
        document.mounts.push(made);
    }
    Ok(())
}

/// The request's and the pod's, by the number of slashes; what has as many stays in order.
fn ordered<'a>(wanted: &Wanted<'a>) -> Vec<&'a WireMount> {
    let own = wanted.own.iter().filter(|own| !is_asked(&own.container_path, wanted.asked));
    let mut mounts: Vec<&WireMount> = wanted.asked.iter().chain(own).collect();
    mounts.sort_by_key(|mount| path::clean(&mount.container_path).matches('/').count());
    mounts
}

/// Whether a request mounts something at `destination`.
pub(super) fn is_asked(destination: &str, asked: &[WireMount]) -> bool {
    asked.iter().any(|mount| path::clean(&mount.container_path) == path::clean(destination))
}

/// The cgroup filesystem. Without a namespace of its own the mount's options are those of the only one that there is: what the
/// host has set is said again, or it would be gone.
fn cgroup(document: &Document, writable: bool, table: &mut Table) -> Mount {
    let mut options: Vec<String> = ["nosuid", "noexec", "nodev", "relatime"].map(str::to_owned).to_vec();
    options.push(if writable { "rw" } else { "ro" }.to_owned());
    if document.linux.namespaces.iter().all(|namespace| namespace.kind != "cgroup") {
        options.extend(table.of_cgroup());
    }
    Mount {
        destination: "/sys/fs/cgroup".to_owned(),
        kind: "cgroup".to_owned(),
        source: "cgroup".to_owned(),
        options,
        ..Mount::default()
    }
}

/// What can be said of a mount without a look at the host.
fn check(mount: &WireMount, wanted: &Wanted<'_>) -> Result<()> {
    let (host, container) = (&mount.host_path, &mount.container_path);
    checks::text("mounts: container_path", container)?;
    checks::text("mounts: host_path", host)?;
    if container.is_empty() {
        return Err(Error::invalid(format!("mounts: container_path is empty (hostPath={host:?})")));
    }
    if !host.starts_with('/') {
        let text = format!("mounts: host_path {host:?} of {container:?} is not absolute");
        return Err(Error::invalid(text));
    }
    if !mount.recursive_read_only {
        return Ok(());
    }
    if !mount.readonly {
        let text = format!("recursive read-only mount conflicts with RW mount (hostPath={host:?})");
        return Err(Error::invalid(text));
    }
    if !wanted.recursive_read_only {
        let text = "RROUnsupported: runtime handler does not support recursive read-only mounts".to_owned();
        return Err(Error::invalid(format!("{text} (hostPath={host:?})")));
    }
    if mount.propagation != MountPropagation::PropagationPrivate as i32 {
        let name = MountPropagation::try_from(mount.propagation).map_or("?", |p| p.as_str_name());
        let text = format!("recursive read-only mount needs private propagation, got {name:?}");
        return Err(Error::invalid(format!("{text} (hostPath={host:?})")));
    }
    Ok(())
}

/// A path of the host, in the container.
fn bind(
    mount: &WireMount,
    wanted: &Wanted<'_>,
    table: &mut Table,
    root_propagation: &mut String,
) -> Result<Mount> {
    let source = host_path(&mount.host_path)?;
    let propagation = table.check(&source, mount)?;
    propagation.of_root(root_propagation);
    let write = match (mount.readonly, mount.recursive_read_only) {
        (false, _) => "rw",
        (true, false) => "ro",
        (true, true) => "rro",
    };
    if mount.selinux_relabel {
        selinux::relabel(Path::new(&source), wanted.label)?;
    }
    Ok(Mount {
        destination: mount.container_path.clone(),
        kind: "bind".to_owned(),
        source,
        options: ["rbind", propagation.word(), write].map(str::to_owned).to_vec(),
        uid_mappings: mount.uid_mappings.iter().map(wire).collect(),
        gid_mappings: mount.gid_mappings.iter().map(wire).collect(),
        ..Mount::default()
    })
}

/// Where a path of the host leads, made if it is not there.
fn host_path(host: &str) -> Result<String> {
    match std::fs::metadata(host) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut builder = std::fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o755);
            builder.create(host).context(|| format!("failed to mkdir {host:?}"))?;
        }
        Err(error) => return Err(Error::from(error).context(format!("failed to stat {host:?}"))),
    }
    let resolved = std::fs::canonicalize(host).context(|| format!("failed to resolve symlink {host:?}"))?;
    let resolved = resolved.into_os_string().into_string();
    resolved.map_err(|path| Error::invalid(format!("mounts: {path:?}, where {host:?} leads, is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(mount: WireMount) -> Result<Document> {
        let mut document = Document::default();
        let wanted = Wanted {
            asked: &[mount],
            own: &[],
            label: "",
            cgroup_writable: false,
            recursive_read_only: false,
        };
        apply(&mut document, &wanted).map(|()| document)
    }

    fn at(container: &str, host: &str) -> WireMount {
        WireMount { container_path: container.to_owned(), host_path: host.to_owned(), ..WireMount::default() }
    }

    #[test]
    fn a_directory_that_is_not_there_is_made_and_links_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("a/b");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("a", &link).unwrap();
        mounted(at("/x", &real.display().to_string())).unwrap();
        let document = mounted(at("/x", &link.join("b").display().to_string())).unwrap();
        assert_eq!(Path::new(&document.mounts[1].source), std::fs::canonicalize(real).unwrap());
    }

    #[test]
    fn what_is_no_path_is_refused_by_the_name_of_its_field_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("new").display().to_string();
        for (mount, field) in [
            (at("", &host), "container_path"),
            (at("/a\0", &host), "container_path"),
            (at("/a", ""), "host_path"),
            (at("/a", "relative"), "host_path"),
            (at("/a", "/a\0b"), "host_path"),
            (WireMount { readonly: true, recursive_read_only: true, ..at("/a", &host) }, "RROUnsupported: "),
        ] {
            let error = mounted(mount).unwrap_err();
            assert!(error.to_string().contains(field), "{field}: {error}");
        }
        assert!(!Path::new(&host).exists());
    }
}
