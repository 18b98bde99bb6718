//! Volumes that an image declares: directories of the host that begin with what the image has there, and are gone with the
//! container.
//!
//! The paths are the image's, and so are the links in its layers: they are followed inside its root filesystem only.

use std::path::{Component, Path, PathBuf};

use api::cri::Mount;
use rustix::fs::OFlags;
use sys::mount::{TempMount, read_only};
use types::{Error, Result, ResultExt};

/// As long as the kernel takes a path.
const PATH: usize = 4096;

/// Makes the directories of volumes, with what the root filesystem of these mounts has in their places. It blocks.
pub fn fill(volumes: &[Mount], rootfs: &[types::mount::Mount]) -> Result<()> {
    for volume in volumes {
        check(&volume.container_path)?;
        let host = Path::new(&volume.host_path);
        std::fs::create_dir_all(host).context(|| format!("make volume {:?}", volume.container_path))?;
    }
    if volumes.is_empty() {
        return Ok(());
    }
    let mounted = TempMount::new(&read_only(rootfs)).context(|| "mount the image for its volumes")?;
    let copied = volumes.iter().try_for_each(|volume| copy(mounted.path(), volume));
    copied.and(mounted.close())
}

fn check(path: &str) -> Result<()> {
    let bad = |why: &str| {
        let shown: String = path.chars().take(64).collect();
        Err(Error::invalid(format!("the image declares a volume at {shown:?}, which is {why}")))
    };
    if path.chars().any(char::is_control) || path.len() > PATH {
        return bad("no path");
    }
    if clean(path) == Path::new("/") {
        return bad("its root");
    }
    Ok(())
}

fn copy(root: &Path, volume: &Mount) -> Result<()> {
    let root = sys::fs::open_dir(root)?;
    let doing = || format!("copy what the image has in volume {:?}", volume.container_path);
    match sys::fs::open_in_root(&root, &volume.container_path, OFlags::RDONLY | OFlags::DIRECTORY) {
        // Nothing is there to begin with.
        Err(error) if error.is_not_found() => Ok(()),
        from => {
            let host = sys::fs::open_dir(Path::new(&volume.host_path)).context(doing)?;
            snapshots::native::tree_at(from.context(doing)?, host).context(doing)
        }
    }
}

/// The path without what means nothing: absolute, without dots.
fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => drop(clean.pop()),
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn volume(host: &Path, path: &str) -> Mount {
        let host_path = host.to_str().unwrap().to_owned();
        Mount { host_path, container_path: path.to_owned(), ..Mount::default() }
    }

    #[test]
    fn volumes_that_are_no_paths_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["/", "/..", "/a/..", "a\0b", "/a\nb", &"x".repeat(5000)] {
            let volume = volume(&dir.path().join("volume"), bad);
            assert!(fill(&[volume], &[]).is_err());
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn nothing_is_copied_from_outside_of_the_image() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir(top.path().join("canary")).unwrap();
        std::fs::write(top.path().join("canary/file"), "canary").unwrap();
        let root = top.path().join("root");
        std::fs::create_dir_all(root.join("inside/deep")).unwrap();
        std::fs::write(root.join("inside/file"), "image").unwrap();
        symlink(top.path().join("canary"), root.join("absolute")).unwrap();
        symlink("../canary", root.join("dots")).unwrap();
        symlink("dots", root.join("chain")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("/inside", root.join("good")).unwrap();
        symlink(top.path().join("canary/file"), root.join("inside/link")).unwrap();
        let mut number = 0;
        let mut copied = |path: &str| {
            number += 1;
            let host = top.path().join(format!("volume{number}"));
            std::fs::create_dir(&host).unwrap();
            let done = copy(&root, &volume(&host, path));
            let text = std::fs::read_to_string(host.join("file")).ok();
            (done.is_ok(), text)
        };
        for path in ["/absolute", "/dots", "/chain", "/../canary", "/none"] {
            assert_eq!(copied(path), (true, None), "{path}");
        }
        assert_eq!(copied("/loop"), (false, None));
        assert_eq!(copied("/inside/file"), (false, None));
        assert_eq!(copied("/good"), (true, Some("image".to_owned())));
        assert_eq!(copied("/inside"), (true, Some("image".to_owned())));
        // The last one's link is a link, and leads nowhere until somebody follows it.
        let link = top.path().join(format!("volume{number}/link"));
        assert!(link.symlink_metadata().unwrap().is_symlink());
    }
}
