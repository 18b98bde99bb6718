//! Version 2: one directory.

use std::path::Path;

use super::{Cpu, Depth, Device, Limits, Measured, Memory, UNLIMITED, keyed, number, pressure, text};

/// Reads what a group has used.
pub fn measure(dir: &Path, depth: Depth, limits: Limits) -> Measured {
    Measured {
        cpu: cpu(dir),
        memory: memory(dir, depth, limits),
        pids: depth.pids(|name| number(&dir.join(name))),
        devices: depth.detail(|| devices(dir)),
        io_pressure: pressure(&dir.join("io.pressure")),
    }
}

fn cpu(dir: &Path) -> Option<Cpu> {
    let stat = text(&dir.join("cpu.stat"))?;
    let count = |key: &str| keyed(&stat, key).unwrap_or_default();
    // The kernel counts microseconds.
    let time = |key: &str| count(key).saturating_mul(1000);
    Some(Cpu {
        usage: time("usage_usec"),
        user: time("user_usec"),
        system: time("system_usec"),
        periods: count("nr_periods"),
        throttled_periods: count("nr_throttled"),
        throttled: time("throttled_usec"),
        pressure: pressure(&dir.join("cpu.pressure")),
    })
}

/// Reads the limits of a group.
pub fn limits(dir: &Path) -> Limits {
    let limited = |name: &str| number(&dir.join(name)).filter(|limit| *limit < UNLIMITED);
    Limits { memory: limited("memory.max"), swap: limited("memory.swap.max") }
}

fn memory(dir: &Path, depth: Depth, limits: Limits) -> Option<Memory> {
    let usage = number(&dir.join("memory.current"))?;
    let stat = text(&dir.join("memory.stat")).unwrap_or_default();
    let bytes = |key: &str| keyed(&stat, key).unwrap_or_default();
    let events = depth.detail(|| text(&dir.join("memory.events")));
    Some(Memory {
        usage,
        max_usage: limits.memory.unwrap_or(u64::MAX),
        limit: limits.memory,
        failures: 0,
        rss: bytes("anon"),
        cache: bytes("file"),
        mapped_file: bytes("file_mapped"),
        active_file: bytes("active_file"),
        inactive_file: bytes("inactive_file"),
        kernel: bytes("kernel_stack"),
        swap: number(&dir.join("memory.swap.current")),
        swap_limit: limits.swap,
        faults: bytes("pgfault"),
        major_faults: bytes("pgmajfault"),
        oom_kills: events.and_then(|events| keyed(&events, "oom_kill")),
        pressure: pressure(&dir.join("memory.pressure")),
    })
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`, a line for each device.
fn devices(dir: &Path) -> Vec<Device> {
    let text = text(&dir.join("io.stat")).unwrap_or_default();
    text.lines().filter_map(device).collect()
}

fn device(line: &str) -> Option<Device> {
    let (number, fields) = line.split_once(' ')?;
    let (major, minor) = number.split_once(':')?;
    let value = |key: &str| {
        let field = fields.split_whitespace().find_map(|field| field.strip_prefix(key)?.strip_prefix('='));
        field.and_then(|text| text.parse().ok()).unwrap_or_default()
    };
    Some(Device {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        read_bytes: value("rbytes"),
        written_bytes: value("wbytes"),
        reads: value("rios"),
        writes: value("wios"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Pids;
    use super::*;

    #[test]
    fn a_group_of_version_2_is_read_from_its_files() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            (
                "cpu.stat",
                "usage_usec 10\nuser_usec 6\nsystem_usec 4\nnr_periods 3\nnr_throttled 2\nthrottled_usec 1\n",
            ),
            ("memory.current", "100\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 40\nfile 50\ninactive_file 30\npgfault 7\npgmajfault 1\n"),
            ("memory.swap.current", "5\n"),
            ("memory.events", "low 0\noom 2\noom_kill 1\n"),
            ("pids.current", "4\n"),
            ("pids.max", "max\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4\nnonsense\n"),
        ] {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let limits = limits(dir.path());
        let usage = measure(dir.path(), Depth::Usage, limits);
        let processes = measure(dir.path(), Depth::Processes, limits);
        let measured = measure(dir.path(), Depth::All, limits);
        let whole = measured.memory.clone().unwrap();
        assert_eq!(usage.cpu, measured.cpu);
        assert_eq!(usage.memory.unwrap(), Memory { oom_kills: None, ..whole });
        assert_eq!((usage.pids, usage.devices), (None, Vec::new()));
        assert_eq!(processes.pids, measured.pids);
        let cpu = measured.cpu.unwrap();
        assert_eq!((cpu.usage, cpu.user, cpu.throttled_periods, cpu.throttled), (10_000, 6_000, 2, 1_000));
        let memory = measured.memory.unwrap();
        assert_eq!((memory.working_set(), memory.rss, memory.limit), (70, 40, None));
        assert_eq!((memory.swap, memory.oom_kills, memory.faults), (Some(5), Some(1), 7));
        assert_eq!(measured.pids, Some(Pids { current: 4, limit: 0 }));
        let device = Device { major: 8, minor: 0, read_bytes: 1, written_bytes: 2, reads: 3, writes: 4 };
        assert_eq!(measured.devices, [device]);
        assert_eq!(measure(&dir.path().join("gone"), Depth::All, limits), Measured::default());
    }
}
