//! What of /proc and /sys is hidden or not writable.

use api::cri::LinuxContainerSecurityContext;
use types::{Error, Result};

use super::checks;
use super::document::Document;

/// As the request says: a kubelet sends its defaults, so nothing said is nothing hidden (ProcMount). Where the administrator has
/// turned that off the defaults stay.
pub(super) fn apply(
    document: &mut Document,
    security: &LinuxContainerSecurityContext,
    disable_proc_mount: bool,
) -> Result<()> {
    document.root.readonly |= security.readonly_rootfs;
    for (field, paths) in
        [("masked_paths", &security.masked_paths), ("readonly_paths", &security.readonly_paths)]
    {
        for path in paths {
            checks::text(field, path)?;
            if !path.starts_with('/') {
                return Err(Error::invalid(format!("{field}: {path:?} is not absolute")));
            }
        }
    }
    if !disable_proc_mount {
        document.linux.masked_paths.clone_from(&security.masked_paths);
        document.linux.readonly_paths.clone_from(&security.readonly_paths);
    }
    Ok(())
}
