//! Mounts and control groups.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sys::cgroup::{directories, is_empty};
use sys::mount::table::{self, Entry};
use sys::shims::Shim;

use super::{Row, Scene};
use crate::check::report::quoted;

/// Where bundles are, below state and root.
const TASKS: &str = "io.containerd.runtime.v2.task";

/// Mounts below our directories that no task needs.
pub fn mounts(scene: &Scene<'_>) -> Vec<Row> {
    let tasks = scene.config.state.join(TASKS);
    let alive: Vec<&Path> = scene.alive().map(|bundle| bundle.path.as_path()).collect();
    let mut rows = Vec::new();
    // The deepest first, as they have to go.
    for mount in table::read().unwrap_or_default().iter().rev() {
        let target = &mount.target;
        let below = |dir: &Path| target.starts_with(dir);
        let ours = below(&scene.config.state) || below(&scene.config.root);
        let remove = format!("umount {}", quoted(target));
        if ours && mount.kind == "nsfs" {
            let message = format!("{} binds a network namespace", target.display());
            rows.push(Row::new("netns", message, format!("{remove} && rm {}", quoted(target))));
        } else if below(&tasks) && !alive.iter().any(|bundle| target.starts_with(bundle)) {
            let message =
                format!("{} ({}) is mounted below the bundle of no shim", target.display(), mount.kind);
            rows.push(Row::new("mount", message, remove));
        } else if scene.daemon.is_none() && is_temporary(mount, &scene.config.root) {
            let message =
                format!("{} ({}) was mounted by a daemon that is gone", target.display(), mount.kind);
            rows.push(Row::new("mount", message, format!("{remove} && rmdir {}", quoted(target))));
        }
    }
    rows
}

/// A mount at a directory of ours for temporary mounts, of layers below `root`.
fn is_temporary(mount: &Entry, root: &Path) -> bool {
    let name = mount.target.file_name().unwrap_or_default().to_string_lossy();
    let root = root.to_string_lossy();
    name.starts_with("containerd-mount") && (mount.data.contains(&*root) || mount.root.starts_with(&*root))
}

/// Control groups of tasks that are gone.
pub fn cgroups(scene: &Scene<'_>, running: &[Shim]) -> Vec<Row> {
    let mut rows = Vec::new();
    for bundle in scene.dead() {
        for dir in bundle.cgroup.iter().flat_map(|path| directories(path)) {
            let message =
                format!("{} of task {}/{}, whose shim is gone", dir.display(), bundle.namespace, bundle.id);
            rows.push(Row::new("cgroup", message, remove(&dir)));
        }
    }
    let known: BTreeSet<(String, String)> = scene
        .inspection
        .bundles
        .iter()
        .map(|bundle| (bundle.namespace.to_string(), bundle.id.clone()))
        .chain(running.iter().map(|shim| (shim.namespace.clone(), shim.id.clone())))
        .collect();
    for namespace in namespaces(scene) {
        for dir in directories(&namespace).iter().flat_map(|dir| below(dir)) {
            let id = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !known.contains(&(namespace.clone(), id)) && is_empty(&dir) {
                let message = format!("{} is empty, and no shim has a task of that name", dir.display());
                rows.push(Row::new("cgroup", message, remove(&dir)));
            }
        }
    }
    rows
}

fn remove(dir: &Path) -> String {
    format!("find {} -depth -type d -delete", quoted(dir))
}

/// Namespaces that had tasks since the machine was started.
fn namespaces(scene: &Scene<'_>) -> BTreeSet<String> {
    let names = below(&scene.config.state.join(TASKS));
    names.iter().filter_map(|dir| dir.file_name()?.to_str().map(str::to_owned)).collect()
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut dirs: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    dirs.sort();
    dirs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_mount_is_ours_if_its_layers_are() {
        let line = |target: &str, data: &str| {
            table::parse(format!("1 2 0:3 / {target} rw - overlay overlay {data}").as_bytes()).remove(0)
        };
        let root = Path::new("/var/lib/c");
        assert!(is_temporary(&line("/tmp/containerd-mount12", "lowerdir=/var/lib/c/s/1"), root));
        assert!(!is_temporary(&line("/tmp/containerd-mount12", "lowerdir=/other"), root));
        assert!(!is_temporary(&line("/tmp/x", "lowerdir=/var/lib/c/s/1"), root));
    }
}
