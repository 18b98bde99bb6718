//! What a run of the demo left on the machine, by looking rather than by trusting.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where clients and shims keep FIFOs and sockets outside of a private root and state.
const SHARED: &str = "/run/containerd";

/// What existed before.
pub struct Before {
    shared: BTreeSet<PathBuf>,
    cgroups: BTreeSet<PathBuf>,
    netns: BTreeSet<PathBuf>,
}

/// What is there now and was not before.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Processes that mention the demo's directory.
    pub processes: usize,
    /// Mounts below it.
    pub mounts: usize,
    /// Named network namespaces.
    pub netns: usize,
    /// Control groups.
    pub cgroups: usize,
    /// Files in the demo's directory or in the shared run directory.
    pub files: usize,
}

impl Before {
    /// Remembers what is there.
    pub fn look() -> Self {
        Self { shared: tree(Path::new(SHARED)), cgroups: cgroups(), netns: tree(Path::new("/run/netns")) }
    }

    /// Compares with what is there now; `dir` is the demo's own directory, which should be gone.
    pub fn compare(&self, dir: &Path) -> Leftovers {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mention = dir.to_string_lossy();
        Leftovers {
            processes: processes(&[&mention]).len(),
            mounts: mountinfo.lines().filter(|line| line.contains(mention.as_ref())).count(),
            netns: tree(Path::new("/run/netns")).difference(&self.netns).count(),
            cgroups: cgroups().difference(&self.cgroups).count(),
            files: tree(dir).len() + tree(Path::new(SHARED)).difference(&self.shared).count(),
        }
    }
}

impl Leftovers {
    /// Whether nothing was left.
    pub fn none(&self) -> bool {
        self.processes + self.mounts + self.netns + self.cgroups + self.files == 0
    }
}

/// The pids of processes whose command line has all of `words`, but for this one.
pub fn processes(words: &[&str]) -> Vec<u32> {
    let own = std::process::id();
    let pids = sys::process::all().into_iter().flatten();
    pids.filter(|pid| *pid != own)
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            words.iter().all(|word| line.contains(word))
        })
        .collect()
}

/// Proportional set size of a process in kB (proc(5), smaps_rollup).
pub fn pss(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find(|line| line.starts_with("Pss:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn cgroups() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    walk(Path::new("/sys/fs/cgroup"), &mut |path, is_dir| {
        if is_dir {
            found.insert(path);
        }
    });
    found
}

fn tree(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    walk(dir, &mut |path, _| {
        found.insert(path);
    });
    found
}

fn walk(dir: &Path, each: &mut dyn FnMut(PathBuf, bool)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir {
            walk(&entry.path(), each);
        }
        each(entry.path(), is_dir);
    }
}
