//! Into what a client wants images unpacked, as far as the configuration allows it.

use std::sync::Arc;

use api::containerd::types::transfer::UnpackConfiguration;
use api::convert;
use diff::applier::Applier;
use snapshots::Snapshotter;
use types::platform::Platform;
use types::{Result, ResultExt};

use super::Job;
use crate::transfers::Way;

/// Where layers of a platform's image go, and who brings them there.
pub struct UnpackInto {
    /// Images for it.
    pub platform: Platform,
    /// Gets the layers.
    pub snapshotter: Arc<dyn Snapshotter>,
    /// Its name.
    pub name: String,
    /// Applies them.
    pub applier: Arc<dyn Applier>,
    /// Whether nobody but this process applies them.
    pub walking: bool,
    /// Only images whose config is of this media type; empty is any image.
    pub config_type: String,
    /// Media types of layers beside the usual ones.
    pub layer_types: Vec<String>,
}

/// What the client wants. What the configuration does not allow is left out, with a warning, as by upstream; a snapshotter that is
/// not there is an error.
pub fn wanted(job: &Job, wanted: &[UnpackConfiguration]) -> Result<Vec<UnpackInto>> {
    let mut all = Vec::new();
    for UnpackConfiguration { platform, snapshotter } in wanted {
        let platform = platform.clone().map_or_else(Platform::host, convert::platform);
        match job.house.transfers.unpack(&platform, snapshotter) {
            Some(way) => all.push(into(job, platform, way)?),
            None => tracing::warn!(%platform, snapshotter, "Unpack configuration not supported, skipping"),
        }
    }
    Ok(all)
}

fn into(job: &Job, platform: Platform, way: Way) -> Result<UnpackInto> {
    let (house, scope) = (&job.house, &job.scope);
    let snapshotter = house.db.snapshotter(scope.clone(), &way.snapshotter);
    let snapshotter = snapshotter.context(|| "unable to initialize unpacker")?;
    let (applier, walking) = match &way.differs {
        Some(differs) => (differs.applier(&house.db.content(scope.clone()), scope)?, differs.is_walking()),
        None => (house.applier(scope)?, house.is_walking()),
    };
    let Way { snapshotter: name, config_type, layer_types, .. } = way;
    Ok(UnpackInto { platform, snapshotter, name, applier, walking, config_type, layer_types })
}
