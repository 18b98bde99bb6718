//! RuntimeConfig: who keeps the cgroups of pods.

use std::path::Path;

use api::cri::{CgroupDriver, LinuxRuntimeConfiguration, RuntimeConfigRequest, RuntimeConfigResponse};
use types::Result;

use crate::config::Runtime;
use crate::cri::Cri;
use crate::pod::systemd_cgroup;

/// Answers the call.
pub async fn run(cri: &Cri, _request: RuntimeConfigRequest) -> Result<RuntimeConfigResponse> {
    // As sd_booted(3).
    let systemd = Path::new("/run/systemd/system").is_dir();
    let driver = driver(&cri.config.runtime, systemd);
    Ok(RuntimeConfigResponse { linux: Some(LinuxRuntimeConfiguration { cgroup_driver: driver.into() }) })
}

/// What the first handler says that says anything, the default one before the others; else what the machine runs.
fn driver(runtime: &Runtime, systemd: bool) -> CgroupDriver {
    let first = runtime.runtimes.get(&runtime.default_runtime);
    let said = first.into_iter().chain(runtime.runtimes.values()).find_map(systemd_cgroup);
    if said.unwrap_or(systemd) { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::Handler;

    #[test]
    fn the_default_handler_is_asked_first_and_the_machine_last() {
        let handler = |options: Value| Handler { options, ..Handler::default() };
        let mut runtime = Runtime::default();
        assert_eq!(driver(&runtime, true), CgroupDriver::Cgroupfs);
        runtime.runtimes.insert("runc".to_owned(), Handler::default());
        assert_eq!(driver(&runtime, true), CgroupDriver::Systemd);
        assert_eq!(driver(&runtime, false), CgroupDriver::Cgroupfs);
        runtime.runtimes.insert("a".to_owned(), handler(json!({ "SystemdCgroup": true })));
        assert_eq!(driver(&runtime, false), CgroupDriver::Systemd);
        runtime.runtimes.insert("runc".to_owned(), handler(json!({ "SystemdCgroup": false })));
        assert_eq!(driver(&runtime, true), CgroupDriver::Cgroupfs);
        let other = Handler { runtime_type: "io.containerd.kata.v2".into(), ..handler(json!({ "x": 1 })) };
        runtime.runtimes.insert("runc".to_owned(), other);
        assert_eq!(driver(&runtime, false), CgroupDriver::Systemd);
    }
}
