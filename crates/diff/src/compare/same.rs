//! Whether something is in both trees what it was: upstream's rules, as what they call the same is not in the layer.
//!
//! Owner, mode, device and capabilities count. Directories are compared by nothing else. Of the rest size and time count,
//! and content only where both times are whole seconds: an archive may have cut them.

use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FileType;
use types::{Class, Error, Result};

use super::tree::Found;

/// Bytes that are compared at a time.
const CHUNK: usize = 128 << 10;

pub(super) fn same(lower: &Found<'_>, upper: &Found<'_>, cancel: &AtomicBool) -> Result<bool> {
    let (one, two) = (&lower.stat, &upper.stat);
    if (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino) {
        return Ok(true);
    }
    let attributes = |stat: &rustix::fs::Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
    if attributes(one) != attributes(two) {
        return Ok(false);
    }
    let times = |stat: &rustix::fs::Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    if !lower.is_dir() && times(one) != times(two) {
        return Ok(false);
    }
    if lower.capability()? != upper.capability()? {
        return Ok(false);
    }
    if one.st_mtime_nsec != 0 {
        return Ok(true);
    }
    match lower.file_type() {
        FileType::Symlink => Ok(lower.target()? == upper.target()?),
        FileType::RegularFile if one.st_size > 0 => same_content(lower, upper, cancel),
        _ => Ok(true),
    }
}

fn same_content(lower: &Found<'_>, upper: &Found<'_>, cancel: &AtomicBool) -> Result<bool> {
    let (mut one, mut two) = (lower.open()?, upper.open()?);
    let (mut left, mut right) = (Vec::with_capacity(CHUNK), Vec::with_capacity(CHUNK));
    loop {
        check(cancel)?;
        for (file, chunk) in [(&mut one, &mut left), (&mut two, &mut right)] {
            chunk.clear();
            file.take(CHUNK as u64).read_to_end(chunk)?;
        }
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}

/// Ends the work of a caller that went away.
pub(super) fn check(cancel: &AtomicBool) -> Result<()> {
    if cancel.load(Ordering::Relaxed) {
        return Err(Error::new(Class::Canceled, "canceled"));
    }
    Ok(())
}
