//! Who has a layer's directory mounted, in any mount namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use sys::mount::table::{self, Entry};

/// Whoever starts a container copies the host's mounts, those of our own views too, and drops them moments later.
const PASSING: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(50);

/// Where `dir` is part of a mount that does not go by itself.
pub(super) async fn that_stay(dir: &Path) -> Vec<String> {
    let end = Instant::now() + PASSING;
    loop {
        let users = of(dir);
        if users.is_empty() || Instant::now() >= end {
            return users;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Where `dir` is part of a mount, for people: `/run/x/rootfs (process 12)`.
fn of(dir: &Path) -> Vec<String> {
    let mut users = BTreeSet::new();
    for (process, table) in tables() {
        for entry in table::parse(&table).into_iter().filter(|entry| shows(entry, dir)) {
            users.insert(format!("{} (process {process})", entry.target.display()));
        }
    }
    users.into_iter().collect()
}

/// The mount table of each mount namespace, with a process that is in it.
fn tables() -> Vec<(u32, Vec<u8>)> {
    let mut spaces = BTreeMap::new();
    // Processes that end meanwhile show nothing.
    for pid in sys::process::all().into_iter().flatten() {
        let Ok(space) = fs::read_link(format!("/proc/{pid}/ns/mnt")) else { continue };
        spaces.entry(space).or_insert(pid);
    }
    let table = |pid: u32| Some((pid, fs::read(format!("/proc/{pid}/mountinfo")).ok()?));
    spaces.into_values().filter_map(table).collect()
}

fn shows(entry: &Entry, dir: &Path) -> bool {
    if entry.kind == "overlay" {
        // Directories may be given relative to one that nobody can tell any more: `12/fs`.
        let same = |path: &str| {
            let path = Path::new(path);
            path == dir || (path.is_relative() && path.components().count() > 1 && dir.ends_with(path))
        };
        return entry.data.split(',').any(|option| match option.split_once('=') {
            Some(("lowerdir" | "lowerdir+" | "upperdir", dirs)) => dirs.split(':').any(same),
            _ => false,
        });
    }
    // A bind mount tells its directory within its filesystem. A whole filesystem shows all directories, and is no use.
    let root = entry.root.strip_prefix("/").unwrap_or(&entry.root);
    root.components().count() > 2 && dir.ends_with(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlays_and_binds_are_recognised_however_they_name_the_directory() {
        let dir = Path::new("/var/lib/c/io.containerd.snapshotter.v1.overlayfs/snapshots/12/fs");
        let overlay = |data: &str| Entry { kind: "overlay".into(), data: data.into(), ..Entry::default() };
        let bind = |root: &str| Entry { kind: "ext4".into(), root: root.into(), ..Entry::default() };
        for data in [
            format!("ro,lowerdir=/x/fs:{}", dir.display()),
            "rw,lowerdir=13/fs:12/fs,upperdir=/x".to_owned(),
            format!("rw,lowerdir+={},upperdir=/x", dir.display()),
        ] {
            assert!(shows(&overlay(&data), dir), "{data}");
        }
        assert!(!shows(&overlay("rw,lowerdir=2/fs:112/fs,upperdir=/x"), dir));
        assert!(shows(&bind("/c/io.containerd.snapshotter.v1.overlayfs/snapshots/12/fs"), dir));
        assert!(!shows(&bind("/"), dir) && !shows(&bind("/fs"), dir));
    }
}
