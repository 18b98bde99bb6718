//! What containers of a pod have without asking: files about the pod's network, shared memory, and volumes of their image.

use std::path::{Path, PathBuf};

use api::cri::{ContainerConfig, IdMapping, Mount, NamespaceMode};
use types::oci::ImageConfig;

use super::{is_asked, path};

/// The host's shared memory.
const SHM: &str = "/dev/shm";

/// Where a pod keeps what its containers share. What is not there is not mounted: a sandbox of another kind has it elsewhere.
#[derive(Clone, Debug)]
pub struct Files {
    /// For /etc/hostname.
    pub hostname: PathBuf,
    /// For /etc/hosts.
    pub hosts: PathBuf,
    /// For /etc/resolv.conf.
    pub resolv_conf: PathBuf,
    /// For /dev/shm.
    pub shm: PathBuf,
}

/// The mounts of a pod's files, but for those whose place the request takes.
pub fn of_pod(files: &Files, config: &ContainerConfig) -> Vec<Mount> {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let readonly = security.is_some_and(|security| security.readonly_rootfs);
    let (uid_mappings, gid_mappings) = mappings(config);
    let wanted = |at: &str, host: &Path| !is_asked(at, &config.mounts) && host.exists();
    let mut mounts = Vec::new();
    for (at, host) in [
        ("/etc/hostname", &files.hostname),
        ("/etc/hosts", &files.hosts),
        ("/etc/resolv.conf", &files.resolv_conf),
    ] {
        if wanted(at, host) {
            mounts.push(Mount {
                container_path: at.to_owned(),
                host_path: host.display().to_string(),
                readonly,
                selinux_relabel: true,
                uid_mappings: uid_mappings.clone(),
                gid_mappings: gid_mappings.clone(),
                ..Mount::default()
            });
        }
    }
    let of_host = security
        .and_then(|security| security.namespace_options.as_ref())
        .is_some_and(|options| options.ipc == NamespaceMode::Node as i32);
    let shm = if of_host { Path::new(SHM) } else { &files.shm };
    if wanted(SHM, shm) {
        // Without maps of ids: it is empty at first, and before Linux 6.3 a tmpfs cannot have them.
        mounts.push(Mount {
            container_path: SHM.to_owned(),
            host_path: shm.display().to_string(),
            selinux_relabel: !of_host,
            ..Mount::default()
        });
    }
    mounts
}

/// The volumes that an image declares and the request mounts nothing at: each a directory of its own below `dir`, to be made and
/// filled by who makes the container.
pub fn image_volumes(dir: &Path, image: &ImageConfig, config: &ContainerConfig) -> Vec<Mount> {
    let (uid_mappings, gid_mappings) = mappings(config);
    let declared = image.config.volumes.keys().filter(|at| !is_asked(at, &config.mounts));
    let volume = |at: &String| Mount {
        container_path: if at.starts_with('/') { at.clone() } else { path::clean(&format!("/{at}")) },
        host_path: dir.join(crate::cri::new_id()).display().to_string(),
        selinux_relabel: true,
        uid_mappings: uid_mappings.clone(),
        gid_mappings: gid_mappings.clone(),
        ..Mount::default()
    };
    declared.map(volume).collect()
}

fn mappings(config: &ContainerConfig) -> (Vec<IdMapping>, Vec<IdMapping>) {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = security.and_then(|security| security.namespace_options.as_ref());
    let userns = options.and_then(|options| options.userns_options.as_ref());
    userns.map(|userns| (userns.uids.clone(), userns.gids.clone())).unwrap_or_default()
}
