//! The figures of a cgroup as JSON, as Go's encoder shows those messages: fields in the order of their numbers, without
//! what is empty.

use api::cgroups::{v1, v2};
use serde_json::{Map, Value, json};

/// What can be shown.
pub trait Shown {
    /// As JSON.
    fn value(&self) -> Value;

    /// Whether it is left out. A message that is there is shown, even if all of it is empty.
    fn is_empty(&self) -> bool {
        false
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {
        $(impl Shown for $number {
            fn value(&self) -> Value {
                json!(self)
            }

            fn is_empty(&self) -> bool {
                *self == <$number>::default()
            }
        })*
    };
}

numbers! { u32 u64 f64 String }

impl<T: Shown> Shown for Option<T> {
    fn value(&self) -> Value {
        self.as_ref().map_or(Value::Null, Shown::value)
    }

    fn is_empty(&self) -> bool {
        self.is_none()
    }
}

impl<T: Shown> Shown for Vec<T> {
    fn value(&self) -> Value {
        self.iter().map(Shown::value).collect()
    }

    fn is_empty(&self) -> bool {
        Self::is_empty(self)
    }
}

macro_rules! messages {
    ($($message:ty: $($field:ident)*;)*) => {
        $(impl Shown for $message {
            fn value(&self) -> Value {
                let mut object = Map::new();
                $(if !Shown::is_empty(&self.$field) {
                    object.insert(stringify!($field).to_owned(), self.$field.value());
                })*
                Value::Object(object)
            }
        })*
    };
}

messages! {
    v1::Metrics: hugetlb pids cpu memory blkio rdma network cgroup_stats memory_oom_control;
    v1::HugetlbStat: usage max failcnt pagesize;
    v1::PidsStat: current limit;
    v1::CpuStat: usage throttling;
    v1::CpuUsage: total kernel user per_cpu;
    v1::Throttle: periods throttled_periods throttled_time;
    v1::MemoryStat: cache rss rss_huge mapped_file dirty writeback pg_pg_in pg_pg_out pg_fault pg_maj_fault
        inactive_anon active_anon inactive_file active_file unevictable hierarchical_memory_limit
        hierarchical_swap_limit total_cache total_rss total_rss_huge total_mapped_file total_dirty total_writeback
        total_pg_pg_in total_pg_pg_out total_pg_fault total_pg_maj_fault total_inactive_anon total_active_anon
        total_inactive_file total_active_file total_unevictable usage swap kernel kernel_tcp;
    v1::MemoryEntry: limit usage max failcnt;
    v1::MemoryOomControl: oom_kill_disable under_oom oom_kill;
    v1::BlkIoStat: io_service_bytes_recursive io_serviced_recursive io_queued_recursive io_service_time_recursive
        io_wait_time_recursive io_merged_recursive io_time_recursive sectors_recursive;
    v1::BlkIoEntry: op device major minor value;
    v1::RdmaStat: current limit;
    v1::RdmaEntry: device hca_handles hca_objects;
    v1::NetworkStat: name rx_bytes rx_packets rx_errors rx_dropped tx_bytes tx_packets tx_errors tx_dropped;
    v1::CgroupStats: nr_sleeping nr_running nr_stopped nr_uninterruptible nr_io_wait;

    v2::Metrics: pids cpu memory rdma io hugetlb memory_events network;
    v2::PsiData: avg10 avg60 avg300 total;
    v2::PsiStats: some full;
    v2::PidsStat: current limit;
    v2::CpuStat: usage_usec user_usec system_usec nr_periods nr_throttled throttled_usec psi nr_bursts burst_usec;
    v2::MemoryStat: anon file kernel_stack slab sock shmem file_mapped file_dirty file_writeback anon_thp
        inactive_anon active_anon inactive_file active_file unevictable slab_reclaimable slab_unreclaimable pgfault
        pgmajfault workingset_refault workingset_activate workingset_nodereclaim pgrefill pgscan pgsteal pgactivate
        pgdeactivate pglazyfree pglazyfreed thp_fault_alloc thp_collapse_alloc usage usage_limit swap_usage
        swap_limit max_usage swap_max_usage psi;
    v2::MemoryEvents: low high max oom oom_kill oom_group_kill;
    v2::RdmaStat: current limit;
    v2::RdmaEntry: device hca_handles hca_objects;
    v2::IoStat: usage psi;
    v2::IoEntry: major minor rbytes wbytes rios wios;
    v2::HugeTlbStat: current max pagesize failcnt;
    v2::NetworkStat: name rx_bytes rx_packets rx_errors rx_dropped tx_bytes tx_packets tx_errors tx_dropped;
}
