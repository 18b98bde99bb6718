//! Protobuf messages of containerd's API, ttrpc framing, and the one conversion between wire and nouns.
//!
//! The texts below `proto/` carry upstream's names, numbers and types, which are wire facts. No tonic and no tokio
//! here: the shim links this crate.

#![forbid(unsafe_code)]

mod proto {
    #![allow(missing_docs, clippy::all, unused_qualifications, reason = "generated from proto/")]
    include!(concat!(env!("OUT_DIR"), "/api.rs"));
}

pub mod any;
pub mod convert;
pub mod encode;
pub mod journal;
pub mod json;
pub mod status;
pub mod ttrpc;

/// Well-known types, for crates that build messages.
pub use prost_types::{Any as ProtoAny, FieldMask, Timestamp};
pub use proto::io::containerd::cgroups;
pub use proto::nri::pkg::api::v1alpha1 as nri;
pub use proto::runtime::v1 as cri;
pub use proto::{containerd, containerdrs, google, runtimeoptions};
