//! What a container's spec allows it.

use serde_json::Value;

use super::Metrics;

/// Adds limits that are set.
pub fn add(metrics: &mut Metrics, spec: &Value) {
    let resources = &spec["linux"]["resources"];
    for (name, value) in [
        ("container_spec_cpu_period", &resources["cpu"]["period"]),
        ("container_spec_cpu_shares", &resources["cpu"]["shares"]),
        ("container_spec_memory_limit_bytes", &resources["memory"]["limit"]),
        ("container_spec_memory_reservation_limit_bytes", &resources["memory"]["reservation"]),
        ("container_spec_memory_swap_limit_bytes", &resources["memory"]["swap"]),
    ] {
        // Less than nothing is no limit: a very large number, as Go makes of it.
        let value = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
        value.iter().for_each(|value| metrics.add(name, *value));
    }
    for limit in spec["process"]["rlimits"].as_array().into_iter().flatten() {
        if let (Some(kind), Some(soft)) = (limit["type"].as_str(), limit["soft"].as_u64()) {
            metrics.add_with("container_ulimits_soft", &[kind], soft);
        }
    }
}
