//! What a container has written to its root filesystem, by its snapshotter's word; asked again no more often than snapshots are
//! measured for ImageFsInfo, and where there are many containers less often: a tree is walked for each.

use std::time::{Duration, Instant, SystemTime};

use api::cri::{FilesystemIdentifier, FilesystemUsage};
use types::Result;
use types::snapshot::Usage;

use super::number;
use super::recent::{Found, Recent};
use crate::cri::Cri;

/// So many layers are measured in a second at most, on average.
const IN_A_SECOND: u32 = 20;
/// No layer's usage is older when it is told, however many there are.
const OLDEST: Duration = Duration::from_secs(60);

/// What was measured last, by container.
pub type Layers = Recent<Layer>;

/// What was measured.
#[derive(Clone, Debug)]
pub struct Layer {
    at: Instant,
    told: FilesystemUsage,
    place: Place,
}

impl Found for Layer {
    fn at(&self) -> Instant {
        self.at
    }
}

/// Where a container's layer is: a snapshot. It stays there as long as the container lives.
#[derive(Clone, Debug)]
struct Place {
    snapshotter: String,
    key: String,
}

/// The writable layer of a container. One that is not there has used nothing.
pub async fn of(cri: &Cri, container: &str) -> Result<FilesystemUsage> {
    let (known, period) = {
        let layers = cri.stats.layers.known();
        (layers.by_id.get(container).cloned(), period(cri.config.images.stats_period, layers.by_id.len()))
    };
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
    let mut layers = cri.stats.layers.known();
    layers.sweep(layer.at, retention);
    layers.by_id.insert(container.to_owned(), layer);
    Ok(told)
}

/// How long what was measured is good, where so many layers are known.
fn period(wanted: Duration, layers: usize) -> Duration {
    let affordable = Duration::from_secs(1) * u32::try_from(layers).unwrap_or(u32::MAX) / IN_A_SECOND;
    wanted.max(affordable.min(OLDEST))
}

/// None for a container that is not there.
fn place(cri: &Cri, container: &str) -> Result<Option<Place>> {
    match cri.db.containers(&cri.namespace).get(container) {
        Ok(record) => Ok(Some(Place { snapshotter: record.snapshotter, key: record.snapshot_key })),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_layers_are_measured_less_often_but_none_is_forgotten() {
        let seconds = Duration::from_secs;
        let of = |layers| period(seconds(10), layers);
        assert_eq!([of(0), of(200), of(1000), of(1_000_000)], [10, 10, 50, 60].map(seconds));
        // Who wants less has it.
        assert_eq!(period(seconds(300), 1000), seconds(300));
    }
}
