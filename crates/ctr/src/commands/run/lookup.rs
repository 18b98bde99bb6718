//! The user of a process that joins a container.

use std::path::Path;

use sys::mount::View;
use types::mount::Mount;
use types::oci::spec::User;
use types::oci::users;
use types::{Error, Result};

/// Whom `text` means in the container of these mounts or, where it has none, of this directory. As upstream, groups
/// other than the main one are not looked up.
pub fn user(text: &str, mounts: Option<&[Mount]>, root: &str) -> Result<User> {
    let view = match mounts {
        Some(mounts) => View::of_mounts(mounts)?,
        None if Path::new(root).is_absolute() => View::of_directory(Path::new(root))?,
        None => return Err(Error::invalid("rootfs absolute path is required")),
    };
    let user = users::resolve(text, |name| view.read(name));
    view.close()?;
    let mut user = user?;
    user.additional_gids = vec![user.gid];
    Ok(user)
}
