//! What the product answers when asked who it is.

/// The version that `version` answers. The part before `+` is the containerd release whose behaviour this is
/// (clients gate features on it being at least 2.0); the part after it is ours.
pub const VERSION: &str = concat!("v2.3.4+rs.", env!("CARGO_PKG_VERSION"));

/// The package name in version lines, as upstream prints it.
pub const PACKAGE: &str = "github.com/containerd/containerd/v2";

/// The revision the binaries were built from, where the build told (`CONTAINERD_RS_REVISION`).
pub const REVISION: &str = match option_env!("CONTAINERD_RS_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};
