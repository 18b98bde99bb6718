//! Limits, as the kubelet says them and as plugins do.

use ::nri::wire::{HugepageLimit, LinuxCpu, LinuxMemory, LinuxResources, OptionalInt64, OptionalUInt64};
use api::cri::LinuxContainerResources;

/// For plugins.
pub fn from_cri(asked: &LinuxContainerResources) -> LinuxResources {
    let unsigned = |value: i64| Some(OptionalUInt64 { value: value.cast_unsigned() });
    LinuxResources {
        cpu: Some(LinuxCpu {
            shares: unsigned(asked.cpu_shares),
            quota: Some(OptionalInt64 { value: asked.cpu_quota }),
            period: unsigned(asked.cpu_period),
            cpus: asked.cpuset_cpus.clone(),
            mems: asked.cpuset_mems.clone(),
            ..LinuxCpu::default()
        }),
        memory: Some(LinuxMemory {
            limit: Some(OptionalInt64 { value: asked.memory_limit_in_bytes }),
            ..LinuxMemory::default()
        }),
        hugepage_limits: asked
            .hugepage_limits
            .iter()
            .map(|limit| HugepageLimit { page_size: limit.page_size.clone(), limit: limit.limit })
            .collect(),
        unified: asked.unified.clone(),
        ..LinuxResources::default()
    }
}

/// From plugins. What the kubelet has no word for is lost, as upstream.
pub fn to_cri(wanted: &LinuxResources) -> LinuxContainerResources {
    let signed = |value: Option<OptionalUInt64>| value.map_or(0, |value| value.value.cast_signed());
    let cpu = wanted.cpu.clone().unwrap_or_default();
    let memory = wanted.memory.unwrap_or_default();
    LinuxContainerResources {
        cpu_shares: signed(cpu.shares),
        cpu_quota: cpu.quota.map_or(0, |quota| quota.value),
        cpu_period: signed(cpu.period),
        cpuset_cpus: cpu.cpus,
        cpuset_mems: cpu.mems,
        memory_limit_in_bytes: memory.limit.map_or(0, |limit| limit.value),
        hugepage_limits: wanted
            .hugepage_limits
            .iter()
            .map(|limit| api::cri::HugepageLimit { page_size: limit.page_size.clone(), limit: limit.limit })
            .collect(),
        unified: wanted.unified.clone(),
        ..LinuxContainerResources::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_come_back_as_they_were() {
        let asked = LinuxContainerResources {
            cpu_shares: 1,
            cpu_quota: -2,
            cpu_period: 3,
            cpuset_cpus: "0".to_owned(),
            memory_limit_in_bytes: 4,
            hugepage_limits: vec![api::cri::HugepageLimit { page_size: "2MB".to_owned(), limit: 5 }],
            unified: [("a.b".to_owned(), "6".to_owned())].into(),
            ..LinuxContainerResources::default()
        };
        assert_eq!(to_cri(&from_cri(&asked)), asked);
    }
}
