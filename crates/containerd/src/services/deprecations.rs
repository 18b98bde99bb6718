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
}

impl Deprecation {
    fn id(self) -> &'static str {
        match self {
            Self::CgroupV1 => "io.containerd.deprecation/cgroup-v1",
            Self::RuncTaskApiAddress => "io.containerd.deprecation/runc-options-task-api-address",
            Self::RuncTaskApiVersion => "io.containerd.deprecation/runc-options-task-api-version",
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
