//! Settings of the network namespace in which the thread is: files below `/proc/sys/net`.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use types::{Result, ResultExt};

fn path(name: &[&str]) -> PathBuf {
    ["/proc/sys/net"].iter().chain(name).collect()
}

/// Sets it, if it is not so. No part of `name` is more than a name.
pub(crate) fn set(name: &[&str], value: &str) -> Result<()> {
    let path = path(name);
    let doing = || format!("set {} to {value:?}", path.display());
    // Writing one takes the lock of all network configuration, reading does not.
    if fs::read_to_string(&path).context(doing)?.trim_end() == value {
        return Ok(());
    }
    fs::write(&path, value).context(doing)
}

/// Sets it where the kernel has it: without version 6 of the protocol there is nothing to set.
pub(crate) fn set_if_there(name: &[&str], value: &str) -> Result<()> {
    match fs::metadata(path(name)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        _ => set(name, value),
    }
}
