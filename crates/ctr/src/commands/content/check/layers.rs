//! Layers: what each committed snapshot shows, compared with the archive that it was made of.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use content::Store as _;
use diff::verify::{self, Verdict};
use remote::RemoteSnapshotter;
use snapshots::Snapshotter;
use sys::mount::TempMount;
use types::filters::Filters;
use types::mount::Mount;
use types::oci::Descriptor;
use types::snapshot::{Info, Kind};
use types::{Digest, Labels, Result, ResultExt, labels};

use super::blobs::Blobs;
use super::{Broken, Done, Progress, Report, Space, mend};
use crate::client::random_lease_id;

/// Docker's type of a layer, as only that leaves the compression to the first bytes.
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// A committed snapshot that is an image's layer.
pub(super) struct Layer {
    pub(super) info: Info,
    pub(super) diff_id: Digest,
    /// Its archive.
    pub(super) blob: Descriptor,
}

/// Compares every layer of a snapshotter in a namespace, and mends if `repair`.
pub(super) async fn check(
    space: &Space,
    name: &str,
    (blobs, repair): (&Blobs, bool),
    report: &mut Report,
) -> Result<()> {
    let snapshots = space.client.named_snapshotter(name);
    let committed = committed(&snapshots).await.context(|| format!("list the snapshots of {name}"))?;
    let count = committed.len();
    for (number, info) in committed.into_iter().enumerate() {
        Progress::at(&format!("layer of {name} in {}", space.name), number + 1, count);
        let Some(diff_id) = diff_id(&info, blobs) else {
            report.unverified += 1;
            if let Some(reason) = count_files(&snapshots, &info.name).await? {
                report.broken.push(broken(&info, space, name, reason));
            }
            continue;
        };
        let Some((blob, size)) = blobs.of_diff(&diff_id) else { continue };
        let blob = Descriptor::new(LAYER, blob.clone(), size);
        let layer = Layer { info, diff_id, blob };
        report.layers += 1;
        let Some(reason) = look(space, &snapshots, &layer, report).await? else { continue };
        let mut broken = broken(&layer.info, space, name, reason);
        if repair {
            match mend::layer(space, &snapshots, &layer).await {
                Ok(()) => broken.done = Done::Mended,
                Err(error) => broken.because = error.to_string(),
            }
        }
        report.broken.push(broken);
    }
    Ok(())
}

fn broken(info: &Info, space: &Space, snapshotter: &str, reason: String) -> Broken {
    Broken {
        kind: "layer",
        id: info.name.clone(),
        namespaces: vec![space.name.clone()],
        snapshotter: snapshotter.to_owned(),
        reason,
        done: Done::Nothing,
        because: String::new(),
    }
}

/// The committed snapshots, those below before those on top of them: mending goes upwards.
async fn committed(snapshots: &RemoteSnapshotter) -> Result<Vec<Info>> {
    let mut all: Vec<Info> = Vec::new();
    let mut note = |info: Info| {
        all.push(info);
        Ok(())
    };
    snapshots.walk(&Filters::default(), &mut note).await?;
    all.retain(|info| info.kind == Kind::Committed);
    let mut done = HashSet::new();
    let mut sorted = Vec::new();
    while !all.is_empty() {
        let (next, rest): (Vec<Info>, Vec<Info>) =
            all.into_iter().partition(|info| info.parent.is_empty() || done.contains(&info.parent));
        // Parents that are not there: the order does not matter.
        let (next, rest) = if next.is_empty() { (rest, Vec::new()) } else { (next, rest) };
        done.extend(next.iter().map(|info| info.name.clone()));
        sorted.extend(next);
        all = rest;
    }
    Ok(sorted)
}

/// Which layer a snapshot is: by its label, or as the only one that makes its name of its parent's.
fn diff_id(info: &Info, blobs: &Blobs) -> Option<Digest> {
    let makes = |diff_id: &Digest| match info.parent.as_str() {
        "" => info.name == diff_id.as_str(),
        parent => info.name == Digest::of(format!("{parent} {diff_id}").as_bytes()).as_str(),
    };
    let labelled = info.labels.get(labels::SNAPSHOT_DIFF_ID).and_then(|text| text.parse().ok());
    let known = labelled.iter().chain(blobs.diff_ids()).find(|diff_id| makes(diff_id)).cloned();
    // A plain archive is its own diff id.
    let plain = || info.parent.is_empty().then(|| info.name.parse().ok()).flatten();
    known.or_else(plain).filter(|diff_id| blobs.of_diff(diff_id).is_some())
}

/// What is wrong with a layer.
async fn look(
    space: &Space,
    snapshots: &RemoteSnapshotter,
    layer: &Layer,
    report: &mut Report,
) -> Result<Option<String>> {
    let seen = with_view(snapshots, &layer.info.name, async |view| compare(space, layer, &view).await).await;
    let verdict = match seen {
        Ok(verdict) => verdict,
        Err(error) if error.is_not_found() => return Ok(Some(format!("its files are gone: {error}"))),
        Err(error) => return Ok(Some(format!("it cannot be mounted: {error}"))),
    };
    report.entries += verdict.entries;
    Ok(reason(&verdict))
}

fn reason(verdict: &Verdict) -> Option<String> {
    let (path, first) = verdict.differences.iter().next()?;
    let count = verdict.differences.len();
    Some(format!("{count} of {} entries differ: {} {first}", verdict.entries, path.display()))
}

/// Compares a layer with what a view of it shows.
pub(super) async fn compare(space: &Space, layer: &Layer, view: &[Mount]) -> Result<Verdict> {
    let blob = Arc::from(space.client.content().reader(&layer.blob.digest).await?);
    let mount = TempMount::new(&sys::mount::read_only(view))?;
    let (path, runtime) = (mount.path().to_owned(), tokio::runtime::Handle::current());
    let verdict = tokio::task::spawn_blocking(move || verify::compare(blob, &path, runtime))
        .await
        .map_err(|error| types::Error::internal(format!("the comparison crashed: {error}")))?;
    mount.close()?;
    verdict
}

/// Calls `look` with the mounts of a view of a committed snapshot, which is gone afterwards.
pub(super) async fn with_view<T>(
    snapshots: &RemoteSnapshotter,
    name: &str,
    look: impl AsyncFnOnce(Vec<Mount>) -> Result<T>,
) -> Result<T> {
    let key = format!("content-check-{}", random_lease_id());
    let mounts = snapshots.view(&key, name, Labels::new()).await?;
    let looked = look(mounts).await;
    // What is left of it goes with our lease.
    drop(snapshots.remove(&key).await);
    looked
}

/// Without an archive to compare with: whether a layer has as many files as when it was committed.
async fn count_files(snapshots: &RemoteSnapshotter, name: &str) -> Result<Option<String>> {
    let wanted = snapshots.usage(name).await?.inodes;
    let top = with_view(snapshots, name, async |view| Ok(verify::top_of(&view))).await;
    let top: PathBuf = match top {
        Ok(Some(top)) => top,
        Ok(None) => return Ok(None),
        Err(error) => return Ok(Some(format!("its files are gone: {error}"))),
    };
    let has = inodes(&top).context(|| format!("count the files of {top:?}"))?;
    Ok((has < wanted)
        .then(|| format!("it has {has} of {wanted} files, and there is no blob to mend it with")))
}

fn inodes(top: &Path) -> std::io::Result<u64> {
    let mut seen = HashSet::from([top.symlink_metadata()?.ino()]);
    let mut left = vec![top.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            seen.insert(metadata.ino());
            if metadata.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(seen.len() as u64)
}
