//! Work that may block, in a forked child that reports back: the loop goes on whatever a disk does.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use sys::pidfd::{Ended, PidFd};
use sys::process::{Fork, die_with_parent, exit_now, fork};
use types::{Error, Result, ResultExt};

use crate::errno::Os;

/// How long forked work may take before its caller hears that it hangs.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A file in memory that child and parent share.
pub fn memory_file(name: &str) -> Result<File> {
    let fd: OwnedFd = memfd_create(name, MemfdFlags::CLOEXEC).os().context(|| "create a file in memory")?;
    Ok(File::from(fd))
}

/// Runs `work` in a forked child. Its answer, or its error, is in the file when the child has ended; see [`outcome`].
pub fn start(work: impl FnOnce() -> Result<Vec<u8>>) -> Result<(PidFd, File)> {
    let mut report = memory_file("shim-report")?;
    match fork().context(|| "fork")? {
        Fork::Parent(child) => Ok((child, report)),
        Fork::Child => {
            let result = die_with_parent().map_err(Error::from).and_then(|()| work());
            let (code, written) = match result {
                Ok(answer) => (0, report.write_all(&answer)),
                Err(error) => {
                    let code = api::status::code(error.class()).to_be_bytes();
                    (1, report.write_all(&code).and_then(|()| report.write_all(error.to_string().as_bytes())))
                }
            };
            exit_now(if written.is_ok() { code } else { 2 });
        }
    }
}

/// The result of work whose child has `ended`.
pub fn outcome(ended: Ended, mut report: File) -> Result<Vec<u8>> {
    report.seek(SeekFrom::Start(0))?;
    if ended.is_success() {
        let mut answer = Vec::new();
        report.read_to_end(&mut answer)?;
        return Ok(answer);
    }
    let mut code = [0; 4];
    let mut message = String::new();
    if report.read_exact(&mut code).is_err() {
        return Err(Error::internal(format!("forked work ended with status {}", ended.status())));
    }
    report.read_to_string(&mut message)?;
    Err(Error::new(api::status::class(i32::from_be_bytes(code)), message))
}
