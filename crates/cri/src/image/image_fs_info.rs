//! ImageFsInfo: what the snapshots of each snapshotter take, by the snapshotters' records.
//!
//! What a committed snapshot takes never changes and is asked once. All of it is measured when somebody asks and the last
//! measurement is older than the configured period; nothing is measured on a node where nobody asks.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use api::cri::{FilesystemIdentifier, FilesystemUsage, ImageFsInfoRequest, ImageFsInfoResponse, UInt64Value};
use snapshots::Snapshotter;
use types::filters::Filters;
use types::snapshot::{Info, Kind, Usage};
use types::{Class, Result, ResultExt};

use crate::cri::Cri;

/// What was measured last, by snapshotter.
#[derive(Default)]
pub struct Measured(tokio::sync::Mutex<HashMap<String, Filesystem>>);

/// One snapshotter's measurement.
#[derive(Default)]
struct Filesystem {
    at: Option<(Instant, SystemTime)>,
    committed: HashMap<String, Usage>,
    sum: Usage,
}

/// Answers the call.
pub async fn run(cri: &Cri, _request: ImageFsInfoRequest) -> Result<ImageFsInfoResponse> {
    let first = &cri.config.images.snapshotter;
    // Kubelets take the first.
    let mut names = vec![first];
    let of_images = cri.config.images.runtime_snapshotters.values();
    let of_runtimes = cri.config.runtime.runtimes.values().map(|runtime| &runtime.snapshotter);
    for name in of_images.chain(of_runtimes).filter(|name| !name.is_empty()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut answer = ImageFsInfoResponse::default();
    for name in names {
        let usage = match filesystem(cri, name).await {
            // A handler's snapshotter that is not there has no snapshots; pods of that handler are told.
            Err(error) if name != first && error.class() == Class::InvalidArgument => continue,
            usage => usage.context(|| format!("measure snapshots of {name}"))?,
        };
        answer.image_filesystems.push(usage.clone());
        answer.container_filesystems.push(usage);
    }
    Ok(answer)
}

async fn filesystem(cri: &Cri, name: &str) -> Result<FilesystemUsage> {
    let snapshotter = cri.db.snapshotter(cri.scope(None), name)?;
    let mut measured = cri.images.usage.0.lock().await;
    let filesystem = measured.entry(name.to_owned()).or_default();
    filesystem.measure(&*snapshotter, cri.config.images.stats_period).await?;
    let mountpoint = (cri.doors.snapshotter_root)(name).to_string_lossy().into_owned();
    let (_, at) = filesystem.at.unwrap_or_else(|| (Instant::now(), SystemTime::now()));
    Ok(FilesystemUsage {
        timestamp: types::time::nanoseconds(at),
        fs_id: Some(FilesystemIdentifier { mountpoint }),
        used_bytes: Some(UInt64Value { value: filesystem.sum.size }),
        inodes_used: Some(UInt64Value { value: filesystem.sum.inodes }),
    })
}

impl Filesystem {
    /// Measures again what may have changed, if the last measurement is older than `period`.
    async fn measure(&mut self, snapshotter: &dyn Snapshotter, period: Duration) -> Result<()> {
        if self.at.is_some_and(|(at, _)| at.elapsed() < period) {
            return Ok(());
        }
        let mut all: Vec<Info> = Vec::new();
        let mut each = |info| {
            all.push(info);
            Ok(())
        };
        snapshotter.walk(&Filters::default(), &mut each).await?;
        let (mut committed, mut sum) = (HashMap::new(), Usage::default());
        for Info { kind, name, .. } in all {
            let known = self.committed.get(&name).filter(|_| kind == Kind::Committed);
            let usage = match known {
                Some(usage) => *usage,
                None => match snapshotter.usage(&name).await {
                    Ok(usage) => usage,
                    // It has gone meanwhile.
                    Err(error) if error.is_not_found() => continue,
                    Err(error) => return Err(error),
                },
            };
            sum.size += usage.size;
            sum.inodes += usage.inodes;
            if kind == Kind::Committed {
                committed.insert(name, usage);
            }
        }
        *self = Self { at: Some((Instant::now(), SystemTime::now())), committed, sum };
        Ok(())
    }
}
