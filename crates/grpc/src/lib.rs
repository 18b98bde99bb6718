//! tonic servers and clients over `api`'s messages: `grpc::containers::containers_server`, and so on.

#![forbid(unsafe_code)]

mod proto {
    #![allow(missing_docs, clippy::all, unused_qualifications, reason = "generated from api/proto")]
    include!(concat!(env!("OUT_DIR"), "/grpc.rs"));
}

/// Servers whose lists come encoded.
pub mod lists {
    #![allow(missing_docs, clippy::all, unused_qualifications, reason = "generated from api/proto")]

    mod proto {
        include!(concat!(env!("OUT_DIR"), "/lists/lists.rs"));
    }

    pub use proto::containerd::services::containers::v1::containers_server;
    pub use proto::containerd::services::images::v1::images_server;
    pub use proto::containerd::services::snapshots::v1::snapshots_server;
}

pub use proto::containerd::services::containers::v1 as containers;
pub use proto::containerd::services::content::v1 as content;
pub use proto::containerd::services::diff::v1 as diff;
pub use proto::containerd::services::events::v1 as events;
pub use proto::containerd::services::images::v1 as images;
pub use proto::containerd::services::introspection::v1 as introspection;
pub use proto::containerd::services::leases::v1 as leases;
pub use proto::containerd::services::mounts::v1 as mounts;
pub use proto::containerd::services::namespaces::v1 as namespaces;
pub use proto::containerd::services::sandbox::v1 as sandbox;
pub use proto::containerd::services::snapshots::v1 as snapshots;
pub use proto::containerd::services::streaming::v1 as streaming;
pub use proto::containerd::services::tasks::v1 as tasks;
pub use proto::containerd::services::transfer::v1 as transfer;
pub use proto::containerd::services::version::v1 as version;
pub use proto::containerdrs::services::diagnosis::v1 as diagnosis;
pub use proto::runtime::v1 as cri;
