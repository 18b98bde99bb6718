//! What was used although it goes away, and when last; Introspection.Server tells it.
//!
//! Ids and deadlines are upstream's, as tools act on them. Nothing is kept across a restart.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Something that goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deprecation {
    /// The host has cgroup v1.
    CgroupV1,
    /// `task_api_address` in runc's options.
    RuncTaskApiAddress,
    /// `task_api_version` in runc's options.
    RuncTaskApiVersion,
    /// `registry.mirrors` of the CRI.
    CriRegistryMirrors,
    /// `registry.auths` of the CRI.
    CriRegistryAuths,
    /// `registry.configs` of the CRI.
    CriRegistryConfigs,
    /// `cni.bin_dir` of the CRI.
    CriCniBinDir,
    /// `enable_cdi = false` of the CRI.
    CriEnableCdi,
}

impl Deprecation {
    fn id(self) -> &'static str {
        match self {
            Self::CgroupV1 => "io.containerd.deprecation/cgroup-v1",
            Self::RuncTaskApiAddress => "io.containerd.deprecation/runc-options-task-api-address",
            Self::RuncTaskApiVersion => "io.containerd.deprecation/runc-options-task-api-version",
            Self::CriRegistryMirrors => "io.containerd.deprecation/cri-registry-mirrors",
            Self::CriRegistryAuths => "io.containerd.deprecation/cri-registry-auths",
            Self::CriRegistryConfigs => "io.containerd.deprecation/cri-registry-configs",
            Self::CriCniBinDir => "io.containerd.deprecation/cri-cni-bin-dir",
            Self::CriEnableCdi => "io.containerd.deprecation/enable-cdi",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::CgroupV1 => {
                "The support for cgroup v1 is deprecated since containerd v2.2 and will be removed by no later than May \
                 2029. Upgrade the host to use cgroup v2."
            }
            Self::RuncTaskApiAddress => {
                "The `task_api_address` field in runc options is deprecated since containerd v2.3. Set \
                 `task_api_address` on CreateTaskRequest instead."
            }
            Self::RuncTaskApiVersion => {
                "The `task_api_version` field in runc options is deprecated since containerd v2.3. Set \
                 `task_api_version` on CreateTaskRequest instead."
            }
            Self::CriRegistryMirrors => {
                "The `mirrors` property of `[plugins.\"io.containerd.grpc.v1.cri\".registry]` is deprecated since containerd \
                 v1.5 and will be removed in containerd v2.4. Use `config_path` instead."
            }
            Self::CriRegistryAuths => {
                "The `auths` property of `[plugins.\"io.containerd.grpc.v1.cri\".registry]` is deprecated since containerd \
                 v1.3 and will be removed in containerd v2.4. Use `ImagePullSecrets` instead."
            }
            Self::CriRegistryConfigs => {
                "The `configs` property of `[plugins.\"io.containerd.grpc.v1.cri\".registry]` is deprecated since containerd \
                 v1.5 and will be removed in containerd v2.4. Use `config_path` instead."
            }
            Self::CriCniBinDir => {
                "The `bin_dir` property of `[plugins.\"io.containerd.cri.v1.runtime\".cni`] is deprecated since containerd \
                 v2.1 and will be removed in containerd v2.4. Use `bin_dirs` in the same section instead."
            }
            Self::CriEnableCdi => {
                "The `enable_cdi` property of `[plugins.\"io.containerd.cri.v1.runtime\"]` is deprecated, will be removed in \
                 containerd v2.3, and CDI support will always be enabled."
            }
        }
    }
}

/// The deprecations that were met. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Deprecations(Arc<Mutex<BTreeMap<Deprecation, SystemTime>>>);

impl Deprecations {
    /// Those of the host itself.
    pub fn of_host() -> Self {
        let met = Self::default();
        if sys::cgroup::mode() == sys::cgroup::Mode::Legacy {
            met.emit(Deprecation::CgroupV1);
        }
        met
    }

    /// It was used, now.
    pub fn emit(&self, deprecation: Deprecation) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(deprecation, SystemTime::now());
    }

    /// What was used: id, message, time of the last use.
    pub fn used(&self) -> Vec<(&'static str, &'static str, SystemTime)> {
        let met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        met.iter().map(|(deprecation, last)| (deprecation.id(), deprecation.message(), *last)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deprecation_is_told_once_with_its_last_use() {
        let met = Deprecations::default();
        met.emit(Deprecation::RuncTaskApiVersion);
        let first = met.used()[0].2;
        met.emit(Deprecation::RuncTaskApiVersion);
        let used = met.used();
        assert_eq!(used.len(), 1);
        assert_eq!(used[0].0, "io.containerd.deprecation/runc-options-task-api-version");
        assert!(used[0].2 >= first);
    }
}
