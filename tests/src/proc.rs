//! Who is running, read from `/proc`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};

/// A process as `/proc` shows it.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its arguments, separated by blanks.
    pub cmdline: String,
    /// Its `/proc/<pid>/cgroup`.
    pub cgroups: String,
}

/// All processes that have arguments (no kernel threads, no zombies).
pub fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| {
            let cmdline = arguments(pid)?;
            let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            Some(Process { pid, cmdline, cgroups })
        })
        .collect()
}

/// The arguments of a process; one that is about to execute another program has none for a moment.
fn arguments(pid: i32) -> Option<String> {
    for _ in 0..50 {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        if !bytes.is_empty() {
            return Some(String::from_utf8_lossy(&bytes).replace('\0', " "));
        }
        // Kernel threads and zombies have no program.
        fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// The shims of a namespace.
pub fn shims(namespace: &str) -> Vec<Process> {
    let flag = format!("-namespace {namespace} ");
    all().into_iter().filter(|p| p.cmdline.contains("shim") && p.cmdline.contains(&flag)).collect()
}

/// The shim of one container; shims that serve several containers are found by the first.
pub fn shim(namespace: &str, id: &str) -> Option<Process> {
    let flag = format!("-id {id} ");
    shims(namespace).into_iter().find(|p| p.cmdline.contains(&flag))
}

/// The processes in containers of a namespace, by the cgroup path `/<namespace>/<id>` that clients choose.
pub fn contained(namespace: &str) -> Vec<Process> {
    let part = format!("/{namespace}/");
    all().into_iter().filter(|p| p.cgroups.contains(&part)).collect()
}

/// Whether a process exists and is no zombie.
pub fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with(['Z', 'X']))
}

/// Kills a process; one that is gone already is no error.
pub fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// The number of a process's threads.
pub fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// How long processors were busy with a process's threads, those that have ended not counted.
pub fn busy(pid: i32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// A process's proportional set size in kB.
pub fn pss(pid: i32) -> u64 {
    fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix("kB")?.trim().parse().ok())
        .unwrap_or(0)
}

/// The socket files that processes listen on.
pub fn listening(pids: &[i32]) -> Vec<PathBuf> {
    let by_inode = socket_files();
    let mut found = Vec::new();
    for pid in pids {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for link in entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()) {
            let text = link.to_string_lossy().into_owned();
            let inode = text.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            if let Some(path) = inode.and_then(|inode| by_inode.get(inode)) {
                found.push(path.clone());
            }
        }
    }
    found
}

/// The paths of all sockets that some process has bound.
pub fn bound_sockets() -> BTreeSet<PathBuf> {
    socket_files().into_values().collect()
}

/// The mount points below `dir`, deepest first.
pub fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|path| path.starts_with(dir))
        .collect();
    found.reverse();
    found
}

/// The cgroup directories of a namespace's containers, in all hierarchies, deepest first.
pub fn cgroups(namespace: &str) -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    let mut found = Vec::new();
    collect_dirs(&base.join(namespace), &mut found);
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        collect_dirs(&entry.path().join(namespace), &mut found);
    }
    found.reverse();
    found
}

fn collect_dirs(dir: &Path, found: &mut Vec<PathBuf>) {
    if !dir.is_dir() {
        return;
    }
    found.push(dir.to_path_buf());
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_dirs(&entry.path(), found);
        }
    }
}

fn socket_files() -> BTreeMap<String, PathBuf> {
    fs::read_to_string("/proc/net/unix")
        .unwrap_or_default()
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let path = fields.get(7).filter(|path| path.starts_with('/'))?;
            Some(((*fields.get(6)?).to_owned(), PathBuf::from(path)))
        })
        .collect()
}
