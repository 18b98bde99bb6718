//! What a container has written to its root filesystem, by its snapshotter's word; asked again no more often than snapshots are
//! measured for ImageFsInfo.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use api::cri::{FilesystemIdentifier, FilesystemUsage};
use types::Result;
use types::snapshot::Usage;

use super::number;
use crate::cri::Cri;

/// What was measured last, by container.
#[derive(Debug, Default)]
pub struct Layers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_container: HashMap<String, Layer>,
    /// When those were forgotten that nobody asks for.
    swept: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Layer {
    at: Instant,
    told: FilesystemUsage,
    place: Place,
}

/// Where a container's layer is: a snapshot. It stays there as long as the container lives.
#[derive(Clone, Debug)]
struct Place {
    snapshotter: String,
    key: String,
}

/// The writable layer of a container. One that is not there has used nothing.
pub async fn of(cri: &Cri, container: &str) -> Result<FilesystemUsage> {
    let period = cri.config.images.stats_period;
    let known = cri.stats.layers.lock().by_container.get(container).cloned();
    if let Some(layer) = known.as_ref().filter(|layer| layer.at.elapsed() < period) {
        return Ok(layer.told.clone());
    }
    let place = match known {
        Some(layer) => layer.place,
        None => match place(cri, container)? {
            Some(place) => place,
            None => return Ok(FilesystemUsage::default()),
        },
    };
    let usage = match cri.db.snapshotter(cri.scope(None), &place.snapshotter)?.usage(&place.key).await {
        Ok(usage) => usage,
        Err(error) if error.is_not_found() => Usage::default(),
        Err(error) => return Err(error),
    };
    let mountpoint = (cri.doors.snapshotter_root)(&place.snapshotter).to_string_lossy().into_owned();
    let told = FilesystemUsage {
        timestamp: types::time::nanoseconds(SystemTime::now()),
        fs_id: Some(FilesystemIdentifier { mountpoint }),
        used_bytes: number(usage.size),
        inodes_used: number(usage.inodes),
    };
    let retention = cri.config.runtime.stats_retention.max(period);
    let layer = Layer { at: Instant::now(), told: told.clone(), place };
    cri.stats.layers.lock().add(container, layer, retention);
    Ok(told)
}

/// None for a container that is not there.
fn place(cri: &Cri, container: &str) -> Result<Option<Place>> {
    match cri.db.containers(&cri.namespace).get(container) {
        Ok(record) => Ok(Some(Place { snapshotter: record.snapshotter, key: record.snapshot_key })),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

impl Known {
    fn add(&mut self, container: &str, layer: Layer, retention: Duration) {
        let now = layer.at;
        if self.swept.is_none_or(|swept| now.duration_since(swept) >= retention) {
            self.by_container.retain(|_, layer| now.duration_since(layer.at) < retention);
            self.swept = Some(now);
        }
        self.by_container.insert(container.to_owned(), layer);
    }
}

impl Layers {
    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        // One entry comes or goes at a time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
