//! `io.containerd.cgroups.v1.Metrics`.

use std::io;
use std::path::Path;

use api::cgroups::v1::{
    BlkIoEntry, BlkIoStat, CpuStat, CpuUsage, HugetlbStat, MemoryEntry, MemoryOomControl, MemoryStat,
    Metrics, PidsStat, RdmaEntry, RdmaStat, Throttle,
};
use sys::cgroup::Groups;
use types::{Result, ResultExt};

use super::{Table, huge_page_sizes, number, rdma, single};

/// Of a second, in which the kernel counts processors' time.
const NANOSECONDS: u64 = 1_000_000_000;

type Reader = fn(&Path, &mut Metrics) -> io::Result<()>;

const READERS: [(&str, Reader); 7] = [
    ("pids", pids),
    ("cpu", cpu),
    ("cpuacct", usage),
    ("memory", memory),
    ("blkio", block),
    ("rdma", remote_memory),
    ("hugetlb", huge_pages),
];

/// Reads all trees; what is missing in one, or the whole tree, is left out.
pub fn measure(groups: &Groups) -> Result<Metrics> {
    let cpu = CpuStat { usage: Some(CpuUsage::default()), throttling: Some(Throttle::default()) };
    let mut metrics = Metrics { cpu: Some(cpu), ..Metrics::default() };
    for (controller, read) in READERS {
        let Some(group) = groups.legacy(controller).filter(|group| group.exists()) else { continue };
        match read(&group, &mut metrics) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other.context(|| format!("read {}", group.display()))?,
        }
    }
    Ok(metrics)
}

fn pids(group: &Path, metrics: &mut Metrics) -> io::Result<()> {
    let (current, limit) = (single(&group.join("pids.current"), 0)?, single(&group.join("pids.max"), 0)?);
    metrics.pids = Some(PidsStat { current, limit });
    Ok(())
}

fn cpu(group: &Path, metrics: &mut Metrics) -> io::Result<()> {
    let table = Table::read(&group.join("cpu.stat"))?;
    let throttling = Throttle {
        periods: table.get("nr_periods"),
        throttled_periods: table.get("nr_throttled"),
        throttled_time: table.get("throttled_time"),
    };
    metrics.cpu.get_or_insert_default().throttling = Some(throttling);
    Ok(())
}

fn usage(group: &Path, metrics: &mut Metrics) -> io::Result<()> {
    let table = Table::read(&group.join("cpuacct.stat"))?;
    let ticks = rustix::param::clock_ticks_per_second();
    let nanoseconds = |name: &str| table.get(name) * NANOSECONDS / ticks;
    let each = std::fs::read_to_string(group.join("cpuacct.usage_percpu"))?;
    let usage = CpuUsage {
        total: single(&group.join("cpuacct.usage"), 0)?,
        user: nanoseconds("user"),
        kernel: nanoseconds("system"),
        per_cpu: each.split_whitespace().map(|time| number(time, 0)).collect::<io::Result<_>>()?,
    };
    metrics.cpu.get_or_insert_default().usage = Some(usage);
    Ok(())
}

/// In upstream's order: the first file that a kernel lacks (`memsw` without swap accounting) ends it.
fn memory(group: &Path, metrics: &mut Metrics) -> io::Result<()> {
    let stat = metrics.memory.insert(memory_stat(&Table::read(&group.join("memory.stat"))?));
    let control = Table::read(&group.join("memory.oom_control"))?;
    metrics.memory_oom_control = Some(MemoryOomControl {
        oom_kill_disable: control.get("oom_kill_disable"),
        under_oom: control.get("under_oom"),
        oom_kill: control.get("oom_kill"),
    });
    let entries = [
        ("memory", &mut stat.usage),
        ("memory.memsw", &mut stat.swap),
        ("memory.kmem", &mut stat.kernel),
        ("memory.kmem.tcp", &mut stat.kernel_tcp),
    ];
    for (name, entry) in entries {
        let read = |what: &str| single(&group.join(format!("{name}.{what}")), 0);
        let entry: &mut MemoryEntry = entry.get_or_insert_default();
        entry.usage = read("usage_in_bytes")?;
        entry.max = read("max_usage_in_bytes")?;
        entry.failcnt = read("failcnt")?;
        entry.limit = read("limit_in_bytes")?;
    }
    Ok(())
}

fn memory_stat(table: &Table) -> MemoryStat {
    let empty = || Some(MemoryEntry::default());
    MemoryStat {
        cache: table.get("cache"),
        rss: table.get("rss"),
        rss_huge: table.get("rss_huge"),
        mapped_file: table.get("mapped_file"),
        dirty: table.get("dirty"),
        writeback: table.get("writeback"),
        pg_pg_in: table.get("pgpgin"),
        pg_pg_out: table.get("pgpgout"),
        pg_fault: table.get("pgfault"),
        pg_maj_fault: table.get("pgmajfault"),
        inactive_anon: table.get("inactive_anon"),
        active_anon: table.get("active_anon"),
        inactive_file: table.get("inactive_file"),
        active_file: table.get("active_file"),
        unevictable: table.get("unevictable"),
        hierarchical_memory_limit: table.get("hierarchical_memory_limit"),
        hierarchical_swap_limit: table.get("hierarchical_memsw_limit"),
        total_cache: table.get("total_cache"),
        total_rss: table.get("total_rss"),
        total_rss_huge: table.get("total_rss_huge"),
        total_mapped_file: table.get("total_mapped_file"),
        total_dirty: table.get("total_dirty"),
        total_writeback: table.get("total_writeback"),
        total_pg_pg_in: table.get("total_pgpgin"),
        total_pg_pg_out: table.get("total_pgpgout"),
        total_pg_fault: table.get("total_pgfault"),
        total_pg_maj_fault: table.get("total_pgmajfault"),
        total_inactive_anon: table.get("total_inactive_anon"),
        total_active_anon: table.get("total_active_anon"),
        total_inactive_file: table.get("total_inactive_file"),
        total_active_file: table.get("total_active_file"),
        total_unevictable: table.get("total_unevictable"),
        usage: empty(),
        swap: empty(),
        kernel: empty(),
        kernel_tcp: empty(),
    }
}

fn huge_pages(group: &Path, metrics: &mut Metrics) -> io::Result<()> {
    for pagesize in huge_page_sizes() {
        let read = |what: &str| single(&group.join(format!("hugetlb.{pagesize}.{what}")), 0);
        let stat = HugetlbStat {
            usage: read("usage_in_bytes")?,
            max: read("max_usage_in_bytes")?,
            failcnt: read("failcnt")?,
            pagesize: pagesize.clone(),
        };
        metrics.hugetlb.push(stat);
    }
    Ok(())
}

fn remote_memory(group: &Path, metrics: &mut Metrics) -> io::Result<()> {
    let entries = |name: &str| -> io::Result<Vec<RdmaEntry>> {
        let text = std::fs::read_to_string(group.join(name))?;
        let entry = |(device, hca_handles, hca_objects)| RdmaEntry { device, hca_handles, hca_objects };
        Ok(rdma(&text).map(entry).collect())
    };
    let stat = RdmaStat { current: entries("rdma.current")?, limit: entries("rdma.max")? };
    // A device that went between the two reads.
    if stat.current.len() == stat.limit.len() {
        metrics.rdma = Some(stat);
    }
    Ok(())
}

/// What the scheduler CFQ counts where there is one, else what the limits on throughput count.
fn block(group: &Path, metrics: &mut Metrics) -> io::Result<()> {
    let stat = metrics.blkio.insert(BlkIoStat::default());
    let devices = Devices::read()?;
    let read = |name: &str| entries(&group.join(format!("blkio.{name}")), &devices);
    if group.join("blkio.io_serviced_recursive").exists() {
        stat.sectors_recursive = read("sectors_recursive")?;
        stat.io_service_bytes_recursive = read("io_service_bytes_recursive")?;
        stat.io_serviced_recursive = read("io_serviced_recursive")?;
        stat.io_queued_recursive = read("io_queued_recursive")?;
        stat.io_service_time_recursive = read("io_service_time_recursive")?;
        stat.io_wait_time_recursive = read("io_wait_time_recursive")?;
        stat.io_merged_recursive = read("io_merged_recursive")?;
        stat.io_time_recursive = read("time_recursive")?;
    }
    if *stat == BlkIoStat::default() {
        stat.io_serviced_recursive = read("throttle.io_serviced")?;
        stat.io_service_bytes_recursive = read("throttle.io_service_bytes")?;
    }
    Ok(())
}

/// The lines of a file: `major:minor [operation] number`, and a total.
fn entries(path: &Path, devices: &Devices) -> io::Result<Vec<BlkIoEntry>> {
    let text = std::fs::read_to_string(path)?;
    let mut entries = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split([' ', ':']).filter(|word| !word.is_empty()).collect();
        let (major, minor, op, value) = match words.as_slice() {
            ["Total", _] => continue,
            [major, minor, value] => (major, minor, "", value),
            [major, minor, op, value] => (major, minor, *op, value),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        let (major, minor) = (number(major, 0)?, number(minor, 0)?);
        let (op, value) = (op.to_owned(), number(value, 0)?);
        entries.push(BlkIoEntry { op, device: devices.name(major, minor), major, minor, value });
    }
    Ok(entries)
}

/// The machine's disks by number.
struct Devices(String);

impl Devices {
    fn read() -> io::Result<Self> {
        std::fs::read_to_string("/proc/partitions").map(Self)
    }

    /// The path of a disk, empty if it is unknown.
    fn name(&self, major: u64, minor: u64) -> String {
        let name = self.0.lines().skip(2).find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [ma, mi, _, name] if ma.parse() == Ok(major) && mi.parse() == Ok(minor) => Some(*name),
                _ => None,
            }
        });
        name.map(|name| format!("/dev/{name}")).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_devices_are_named_and_totals_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "254:0 Read 5\n254:0 Total 6\n7:1 9\nTotal 6\n").unwrap();
        let devices = Devices("major minor  #blocks  name\n\n 254        0   1 vda\n".into());
        let found = entries(&path, &devices).unwrap();
        let shown: Vec<_> = found.iter().map(|e| (e.device.as_str(), e.op.as_str(), e.value)).collect();
        assert_eq!(shown, [("/dev/vda", "Read", 5), ("/dev/vda", "Total", 6), ("", "", 9)]);
        std::fs::write(&path, "odd\n").unwrap();
        assert!(entries(&path, &devices).is_err());
    }

    #[test]
    fn memory_without_swap_accounting_is_read_as_far_as_upstream_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("memory.stat", "cache 1\ntotal_cache 2\n");
        write("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n");
        for name in ["usage_in_bytes", "max_usage_in_bytes", "failcnt", "limit_in_bytes"] {
            write(&format!("memory.{name}"), "4\n");
        }
        let mut metrics = Metrics::default();
        let end = memory(dir.path(), &mut metrics).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::NotFound);
        let stat = metrics.memory.unwrap();
        assert_eq!((stat.cache, stat.total_cache, stat.usage.unwrap().limit), (1, 2, 4));
        assert_eq!(stat.swap, Some(MemoryEntry::default()));
        assert_eq!(metrics.memory_oom_control.unwrap().oom_kill, 3);
    }
}
