//! Images as volumes of a pod: each is mounted read-only once, for all containers of the pod, until the pod ends.
//!
//! ```text
//!  <state>/io.containerd.grpc.v1.cri/image-volumes/<pod>/<image>
//! ```
//!
//! A snapshot of the same name is behind each; the pod's lease keeps it. It is a writable one, of which containers see a read-only
//! bind mount. Nobody needs what would be written there after a crash, so that overlayfs need not sync it: it is mounted `volatile`.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use api::cri::{ContainerConfig, Mount, NamespaceMode, UserNamespace};
use rustix::fs::{FileType, OFlags, ResolveFlags, fstat};
use rustix::io::Errno;
use sys::mount::UnmountFlags;
use types::error::os_text;
use types::{Class, Error, Labels, Result, ResultExt, crash};

use super::snapshot;
use crate::cri::{Cri, blocking};
use crate::image::Image;
use crate::pod::{Pod, State};
use crate::spec::IdMaps;

/// Mounts the images that a request wants as volumes, and says in the request where they are. What is mounted stays: it is
/// the pod's.
pub async fn mount(cri: &Cri, pod: &Pod, snapshotter: &str, config: &mut ContainerConfig) -> Result<()> {
    let images = config.mounts.iter_mut().filter(|mount| mount.image.is_some());
    for volume in images {
        let place = Place { cri, pod, snapshotter };
        place.fill(volume).await.map_err(|error| {
            // The kubelet looks for this word.
            error.context("failed to mount image volume: ImageVolumeMountFailed")
        })?;
    }
    Ok(())
}

/// Unmounts all images of a pod, and removes their snapshots. Nothing to do is fine.
pub async fn unmount(cri: &Cri, pod: &str, snapshotter: &str) -> Result<()> {
    let dir = directory(cri, pod);
    let Ok(entries) = std::fs::read_dir(&dir) else { return Ok(()) };
    let snapshots = cri.db.snapshotter(cri.scope(None), snapshotter)?;
    for target in entries.flatten().map(|entry| entry.path()) {
        let unmounted = blocking({
            let target = target.clone();
            move || sys::mount::unmount_recursive(&target, UnmountFlags::empty())
        });
        unmounted.await.context(|| format!("failed to unmount image volume {target:?}"))?;
        match snapshots.remove(&target.to_string_lossy()).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        std::fs::remove_dir(&target).context(|| format!("remove {target:?}"))?;
    }
    std::fs::remove_dir(&dir).context(|| format!("remove {dir:?}"))
}

fn directory(cri: &Cri, pod: &str) -> PathBuf {
    cri.dirs.state.join("image-volumes").join(pod)
}

/// Whose volume it is.
struct Place<'a> {
    cri: &'a Cri,
    pod: &'a Pod,
    snapshotter: &'a str,
}

impl Place<'_> {
    async fn fill(&self, volume: &mut Mount) -> Result<()> {
        let reference = volume.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
        let image = self.cri.images.resolve(&reference);
        let image = image.context(|| format!("failed to resolve image {reference:?}"))?;
        let target = directory(self.cri, self.pod.id()).join(self.name(&image)?);
        // The pod neither ends meanwhile, nor mounts the same image twice.
        let held = self.pod.teardown.lock().await;
        if self.pod.status().state != State::Ready {
            return Err(Error::precondition(format!("sandbox container {:?} is not running", self.pod.id())));
        }
        if !(target.exists() && sys::mount::is_mount_point(&target)?) {
            self.mount(&image, &target, remapped(volume)?).await?;
        }
        drop(held);
        volume.host_path = match volume.image_sub_path.as_str() {
            "" => target.to_string_lossy().into_owned(),
            path => sub_path(&target, path)?.to_string_lossy().into_owned(),
        };
        // The snapshot is remapped already.
        volume.uid_mappings.clear();
        volume.gid_mappings.clear();
        Ok(())
    }

    /// An image's directory is called by the digest that its name points to, as upstream calls it.
    fn name(&self, image: &Image) -> Result<String> {
        let name = image.references.first().map(String::as_str).unwrap_or_default();
        let target = self.cri.db.images(&self.cri.scope(None)).get(name)?.target.digest.to_string();
        Ok(target.rsplit(':').next().unwrap_or_default().to_owned())
    }

    async fn mount(&self, image: &Image, target: &Path, labels: Labels) -> Result<()> {
        let key = target.to_string_lossy();
        let of = (self.pod.id(), self.snapshotter);
        let mounts = snapshot::volume(self.cri, of, &key, image, labels).await;
        let mounts = mounts.context(|| format!("failed to prepare for image volume {key:?}"))?;
        crash::point("cri-image-volume-snapshot");
        let target = target.to_owned();
        let mounted = blocking(move || {
            std::fs::create_dir_all(&target).context(|| format!("make {target:?}"))?;
            sys::mount::mount_all(&sys::mount::with_volatile(&mounts), &target)
        });
        match mounted.await {
            Ok(()) => Ok(()),
            Err(error) => {
                let snapshots = self.cri.db.snapshotter(self.cri.scope(None), self.snapshotter)?;
                drop(snapshots.remove(&key).await);
                Err(error)
            }
        }
    }
}

/// What a snapshotter is told about the user namespace that the mount is for.
fn remapped(volume: &Mount) -> Result<Labels> {
    let (uids, gids) = (volume.uid_mappings.clone(), volume.gid_mappings.clone());
    if uids.is_empty() || gids.is_empty() {
        return Ok(Labels::new());
    }
    let maps = IdMaps::parse(Some(&UserNamespace { mode: NamespaceMode::Pod.into(), uids, gids }))?;
    Ok(maps.map(|maps| maps.snapshot_labels()).unwrap_or_default())
}

/// A directory inside a mounted image. As upstream: what leads out of it, absolute links too, is refused.
fn sub_path(root: &Path, path: &str) -> Result<PathBuf> {
    let doing = || format!("failed to ensure image subpath {path:?} in {root:?}");
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let found = sys::fs::openat2(sys::fs::open_dir(root)?, Path::new(path), OFlags::PATH, beneath);
    let found = found.map_err(|errno| match errno {
        Errno::XDEV => Error::new(Class::Unknown, "path escapes from parent"),
        errno => Error::new(Class::Unknown, os_text(&errno.into())),
    });
    let found = found.context(doing)?;
    let mode = fstat(&found).map_err(std::io::Error::from).context(doing)?.st_mode;
    if !FileType::from_raw_mode(mode).is_dir() {
        return Err(Error::new(Class::Unknown, "only directory subpath is supported").context(doing()));
    }
    std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).context(doing)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_part_of_an_image_is_a_directory_of_it() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::create_dir(top.path().join("outside")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        symlink("a/b", root.join("link")).unwrap();
        symlink("/a/b", root.join("absolute")).unwrap();
        symlink("../outside", root.join("out")).unwrap();
        assert_eq!(sub_path(&root, "a/b").unwrap(), root.join("a/b"));
        assert_eq!(sub_path(&root, "link").unwrap(), root.join("a/b"));
        for (bad, why) in [
            ("file", "only directory subpath is supported"),
            ("none", "no such file or directory"),
            ("out", "path escapes from parent"),
            ("absolute", "path escapes from parent"),
            ("/a/b", "path escapes from parent"),
            ("../outside", "path escapes from parent"),
        ] {
            let refused = sub_path(&root, bad).unwrap_err().to_string();
            assert!(refused.contains(why), "{bad}: {refused}");
        }
    }
}
