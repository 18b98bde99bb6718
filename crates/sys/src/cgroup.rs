//! Control groups, v1 and v2: which mode, and joining one.

use std::io;
use std::path::{Component, Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";
/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// How this machine arranges its control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One tree, version 2.
    Unified,
    /// A tree for each controller, version 1, perhaps with a version 2 tree that has no controllers beside them.
    Legacy,
}

/// The mode of this machine.
pub fn mode() -> Mode {
    match rustix::fs::statfs(ROOT) {
        // Its type differs between C libraries.
        Ok(fs) if i128::from(fs.f_type) == i128::from(CGROUP2_MAGIC) => Mode::Unified,
        _ => Mode::Legacy,
    }
}

/// Puts the process `pid` into the existing group `group`, in all trees that have it. A group that no tree has is an error.
pub fn join(group: &str, pid: u32) -> io::Result<()> {
    let below: PathBuf =
        Path::new(group).components().filter(|c| matches!(c, Component::Normal(_))).collect();
    let trees = match mode() {
        Mode::Unified => vec![PathBuf::from(ROOT)],
        Mode::Legacy => std::fs::read_dir(ROOT)?.flatten().map(|entry| entry.path()).collect(),
    };
    let mut joined = false;
    for tree in trees {
        match std::fs::write(tree.join(&below).join("cgroup.procs"), pid.to_string()) {
            Ok(()) => joined = true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    if joined { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_group_that_does_not_exist_cannot_be_joined() {
        assert!(super::join("/containerd-rs-no-such-group", std::process::id()).is_err());
    }
}
