//! Device nodes of the host, for containers.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use types::error::os_text;
use types::oci::spec::Device;
use types::{Error, Result, ResultExt};

/// Directories of /dev that every container has of its own, or that are nobody's.
const SKIPPED: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];

/// The device at `path`, or all devices below it.
pub fn below(path: &Path) -> Result<Vec<Device>> {
    // The named path itself may be a link to a directory; nothing below it is followed.
    let metadata = std::fs::metadata(path);
    let metadata = metadata.map_err(|error| unreadable(path, error))?;
    if metadata.is_dir() {
        let mut found = Vec::new();
        collect(path, &mut found)?;
        return Ok(found);
    }
    let device = node(path).context(|| format!("lstat {}", path.display()))?;
    let refusal =
        || Error::invalid(format!("get device path: {path:?} containerPath: \"\" error: not a device node"));
    Ok(vec![device.ok_or_else(refusal)?])
}

/// In upstream's words.
fn unreadable(path: &Path, error: std::io::Error) -> Error {
    let text = format!("error stating device path: stat {}: {}", path.display(), os_text(&error));
    Error::new(Error::from(error).class(), text)
}

fn collect(directory: &Path, found: &mut Vec<Device>) -> Result<()> {
    let failed = |e| Error::from(e).context(format!("open {}", directory.display()));
    let mut entries =
        std::fs::read_dir(directory).map_err(failed)?.collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        if entry.file_type().map_err(failed)?.is_dir() {
            if !SKIPPED.iter().any(|skipped| name == *skipped) {
                collect(&entry.path(), found)?;
            }
            continue;
        }
        if name == "console" {
            continue;
        }
        match node(&entry.path()) {
            Ok(device) => found.extend(device.filter(|device| device.kind != "p")),
            // Gone since the directory was read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::from(error).context(format!("lstat {}", entry.path().display()))),
        }
    }
    Ok(())
}

/// The device node at `path`, without following a link; `None` if it is something else.
fn node(path: &Path) -> std::io::Result<Option<Device>> {
    let metadata = std::fs::symlink_metadata(path)?;
    let kind = match metadata.file_type() {
        kind if kind.is_block_device() => "b",
        kind if kind.is_char_device() => "c",
        kind if kind.is_fifo() => "p",
        _ => return Ok(None),
    };
    let number = metadata.rdev();
    Ok(Some(Device {
        path: path.display().to_string(),
        kind: kind.into(),
        major: rustix::fs::major(number).into(),
        minor: rustix::fs::minor(number).into(),
        file_mode: Some(metadata.mode() & 0o7777),
        uid: Some(metadata.uid()),
        gid: Some(metadata.gid()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_a_character_device_and_a_file_is_none() {
        let found = below(Path::new("/dev/null")).unwrap();
        assert_eq!((found[0].kind.as_str(), found[0].major, found[0].minor), ("c", 1, 3));
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(below(file.path()).unwrap_err().to_string().ends_with("not a device node"));
    }
}
