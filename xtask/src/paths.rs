//! Where things are.

use std::env;
use std::path::{Path, PathBuf};

/// The checkout.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where cargo builds.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| repository().join("target"), |dir| repository().join(PathBuf::from(dir)))
}

/// Where the release binaries are put.
pub fn dist() -> PathBuf {
    target().join("dist")
}

/// What was downloaded.
pub fn cache() -> PathBuf {
    repository().join(".cache")
}
