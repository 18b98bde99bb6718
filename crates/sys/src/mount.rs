//! Mounts in the form of fstab, and the mount table.
//!
//! What a snapshotter answers, or a client sends, is a list of [`Mount`]s; [`mount_all`] performs it below a root and
//! [`unmount_all`] takes it back. Everything here is synchronous and may block as long as the filesystem below does:
//! the daemon calls it on its blocking pool, the shim in a forked child.
//!
//! ```text
//!  options       fstab words -> flags, propagation, data, id maps
//!  overlay       overlayfs whose layers do not fit in one page of options
//!  idmap         a user namespace made for its maps, idmapped clones
//!  table         /proc/self/mountinfo
//!  temp          a mount at a fresh directory, gone with its guard
//!  view          files of a root filesystem, read without mounting it
//! ```
//!
//! Targets below a root (`Mount::target`) come from other people: they are resolved by the kernel with the root as `/`
//! (`RESOLVE_IN_ROOT`), so that no symbolic link in a mounted image leads out of it.

mod idmap;
mod options;
mod overlay;
pub mod table;
mod temp;
mod view;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, ResolveFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_change, mount_remount};
use types::mount::Mount;
use types::{Error, Result, ResultExt};

pub(crate) use idmap::Waiter;
pub use options::{read_only, with_volatile, without_volatile};
pub use rustix::mount::UnmountFlags;
pub use temp::TempMount;
pub use view::View;

use crate::loopdev::{Access, AutoClear, LoopDevice};
use options::Options;

/// How long an unmount is tried again while the kernel says that the mount is busy: a fork between `open` and `exec`
/// elsewhere in the process, or a scanner, holds it for moments. The same 2.5 s as upstream.
const BUSY: Duration = Duration::from_millis(2500);

/// Performs `mounts` in order below `root`; when one fails those before it are unmounted again.
pub fn mount_all(mounts: &[Mount], root: &Path) -> Result<()> {
    for (done, mount) in mounts.iter().enumerate() {
        if let Err(error) = mount_below(mount, root) {
            // A lazy unmount cannot fail for being busy, and nobody has been told of these mounts yet.
            let undone = unmount_all(&mounts[..done], root, UnmountFlags::DETACH);
            return Err(match undone {
                Ok(()) => error,
                Err(left) => error.context(format!("left mounted below {root:?} ({left})")),
            });
        }
    }
    Ok(())
}

/// Takes back what [`mount_all`] did, last first. It goes on after an error and returns the first.
pub fn unmount_all(mounts: &[Mount], root: &Path, flags: UnmountFlags) -> Result<()> {
    let mut result = Ok(());
    for mount in mounts.iter().rev() {
        let unmounted = if mount.target.is_empty() {
            unmount(root, flags)
        } else {
            match path_below(root, &mount.target) {
                Ok(target) => unmount(&target, flags),
                Err(error) if error.is_not_found() => Ok(()),
                Err(error) => Err(error),
            }
        };
        result = result.and(unmounted);
    }
    result
}

/// Unmounts `target` until nothing is mounted there any more; what is no mount point, or not there, is fine.
///
/// A busy mount is tried again for a moment. A symbolic link at the end of `target` is not followed.
pub fn unmount(target: &Path, flags: UnmountFlags) -> Result<()> {
    loop {
        match unmount_once(target, flags) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(error) => return Err(io::Error::from(error)).context(|| format!("unmount {target:?}")),
        }
    }
}

/// Unmounts `target` and everything mounted below it, deepest first.
///
/// It goes on after an error; the error returned names every mount that stayed.
pub fn unmount_recursive(target: &Path, flags: UnmountFlags) -> Result<()> {
    let target = match target.canonicalize() {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(|| format!("unmount everything below {target:?}")),
    };
    let mut points: Vec<PathBuf> = table::read()?.into_iter().map(|entry| entry.target).collect();
    points.retain(|point| point.starts_with(&target));
    points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    points.dedup();
    let mut failed: Option<Error> = None;
    for point in points {
        if let Err(error) = unmount(&point, flags) {
            failed = Some(match failed {
                Some(before) => error.context(before.to_string()),
                None => error,
            });
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Whether something is mounted at exactly `path`.
pub fn is_mount_point(path: &Path) -> Result<bool> {
    let path = path.canonicalize().context(|| format!("look at {path:?}"))?;
    Ok(table::read()?.iter().any(|entry| entry.target == path))
}

fn unmount_once(target: &Path, flags: UnmountFlags) -> rustix::io::Result<()> {
    let deadline = Instant::now() + BUSY;
    let mut pause = Duration::from_millis(1);
    loop {
        match rustix::mount::unmount(target, flags | UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) if Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            result => return result,
        }
    }
}

/// Performs one mount; errors name its source, target and type.
fn mount_below(mount: &Mount, root: &Path) -> Result<()> {
    let steps = || {
        let mut options = Options::parse(&mount.options)?;
        if let Some(maps) = options.remap.take_if(|_| mount.kind == "overlay") {
            if !mount.target.is_empty() {
                return Err(Error::unimplemented("an idmapped overlay can only be the root"));
            }
            overlay::mount_idmapped(mount, &options, &maps, root)?;
            return finish(&options, root);
        }
        if mount.target.is_empty() {
            perform(mount, &options, root)?;
            return finish(&options, root);
        }
        // The descriptor is the place that was checked; a path could lead elsewhere by now.
        perform(mount, &options, &fd_path(&open_below(root, &mount.target)?))?;
        // Opened again it is the mount's root, no longer the directory below.
        finish(&options, &fd_path(&open_below(root, &mount.target)?))
    };
    steps().context(|| {
        let target = root.join(mount.target.trim_start_matches('/'));
        let options = mount.options.join(",");
        format!("mount {:?} on {target:?} (type {:?}, options {options:?})", mount.source, mount.kind)
    })
}

fn perform(mount: &Mount, options: &Options, place: &Path) -> Result<()> {
    let bind = options.flags.contains(MountFlags::BIND);
    if options.remount {
        let data = options.data()?;
        return Ok(mount_remount(place, options.flags, data.as_c_str()).map_err(io::Error::from)?);
    }
    if mount.kind == "overlay" && !bind && overlay::needs_more_than_a_page(options) {
        return overlay::mount(mount, options, place);
    }
    if options.through_loop && !bind {
        let access = match options.flags.contains(MountFlags::RDONLY) {
            true => Access::ReadOnly,
            false => Access::ReadWrite,
        };
        // The mount keeps the device; without the mount it goes with this descriptor.
        let device = LoopDevice::attach(Path::new(&mount.source), access, AutoClear::Yes)?;
        let mount = Mount { source: device.path().to_string_lossy().into_owned(), ..mount.clone() };
        return plain_mount(&mount, options, &options.data()?, place);
    }
    plain_mount(mount, options, &options.data()?, place)
}

fn plain_mount(mount: &Mount, options: &Options, data: &CString, place: &Path) -> Result<()> {
    let data = (!data.is_empty()).then_some(data.as_c_str());
    Ok(rustix::mount::mount(&*mount.source, place, &*mount.kind, options.flags, data)
        .map_err(io::Error::from)?)
}

/// What the first system call of a mount ignores: propagation, flags of a bind, id maps.
fn finish(options: &Options, place: &Path) -> Result<()> {
    finish_steps(options, place).map_err(|error| {
        // Without its flags the mount shows more than was asked for.
        let place = place.canonicalize().unwrap_or_else(|_| place.to_owned());
        match unmount_once(&place, UnmountFlags::DETACH) {
            Ok(()) => error,
            Err(left) => error.context(format!("mounted without its flags and not unmounted ({left})")),
        }
    })
}

fn finish_steps(options: &Options, place: &Path) -> Result<()> {
    let bound = MountFlags::BIND | MountFlags::REC;
    if options.flags.contains(MountFlags::BIND) && !options.remount && !(options.flags - bound).is_empty() {
        // A bind keeps its source's flags; a remount replaces them, so those that nobody cleared are repeated. In a
        // user namespace the kernel insists on that (they are locked), outside it keeps a `nosuid` source `nosuid`.
        let kept = flags_of(place)? - options.cleared;
        let flags = (options.flags - MountFlags::REC) | kept;
        mount_remount(place, flags, "").map_err(io::Error::from)?;
    }
    for propagation in &options.propagation {
        mount_change(place, *propagation).map_err(io::Error::from)?;
    }
    // Last: what is cloned has its flags already.
    options.remap.as_ref().map_or(Ok(()), |maps| idmap::remap(place, maps))
}

fn flags_of(place: &Path) -> Result<MountFlags> {
    let has = rustix::fs::statvfs(place).map_err(io::Error::from)?.f_flag;
    let pairs = [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    Ok(pairs
        .iter()
        .filter(|(from, _)| has.contains(*from))
        .fold(MountFlags::empty(), |all, (_, to)| all | *to))
}

/// The place `target` has when `root` is `/`; it must exist.
fn open_below(root: &Path, target: &str) -> Result<OwnedFd> {
    let open = || -> io::Result<OwnedFd> {
        let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        Ok(rustix::fs::openat2(&root, target, flags, Mode::empty(), ResolveFlags::IN_ROOT)?)
    };
    open().context(|| format!("find mount target {target:?} in {root:?}"))
}

/// Like [`open_below`], but without a descriptor that would keep the mount busy.
fn path_below(root: &Path, target: &str) -> Result<PathBuf> {
    let fd = open_below(root, target)?;
    fd_path(&fd).read_link().context(|| format!("find mount target {target:?} in {root:?}"))
}

fn fd_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
#[path = "mount/tests.rs"]
mod tests;
