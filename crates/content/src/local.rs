//! The local store: blobs as files, the same layout as upstream.
//!
//! ```text
//!  blobs/<algorithm>/<hex>      0444, durable, never changed
//!  ingest/<sha256 of ref>/      see `ingest`
//! ```
//!
//! It knows neither namespaces nor labels; `metadata` does. It owns its directory, holds nothing in memory but the
//! locks of references, and may be opened on what a killed process left.

mod ingest;
mod lock;
mod places;
mod writer;

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use types::content::{Info, Status};
use types::digest::Algorithm;
use types::fields::FieldPaths;
use types::filters::Filters;
use types::{Digest, Error, Labels, Result, ResultExt};

use crate::blocking::blocking;
use crate::{Reader, Store, Writer, WriterOptions};
use ingest::Ingest;
use lock::Locks;
use places::Places;
use writer::LocalWriter;

/// A read never allocates more than this, whatever was asked for.
const LONGEST_READ: usize = 4 << 20;

/// So many blobs are looked at in one trip to the blocking pool.
const WALK_STEP: usize = 256;

/// Blobs below a directory.
pub struct LocalStore {
    places: Places,
    locks: Arc<Locks>,
}

impl LocalStore {
    /// Opens the store in `dir`, which is made if it is not there. Blocks.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Arc<Self>> {
        let places = Places::make(dir.into())?;
        sweep(&places)?;
        Ok(Arc::new(Self { places, locks: Arc::default() }))
    }

    /// Where the blob is, or would be: for those who hand files to other programs.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.places.blob(digest)
    }
}

/// Removes what a commit or an abort that was killed, or a power loss, left of an ingest: nobody could see it, resume
/// it or drop it.
fn sweep(places: &Places) -> Result<()> {
    for dir in places.ingests()? {
        let whole = match ingest::read_status(&dir) {
            Ok(status) => places.ingest(&status.reference) == dir,
            Err(error) if error.is_not_found() => false,
            Err(error) => return Err(error),
        };
        if !whole {
            fs::remove_dir_all(&dir).context(|| format!("remove remnant {dir:?}"))?;
        }
    }
    Ok(())
}

#[async_trait]
impl Store for LocalStore {
    async fn info(&self, digest: &Digest) -> Result<Info> {
        let (path, digest) = (self.places.blob(digest), digest.clone());
        blocking(move || look_at(&path, digest)).await
    }

    async fn update(&self, info: Info, _fields: &FieldPaths) -> Result<Info> {
        if !info.labels.is_empty() {
            return Err(Error::unimplemented("update not supported on immutable content store"));
        }
        self.info(&info.digest).await
    }

    async fn walk(&self, filters: &Filters, each: &mut (dyn FnMut(Info) -> Result<()> + Send)) -> Result<()> {
        let places = self.places.clone();
        let mut digests = blocking(move || list(&places)).await?;
        while !digests.is_empty() {
            let rest = digests.split_off(digests.len().min(WALK_STEP));
            let places = self.places.clone();
            for info in blocking(move || look_at_all(&places, digests)).await? {
                if filters.matches(&info) {
                    each(info)?;
                }
            }
            digests = rest;
        }
        Ok(())
    }

    async fn delete(&self, digest: &Digest) -> Result<()> {
        let (path, digest) = (self.places.blob(digest), digest.clone());
        blocking(move || fs::remove_file(path).map_err(|error| missing(error, &digest))).await
    }

    async fn reader(&self, digest: &Digest) -> Result<Box<dyn Reader>> {
        let (path, digest) = (self.places.blob(digest), digest.clone());
        blocking(move || {
            let open = || {
                let file = File::open(path)?;
                let size = file.metadata()?.len();
                io::Result::Ok(LocalReader { file: Arc::new(file), size, digest: digest.clone() })
            };
            Ok(Box::new(open().map_err(|error| missing(error, &digest))?) as Box<dyn Reader>)
        })
        .await
    }

    async fn status(&self, reference: &str) -> Result<Status> {
        let (dir, reference) = (self.places.ingest(reference), reference.to_owned());
        blocking(move || ingest::read_status(&dir).map_err(|error| no_ingest(error, &reference))).await
    }

    async fn list_statuses(&self, filters: &[String]) -> Result<Vec<Status>> {
        let filters = Filters::parse(filters)?;
        let places = self.places.clone();
        blocking(move || {
            let mut statuses = Vec::new();
            for dir in places.ingests()? {
                match ingest::read_status(&dir) {
                    Ok(status) if filters.matches(&status) => statuses.push(status),
                    Ok(_) => {}
                    // Committed or aborted since it was listed.
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(statuses)
        })
        .await
    }

    async fn abort(&self, reference: &str) -> Result<()> {
        self.locks.settled(reference).await;
        let (dir, reference) = (self.places.ingest(reference), reference.to_owned());
        blocking(move || fs::remove_dir_all(dir).map_err(|error| no_ingest(error.into(), &reference))).await
    }

    async fn writer(&self, options: WriterOptions) -> Result<Box<dyn Writer>> {
        if options.reference.is_empty() {
            return Err(Error::invalid("ref must not be empty: invalid argument"));
        }
        let lock = self.locks.lock(&options.reference).await?;
        let places = self.places.clone();
        let ingest = blocking(move || Ingest::open(places, options, lock)).await?;
        Ok(Box::new(LocalWriter::new(Arc::clone(&self.locks), ingest)))
    }
}

/// The digests of all blobs, ordered.
fn list(places: &Places) -> Result<Vec<Digest>> {
    let mut digests = Vec::new();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512] {
        let dir = places.algorithm(algorithm);
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.context(|| format!("list {dir:?}"))?,
        };
        let first = digests.len();
        for entry in entries {
            let name = entry.context(|| format!("list {dir:?}"))?.file_name();
            match format!("{}:{}", algorithm.name(), name.to_string_lossy()).parse() {
                Ok(digest) => digests.push(digest),
                // Not ours; said once a walk rather than hidden, as upstream does.
                Err(_) => tracing::error!(path = %dir.join(name).display(), "invalid digest for blob path"),
            }
        }
        digests[first..].sort_unstable();
    }
    Ok(digests)
}

fn look_at_all(places: &Places, digests: Vec<Digest>) -> Result<Vec<Info>> {
    let mut infos = Vec::with_capacity(digests.len());
    for digest in digests {
        match look_at(&places.blob(&digest), digest) {
            Ok(info) => infos.push(info),
            // Deleted since it was listed.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(infos)
}

fn look_at(path: &Path, digest: Digest) -> Result<Info> {
    let metadata = fs::metadata(path).map_err(|error| missing(error, &digest))?;
    let committed = metadata.modified().context(|| format!("content {digest}"))?;
    Ok(Info {
        digest,
        size: metadata.len(),
        created_at: committed,
        updated_at: committed,
        labels: Labels::new(),
    })
}

fn missing(error: io::Error, digest: &Digest) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::not_found(format!("content {digest}: not found")),
        _ => Error::from(error).context(format!("content {digest}")),
    }
}

fn no_ingest(error: Error, reference: &str) -> Error {
    if error.is_not_found() {
        return Error::not_found(format!("ingest ref {reference:?}: not found"));
    }
    error.context(format!("ingest ref {reference:?}"))
}

struct LocalReader {
    file: Arc<File>,
    size: u64,
    digest: Digest,
}

#[async_trait]
impl Reader for LocalReader {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = len.min(left).min(LONGEST_READ);
        if len == 0 {
            return Ok(Bytes::new());
        }
        let (file, digest) = (Arc::clone(&self.file), self.digest.clone());
        blocking(move || {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, offset)
                .context(|| format!("read content {digest} at {offset}"))?;
            Ok(bytes.into())
        })
        .await
    }

    fn file(&self) -> Option<File> {
        // Opened anew, as a duplicate would share its offset with every other one. Without a descriptor to spare the
        // caller reads through the trait.
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd())).ok()
    }
}

#[cfg(test)]
#[path = "local/tests.rs"]
mod tests;
