//! Where things are below the store's directory: the same layout as upstream.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use types::digest::Algorithm;
use types::{Digest, Result, ResultExt};

/// The store's directory.
#[derive(Clone)]
pub(super) struct Places(Arc<Path>);

impl Places {
    /// Makes the directories that are always there. Their names are on the disk before anything is put into them: a
    /// process that was killed after making one may not have come to that.
    pub(super) fn make(root: PathBuf) -> Result<Self> {
        let blobs = root.join("blobs");
        for dir in [&root, &blobs, &root.join("ingest")] {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).context(|| format!("make {dir:?}"))?;
        }
        for dir in [blobs.as_path(), &root].into_iter().chain(root.parent()) {
            sys::fs::sync_dir(dir)?;
        }
        Ok(Self(root.into()))
    }

    /// `blobs/<algorithm>/<hex>`
    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.algorithm(digest.algorithm()).join(digest.hex())
    }

    /// `blobs/<algorithm>`
    pub(super) fn algorithm(&self, algorithm: Algorithm) -> PathBuf {
        self.0.join("blobs").join(algorithm.name())
    }

    /// `blobs/<algorithm>`, which exists, durably.
    pub(super) fn blob_dir(&self, algorithm: Algorithm) -> Result<PathBuf> {
        let dir = self.algorithm(algorithm);
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => {
                sys::fs::sync_dir(&self.0.join("blobs"))?;
                sys::fs::sync_dir(&self.0)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).context(|| format!("make {dir:?}")),
        }
        Ok(dir)
    }

    /// `ingest/<sha256 of the reference>`: a constant length, whatever the reference is.
    pub(super) fn ingest(&self, reference: &str) -> PathBuf {
        self.0.join("ingest").join(Digest::of(reference.as_bytes()).hex())
    }

    /// The directories of all ingests.
    pub(super) fn ingests(&self) -> Result<Vec<PathBuf>> {
        let dir = self.0.join("ingest");
        let list = || fs::read_dir(&dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
        list().context(|| format!("list {dir:?}"))
    }
}
