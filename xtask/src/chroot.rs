//! Containers in a chroot.
//!
//! A chroot changes one process's idea of `/`, not the mount namespace's. An OCI runtime pivots the process's root; who
//! enters a container later (exec) gets the namespace's, and with a mere chroot that is the outer machine's. So there the
//! same command is run again in a mount namespace of its own, whose root is the chroot's directory. Nothing outside
//! notices.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{machine, peers};

/// In a chroot, runs this command again where it is none and gives its exit code; elsewhere does nothing.
pub fn make_it_a_root() -> Result<Option<ExitCode>> {
    if !machine::is_root() || !Path::new("/proc/self/ns/mnt").exists() {
        return Ok(None);
    }
    // Outside a chroot its libraries are not found: only a static program works on both sides. Without Debian's
    // packages there is none, and whoever needs them says so.
    let Ok(peers) = peers::fetch() else { return Ok(None) };
    let busybox = peers.busybox();
    if !is_chroot(&busybox) {
        return Ok(None);
    }
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

/// Whether `/` is another directory than the root of this process's mount namespace, which entering it again shows.
fn is_chroot(busybox: &Path) -> bool {
    let seen = Command::new("sh").args(["-c", IDENTIFY, "sh"]).arg(busybox).output();
    let seen =
        seen.ok().filter(|done| done.status.success()).and_then(|done| String::from_utf8(done.stdout).ok());
    let own = fs::metadata("/").ok().map(|meta| format!("{}:{}", meta.dev(), meta.ino()));
    seen.zip(own).is_some_and(|(seen, own)| seen.trim() != own)
}

/// Prints device and inode of the namespace's root.
const IDENTIFY: &str = r#"
exec 9</
exec nsenter --mount=/proc/self/ns/mnt "/proc/self/fd/9$1" stat -c %d:%i /
"#;
