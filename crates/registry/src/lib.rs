//! The registry client: resolve, fetch, push, hosts, auth (OCI distribution 1.1 and docker's image manifest v2, schema 2).
//!
//! It turns a [`Reference`](types::reference::Reference) into descriptors and bytes, and knows no database: the daemon, `ctr`
//! and tests use it alike. A pull goes: [`Registry::resolve`] gives the descriptor behind the name,
//! [`Registry::fetcher`] opens what it points to, [`Body::chunk`] gives the bytes as they arrive. A push goes:
//! [`Registry::pusher`], then [`Pusher::blob`] for each blob and [`Pusher::manifest`] last.
//!
//! Always holds: whatever a registry, a token server or a redirect's target says is hostile. It is bounded in size, time and
//! number; credentials, our headers and our client certificate go to the configured host (and the token server it names) and
//! to nobody else; bytes are believed when their digest is right, which is for the caller to check
//! but in [`Fetcher::fetch_all`]. Every call may be dropped half-way.
//!
//! ```text
//!   Registry ── hosts ───── hosts.toml, docker's certificates: which hosts, in what order, with what TLS
//!      │
//!   Fetcher, Pusher ─ endpoint ── one request to one host: credentials, retries, waits
//!                        │  └── auth ─── challenges, tokens, credentials
//!                        └─ transport ── TLS, proxies, redirects, which addresses may be reached
//! ```

#![forbid(unsafe_code)]

mod auth;
mod body;
mod endpoint;
mod explain;
mod failure;
#[cfg(feature = "fake")]
pub mod fake;
mod fetch;
mod hosts;
pub mod parsers;
mod push;
mod referrers;
mod registry;
mod repository;
mod settings;
mod span;
mod transport;

pub use auth::credentials::{Anonymous, Ask, Credential, Credentials, Fixed};
pub use auth::docker::DockerConfig;
pub use body::Body;
pub use explain::{Explained, Explanation};
pub use fetch::Fetcher;
pub use hosts::Capability;
pub use push::{Offer, Pushed, Pusher, Source, Upload};
pub use registry::Registry;
pub use settings::{Limits, Note, Scheme, Settings, Trace};
pub use transport::Stream;
