//! The families of a container on cgroup v2, from what its shim measured.

use api::cgroups::v2::{CpuStat, IoEntry, MemoryEvents, MemoryStat, Metrics, PidsStat};

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
    "cpu_usage_usec_microseconds" cpu |c| c.usage_usec;
    "cpu_user_usec_microseconds" cpu |c| c.user_usec;
    "cpu_system_usec_microseconds" cpu |c| c.system_usec;
    "cpu_nr_periods_total" cpu |c| c.nr_periods;
    "cpu_nr_throttled_total" cpu |c| c.nr_throttled;
    "cpu_throttled_usec_microseconds" cpu |c| c.throttled_usec;
    "memory_usage_bytes" memory |m| m.usage;
    "memory_usage_limit_bytes" memory |m| m.usage_limit;
    "memory_swap_usage_bytes" memory |m| m.swap_usage;
    "memory_swap_limit_bytes" memory |m| m.swap_limit;
    "memory_file_mapped_bytes" memory |m| m.file_mapped;
    "memory_file_dirty_bytes" memory |m| m.file_dirty;
    "memory_file_writeback_bytes" memory |m| m.file_writeback;
    "memory_pgactivate_bytes" memory |m| m.pgactivate;
    "memory_pgdeactivate_bytes" memory |m| m.pgdeactivate;
    "memory_pgfault_bytes" memory |m| m.pgfault;
    "memory_pgmajfault_bytes" memory |m| m.pgmajfault;
    "memory_pglazyfree_bytes" memory |m| m.pglazyfree;
    "memory_pgrefill_bytes" memory |m| m.pgrefill;
    "memory_pglazyfreed_bytes" memory |m| m.pglazyfreed;
    "memory_pgscan_bytes" memory |m| m.pgscan;
    "memory_pgsteal_bytes" memory |m| m.pgsteal;
    "memory_inactive_anon_bytes" memory |m| m.inactive_anon;
    "memory_active_anon_bytes" memory |m| m.active_anon;
    "memory_inactive_file_bytes" memory |m| m.inactive_file;
    "memory_active_file_bytes" memory |m| m.active_file;
    "memory_unevictable_bytes" memory |m| m.unevictable;
    "memory_anon_bytes" memory |m| m.anon;
    "memory_file_bytes" memory |m| m.file;
    "memory_kernel_stack_bytes" memory |m| m.kernel_stack;
    "memory_slab_bytes" memory |m| m.slab;
    "memory_sock_bytes" memory |m| m.sock;
    "memory_shmem_bytes" memory |m| m.shmem;
    "memory_anon_thp_bytes" memory |m| m.anon_thp;
    "memory_slab_reclaimable_bytes" memory |m| m.slab_reclaimable;
    "memory_slab_unreclaimable_bytes" memory |m| m.slab_unreclaimable;
    "memory_workingset_refault_bytes" memory |m| m.workingset_refault;
    "memory_workingset_activate_bytes" memory |m| m.workingset_activate;
    "memory_workingset_nodereclaim_bytes" memory |m| m.workingset_nodereclaim;
    "memory_thp_fault_alloc_bytes" memory |m| m.thp_fault_alloc;
    "memory_thp_collapse_alloc_bytes" memory |m| m.thp_collapse_alloc;
    "memory_oom_total" events |e| e.oom;
};

/// Those that are one number a device.
pub const MANY: &[Family<Metrics>] = &[
    many("io_rbytes_bytes", |m, emit| devices(m, emit, |e| e.rbytes)),
    many("io_wbytes_bytes", |m, emit| devices(m, emit, |e| e.wbytes)),
    many("io_rios_total", |m, emit| devices(m, emit, |e| e.rios)),
    many("io_wios_total", |m, emit| devices(m, emit, |e| e.wios)),
];

const fn many(name: &'static str, numbers: fn(&Metrics, Emit<'_>)) -> Family<Metrics> {
    Family { name, numbers: Numbers::Many(numbers) }
}

fn pids(m: &Metrics) -> Option<&PidsStat> {
    m.pids.as_ref()
}

fn cpu(m: &Metrics) -> Option<&CpuStat> {
    m.cpu.as_ref()
}

fn memory(m: &Metrics) -> Option<&MemoryStat> {
    m.memory.as_ref()
}

fn events(m: &Metrics) -> Option<&MemoryEvents> {
    m.memory_events.as_ref()
}

fn devices(m: &Metrics, emit: Emit<'_>, value: fn(&IoEntry) -> u64) {
    for entry in m.io.iter().flat_map(|io| &io.usage) {
        emit(&[("major", &entry.major.to_string()), ("minor", &entry.minor.to_string())], value(entry));
    }
}
