//! `io.containerd.cgroups.v2.Metrics`.

use std::io;
use std::path::Path;

use api::cgroups::v2::{
    CpuStat, HugeTlbStat, IoEntry, IoStat, MemoryEvents, MemoryStat, Metrics, PidsStat, PsiData, PsiStats,
    RdmaEntry, RdmaStat,
};
use types::{Result, ResultExt};

use super::{Table, huge_page_sizes, rdma, single};

/// Reads a group.
pub fn measure(group: &Path) -> Result<Metrics> {
    let pids = PidsStat { current: value(group, "pids.current"), limit: value(group, "pids.max") };
    let io = IoStat { usage: io_entries(group), psi: pressure(&group.join("io.pressure")) };
    let entry = |(device, hca_handles, hca_objects)| RdmaEntry { device, hca_handles, hca_objects };
    let entries = |name: &str| {
        let text = std::fs::read_to_string(group.join(name)).unwrap_or_default();
        rdma(&text).map(entry).collect()
    };
    Ok(Metrics {
        pids: Some(pids),
        cpu: Some(table(group, "cpu.stat")?.map(|table| cpu(group, &table)).unwrap_or_default()),
        memory: Some(table(group, "memory.stat")?.map(|table| memory(group, &table)).unwrap_or_default()),
        rdma: Some(RdmaStat { current: entries("rdma.current"), limit: entries("rdma.max") }),
        io: Some(io),
        hugetlb: huge_page_sizes().into_iter().map(|size| huge_pages(group, size)).collect(),
        memory_events: table(group, "memory.events")?
            .filter(|table| !table.is_empty())
            .map(|table| events(&table)),
        network: Vec::new(),
    })
}

/// A file of one number; one that is not there, or no number, is 0.
fn value(group: &Path, name: &str) -> u64 {
    single(&group.join(name), u64::MAX).unwrap_or(0)
}

fn table(group: &Path, name: &str) -> Result<Option<Table>> {
    match Table::read(&group.join(name)) {
        Ok(table) => Ok(Some(table)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).context(|| format!("read {name} of {}", group.display())),
    }
}

fn cpu(group: &Path, table: &Table) -> CpuStat {
    CpuStat {
        usage_usec: table.get("usage_usec"),
        user_usec: table.get("user_usec"),
        system_usec: table.get("system_usec"),
        nr_periods: table.get("nr_periods"),
        nr_throttled: table.get("nr_throttled"),
        throttled_usec: table.get("throttled_usec"),
        psi: pressure(&group.join("cpu.pressure")),
        nr_bursts: table.get("nr_bursts"),
        burst_usec: table.get("burst_usec"),
    }
}

fn memory(group: &Path, table: &Table) -> MemoryStat {
    MemoryStat {
        anon: table.get("anon"),
        file: table.get("file"),
        kernel_stack: table.get("kernel_stack"),
        slab: table.get("slab"),
        sock: table.get("sock"),
        shmem: table.get("shmem"),
        file_mapped: table.get("file_mapped"),
        file_dirty: table.get("file_dirty"),
        file_writeback: table.get("file_writeback"),
        anon_thp: table.get("anon_thp"),
        inactive_anon: table.get("inactive_anon"),
        active_anon: table.get("active_anon"),
        inactive_file: table.get("inactive_file"),
        active_file: table.get("active_file"),
        unevictable: table.get("unevictable"),
        slab_reclaimable: table.get("slab_reclaimable"),
        slab_unreclaimable: table.get("slab_unreclaimable"),
        pgfault: table.get("pgfault"),
        pgmajfault: table.get("pgmajfault"),
        workingset_refault: table.get("workingset_refault"),
        workingset_activate: table.get("workingset_activate"),
        workingset_nodereclaim: table.get("workingset_nodereclaim"),
        pgrefill: table.get("pgrefill"),
        pgscan: table.get("pgscan"),
        pgsteal: table.get("pgsteal"),
        pgactivate: table.get("pgactivate"),
        pgdeactivate: table.get("pgdeactivate"),
        pglazyfree: table.get("pglazyfree"),
        pglazyfreed: table.get("pglazyfreed"),
        thp_fault_alloc: table.get("thp_fault_alloc"),
        thp_collapse_alloc: table.get("thp_collapse_alloc"),
        usage: value(group, "memory.current"),
        usage_limit: value(group, "memory.max"),
        swap_usage: value(group, "memory.swap.current"),
        swap_limit: value(group, "memory.swap.max"),
        max_usage: value(group, "memory.peak"),
        swap_max_usage: value(group, "memory.swap.peak"),
        psi: pressure(&group.join("memory.pressure")),
    }
}

fn events(table: &Table) -> MemoryEvents {
    MemoryEvents {
        low: table.get("low"),
        high: table.get("high"),
        max: table.get("max"),
        oom: table.get("oom"),
        oom_kill: table.get("oom_kill"),
        oom_group_kill: table.get("oom_group_kill"),
    }
}

fn huge_pages(group: &Path, pagesize: String) -> HugeTlbStat {
    let failcnt = Table::read(&group.join(format!("hugetlb.{pagesize}.events")));
    HugeTlbStat {
        current: value(group, &format!("hugetlb.{pagesize}.current")),
        max: value(group, &format!("hugetlb.{pagesize}.max")),
        failcnt: failcnt.map(|table| table.get("max")).unwrap_or(0),
        pagesize,
    }
}

/// The lines of `io.stat`: a device and its counters, as far as they can be read.
fn io_entries(group: &Path) -> Vec<IoEntry> {
    let text = std::fs::read_to_string(group.join("io.stat")).unwrap_or_default();
    let mut entries = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let device = words.next().and_then(|device| device.split_once(':'));
        let (Some((major, minor)), Some(first)) = (device, words.next()) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { return entries };
        let mut entry = IoEntry { major, minor, ..IoEntry::default() };
        for (key, value) in [first].into_iter().chain(words).filter_map(|word| word.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            match key {
                "rbytes" => entry.rbytes = value,
                "wbytes" => entry.wbytes = value,
                "rios" => entry.rios = value,
                "wios" => entry.wios = value,
                _ => {}
            }
        }
        entries.push(entry);
    }
    entries
}

/// How much time was lost waiting; none where the kernel does not tell.
fn pressure(path: &Path) -> Option<PsiStats> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut stats = PsiStats::default();
    for line in text.lines() {
        let (kind, rest) = line.split_once(' ')?;
        let mut data = PsiData::default();
        for pair in rest.split_whitespace() {
            let (key, value) = pair.split_once('=')?;
            match key {
                "avg10" => data.avg10 = value.parse().ok()?,
                "avg60" => data.avg60 = value.parse().ok()?,
                "avg300" => data.avg300 = value.parse().ok()?,
                "total" => data.total = value.parse().ok()?,
                _ => {}
            }
        }
        match kind {
            "some" => stats.some = Some(data),
            "full" => stats.full = Some(data),
            _ => {}
        }
    }
    Some(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_gone_measures_nothing_and_fails_not() {
        let metrics = measure(Path::new("/nonexistent")).unwrap();
        assert_eq!((metrics.cpu, metrics.memory_events), (Some(CpuStat::default()), None));
    }

    #[test]
    fn what_stands_in_the_files_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("pids.max", "max\n");
        write("memory.events", "low 0\noom_kill 2\n");
        write("io.stat", "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5\n7:0 \n");
        write("cpu.stat", "usage_usec 9\n");
        write("cpu.pressure", "some avg10=0.50 avg60=0.00 avg300=0.00 total=7\n");
        let metrics = measure(dir.path()).unwrap();
        assert_eq!(metrics.pids.unwrap().limit, u64::MAX);
        assert_eq!(metrics.memory_events.unwrap().oom_kill, 2);
        let io = metrics.io.unwrap();
        assert_eq!((io.usage[0].wios, io.usage.len(), io.psi), (4, 2, None));
        let psi = metrics.cpu.unwrap().psi.unwrap();
        assert_eq!((psi.some.unwrap().avg10, psi.full), (0.5, None));
    }
}
