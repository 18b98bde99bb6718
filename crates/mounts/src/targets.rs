//! The mount points of an activation: one directory an activation, in it one entry a mount, named by its place in the list.
//!
//! An entry tells by itself what it is, a link a device and a directory a mount point, so that it can be taken back
//! without a record.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sys::mount::UnmountFlags;
use types::mount::Mount;
use types::{Error, Result, ResultExt};

use crate::plan::{Handler, Plan, Step, Transform};
use crate::record::Active;
use crate::roots::Roots;
use crate::{device, format, mkdir, mkfs};

/// Performs what is ours of a list below `target`, which must not exist, and returns it with what is left.
///
/// When a step fails those before it are taken back, and `target` with them.
pub fn perform(
    plan: &Plan,
    mounts: &[Mount],
    target: &Path,
    roots: &Roots,
) -> Result<(Vec<Active>, Vec<Mount>)> {
    make_dir(target)?;
    let performed = steps(plan, mounts, target, roots);
    performed.map_err(|error| match clear(target) {
        Ok(()) => error,
        Err(left) => error.context(format!("left mounted below {target:?} ({left})")),
    })
}

fn steps(plan: &Plan, mounts: &[Mount], target: &Path, roots: &Roots) -> Result<(Vec<Active>, Vec<Mount>)> {
    let mut active = Vec::with_capacity(plan.ours);
    let (ours, rest) = mounts.split_at(plan.ours);
    for (at, (mount, step)) in ours.iter().zip(&plan.steps).enumerate() {
        let mount = transform(mount.clone(), step, &active, roots)?;
        let point = target.join(at.to_string());
        mount_one(&mount, step.handler, &point)?;
        let mount_point = point.to_string_lossy().into_owned();
        active.push(Active { mount, mounted_at: SystemTime::now(), mount_point });
    }
    let mut system = rest.to_vec();
    if let (Some(first), Some(step)) = (system.first_mut(), plan.steps.get(plan.ours)) {
        *first = transform(std::mem::take(first), step, &active, roots)?;
    }
    Ok((active, system))
}

fn transform(mut mount: Mount, step: &Step, before: &[Active], roots: &Roots) -> Result<Mount> {
    for transform in &step.transforms {
        mount = match transform {
            Transform::Format => format::format(mount, before)?,
            Transform::Mkfs => mkfs::mkfs(mount, roots)?,
            Transform::Mkdir => mkdir::mkdir(mount, roots)?,
        };
    }
    mount.kind.clone_from(&step.kind);
    Ok(mount)
}

fn mount_one(mount: &Mount, handler: Handler, point: &Path) -> Result<()> {
    match handler {
        Handler::Loop => device::attach(mount, point),
        Handler::System => {
            make_dir(point)?;
            sys::mount::mount_all(std::slice::from_ref(mount), point)
        }
    }
}

/// Takes back what is mounted below `target`, last first, and removes it; what is not there is fine.
///
/// It goes on after an error. Directories are only removed when they are empty: what is still mounted is somebody's data.
pub fn clear(target: &Path) -> Result<()> {
    let mut result = Ok(());
    for (_, entry) in entries(target)?.into_iter().rev() {
        result = result.and(release(&entry));
    }
    result?;
    removed(std::fs::remove_dir(target), target)
}

fn release(entry: &Path) -> Result<()> {
    let kind = match std::fs::symlink_metadata(entry) {
        Ok(kind) => kind,
        // Somebody else takes it back, too.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(|| format!("look at {entry:?}")),
    };
    if kind.is_symlink() {
        return device::release(entry);
    }
    sys::mount::unmount(entry, UnmountFlags::empty())?;
    removed(std::fs::remove_dir(entry), entry)
}

fn removed(result: std::io::Result<()>, path: &Path) -> Result<()> {
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context(|| format!("remove {path:?}"))
        }
        _ => Ok(()),
    }
}

/// The numbered entries of a directory in their order; none if it is not there.
pub fn entries(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let listed = match std::fs::read_dir(dir) {
        Ok(listed) => listed,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(|| format!("read {dir:?}")),
    };
    let mut found = Vec::new();
    for entry in listed {
        let path = entry.context(|| format!("read {dir:?}"))?.path();
        if let Some(number) =
            path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.parse().ok())
        {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether everything that an activation mounted is still there.
pub fn intact(active: &[Active]) -> Result<bool> {
    let table = sys::mount::table::read()?;
    Ok(active.iter().all(|active| match active.mount.kind.as_str() {
        "loop" => device::is_attached(Path::new(&active.mount_point), &active.mount.source),
        _ => table.iter().any(|entry| entry.target == Path::new(&active.mount_point)),
    }))
}

/// A new 0700 directory.
pub fn make_dir(path: &Path) -> Result<()> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(Error::from)
        .context(|| format!("make directory {path:?}"))
}
