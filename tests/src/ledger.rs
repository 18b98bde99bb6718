//! What containers can leave behind on a machine, written down before and after.
//!
//! ```text
//!   process  shims of the namespace, processes in its cgroups
//!   mount    below the daemon's directory, and any bound network namespace
//!   cgroup   /<namespace>/<id> in each hierarchy
//!   socket   /run/containerd/s/*, or where else the shims keep them, that nobody listens on
//!   fifo     /run/containerd/fifo/*/<id>-*
//!   runc     /run/containerd/runc/<namespace>/*
//!   bundle   <state> and <root>, io.containerd.runtime.v2.task/<namespace>/*
//!   snapshot directories of the snapshotters, ingests, temporary mounts
//!   row      what the client lists: containers, tasks, snapshots, leases
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::{Daemon, proc};

/// What is there at one moment; each line begins with its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    lines: BTreeSet<String>,
}

impl Ledger {
    /// Writes down what is there now, after upstream's garbage collection had its turn.
    pub fn take(daemon: &Daemon) -> Self {
        daemon.collect_garbage();
        let mut lines = BTreeSet::new();
        let namespace = daemon.namespace();
        for process in proc::shims(namespace).iter().chain(&proc::contained(namespace)) {
            lines.insert(format!("process {} {}", process.pid, process.cmdline));
        }
        for mount in proc::mounts_below(daemon.dir()) {
            lines.insert(format!("mount {}", mount.display()));
        }
        for line in fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
            // Pods of other daemons come and go.
            let pods = line.contains("/io.containerd.grpc.v1.cri/netns/");
            if line.contains(" - nsfs ") && (!pods || line.contains(&*daemon.dir().to_string_lossy())) {
                lines.insert(format!("netns {line}"));
            }
        }
        for cgroup in proc::cgroups(namespace).iter().filter(|dir| !dir.ends_with(namespace)) {
            lines.insert(format!("cgroup {}", cgroup.display()));
        }
        stale_sockets(daemon.sockets(), &mut lines);
        list("runc", &Path::new("/run/containerd/runc").join(namespace), &mut lines);
        fifos(&format!("{namespace}-"), &mut lines);
        directories(daemon, &mut lines);
        rows(daemon, &mut lines);
        Self { lines }
    }

    /// Checks that nothing was added since `before`. Processes and files may need a moment to go: up to ten seconds.
    ///
    /// # Panics
    /// With the list of what is left behind.
    #[track_caller]
    pub fn check(before: &Self, daemon: &Daemon) {
        nothing_added(&before.lines, || Self::take(daemon).lines, Duration::from_secs(10));
    }
}

/// Checks that nothing comes to the lines of `before`; what goes by itself has this long.
///
/// # Panics
/// With the list of what is left behind.
#[track_caller]
pub fn nothing_added(before: &BTreeSet<String>, take: impl Fn() -> BTreeSet<String>, patience: Duration) {
    let start = Instant::now();
    loop {
        let left = added(before, &take());
        if left.is_empty() {
            return;
        }
        assert!(start.elapsed() < patience, "left behind:\n{left:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The lines that came to those of `before`. A process is the same under another command line: a container's first one may not
/// have come to its program yet.
fn added(before: &BTreeSet<String>, now: &BTreeSet<String>) -> Vec<String> {
    let process = |line: &str| {
        let number = line.strip_prefix("process ")?.split(' ').next()?;
        Some(number.to_owned())
    };
    let known: BTreeSet<String> = before.iter().filter_map(|line| process(line)).collect();
    let is_known = |line: &str| process(line).is_some_and(|number| known.contains(&number));
    now.difference(before).filter(|line| !is_known(line)).cloned().collect()
}

fn stale_sockets(dir: &Path, lines: &mut BTreeSet<String>) {
    let listed: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().collect();
    let bound = proc::bound_sockets();
    for path in listed.iter().map(fs::DirEntry::path).filter(|path| !bound.contains(path)) {
        lines.insert(format!("socket {}", path.display()));
    }
}

fn fifos(prefix: &str, lines: &mut BTreeSet<String>) {
    for dir in fs::read_dir("/run/containerd/fifo").into_iter().flatten().flatten() {
        for name in fs::read_dir(dir.path()).into_iter().flatten().flatten() {
            if name.file_name().to_string_lossy().starts_with(prefix) {
                lines.insert(format!("fifo {}", name.path().display()));
            }
        }
    }
}

fn directories(daemon: &Daemon, lines: &mut BTreeSet<String>) {
    let (root, state) = (daemon.root(), daemon.state());
    let tasks = Path::new("io.containerd.runtime.v2.task").join(daemon.namespace());
    list("bundle", &state.join(&tasks), lines);
    list("bundle", &root.join(&tasks), lines);
    list("ingest", &root.join("io.containerd.content.v1.content/ingest"), lines);
    list("temporary", &root.join("tmpmounts"), lines);
    list("temporary", &state.join("tmpmounts"), lines);
    for snapshotter in ["overlayfs", "native"] {
        let dir = root.join(format!("io.containerd.snapshotter.v1.{snapshotter}/snapshots"));
        list("snapshot", &dir, lines);
    }
}

fn rows(daemon: &Daemon, lines: &mut BTreeSet<String>) {
    for command in [["containers", "list"], ["tasks", "list"], ["snapshots", "list"]] {
        for line in daemon.ctr(&command).ok().lines().skip(1) {
            let name = line.split_whitespace().next().unwrap_or_default();
            lines.insert(format!("row {} {name}", command[0]));
        }
    }
    for lease in daemon.api().leases() {
        lines.insert(format!("row leases {lease}"));
    }
}

fn list(kind: &str, dir: &Path, lines: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        lines.insert(format!("{kind} {}", entry.path().display()));
    }
}
