//! The metrics of ListPodSandboxMetrics: cAdvisor's names, and what their labels are called.

use api::cri::{MetricDescriptor, MetricType};

/// Which labels a metric has beside those that all have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// None.
    Base,
    /// A block device, or `/`.
    Device,
    /// An interface.
    Interface,
    /// The kind of failure, and whose.
    Failure,
    /// A device, its numbers, and what was done.
    Operation,
    /// A limit.
    Ulimit,
}

/// Labels that all have.
const BASE: [&str; 5] = ["pod", "namespace", "container", "id", "image"];

impl Labels {
    fn more(self) -> &'static [&'static str] {
        match self {
            Self::Base => &[],
            Self::Device => &["device"],
            Self::Interface => &["interface"],
            Self::Failure => &["failure_type", "scope"],
            Self::Operation => &["device", "major", "minor", "operation"],
            Self::Ulimit => &["ulimit"],
        }
    }
}

/// Name, labels, and what it says.
pub const ALL: &[(&str, Labels, &str)] = &[
    ("container_cpu_user_seconds_total", Labels::Base, "Time that programs have used, in seconds."),
    (
        "container_cpu_system_seconds_total",
        Labels::Base,
        "Time that the kernel has used for them, in seconds.",
    ),
    ("container_cpu_usage_seconds_total", Labels::Base, "Time of processors used, in seconds."),
    ("container_cpu_cfs_periods_total", Labels::Base, "Periods of the quota in which it could run."),
    ("container_cpu_cfs_throttled_periods_total", Labels::Base, "Periods in which its quota was used up."),
    (
        "container_cpu_cfs_throttled_seconds_total",
        Labels::Base,
        "How long it waited for its next quota, in seconds.",
    ),
    ("container_memory_cache", Labels::Base, "Pages of files, in bytes."),
    ("container_memory_rss", Labels::Base, "Pages of programs, in bytes."),
    ("container_memory_kernel_usage", Labels::Base, "Memory of the kernel for it, in bytes."),
    ("container_memory_mapped_file", Labels::Base, "Files that are mapped, in bytes."),
    ("container_memory_swap", Labels::Base, "Swap used, in bytes."),
    ("container_memory_failcnt", Labels::Base, "How often its limit was hit; cgroup v1 only."),
    ("container_memory_usage_bytes", Labels::Base, "All memory, whenever it was used, in bytes."),
    ("container_memory_max_usage_bytes", Labels::Base, "The most memory that it had, in bytes."),
    (
        "container_memory_working_set_bytes",
        Labels::Base,
        "Memory without pages of files that are not in use, in bytes.",
    ),
    ("container_memory_total_active_file_bytes", Labels::Base, "Pages of files in use, in bytes."),
    ("container_memory_total_inactive_file_bytes", Labels::Base, "Pages of files not in use, in bytes."),
    ("container_memory_failures_total", Labels::Failure, "Page faults."),
    ("container_oom_events_total", Labels::Base, "Processes that were killed for lack of memory."),
    ("container_network_receive_bytes_total", Labels::Interface, "Bytes received."),
    ("container_network_receive_packets_total", Labels::Interface, "Packets received."),
    (
        "container_network_receive_packets_dropped_total",
        Labels::Interface,
        "Packets received for which there was no room.",
    ),
    ("container_network_receive_errors_total", Labels::Interface, "Packets received that were damaged."),
    ("container_network_transmit_bytes_total", Labels::Interface, "Bytes sent."),
    ("container_network_transmit_packets_total", Labels::Interface, "Packets sent."),
    (
        "container_network_transmit_packets_dropped_total",
        Labels::Interface,
        "Packets to send for which there was no room.",
    ),
    ("container_network_transmit_errors_total", Labels::Interface, "Packets that could not be sent."),
    ("container_fs_inodes_free", Labels::Device, "Inodes that are free on its filesystem."),
    ("container_fs_inodes_total", Labels::Device, "Inodes of its filesystem."),
    ("container_fs_limit_bytes", Labels::Device, "Bytes of its filesystem."),
    ("container_fs_usage_bytes", Labels::Device, "Bytes that it has written to its filesystem."),
    ("container_fs_reads_bytes_total", Labels::Device, "Bytes read."),
    ("container_fs_reads_total", Labels::Device, "Requests to read."),
    ("container_fs_writes_bytes_total", Labels::Device, "Bytes written."),
    ("container_fs_writes_total", Labels::Device, "Requests to write."),
    (
        "container_blkio_device_usage_total",
        Labels::Operation,
        "Bytes of block devices, by what was done; cgroup v1 only.",
    ),
    ("container_processes", Labels::Base, "Processes and threads."),
    ("container_file_descriptors", Labels::Base, "Open files."),
    ("container_sockets", Labels::Base, "Open sockets."),
    ("container_threads_max", Labels::Base, "Processes and threads that there may be; 0 for any number."),
    ("container_threads", Labels::Base, "Threads."),
    ("container_ulimits_soft", Labels::Ulimit, "Soft limits of its first process."),
    ("container_last_seen", Labels::Base, "When it was measured, in seconds since 1970."),
    ("container_start_time_seconds", Labels::Base, "When it was started, in seconds since 1970."),
    ("container_spec_cpu_period", Labels::Base, "The period of its quota, in microseconds."),
    ("container_spec_cpu_shares", Labels::Base, "Its share of processors."),
    ("container_spec_memory_limit_bytes", Labels::Base, "The most memory that it may have, in bytes."),
    (
        "container_spec_memory_reservation_limit_bytes",
        Labels::Base,
        "The memory that it is to have, in bytes.",
    ),
    (
        "container_spec_memory_swap_limit_bytes",
        Labels::Base,
        "The most memory and swap that it may have, in bytes.",
    ),
];

/// All of them, as the CRI tells them.
pub fn list() -> Vec<MetricDescriptor> {
    let owned = |label: &&str| (*label).to_owned();
    let descriptor = |(name, labels, help): &(&str, Labels, &str)| MetricDescriptor {
        name: (*name).to_owned(),
        help: (*help).to_owned(),
        label_keys: BASE.iter().map(owned).chain(labels.more().iter().map(owned)).collect(),
    };
    ALL.iter().map(descriptor).collect()
}

/// What only grows is a counter.
pub fn kind(name: &str) -> MetricType {
    let counts =
        name.ends_with("_total") && name != "container_fs_inodes_total" || name.ends_with("_failcnt");
    if counts { MetricType::Counter } else { MetricType::Gauge }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_described_once() {
        let all = list();
        assert_eq!(all.len(), 49);
        for (at, descriptor) in all.iter().enumerate() {
            assert!(descriptor.name.starts_with("container_") && !descriptor.help.is_empty());
            assert_eq!(descriptor.label_keys[..5], BASE);
            assert!(all[at + 1..].iter().all(|other| other.name != descriptor.name), "{}", descriptor.name);
        }
        assert_eq!(kind("container_fs_inodes_total"), MetricType::Gauge);
        assert_eq!(kind("container_memory_failcnt"), MetricType::Counter);
    }
}
