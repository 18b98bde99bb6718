//! The daemon's two directories, made after it is certain that they may be.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use types::{Result, ResultExt};

/// Makes the root directory, for nobody else's eyes.
pub fn make_root(root: &Path) -> Result<()> {
    make_private(root)
}

/// Makes the directory for temporary files.
pub fn make_temp(temp: &Path) -> Result<()> {
    make_private(temp)
}

/// Makes the state directory. Containers whose root is another user on the host have to pass through it.
pub fn make_state(state: &Path) -> Result<()> {
    make(state, 0o711)
}

/// Makes a directory that containers pass through: their root may be another user on the host.
pub fn make_passable(path: &Path) -> Result<()> {
    make(path, 0o711)?;
    set_mode(path, 0o711)
}

/// Makes a directory for nobody else's eyes.
pub fn make_private(path: &Path) -> Result<()> {
    make(path, 0o700)?;
    // An older release, or an administrator, may have made it with other permissions.
    set_mode(path, 0o700)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(mode))
        .context(|| format!("set mode of {}", path.display()))
}

fn make(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .context(|| format!("create directory {}", path.display()))
}
