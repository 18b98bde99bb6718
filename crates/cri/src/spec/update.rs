//! Other limits for a container that is there: in its spec, and for its task if it has one.

use api::cri::LinuxContainerResources;
use serde_json::Value;
use types::{Any, Error, Result};

use super::machine::Machine;
use super::{base, resources as limits};
use crate::config::Runtime;

/// What `tasks.update` takes.
const TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// Limits that are to hold.
#[derive(Clone, Debug)]
pub struct Updated {
    /// The whole spec.
    pub spec: Value,
    /// The limits alone, for the task.
    pub resources: Any,
}

/// `spec` with the limits of a request; what the request says nothing about stays.
pub fn resources(
    spec: &Value,
    asked: &LinuxContainerResources,
    settings: &Runtime,
    machine: &Machine,
) -> Result<Updated> {
    let mut document = base::from_value(spec.clone())?;
    limits::set(&mut document.linux.resources, asked, settings, machine)?;
    let json = serde_json::to_vec(&document.linux.resources)
        .map_err(|e| Error::internal(format!("encode the limits of a container: {e}")))?;
    Ok(Updated { spec: base::to_value(&document)?, resources: Any::new(TYPE, json) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_that_are_not_named_stay_and_so_does_the_rest() {
        let spec = json!({
            "process": { "user": { "uid": 0, "gid": 0 }, "cwd": "/", "oomScoreAdj": 7 },
            "vm": { "a": 1 },
            "linux": { "resources": {
                "cpu": { "shares": 2, "quota": 5, "idle": 1 }, "memory": { "limit": 9, "swap": 9, "reservation": 3 },
                "pids": { "limit": 4 }, "unified": { "memory.high": "1" },
            } },
        });
        let asked = LinuxContainerResources {
            cpu_quota: -1,
            memory_limit_in_bytes: 20,
            oom_score_adj: 500,
            unified: [("memory.min".to_owned(), "0".to_owned())].into(),
            ..LinuxContainerResources::default()
        };
        let machine = Machine { swap: true, ..Machine::default() };
        let updated = resources(&spec, &asked, &Runtime::default(), &machine).unwrap();
        let limits: Value = serde_json::from_slice(&updated.resources.value).unwrap();
        assert_eq!(updated.spec["linux"]["resources"], limits);
        assert_eq!(limits["cpu"], json!({ "shares": 2, "quota": -1, "idle": 1 }));
        assert_eq!(limits["memory"], json!({ "limit": 20, "swap": 20, "reservation": 3 }));
        assert_eq!((&limits["pids"]["limit"], limits["unified"].as_object().unwrap().len()), (&json!(4), 2));
        assert_eq!(
            (&updated.spec["vm"]["a"], &updated.spec["process"]["oomScoreAdj"]),
            (&json!(1), &json!(7))
        );
    }

    #[test]
    fn limits_that_are_none_are_refused_by_name() {
        let refused = |asked: LinuxContainerResources| {
            let refused = resources(&json!({}), &asked, &Runtime::default(), &Machine::default());
            refused.unwrap_err().to_string()
        };
        let with = LinuxContainerResources::default;
        let unified = |file: &str| [(file.to_owned(), "1".to_owned())].into();
        for (asked, field) in [
            (LinuxContainerResources { cpu_shares: -1, ..with() }, "cpu_shares"),
            (LinuxContainerResources { cpu_period: -1, ..with() }, "cpu_period"),
            (LinuxContainerResources { cpuset_cpus: "0\n".to_owned(), ..with() }, "cpuset_cpus"),
            (LinuxContainerResources { cpuset_mems: "a".to_owned(), ..with() }, "cpuset_mems"),
            (LinuxContainerResources { unified: unified("../x.y"), ..with() }, "unified"),
            (LinuxContainerResources { unified: unified("procs"), ..with() }, "unified"),
        ] {
            assert!(refused(asked).starts_with(&format!("resources: {field}")), "{field}");
        }
    }
}
