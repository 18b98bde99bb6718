//! Idmapped mounts.

use std::path::Path;

use types::{Error, Result};

use super::options::IdMaps;

/// Replaces the mount at `place` by one that shifts owners through `maps`.
pub(super) fn remap(_place: &Path, maps: &IdMaps) -> Result<()> {
    Err(Error::unimplemented(format!(
        "idmapped mounts are not supported (uidmap={}, gidmap={})",
        maps.uids, maps.gids
    )))
}
