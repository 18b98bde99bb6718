//! A blob that is being written, on disk. Everything here blocks.
//!
//! ```text
//!  ingest/<sha256 of the reference>/
//!      ref         the reference itself
//!      startedat   RFC 3339
//!      updatedat   RFC 3339; the modification time of data counts if it is later
//!      total       the whole size in decimal digits, if known
//!      data        becomes blobs/<algorithm>/<hex> by one rename
//! ```
//!
//! Commit makes the data durable, renames it and makes the directory durable, in this order: there is never a blob
//! under a digest that a power loss could leave empty or short. One that is short all the same was left by another
//! daemon, and is replaced.

use std::fs::{self, DirBuilder, File, FileTimes, Permissions};
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use types::content::Status;
use types::digest::{Algorithm, Hasher};
use types::{Class, Digest, Error, Result, ResultExt, time};

use super::lock::RefLock;
use super::places::Places;
use crate::WriterOptions;

/// How much is read at once when existing data is hashed again.
const CHUNK: usize = 1 << 20;

/// So many pieces are written by one call.
const MOST_SLICES: usize = 64;

/// An open ingest. The reference stays locked as long as it lives.
pub(super) struct Ingest {
    places: Places,
    dir: PathBuf,
    data: File,
    hasher: Hasher,
    algorithm: Algorithm,
    status: Status,
    /// When the data last changed, until the file says so itself.
    changed: Option<SystemTime>,
    _lock: RefLock,
}

impl Ingest {
    /// Opens the ingest of `options.reference`, with what it has so far, or begins it.
    pub(super) fn open(places: Places, options: WriterOptions, lock: RefLock) -> Result<Self> {
        if let Some(expected) = options.expected.as_ref().filter(|expected| {
            // One of another size is what an earlier daemon left at a power loss: it is written again.
            file_size(&places.blob(expected)).is_some_and(|size| [0, size].contains(&options.total))
        }) {
            return Err(Error::already_exists(format!("content {expected}: already exists")));
        }
        let algorithm = options.expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let dir = places.ingest(&options.reference);
        let reference = options.reference.clone();
        let opened = match resume(&dir, &options, algorithm)? {
            Some(opened) => opened,
            None => begin(&dir, &options, algorithm)?,
        };
        let (data, hasher, mut status) = opened;
        status.reference = reference;
        status.expected = options.expected;
        Ok(Self { places, dir, data, hasher, algorithm, status, changed: None, _lock: lock })
    }

    /// Where the ingest stands.
    pub(super) fn status(&self) -> &Status {
        &self.status
    }

    /// The digest of the data so far.
    pub(super) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Appends `pieces`, the last of which came `at` this time. After an error the ingest has, and counts, those bytes
    /// that were written.
    pub(super) fn append(&mut self, mut pieces: Vec<Bytes>, at: SystemTime) -> Result<()> {
        self.changed = Some(at);
        let mut pieces = &mut pieces[..];
        while let Some(first) = pieces.first() {
            if first.is_empty() {
                pieces = &mut pieces[1..];
                continue;
            }
            let slices: Vec<IoSlice<'_>> =
                pieces.iter().take(MOST_SLICES).map(|piece| IoSlice::new(piece)).collect();
            match self.data.write_vectored(&slices) {
                Ok(0) => return Err(self.failed(io::ErrorKind::WriteZero.into(), "write")),
                Ok(mut len) => {
                    self.status.offset += len as u64;
                    for piece in pieces.iter_mut() {
                        let written = piece.split_to(len.min(piece.len()));
                        self.hasher.update(&written);
                        len -= written.len();
                        if len == 0 {
                            break;
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error, "write")),
            }
        }
        Ok(())
    }

    /// The data so far, for reading.
    pub(super) fn file(&self) -> Option<File> {
        File::open(self.dir.join("data")).ok()
    }

    /// Throws the data away.
    pub(super) fn clear(&mut self) -> Result<()> {
        let cleared = self.data.set_len(0).and_then(|()| io::Seek::rewind(&mut self.data));
        cleared.map_err(|error| self.failed(error, "truncate"))?;
        self.hasher = Hasher::new(self.algorithm);
        self.status.offset = 0;
        self.changed = Some(SystemTime::now());
        Ok(())
    }

    /// Checks the data and makes it a blob.
    pub(super) fn commit(mut self, size: u64, expected: Option<&Digest>) -> Result<()> {
        let has = self.status.offset;
        if size > 0 && size != has {
            return Err(Error::precondition(format!(
                "unexpected commit size {has}, expected {size}: failed precondition"
            )));
        }
        let digest = self.digest_as(expected.map_or(self.algorithm, Digest::algorithm))?;
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(Error::precondition(format!(
                "unexpected commit digest {digest}, expected {expected}: failed precondition"
            )));
        }
        let blob = self.places.blob(&digest);
        let parent = self.places.blob_dir(digest.algorithm())?;
        let rename = match file_size(&blob) {
            Some(size) if size == has => return self.exists_already(&digest, &parent),
            // Not these bytes, whatever its name says.
            Some(_) => replace,
            None => rename_new,
        };
        self.settle_data()?;
        match rename(&self.dir.join("data"), &blob) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return self.exists_already(&digest, &parent);
            }
            Err(error) => return Err(self.failed(error, "rename")),
        }
        if let Err(error) = sys::fs::sync_dir(&parent) {
            // The caller is told that there is no blob: then there must be none after a power loss either.
            drop(fs::remove_file(&blob));
            return Err(error);
        }
        self.remove();
        Ok(())
    }

    fn digest_as(&mut self, algorithm: Algorithm) -> Result<Digest> {
        if algorithm == self.algorithm {
            return Ok(self.digest());
        }
        // Opened without a digest, hashed as sha256, and now another kind is wanted.
        let (hasher, _) = hash_file(&self.dir.join("data"), algorithm)?;
        Ok(hasher.finish())
    }

    /// Read-only, dated and on the disk.
    fn settle_data(&mut self) -> Result<()> {
        let now = SystemTime::now();
        self.changed = None;
        let settled = self
            .data
            .set_permissions(Permissions::from_mode(0o444))
            .and_then(|()| self.data.set_times(FileTimes::new().set_modified(now).set_accessed(now)))
            .and_then(|()| self.data.sync_all());
        settled.map_err(|error| {
            let error = self.failed(error, "sync");
            if error.class() != Class::ResourceExhausted {
                // After a failed sync the kernel may have dropped the pages: what is left must not be resumed.
                self.remove();
            }
            error
        })
    }

    fn exists_already(&self, digest: &Digest, parent: &Path) -> Result<()> {
        // Its writer may not have made the directory durable yet, and our caller will believe that it is.
        sys::fs::sync_dir(parent)?;
        self.remove();
        Err(Error::already_exists(format!("content {digest}: already exists")))
    }

    /// Removes the ingest. A remnant without data is swept when the store is opened.
    fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(path = %self.dir.display(), %error, "cannot remove ingest");
        }
    }

    fn failed(&self, error: io::Error, doing: &str) -> Error {
        Error::from(error)
            .context(format!("{doing} ingest {:?} at {}", self.status.reference, self.status.offset))
    }
}

impl Drop for Ingest {
    /// The kernel dates a write by its last tick, milliseconds ago: before what the writer was told, and perhaps
    /// before the ingest began.
    fn drop(&mut self) {
        if let Some(at) = self.changed
            && let Err(error) = self.data.set_modified(at)
        {
            tracing::debug!(path = %self.dir.display(), %error, "cannot date ingest");
        }
    }
}

type Opened = (File, Hasher, Status);

/// What is there of the ingest, or `None` if it is not there, or not whole.
fn resume(dir: &Path, options: &WriterOptions, algorithm: Algorithm) -> Result<Option<Opened>> {
    let mut status = match read_status(dir) {
        Ok(status) if status.reference == options.reference => status,
        Ok(_) => return Ok(None),
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    if options.total > 0 && status.total > 0 && options.total != status.total {
        return Ok(None);
    }
    if status.total == 0 && options.total > 0 {
        status.total = options.total;
        write_small(dir, "total", &options.total.to_string())?;
    }
    let path = dir.join("data");
    let (hasher, len) = hash_file(&path, algorithm)?;
    let data = fs::OpenOptions::new().append(true).open(&path).context(|| format!("open {path:?}"))?;
    status.offset = len;
    Ok(Some((data, hasher, status)))
}

fn begin(dir: &Path, options: &WriterOptions, algorithm: Algorithm) -> Result<Opened> {
    let doing = || format!("begin ingest {:?}", options.reference);
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error).context(doing),
        _ => {}
    }
    let now = SystemTime::now();
    let begun = (|| {
        write_small(dir, "ref", &options.reference)?;
        write_small(dir, "startedat", &time::rfc3339(now))?;
        write_small(dir, "updatedat", &time::rfc3339(now))?;
        drop(fs::remove_file(dir.join("total")));
        if options.total > 0 {
            write_small(dir, "total", &options.total.to_string())?;
        }
        // Last, as an ingest without data is none. Appending only: no second descriptor could write elsewhere.
        drop(File::create(dir.join("data"))?);
        Ok(fs::OpenOptions::new().append(true).open(dir.join("data"))?)
    })();
    let data = match begun {
        Ok(data) => data,
        Err(error) => {
            drop(fs::remove_dir_all(dir));
            return Err(Error::context(error, doing()));
        }
    };
    let status = Status {
        reference: options.reference.clone(),
        offset: 0,
        total: options.total,
        expected: None,
        started_at: now,
        updated_at: now,
    };
    Ok((data, Hasher::new(algorithm), status))
}

/// The status of the ingest in `dir`. `NotFound` if it is not whole.
pub(super) fn read_status(dir: &Path) -> Result<Status> {
    let read = |name: &str| {
        let bytes = fs::read(dir.join(name)).context(|| format!("ingest {dir:?}: {name}"))?;
        Ok::<_, Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let instant = |name: &str| {
        let text = read(name)?;
        // A torn file after a power loss; the ingest begins anew.
        time::parse_rfc3339(text.trim())
            .ok_or_else(|| Error::not_found(format!("ingest {dir:?}: no time in {name}")))
    };
    let data = fs::metadata(dir.join("data")).context(|| format!("ingest {dir:?}: data"))?;
    let written = data.modified().context(|| format!("ingest {dir:?}: data"))?;
    Ok(Status {
        reference: read("ref")?,
        offset: data.len(),
        total: read("total").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0),
        expected: None,
        started_at: instant("startedat")?,
        updated_at: instant("updatedat")?.max(written),
    })
}

fn write_small(dir: &Path, name: &str, text: &str) -> Result<()> {
    fs::write(dir.join(name), text).context(|| format!("write {name} in {dir:?}"))
}

fn hash_file(path: &Path, algorithm: Algorithm) -> Result<(Hasher, u64)> {
    let doing = || format!("hash {path:?}");
    let mut file = File::open(path).context(doing)?;
    let (mut hasher, mut total) = (Hasher::new(algorithm), 0);
    let mut chunk =
        vec![0; CHUNK.min(usize::try_from(file.metadata().context(doing)?.len()).unwrap_or(CHUNK)) + 1];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok((hasher, total)),
            Ok(len) => {
                hasher.update(&chunk[..len]);
                total += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context(doing),
        }
    }
}

/// The size of the file `path`, if there is one.
fn file_size(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.len())
}

/// Renames over a file that is not whole.
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    tracing::warn!(path = %to.display(), "replacing a blob that is not whole");
    fs::rename(from, to)
}

/// Renames without replacing.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Filesystems without the flag; a race there replaces a blob by the same bytes.
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(from, to),
        result => Ok(result?),
    }
}
