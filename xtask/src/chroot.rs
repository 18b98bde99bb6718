//! Containers in a chroot.
//!
//! A chroot changes one process's idea of `/`, not the mount namespace's. An OCI runtime pivots the process's root; who
//! enters a container later (exec) gets the namespace's, and with a mere chroot that is the outer machine's. So there the
//! same command is run again in a mount namespace of its own, whose root is the chroot's directory. Nothing outside
//! notices.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{machine, peers};

/// In a chroot, runs this command again where it is none and gives its exit code; elsewhere does nothing.
pub fn make_it_a_root() -> Result<Option<ExitCode>> {
    if !machine::is_root() || !is_chroot() {
        return Ok(None);
    }
    // Outside the chroot its libraries are not found: only a static program works on both sides.
    let busybox = peers::fetch()?.busybox();
    eprintln!("this is a chroot: continuing in a mount namespace that has it as its root");
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "unchanged", "sh", "-c", LEAVE, "sh"])
        .arg(busybox)
        .arg(PIVOT)
        .arg(std::env::current_dir()?)
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .status()
        .context("run unshare")?;
    if status.code() == Some(NOT_POSSIBLE) {
        eprintln!("that is not possible here; commands in running containers will not find their files");
        return Ok(None);
    }
    Ok(Some(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)))
}

/// The exit code of the scripts below where the kernel refuses.
const NOT_POSSIBLE: i32 = 125;

/// `$1` busybox, `$2` the next script, then the working directory and the command. Keeps the chroot's directory open as
/// descriptor 9 and goes to the namespace's root, out of the chroot.
const LEAVE: &str = r#"
busybox=$1 pivot=$2
shift 2
exec 9</
exec nsenter --mount=/proc/self/ns/mnt "/proc/self/fd/9$busybox" sh -c "$pivot" "$busybox" "$@"
"#;

/// `$0` busybox, `$1` the working directory, then the command. Everything is private before the first change, so that
/// nothing here shows outside.
const PIVOT: &str = r#"
outer=/proc/self/fd/9$0
"$outer" mount --make-rprivate / || exit 125
cd /proc/self/fd/9 || exit 125
new=$(pwd -P)
"$outer" mount --rbind "$new" "$new" && cd "$new" && "$outer" pivot_root . . || exit 125
"$0" umount -l . || exit 125
exec 9<&-
cd "$1" && shift && exec "$@"
"#;

/// Whether `/` is another directory than the first process's.
fn is_chroot() -> bool {
    let identity = |path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    // Where /proc is not mounted that is reported later on.
    identity("/proc/1/root/.").is_some_and(|first| identity("/").is_some_and(|own| own != first))
}
