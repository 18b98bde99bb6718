//! Records of deaths: what a shim wrote down when its container died, or the daemon in its place ([`posthumous`]), kept for a day
//! after the task is deleted.
//!
//! ```text
//!  <root>/io.containerd.runtime.v2.task/<ns>/<id>/why.json        as long as the task is there
//!  <root>/io.containerd.runtime.v2.task/.deaths/<ns>/<id>.json    afterwards: at most a day, KEPT of them in a namespace
//! ```
//!
//! No namespace begins with a dot, so nobody takes the second place for a task's.

pub(crate) mod posthumous;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use types::{Error, Namespace, Result, ResultExt};

use crate::bundle::Bundle;
use crate::key::TaskKey;
use crate::runtime::{Runtime, blocking};

/// The record's name in the work directory.
const NAME: &str = "why.json";
/// Where records are when their tasks are gone.
const DEATHS: &str = ".deaths";
/// How long they stay there.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How many of a namespace.
const KEPT: usize = 256;
/// A record is no larger; what is was not written by our shim.
const LARGEST: u64 = 1 << 20;
/// And so many bytes of a namespace.
const BYTES: u64 = 64 << 20;

impl Runtime {
    /// The record of a container's death, as its shim wrote it.
    pub async fn why(&self, namespace: &Namespace, id: &str) -> Result<Vec<u8>> {
        let key = TaskKey::new(namespace, id)?;
        let bundle = self.inner.layout.bundle(&key);
        blocking(move || {
            for path in [bundle.work.join(NAME), kept(&bundle)?] {
                match std::fs::read(&path) {
                    Ok(record) => return Ok(record),
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    Err(e) => return Err(e).context(|| format!("read {path:?}")),
                }
            }
            Err(Error::not_found(format!(
                "no record of a death of {key}: it lives, or died more than a day ago, or had another shim: not found"
            )))
        })
        .await
    }
}

/// Where a bundle's record goes when the task is deleted.
fn kept(bundle: &Bundle) -> Result<PathBuf> {
    let id = bundle.work.file_name().and_then(|id| id.to_str());
    let namespace = bundle.work.parent().and_then(Path::file_name);
    match (bundle.work.parent().and_then(Path::parent), namespace, id) {
        (Some(tasks), Some(namespace), Some(id)) => {
            Ok(tasks.join(DEATHS).join(namespace).join(format!("{id}.json")))
        }
        _ => Err(Error::internal(format!("{:?} is no work directory", bundle.work))),
    }
}

/// Puts the record of a task that goes where it outlives the task. None is no error.
pub(crate) fn keep(bundle: &Bundle) -> Result<()> {
    let from = bundle.work.join(NAME);
    if !usable(&from) {
        return Ok(());
    }
    let to = kept(bundle)?;
    let dir = to.parent().unwrap_or(&to);
    if !dir.exists() {
        std::fs::create_dir_all(dir).context(|| format!("create {dir:?}"))?;
    }
    std::fs::rename(&from, &to).context(|| format!("keep the record {from:?}"))?;
    sweep_one(dir);
    Ok(())
}

/// Whether it may be a file of a shim of ours.
fn usable(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.len() <= LARGEST)
}

/// Removes the records below `root` that have had their day.
pub(crate) fn sweep(tasks: &Path) {
    for dir in std::fs::read_dir(tasks.join(DEATHS)).into_iter().flatten().flatten() {
        sweep_one(&dir.path());
    }
}

/// Removes what is too old or one too many. What cannot be removed is tried again with the next death.
fn sweep_one(dir: &Path) {
    let records = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let aged = |entry: std::fs::DirEntry| {
        let metadata = entry.metadata().ok()?;
        Some((metadata.modified().ok()?, metadata.len(), entry.path()))
    };
    let mut records: Vec<(SystemTime, u64, PathBuf)> = records.filter_map(aged).collect();
    // The newest first, which stay.
    records.sort_by(|a, b| b.cmp(a));
    let mut bytes = 0;
    for (place, (written, length, path)) in records.iter().enumerate() {
        bytes += length;
        let old = written.elapsed().is_ok_and(|age| age > DAY);
        if place >= KEPT || bytes > BYTES || old {
            drop(std::fs::remove_file(path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Layout;

    fn bundle(dir: &Path, id: &str) -> Bundle {
        let layout = Layout::new(&dir.join("root"), &dir.join("state"));
        layout.prepare().unwrap();
        let bundle = layout.bundle(&TaskKey::new(&"default".parse().unwrap(), id).unwrap());
        bundle.create(None).unwrap();
        std::fs::write(bundle.work.join(NAME), id).unwrap();
        bundle
    }

    #[test]
    fn a_record_outlives_its_task_and_their_number_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..KEPT + 5 {
            bundle(dir.path(), &format!("c{n}")).remove().unwrap();
        }
        let deaths = dir.path().join("root/io.containerd.runtime.v2.task/.deaths/default");
        assert_eq!(std::fs::read_dir(&deaths).unwrap().count(), KEPT);
        let last = deaths.join(format!("c{}.json", KEPT + 4));
        assert_eq!(std::fs::read_to_string(&last).unwrap(), format!("c{}", KEPT + 4));
        let old = std::fs::File::options().write(true).open(&last).unwrap();
        old.set_modified(SystemTime::now() - DAY - Duration::from_secs(60)).unwrap();
        sweep(&dir.path().join("root/io.containerd.runtime.v2.task"));
        assert!(!last.exists());
    }

    #[test]
    fn what_is_no_record_of_ours_goes_with_the_task() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = bundle(dir.path(), "c");
        std::fs::write(bundle.work.join(NAME), vec![0; 2 << 20]).unwrap();
        bundle.remove().unwrap();
        assert!(!kept(&bundle).unwrap().exists());
    }
}
