//! What this machine must offer before a container can run on it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

/// Fails with a list of all that is missing.
pub fn require_containers() -> Result<()> {
    let mut missing = Vec::new();
    if !is_root() {
        missing.push("not root: namespaces and mounts need it; run with sudo".to_owned());
    }
    if !Path::new("/proc/self/mountinfo").exists() {
        missing.push("/proc is not mounted: mount -t proc proc /proc".to_owned());
    }
    let cgroups = fs::read_dir("/sys/fs/cgroup").map_or(0, Iterator::count);
    if cgroups == 0 {
        missing.push("no cgroups: mount -t cgroup2 cgroup2 /sys/fs/cgroup".to_owned());
    }
    if is_root() && !has_overlay() {
        missing.push("no overlayfs: modprobe overlay".to_owned());
    }
    if !Path::new("/dev/null").exists() {
        missing.push("/dev is empty: mount -t devtmpfs devtmpfs /dev".to_owned());
    }
    if !missing.is_empty() {
        bail!("this machine cannot run containers:\n  - {}", missing.join("\n  - "));
    }
    Ok(())
}

/// Whether `name` is on PATH.
pub fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).exists())
}

/// PATH for a child: these directories, and then our own.
pub fn search_path(first: impl IntoIterator<Item = PathBuf>) -> OsString {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let all = first.into_iter().chain(std::env::split_paths(&own));
    // A checkout below a directory with a colon has none of ours.
    std::env::join_paths(all).unwrap_or(own)
}

/// Whether cgroups are version 1 with some controllers in a version 2 tree beside them, which crun does not take.
pub fn is_hybrid() -> bool {
    let root = Path::new("/sys/fs/cgroup");
    !root.join("cgroup.controllers").exists()
        && fs::read_to_string(root.join("unified/cgroup.controllers"))
            .is_ok_and(|names| !names.trim().is_empty())
}

/// Whether this process is root.
pub fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    // Without /proc nothing works later on; the missing mount is reported then.
    ids.is_none_or(|ids| ids.split_whitespace().nth(1) == Some("0"))
}

/// Whether the kernel has overlayfs; asking for its module loads it.
fn has_overlay() -> bool {
    let listed = || {
        fs::read_to_string("/proc/filesystems")
            .unwrap_or_default()
            .lines()
            .any(|line| line.ends_with("\toverlay"))
    };
    if listed() {
        return true;
    }
    let modprobe =
        ["/sbin/modprobe", "/usr/sbin/modprobe"].map(PathBuf::from).into_iter().find(|path| path.exists());
    // A failure shows in the list.
    modprobe.is_some_and(|program| Command::new(program).arg("overlay").status().is_ok()) && listed()
}
