//! Version 1: a directory for each controller.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sys::cgroup::Groups;

use super::{Cpu, Depth, Device, Limits, Measured, Memory, UNLIMITED, keyed, number, text};

/// Nanoseconds of a tick of `cpuacct.stat`: the kernel tells hundredths of a second, whatever its own clock is.
const TICK: u64 = 10_000_000;

/// Controllers that are looked at.
pub const CONTROLLERS: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "blkio"];

/// The directories of a group, by controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trees {
    /// Quotas.
    pub cpu: Option<PathBuf>,
    /// Time used.
    pub cpuacct: Option<PathBuf>,
    /// Memory.
    pub memory: Option<PathBuf>,
    /// Processes.
    pub pids: Option<PathBuf>,
    /// Block devices.
    pub blkio: Option<PathBuf>,
}

impl Trees {
    /// Finds them.
    pub fn of(groups: &Groups) -> Self {
        Self::found(|controller| groups.legacy(controller))
    }

    fn found(find: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let [cpu, cpuacct, memory, pids, blkio] = CONTROLLERS.map(find);
        Self { cpu, cpuacct, memory, pids, blkio }
    }
}

/// Reads what a group has used.
pub fn measure(trees: &Trees, depth: Depth, limits: Limits) -> Measured {
    Measured {
        cpu: trees.cpuacct.as_ref().and_then(|cpuacct| {
            let usage = number(&cpuacct.join("cpuacct.usage"))?;
            Some(Cpu { usage, ..depth.detail(|| times(cpuacct, trees.cpu.as_deref())) })
        }),
        memory: trees.memory.as_ref().and_then(|dir| memory(dir, depth, limits)),
        pids: trees.pids.as_ref().and_then(|dir| depth.pids(|name| number(&dir.join(name)))),
        devices: depth.detail(|| trees.blkio.as_deref().map(devices).unwrap_or_default()),
        io_pressure: None,
    }
}

/// What is known of processors but the time that was used.
fn times(cpuacct: &Path, cpu: Option<&Path>) -> Cpu {
    let ticks = text(&cpuacct.join("cpuacct.stat")).unwrap_or_default();
    let time = |key: &str| keyed(&ticks, key).unwrap_or_default().saturating_mul(TICK);
    let stat = cpu.and_then(|dir| text(&dir.join("cpu.stat"))).unwrap_or_default();
    let count = |key: &str| keyed(&stat, key).unwrap_or_default();
    Cpu {
        usage: 0,
        user: time("user"),
        system: time("system"),
        periods: count("nr_periods"),
        throttled_periods: count("nr_throttled"),
        throttled: count("throttled_time"),
        pressure: None,
    }
}

/// Reads the limits of a group whose memory is in this directory.
pub fn limits(dir: &Path) -> Limits {
    let limited = |name: &str| number(&dir.join(name)).filter(|limit| *limit < UNLIMITED);
    let memory = limited("memory.limit_in_bytes");
    // Memory and swap have one limit together.
    let swap = limited("memory.memsw.limit_in_bytes").map(|both| both.saturating_sub(memory.unwrap_or(both)));
    Limits { memory, swap }
}

fn memory(dir: &Path, depth: Depth, limits: Limits) -> Option<Memory> {
    let file = |name: &str| number(&dir.join(name));
    let usage = file("memory.usage_in_bytes")?;
    let stat = text(&dir.join("memory.stat")).unwrap_or_default();
    let bytes = |key: &str| keyed(&stat, key).unwrap_or_default();
    let oom = depth.detail(|| text(&dir.join("memory.oom_control")));
    let detail = |name: &str| depth.detail(|| file(name).unwrap_or_default());
    Some(Memory {
        usage,
        max_usage: detail("memory.max_usage_in_bytes"),
        limit: limits.memory,
        failures: detail("memory.failcnt"),
        rss: bytes("total_rss"),
        cache: bytes("total_cache"),
        mapped_file: bytes("total_mapped_file"),
        active_file: bytes("total_active_file"),
        inactive_file: bytes("total_inactive_file"),
        kernel: detail("memory.kmem.usage_in_bytes"),
        swap: keyed(&stat, "total_swap"),
        swap_limit: limits.swap,
        faults: bytes("total_pgfault"),
        major_faults: bytes("total_pgmajfault"),
        oom_kills: oom.and_then(|oom| keyed(&oom, "oom_kill")),
        pressure: None,
    })
}

fn devices(dir: &Path) -> Vec<Device> {
    let mut devices: BTreeMap<(u64, u64), Device> = BTreeMap::new();
    let mut each = |file: &str, add: fn(&mut Device, &str, u64)| {
        let text = text(&dir.join(file)).unwrap_or_default();
        for (number, operation, value) in text.lines().filter_map(line) {
            let (major, minor) = number;
            let device = devices.entry(number).or_insert(Device { major, minor, ..Device::default() });
            add(device, operation, value);
        }
    };
    each("blkio.throttle.io_service_bytes_recursive", |device, operation, value| match operation {
        "Read" => device.read_bytes = value,
        "Write" => device.written_bytes = value,
        _ => {}
    });
    each("blkio.throttle.io_serviced_recursive", |device, operation, value| match operation {
        "Read" => device.reads = value,
        "Write" => device.writes = value,
        _ => {}
    });
    devices.into_values().collect()
}

/// `8:0 Read 123`.
fn line(text: &str) -> Option<((u64, u64), &str, u64)> {
    let mut words = text.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    Some(((major.parse().ok()?, minor.parse().ok()?), words.next()?, words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::Pids;
    use super::*;

    #[test]
    fn a_group_of_version_1_is_read_from_its_directories() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("cpuacct/cpuacct.usage", "50000000\n"),
            ("cpuacct/cpuacct.stat", "user 3\nsystem 2\n"),
            ("cpu/cpu.stat", "nr_periods 3\nnr_throttled 2\nthrottled_time 9\n"),
            ("memory/memory.usage_in_bytes", "100\n"),
            ("memory/memory.limit_in_bytes", "1000\n"),
            ("memory/memory.memsw.limit_in_bytes", "1500\n"),
            ("memory/memory.stat", "rss 1\ntotal_rss 40\ntotal_inactive_file 30\ntotal_swap 2\n"),
            ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
            ("pids/pids.current", "4\n"),
            ("pids/pids.max", "9\n"),
            (
                "blkio/blkio.throttle.io_service_bytes_recursive",
                "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n",
            ),
            ("blkio/blkio.throttle.io_serviced_recursive", "8:0 Read 5\n"),
        ] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let trees = Trees::found(|controller| Some(dir.path().join(controller)));
        let limits = limits(trees.memory.as_deref().unwrap());
        let usage = measure(&trees, Depth::Usage, limits);
        let processes = measure(&trees, Depth::Processes, limits);
        let measured = measure(&trees, Depth::All, limits);
        assert_eq!(usage.cpu.unwrap(), Cpu { usage: 50_000_000, ..Cpu::default() });
        let (memory, whole) = (usage.memory.unwrap(), measured.memory.clone().unwrap());
        assert_eq!(memory, Memory { oom_kills: None, ..whole });
        assert_eq!((usage.pids, usage.devices), (None, Vec::new()));
        assert_eq!(processes.pids, Some(Pids { current: 4, limit: 0 }));
        let cpu = measured.cpu.unwrap();
        assert_eq!((cpu.usage, cpu.user, cpu.system, cpu.throttled), (50_000_000, 30_000_000, 20_000_000, 9));
        let memory = measured.memory.unwrap();
        assert_eq!((memory.rss, memory.working_set(), memory.available()), (40, 70, 930));
        assert_eq!((memory.swap, memory.swap_limit, memory.oom_kills), (Some(2), Some(500), Some(3)));
        assert_eq!(measured.pids, Some(Pids { current: 4, limit: 9 }));
        let device = Device { major: 8, minor: 0, read_bytes: 1, written_bytes: 2, reads: 5, writes: 0 };
        assert_eq!(measured.devices, [device]);
    }
}
