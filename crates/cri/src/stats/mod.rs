//! What pods and containers use, measured when somebody asks: nothing runs between two requests.
//!
//! ```text
//!  cgroup      files of a group, v1 and v2         network    the interfaces of a pod
//!  rate        cores, from two measurements        layer      what a container has written      recent   what both remember
//!  container   ContainerStats                      pod        PodSandboxStats
//!  descriptors, metrics   the same for Prometheus, by cAdvisor's names
//! ```
//!
//! Files are read on the blocking pool, a bounded number for each container. A shim is never asked.

pub mod cgroup;
pub mod container;
pub mod descriptors;
mod layer;
pub mod metrics;
mod network;
pub mod pod;
mod rate;
mod recent;

use api::cri::UInt64Value;

pub use layer::Layers;
pub use rate::Rates;

/// What is remembered from one request to the next; forgotten if nobody asks for a while.
#[derive(Debug, Default)]
pub struct Stats {
    /// Of containers and pods.
    pub rates: Rates,
    /// Of containers.
    pub layers: Layers,
}

/// A number as the CRI has it.
fn number(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}
