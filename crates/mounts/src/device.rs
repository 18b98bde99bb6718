//! The handler of `loop`: a file as a block device, which a link at the mount point names.
//!
//! The device outlives the daemon: it is given back by [`release`], which finds it by the link alone.

use std::io::ErrorKind;
use std::path::Path;

use sys::loopdev::{Access, AutoClear, LoopDevice};
use types::mount::Mount;
use types::{Result, ResultExt};

/// Sets up a device that shows the mount's source.
pub fn attach(mount: &Mount, link: &Path) -> Result<()> {
    let access = match mount.options.iter().rev().find(|option| *option == "ro" || *option == "rw") {
        Some(option) if option == "ro" => Access::ReadOnly,
        _ => Access::ReadWrite,
    };
    // Until the link stands the device goes with us.
    let device = LoopDevice::attach(Path::new(&mount.source), access, AutoClear::Yes)?;
    std::os::unix::fs::symlink(device.path(), link).context(|| format!("link {link:?}"))?;
    device.set_auto_clear(AutoClear::No)
}

/// Lets the device go that the link names, with its last user; what is not there is fine.
pub fn release(link: &Path) -> Result<()> {
    let path = match std::fs::read_link(link) {
        Ok(path) => path,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(|| format!("read link {link:?}")),
    };
    let device = LoopDevice::open(&path)?;
    if let Err(error) = device.set_auto_clear(AutoClear::Yes) {
        // ENXIO: the device shows nothing any more.
        let idle = std::fs::metadata(shown(&path)).is_err();
        if !idle {
            return Err(error);
        }
    }
    if let Err(error) = std::fs::remove_file(link) {
        // As long as the link names it the device must not become somebody else's.
        let kept = device.set_auto_clear(AutoClear::No);
        return Err(error).context(|| format!("remove link {link:?} (device kept: {})", kept.is_ok()));
    }
    Ok(())
}

/// Whether the link names a device that shows `source`.
pub fn is_attached(link: &Path, source: &str) -> bool {
    let Ok(device) = std::fs::read_link(link) else { return false };
    let source = std::fs::canonicalize(source).unwrap_or_else(|_| source.into());
    std::fs::read_to_string(shown(&device))
        .is_ok_and(|file| file.trim_end_matches('\n') == source.to_string_lossy())
}

/// Where the kernel tells which file a device shows.
fn shown(device: &Path) -> std::path::PathBuf {
    Path::new("/sys/block").join(device.file_name().unwrap_or_default()).join("loop/backing_file")
}
