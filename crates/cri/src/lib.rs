//! Kubernetes' front door: the runtime interface (CRI v1) of a kubelet, over the same house as the gRPC services.
//!
//! ```text
//!  service      tonic's side: which call is detached, which ends with its caller
//!  runtime/     one file for each call of RuntimeService      image/      one for each call of ImageService
//!  pod          pods: record, state, store                    container   containers: record, status file, store
//!  sandboxer    who makes sandboxes: podsandbox, shimsandbox, or proxysandbox
//!  podsandbox   the container that holds a pod's namespaces   spec        from a request to an OCI spec
//!  network      network namespaces and CNI                    streaming   exec, attach and port forwarding
//!  stats        usage                                         recover     after a start of the daemon
//!  nri          plugins that follow and adjust pods and containers
//!  names        reserved names      index   short ids         events      what kubelets subscribe to
//!  tls          connections that may be encrypted
//!  controller   sandboxes of pods, for clients of containerd's own API
//! ```
//!
//! What pods and containers are is in records of the database and in status files; the stores here are rebuilt from those and
//! from the shims (`recover`). Everything of the CRI is in containerd's namespace `k8s.io`.

#![forbid(unsafe_code)]

pub mod config;
mod container;
mod controller;
mod cri;
mod events;
mod image;
mod index;
mod names;
mod network;
mod nri;
mod pod;
mod podsandbox;
mod proxysandbox;
mod record;
mod recover;
mod refusal;
mod runtime;
mod sandboxer;
mod service;
mod shimsandbox;
mod spec;
mod stats;
mod streaming;
mod timers;
pub mod tls;

pub(crate) use cri::blocking;
/// Parsers of what clients of the streaming server send, for fuzz targets.
#[doc(hidden)]
pub mod foreign {
    pub use crate::streaming::{spdy, websocket};
}

pub use cri::{Change, Collect, Cri, Deprecations, Doors, Parts, Pull, SnapshotterRoot, Spawn};
pub use image::{Auth, Image, Login, PullRequest, Puller};
pub use timers::{Observe, Observed};
