//! A mount at a fresh directory that nobody else can guess or enter.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use types::mount::Mount;
use types::{Result, ResultExt};

use super::{UnmountFlags, mount_all, unmount_all, without_volatile};

/// Mounts at a fresh 0700 directory; unmounted, and the directory removed, by [`TempMount::close`].
///
/// Dropping it does the same lazily and silently. The directory is only ever removed by `rmdir`: if something is still
/// mounted there, its files are somebody's data.
#[derive(Debug)]
pub struct TempMount {
    mounts: Vec<Mount>,
    path: PathBuf,
    open: bool,
}

impl TempMount {
    /// Performs `mounts` at a directory below the system's place for temporary files.
    ///
    /// Overlayfs's `volatile` is left out, as such an upper directory could not be mounted again.
    pub fn new(mounts: &[Mount]) -> Result<Self> {
        let parent = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        Self::below(&parent, mounts)
    }

    /// Performs `mounts` at a fresh directory in `parent`.
    pub fn below(parent: &Path, mounts: &[Mount]) -> Result<Self> {
        let path = fresh_directory(parent, "containerd-mount")?;
        let mounts = without_volatile(mounts);
        if let Err(error) = mount_all(&mounts, &path) {
            // Empty and ours: a failure leaves an empty directory, and the mount's error is the one to tell.
            drop(std::fs::remove_dir(&path));
            return Err(error);
        }
        Ok(Self { mounts, path, open: true })
    }

    /// Where the mounts are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts, waiting a moment for users that are about to leave, and removes the directory.
    pub fn close(mut self) -> Result<()> {
        unmount_all(&self.mounts, &self.path, UnmountFlags::empty())?;
        self.open = false;
        std::fs::remove_dir(&self.path).context(|| format!("remove {:?}", self.path))
    }
}

impl Drop for TempMount {
    fn drop(&mut self) {
        if self.open && unmount_all(&self.mounts, &self.path, UnmountFlags::DETACH).is_ok() {
            drop(std::fs::remove_dir(&self.path));
        }
    }
}

/// A new 0700 directory in `parent` with an unguessable name.
fn fresh_directory(parent: &Path, prefix: &str) -> Result<PathBuf> {
    loop {
        // Seeded by the system's randomness, and another one each time.
        let path = parent.join(format!("{prefix}{:016x}", RandomState::new().build_hasher().finish()));
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).context(|| format!("make a temporary directory in {parent:?}")),
        }
    }
}
