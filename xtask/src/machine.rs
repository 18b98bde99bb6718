//! What this machine must offer before a container can run on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

/// Fails with a list of all that is missing.
pub fn require_containers() -> Result<()> {
    let mut missing = Vec::new();
    if !is_root() {
        missing.push("not root: namespaces and mounts need it; run with sudo".to_owned());
    }
    if !Path::new("/proc/self/mountinfo").exists() {
        missing.push("/proc is not mounted: mount -t proc proc /proc".to_owned());
    }
    let cgroups = fs::read_dir("/sys/fs/cgroup").map_or(0, Iterator::count);
    if cgroups == 0 {
        missing.push("no cgroups: mount -t cgroup2 cgroup2 /sys/fs/cgroup".to_owned());
    }
    if is_root() && !has_overlay() {
        missing.push("no overlayfs: modprobe overlay".to_owned());
    }
    if !Path::new("/dev/null").exists() {
        missing.push("/dev is empty: mount -t devtmpfs devtmpfs /dev".to_owned());
    }
    if !missing.is_empty() {
        bail!("this machine cannot run containers:\n  - {}", missing.join("\n  - "));
    }
    Ok(())
}

/// Whether `name` is on PATH.
pub fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).exists())
}

/// In a chroot whose root is no mount point, no OCI runtime can pivot. There, this runs the same command again in a
/// private mount namespace with the root bound over itself, and gives its exit code.
pub fn enter_mountable_root() -> Result<Option<ExitCode>> {
    if !is_root() || root_is_mount_point() || !Path::new("/proc/self/mountinfo").exists() {
        return Ok(None);
    }
    eprintln!("the root of this chroot is no mount point; continuing in a mount namespace where it is");
    let point = std::env::temp_dir().join(format!("xtask-root-{}", std::process::id()));
    fs::create_dir(&point).with_context(|| format!("create {}", point.display()))?;
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"])
        .arg(&point)
        .arg(std::env::current_dir()?)
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .status();
    // Empty again: what was mounted on it went with the namespace.
    let removed = fs::remove_dir(&point);
    let status = status.context("run unshare")?;
    removed.with_context(|| format!("remove {}", point.display()))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(Some(ExitCode::from(code)))
}

/// `$1` is an empty directory, `$2` the working directory, the rest the command.
const ENTER: &str = r#"
set -e
mount --rbind / "$1"
point=$1 dir=$2
shift 2
exec chroot "$point" sh -c 'cd "$1" && shift && exec "$@"' sh "$dir" "$@"
"#;

fn root_is_mount_point() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(4) == Some("/"))
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    // Without /proc nothing works later on; the missing mount is reported then.
    ids.is_none_or(|ids| ids.split_whitespace().nth(1) == Some("0"))
}

/// Whether the kernel has overlayfs; asking for its module loads it.
fn has_overlay() -> bool {
    let listed = || {
        fs::read_to_string("/proc/filesystems")
            .unwrap_or_default()
            .lines()
            .any(|line| line.ends_with("\toverlay"))
    };
    if listed() {
        return true;
    }
    let modprobe =
        ["/sbin/modprobe", "/usr/sbin/modprobe"].map(PathBuf::from).into_iter().find(|path| path.exists());
    // A failure shows in the list.
    modprobe.is_some_and(|program| Command::new(program).arg("overlay").status().is_ok()) && listed()
}
