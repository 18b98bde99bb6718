//! What a container's control groups say at one moment: limits, use, pressure, processes.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sys::cgroup::{Groups, Mode};

use crate::json::{Object, list};

/// No more of a file than this.
const FILE: u64 = 4 << 10;
/// No more processes than this, those with the most memory first.
const PROCESSES: usize = 32;

/// Files by what they tell, of a controller of version 1; of version 2 all are in one group.
struct Files {
    limits: &'static [(&'static str, &'static str)],
    usage: &'static [(&'static str, &'static str)],
    pressure: &'static [&'static str],
}

const UNIFIED: Files = Files {
    limits: &[
        ("", "memory.max"),
        ("", "memory.high"),
        ("", "memory.swap.max"),
        ("", "pids.max"),
        ("", "cpu.max"),
    ],
    usage: &[
        ("", "memory.current"),
        ("", "memory.peak"),
        ("", "memory.swap.current"),
        ("", "memory.events"),
        ("", "memory.stat"),
        ("", "pids.current"),
        ("", "pids.events"),
        ("", "cpu.stat"),
    ],
    pressure: &["memory.pressure", "cpu.pressure", "io.pressure"],
};

const LEGACY: Files = Files {
    limits: &[
        ("memory", "memory.limit_in_bytes"),
        ("memory", "memory.soft_limit_in_bytes"),
        ("memory", "memory.memsw.limit_in_bytes"),
        ("pids", "pids.max"),
        ("cpu", "cpu.cfs_quota_us"),
        ("cpu", "cpu.cfs_period_us"),
    ],
    usage: &[
        ("memory", "memory.usage_in_bytes"),
        ("memory", "memory.max_usage_in_bytes"),
        ("memory", "memory.failcnt"),
        ("memory", "memory.oom_control"),
        ("memory", "memory.stat"),
        ("pids", "pids.current"),
        ("pids", "pids.events"),
        ("cpu", "cpu.stat"),
    ],
    pressure: &[],
};

/// The moment as JSON. What cannot be read is left out.
pub fn text(groups: Option<&Groups>) -> String {
    let mut object = Object::new();
    object.text("at", &types::time::rfc3339(SystemTime::now()));
    let Some(groups) = groups else { return object.finish() };
    let mode = sys::cgroup::mode();
    let files = match mode {
        Mode::Unified => &UNIFIED,
        Mode::Legacy => &LEGACY,
    };
    let directory = |controller: &str| match mode {
        Mode::Unified => groups.unified(),
        Mode::Legacy => groups.legacy(controller),
    };
    for (name, files) in [("limits", files.limits), ("usage", files.usage)] {
        let paths =
            files.iter().filter_map(|(controller, file)| Some((*file, directory(controller)?.join(file))));
        object.raw(name, &values(paths));
    }
    let group = directory("memory");
    let of_group = files.pressure.iter().filter_map(|file| Some((*file, group.as_ref()?.join(file))));
    let of_machine = ["memory", "cpu", "io"].map(|name| (name, Path::new("/proc/pressure").join(name)));
    object.raw("pressure", &values(of_group.chain(of_machine)));
    object.raw("processes", &list(processes(group.as_deref()).into_iter()));
    object.finish()
}

fn values<'a>(files: impl Iterator<Item = (&'a str, PathBuf)>) -> String {
    let mut object = Object::new();
    for (name, path) in files {
        if let Some(text) = read(&path) {
            object.text(name, text.trim_end());
        }
    }
    object.finish()
}

fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(FILE).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The processes in a group and below it: names and memory, and no command lines, in which secrets stand.
fn processes(group: Option<&Path>) -> Vec<String> {
    let mut pids = Vec::new();
    collect(group, &mut pids);
    let mut found: Vec<(u64, String, String)> = pids
        .into_iter()
        .filter_map(|pid| {
            let status = read(&Path::new("/proc").join(&pid).join("status"))?;
            let value =
                |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim();
            let rss = value("VmRSS:").trim_end_matches("kB").trim().parse().unwrap_or(0);
            Some((rss, pid, value("Name:").to_owned()))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.truncate(PROCESSES);
    let object = |(rss, pid, name): (u64, String, String)| {
        let mut object = Object::new();
        object.raw("pid", &pid);
        object.text("name", &name);
        object.number("rss_kb", rss);
        object.finish()
    };
    found.into_iter().map(object).collect()
}

fn collect(group: Option<&Path>, pids: &mut Vec<String>) {
    let Some(group) = group else { return };
    let listed = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    pids.extend(listed.lines().filter(|line| line.parse::<u32>().is_ok()).map(str::to_owned));
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(Some(&entry.path()), pids);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_tells_of_the_groups_that_a_process_is_in() {
        let groups = Groups::of(std::process::id()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text(Some(&groups))).unwrap();
        for part in ["limits", "usage", "pressure"] {
            assert!(value[part].is_object(), "{value:#}");
        }
        assert!(value["processes"].is_array(), "{value:#}");
        assert!(serde_json::from_str::<serde_json::Value>(&text(None)).unwrap()["at"].is_string());
    }
}
