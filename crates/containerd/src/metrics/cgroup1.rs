//! The families of a container on cgroup v1, from what its shim measured.

use api::cgroups::v1::{BlkIoEntry, BlkIoStat, CpuUsage, MemoryEntry, MemoryStat, Metrics, Throttle};

use super::containers::{Emit, Family, Numbers};

macro_rules! families {
    ($($name:literal $of:ident $value:expr;)*) => {
        &[$(Family { name: $name, numbers: Numbers::One(|m| $of(m).map($value)) }),*]
    };
}

/// All of them that are one number a container.
pub const SINGLE: &[Family<Metrics>] = families! {
    "pids_limit" pids |p| p.limit;
    "pids_current" pids |p| p.current;
    "cpu_total_nanoseconds" usage |u| u.total;
    "cpu_kernel_nanoseconds" usage |u| u.kernel;
    "cpu_user_nanoseconds" usage |u| u.user;
    "cpu_throttle_periods_total" throttling |t| t.periods;
    "cpu_throttled_periods_total" throttling |t| t.throttled_periods;
    "cpu_throttled_time_nanoseconds" throttling |t| t.throttled_time;
    "memory_cache_bytes" memory |m| m.cache;
    "memory_rss_bytes" memory |m| m.rss;
    "memory_rss_huge_bytes" memory |m| m.rss_huge;
    "memory_mapped_file_bytes" memory |m| m.mapped_file;
    "memory_dirty_bytes" memory |m| m.dirty;
    "memory_writeback_bytes" memory |m| m.writeback;
    "memory_pgpgin_bytes" memory |m| m.pg_pg_in;
    "memory_pgpgout_bytes" memory |m| m.pg_pg_out;
    "memory_pgfault_bytes" memory |m| m.pg_fault;
    "memory_pgmajfault_bytes" memory |m| m.pg_maj_fault;
    "memory_inactive_anon_bytes" memory |m| m.inactive_anon;
    "memory_active_anon_bytes" memory |m| m.active_anon;
    "memory_inactive_file_bytes" memory |m| m.inactive_file;
    "memory_active_file_bytes" memory |m| m.active_file;
    "memory_unevictable_bytes" memory |m| m.unevictable;
    "memory_hierarchical_memory_limit_bytes" memory |m| m.hierarchical_memory_limit;
    "memory_hierarchical_memsw_limit_bytes" memory |m| m.hierarchical_swap_limit;
    "memory_total_cache_bytes" memory |m| m.total_cache;
    "memory_total_rss_bytes" memory |m| m.total_rss;
    "memory_total_rss_huge_bytes" memory |m| m.total_rss_huge;
    "memory_total_mapped_file_bytes" memory |m| m.total_mapped_file;
    "memory_total_dirty_bytes" memory |m| m.total_dirty;
    "memory_total_writeback_bytes" memory |m| m.total_writeback;
    "memory_total_pgpgin_bytes" memory |m| m.total_pg_pg_in;
    "memory_total_pgpgout_bytes" memory |m| m.total_pg_pg_out;
    "memory_total_pgfault_bytes" memory |m| m.total_pg_fault;
    "memory_total_pgmajfault_bytes" memory |m| m.total_pg_maj_fault;
    "memory_total_inactive_anon_bytes" memory |m| m.total_inactive_anon;
    "memory_total_active_anon_bytes" memory |m| m.total_active_anon;
    "memory_total_inactive_file_bytes" memory |m| m.total_inactive_file;
    "memory_total_active_file_bytes" memory |m| m.total_active_file;
    "memory_total_unevictable_bytes" memory |m| m.total_unevictable;
    "memory_usage_failcnt_total" used |e| e.failcnt;
    "memory_usage_limit_bytes" used |e| e.limit;
    "memory_usage_max_bytes" used |e| e.max;
    "memory_usage_usage_bytes" used |e| e.usage;
    "memory_swap_failcnt_total" swap |e| e.failcnt;
    "memory_swap_limit_bytes" swap |e| e.limit;
    "memory_swap_max_bytes" swap |e| e.max;
    "memory_swap_usage_bytes" swap |e| e.usage;
    "memory_kernel_failcnt_total" kernel |e| e.failcnt;
    "memory_kernel_limit_bytes" kernel |e| e.limit;
    "memory_kernel_max_bytes" kernel |e| e.max;
    "memory_kernel_usage_bytes" kernel |e| e.usage;
    "memory_kerneltcp_failcnt_total" tcp |e| e.failcnt;
    "memory_kerneltcp_limit_bytes" tcp |e| e.limit;
    "memory_kerneltcp_max_bytes" tcp |e| e.max;
    "memory_kerneltcp_usage_bytes" tcp |e| e.usage;
};

/// Those that are one number a processor, page size, or device and operation.
pub const MANY: &[Family<Metrics>] = &[
    many("per_cpu_nanoseconds", |m, emit| {
        for (cpu, time) in usage(m).iter().flat_map(|usage| usage.per_cpu.iter().enumerate()) {
            emit(&[("cpu", &cpu.to_string())], *time);
        }
    }),
    many("hugetlb_usage_bytes", |m, emit| {
        m.hugetlb.iter().for_each(|h| emit(&[("page", &h.pagesize)], h.usage))
    }),
    many("hugetlb_failcnt_total", |m, emit| {
        m.hugetlb.iter().for_each(|h| emit(&[("page", &h.pagesize)], h.failcnt))
    }),
    many("hugetlb_max_bytes", |m, emit| m.hugetlb.iter().for_each(|h| emit(&[("page", &h.pagesize)], h.max))),
    many("blkio_io_merged_recursive_total", |m, emit| block(m, emit, |b| &b.io_merged_recursive)),
    many("blkio_io_queued_recursive_total", |m, emit| block(m, emit, |b| &b.io_queued_recursive)),
    many("blkio_io_service_bytes_recursive_bytes", |m, emit| {
        block(m, emit, |b| &b.io_service_bytes_recursive)
    }),
    many("blkio_io_service_time_recursive_total", |m, emit| block(m, emit, |b| &b.io_service_time_recursive)),
    many("blkio_io_serviced_recursive_total", |m, emit| block(m, emit, |b| &b.io_serviced_recursive)),
    many("blkio_io_time_recursive_total", |m, emit| block(m, emit, |b| &b.io_time_recursive)),
    many("blkio_sectors_recursive_total", |m, emit| block(m, emit, |b| &b.sectors_recursive)),
];

const fn many(name: &'static str, numbers: fn(&Metrics, Emit<'_>)) -> Family<Metrics> {
    Family { name, numbers: Numbers::Many(numbers) }
}

fn pids(m: &Metrics) -> Option<&api::cgroups::v1::PidsStat> {
    m.pids.as_ref()
}

fn usage(m: &Metrics) -> Option<&CpuUsage> {
    m.cpu.as_ref()?.usage.as_ref()
}

fn throttling(m: &Metrics) -> Option<&Throttle> {
    m.cpu.as_ref()?.throttling.as_ref()
}

fn memory(m: &Metrics) -> Option<&MemoryStat> {
    m.memory.as_ref()
}

fn used(m: &Metrics) -> Option<&MemoryEntry> {
    memory(m)?.usage.as_ref()
}

fn swap(m: &Metrics) -> Option<&MemoryEntry> {
    memory(m)?.swap.as_ref()
}

fn kernel(m: &Metrics) -> Option<&MemoryEntry> {
    memory(m)?.kernel.as_ref()
}

fn tcp(m: &Metrics) -> Option<&MemoryEntry> {
    memory(m)?.kernel_tcp.as_ref()
}

fn block(m: &Metrics, emit: Emit<'_>, entries: fn(&BlkIoStat) -> &Vec<BlkIoEntry>) {
    for entry in m.blkio.iter().flat_map(entries) {
        let (major, minor) = (entry.major.to_string(), entry.minor.to_string());
        let labels = [("op", &*entry.op), ("device", &*entry.device), ("major", &*major), ("minor", &*minor)];
        emit(&labels, entry.value);
    }
}
