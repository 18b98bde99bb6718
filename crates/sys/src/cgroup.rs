//! Control groups, v1 and v2: which mode, where a process is, and joining one.

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

/// The directories of `group`, in each tree that has it. None for the root, for a path that leads elsewhere, and for one that
/// only systemd understands (`slice:prefix:name`).
pub fn directories(group: &str) -> Vec<PathBuf> {
    let relative = group.trim_start_matches('/');
    if relative.is_empty() || relative.contains(':') || relative.split('/').any(|part| part == "..") {
        return Vec::new();
    }
    trees().into_iter().map(|tree| tree.join(relative)).filter(|dir| dir.is_dir()).collect()
}

/// The trees, each under one name.
fn trees() -> Vec<PathBuf> {
    match mode() {
        Mode::Unified => vec![PathBuf::from(ROOT)],
        // Controllers that are mounted together have several names, all but one of them links.
        Mode::Legacy => below(Path::new(ROOT)),
    }
}

/// The directories in `dir`, without links.
fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Whether no process is in a group's directory or below it.
pub fn is_empty(dir: &Path) -> bool {
    let none = std::fs::read_to_string(dir.join("cgroup.procs")).is_ok_and(|procs| procs.trim().is_empty());
    none && below(dir).iter().all(|dir| is_empty(dir))
}

/// Removes `group` and the groups below it from all trees. The kernel keeps those in which a process is, and they stay.
pub fn remove_empty(group: &str) {
    for dir in directories(group) {
        remove_below(&dir);
    }
}

fn remove_below(dir: &Path) {
    below(dir).iter().for_each(|dir| remove_below(dir));
    // One that cannot be removed is in use.
    drop(std::fs::remove_dir(dir));
}

/// Puts the process `pid` into the group `group`. In version 2 it must exist. In version 1 those trees get it that are
/// upstream's to use (a tree without controllers is systemd's or version 2's), and what is missing is made.
pub fn join(group: &str, pid: u32) -> io::Result<()> {
    let below = normal(group);
    let enter = |tree: &Path| std::fs::write(tree.join(&below).join("cgroup.procs"), pid.to_string());
    match mode() {
        Mode::Unified => enter(Path::new(ROOT)),
        Mode::Legacy => controllers()?.iter().try_for_each(|tree| {
            make(tree, &below)?;
            enter(tree)
        }),
    }
}

/// The trees of version 1 that have controllers. One that several controllers share has links of their names.
fn controllers() -> io::Result<Vec<PathBuf>> {
    let mut trees = Vec::new();
    for entry in std::fs::read_dir(ROOT)?.flatten() {
        // systemd's and version 2's have no such file in their groups, or are no controller's.
        let plain =
            entry.file_type()?.is_dir() && !matches!(entry.file_name().to_str(), Some("systemd" | "unified"));
        if plain && entry.path().join("cgroup.procs").exists() {
            trees.push(entry.path());
        }
    }
    Ok(trees)
}

/// Makes the group `below` in `tree`. One of cpusets can hold nobody before it has processors and memory: its parent's.
fn make(tree: &Path, below: &Path) -> io::Result<()> {
    let mut group = tree.to_path_buf();
    for part in below.components() {
        let parent = group.clone();
        group.push(part);
        match std::fs::create_dir(&group) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let Ok(own) = std::fs::read_to_string(group.join(file)) else { continue };
            if own.trim().is_empty() {
                std::fs::write(group.join(file), std::fs::read_to_string(parent.join(file))?)?;
            }
        }
    }
    Ok(())
}

/// Where the groups of a process are, as `/proc/PID/cgroup` told when it was asked: the process may end, its groups stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups(String);

impl Groups {
    /// The groups that the process `pid` is in now.
    pub fn of(pid: u32) -> io::Result<Self> {
        std::fs::read_to_string(format!("/proc/{pid}/cgroup")).map(Self)
    }

    /// The groups in what was told before.
    pub fn told(lines: String) -> Self {
        Self(lines)
    }

    /// What was told, line by line.
    pub fn lines(&self) -> &str {
        &self.0
    }

    /// The group in the one tree of [`Mode::Unified`].
    pub fn unified(&self) -> Option<PathBuf> {
        let path = self.0.lines().find_map(|line| line.strip_prefix("0::"))?;
        Some(Path::new(ROOT).join(normal(path)))
    }

    /// Whether no process is in them any more, in any tree in which runtimes look for those of a container. Nobody comes back
    /// into a group of which this holds: who is not in it cannot fork into it.
    pub fn are_deserted(&self) -> bool {
        /// Where runc and crun look.
        const TREES: [&str; 4] = ["devices", "freezer", "memory", "pids"];
        let dirs: Vec<PathBuf> = match mode() {
            Mode::Unified => self.unified().into_iter().collect(),
            Mode::Legacy => TREES.iter().filter_map(|controller| self.legacy(controller)).collect(),
        };
        !dirs.is_empty() && dirs.iter().all(|dir| is_empty(dir))
    }

    /// The group in the tree of a version 1 controller.
    pub fn legacy(&self, controller: &str) -> Option<PathBuf> {
        let path = self.0.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|name| name == controller).then_some(path)
        })?;
        let tree = Path::new(ROOT).join(controller);
        let group = tree.join(normal(path));
        if group.exists() {
            return Some(group);
        }
        // The tree may be mounted from a group of its own: a container sees only what is below it.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        let root = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(3);
            let (root, place) = (fields.next()?, fields.next()?);
            (Path::new(place) == tree).then_some(root)
        })?;
        Some(tree.join(normal(path.strip_prefix(root)?)))
    }
}

/// The names in a path, without what could lead elsewhere.
fn normal(path: &str) -> PathBuf {
    Path::new(path).components().filter(|c| matches!(c, Component::Normal(_))).collect()
}

/// A write to `cgroup.subtree_control`: which controllers the children of a group shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    /// The group.
    pub group: PathBuf,
    /// As the file wants it: `+cpu +memory`.
    pub controllers: String,
}

/// What is missing so that `group`, of version 2, has all controllers of the machine, from the root downwards.
pub fn missing_controllers(group: &Path) -> io::Result<Vec<Delegation>> {
    let root = Path::new(ROOT);
    let wanted = std::fs::read_to_string(root.join("cgroup.controllers"))?;
    let below = group.strip_prefix(root).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut missing = Vec::new();
    let mut parent = root.to_owned();
    for name in below.components() {
        let enabled = std::fs::read_to_string(parent.join("cgroup.subtree_control"))?;
        let lacks = |controller: &&str| !enabled.split_whitespace().any(|there| there == *controller);
        let lacking: Vec<String> =
            wanted.split_whitespace().filter(lacks).map(|name| format!("+{name}")).collect();
        if !lacking.is_empty() {
            missing.push(Delegation { group: parent.clone(), controllers: lacking.join(" ") });
        }
        parent.push(name);
    }
    Ok(missing)
}

impl Delegation {
    /// Writes it. May wait for the kernel.
    pub fn write(&self) -> io::Result<()> {
        std::fs::write(self.group.join("cgroup.subtree_control"), &self.controllers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_in_the_trees_of_its_controllers() {
        let told = "5:cpu,cpuacct:/a/../b\n1:name=systemd:/s\n0::/u\n";
        let groups = Groups(told.into());
        assert_eq!(groups.unified().unwrap(), Path::new("/sys/fs/cgroup/u"));
        assert_eq!(groups.legacy("memory"), None);
        assert!(Groups::of(std::process::id()).is_ok_and(|groups| groups.lines().contains(':')));
        assert!(Groups::of(u32::MAX).is_err());
    }

    #[test]
    fn a_group_that_could_be_elsewhere_is_not_looked_for() {
        for odd in ["", "/", "system.slice:cri:x", "/a/../../b"] {
            assert!(directories(odd).is_empty(), "{odd}");
        }
    }

    #[test]
    fn groups_are_deserted_when_their_last_process_has_gone_and_not_when_they_are_unknown() {
        assert!(!Groups::default().are_deserted());
        assert!(!Groups::told("1:memory:/nobody/has/this\n0::/nobody/has/this\n".into()).are_deserted());
        let group = format!("containerd-rs-deserted-{}", std::process::id());
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let joined = join(&group, child.id());
        let groups = Groups::of(child.id()).unwrap();
        let inhabited = !groups.are_deserted();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(inhabited);
        if joined.is_ok() {
            assert!(groups.are_deserted());
            remove_empty(&group);
        }
    }

    #[test]
    fn a_group_is_entered_in_every_tree_and_made_where_that_is_usual() {
        let group = format!("containerd-rs-test-{}/below", std::process::id());
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let joined = join(&group, child.id());
        let lines = std::fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let writable = rustix::fs::access(ROOT, rustix::fs::Access::WRITE_OK).is_ok();
        if mode() == Mode::Unified || !writable {
            assert!(joined.is_err());
            return;
        }
        joined.unwrap();
        assert!(lines.lines().any(|line| line.ends_with(&group)), "{lines}");
        for tree in controllers().unwrap() {
            let below = tree.join(&group);
            assert!(below.is_dir(), "{}", below.display());
            std::fs::remove_dir(&below).unwrap();
            std::fs::remove_dir(below.parent().unwrap()).unwrap();
        }
    }
}
