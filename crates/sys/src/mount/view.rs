//! Reads a container's root filesystem without mounting it, where its mounts allow.
//!
//! A mount and its unmount cost more than everything else before a task, so the layers of an
//! overlay are looked through directly, as upstream does: a name is what the topmost layer that has it says, unless a
//! whiteout or an opaque directory hides what is below. Symbolic links are followed in the merged view, as if its root
//! were `/`, and never outside of it. Other kinds of mounts are performed, read-only, at a temporary place.

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, OFlags, ResolveFlags};
use rustix::io::Errno;
use types::mount::Mount;
use types::{Error, Result, ResultExt};

use super::TempMount;

/// Real files of users and groups stay well below a mebibyte; upstream's bound.
const LIMIT: u64 = 10 << 20;
/// As the kernel's.
const MAX_LINKS: usize = 40;
/// How overlayfs marks a directory that hides those below.
const OPAQUE: [&std::ffi::CStr; 2] = [c"trusted.overlay.opaque", c"user.overlay.opaque"];

/// A root filesystem, opened.
pub struct View {
    /// Topmost first.
    layers: Vec<OwnedFd>,
    /// Dropped last: the layers are open in there.
    mounted: Option<TempMount>,
}

/// What a name is in the merged view.
enum Found {
    Link(PathBuf),
    /// The layer that has it.
    Else(usize, FileType),
}

impl View {
    /// The filesystem that `mounts` describe.
    pub fn of_mounts(mounts: &[Mount]) -> Result<Self> {
        if let Some(directories) = layers(mounts) {
            let layers = directories.iter().map(|dir| crate::fs::open_dir(dir)).collect::<Result<_>>()?;
            return Ok(Self { layers, mounted: None });
        }
        let mut readonly = mounts.to_vec();
        if let Some(last) = readonly.last_mut() {
            last.options.retain(|option| option != "rw");
            last.options.push("ro".into());
        }
        let mounted = TempMount::new(&readonly)?;
        Ok(Self { layers: vec![crate::fs::open_dir(mounted.path())?], mounted: Some(mounted) })
    }

    /// A directory.
    pub fn of_directory(path: &Path) -> Result<Self> {
        Ok(Self { layers: vec![crate::fs::open_dir(path)?], mounted: None })
    }

    /// Undoes what opening it did.
    pub fn close(self) -> Result<()> {
        let Self { layers, mounted } = self;
        drop(layers);
        mounted.map_or(Ok(()), TempMount::close)
    }

    /// The bytes of a regular file of a sane size. `NotFound` if there is none.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let (layer, path) = self.resolve(Path::new(name)).map_err(|errno| failed("open", name, errno))?;
        // Neither waits for a FIFO's writer nor becomes the owner of a terminal.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = crate::fs::open_without_links(&self.layers[layer], &path, flags)?;
        let stat = rustix::fs::fstat(&file).map_err(|errno| failed("stat", name, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::invalid(format!("{name} is not a regular file")));
        }
        let mut bytes = Vec::new();
        let read = std::fs::File::from(file).take(LIMIT + 1).read_to_end(&mut bytes);
        read.context(|| format!("read {name}"))?;
        if bytes.len() as u64 > LIMIT {
            return Err(Error::invalid(format!("{name} is larger than {LIMIT} bytes")));
        }
        Ok(bytes)
    }

    /// Follows links to a regular file: the layer that has it, and its path there.
    fn resolve(&self, name: &Path) -> Result<(usize, PathBuf), Errno> {
        let mut links = 0;
        let mut left: Vec<OsString> = names(name);
        let mut at = PathBuf::new();
        while let Some(name) = left.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            at.push(&name);
            match self.look(&at)? {
                Found::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    if target.is_absolute() {
                        at = PathBuf::new();
                    } else {
                        at.pop();
                    }
                    left.extend(names(&target));
                }
                Found::Else(layer, FileType::RegularFile) if left.is_empty() => return Ok((layer, at)),
                Found::Else(_, FileType::Directory) => {}
                // Devices, sockets and FIFOs are not even opened.
                Found::Else(..) => return Err(if left.is_empty() { Errno::INVAL } else { Errno::NOTDIR }),
            }
        }
        Err(Errno::ISDIR)
    }

    /// What `path`, whose parents are directories of the merged view, is there.
    fn look(&self, path: &Path) -> Result<Found, Errno> {
        for (layer, root) in self.layers.iter().enumerate() {
            let open = |path: &Path, flags| {
                crate::fs::openat2(
                    root,
                    path,
                    flags | OFlags::NOFOLLOW,
                    ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
                )
            };
            let parent = path.parent().unwrap_or(Path::new(""));
            match open(path, OFlags::PATH) {
                Ok(file) => {
                    let stat = rustix::fs::fstat(&file)?;
                    let kind = FileType::from_raw_mode(stat.st_mode);
                    return match kind {
                        // A whiteout.
                        FileType::CharacterDevice if stat.st_rdev == 0 => Err(Errno::NOENT),
                        FileType::Symlink => {
                            let target = rustix::fs::readlinkat(&file, "", Vec::new())?;
                            Ok(Found::Link(OsString::from_vec(target.into_bytes()).into()))
                        }
                        kind => Ok(Found::Else(layer, kind)),
                    };
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno),
            }
            let hides = |dir: &Path| {
                let opened = open(dir, OFlags::RDONLY | OFlags::DIRECTORY);
                opened.is_ok_and(|dir| OPAQUE.iter().any(|name| is_yes(&dir, name)))
            };
            if parent.ancestors().any(hides) {
                break;
            }
        }
        Err(Errno::NOENT)
    }
}

fn is_yes(dir: &OwnedFd, name: &std::ffi::CStr) -> bool {
    matches!(crate::fs::get_xattr(dir, name), Ok(Some(value)) if value == b"y")
}

fn failed(operation: &str, name: &str, errno: Errno) -> Error {
    if errno == Errno::INVAL {
        return Error::invalid(format!("{name} is not a regular file"));
    }
    Error::from(std::io::Error::from(errno)).context(format!("{operation} {name}"))
}

/// The names of a path, the last one first.
fn names(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let mut names: Vec<OsString> = names.collect();
    names.reverse();
    names
}

/// The directories that one overlay or bind mount shows, topmost first; `None` for everything else.
fn layers(mounts: &[Mount]) -> Option<Vec<PathBuf>> {
    let [mount] = mounts else { return None };
    if !mount.target.is_empty() {
        return None;
    }
    let option = |name: &str| mount.options.iter().find_map(|option| option.strip_prefix(name));
    match mount.kind.as_str() {
        "bind" => Some(vec![mount.source.clone().into()]),
        "overlay" => {
            let lower = option("lowerdir=")?;
            // `::` begins data-only layers, and a backslash quotes: both are for the kernel.
            if lower.contains("::") || lower.contains('\\') {
                return None;
            }
            Some(option("upperdir=").into_iter().chain(lower.split(':')).map(PathBuf::from).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn layered() -> (tempfile::TempDir, View) {
        let dir = tempfile::tempdir().unwrap();
        for layer in ["upper", "middle", "lower"] {
            std::fs::create_dir_all(dir.path().join(layer).join("etc")).unwrap();
        }
        let options = ["lowerdir", "upperdir"];
        let path = |name: &str| dir.path().join(name).display().to_string();
        let lower = format!("{}={}:{}", options[0], path("middle"), path("lower"));
        let mount = Mount {
            kind: "overlay".into(),
            options: vec![lower, format!("{}={}", options[1], path("upper"))],
            ..Default::default()
        };
        let view = View::of_mounts(&[mount]).unwrap();
        (dir, view)
    }

    #[test]
    fn the_topmost_layer_that_has_a_file_wins() {
        let (dir, view) = layered();
        std::fs::write(dir.path().join("lower/etc/passwd"), "lower").unwrap();
        assert_eq!(view.read("etc/passwd").unwrap(), b"lower");
        std::fs::write(dir.path().join("middle/etc/passwd"), "middle").unwrap();
        assert_eq!(view.read("etc/passwd").unwrap(), b"middle");
        view.close().unwrap();
    }

    #[test]
    fn a_link_leads_through_all_layers_and_not_outside() {
        let (dir, view) = layered();
        std::fs::create_dir_all(dir.path().join("lower/nix")).unwrap();
        std::fs::write(dir.path().join("lower/nix/passwd"), "linked").unwrap();
        symlink("/nix/passwd", dir.path().join("upper/etc/passwd")).unwrap();
        assert_eq!(view.read("etc/passwd").unwrap(), b"linked");
        std::fs::write(dir.path().join("secret"), "canary").unwrap();
        symlink("../../../../secret", dir.path().join("upper/etc/group")).unwrap();
        assert!(view.read("etc/group").unwrap_err().is_not_found());
        symlink("loop", dir.path().join("upper/etc/loop")).unwrap();
        assert!(view.read("etc/loop").is_err());
    }

    #[test]
    fn a_directory_replaced_by_a_file_hides_what_was_in_it() {
        let (dir, view) = layered();
        std::fs::write(dir.path().join("lower/etc/passwd"), "lower").unwrap();
        std::fs::remove_dir(dir.path().join("upper/etc")).unwrap();
        std::fs::write(dir.path().join("upper/etc"), "").unwrap();
        assert!(view.read("etc/passwd").is_err());
    }

    #[test]
    fn what_is_no_regular_file_or_too_large_is_refused() {
        let (dir, view) = layered();
        let etc = dir.path().join("upper/etc");
        std::fs::create_dir(etc.join("passwd")).unwrap();
        assert!(view.read("etc/passwd").is_err());
        rustix::fs::mknodat(rustix::fs::CWD, etc.join("group"), FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(view.read("etc/group").is_err());
        let large = std::fs::File::create(etc.join("large")).unwrap();
        large.set_len(8 << 30).unwrap();
        assert!(view.read("etc/large").unwrap_err().to_string().contains("larger than"));
    }

    #[test]
    fn whiteouts_and_opaque_directories_hide_what_is_below() {
        let (dir, view) = layered();
        std::fs::write(dir.path().join("lower/etc/passwd"), "lower").unwrap();
        std::fs::write(dir.path().join("lower/etc/group"), "lower").unwrap();
        let upper = dir.path().join("upper/etc");
        if rustix::fs::mknodat(rustix::fs::CWD, upper.join("passwd"), FileType::CharacterDevice, 0.into(), 0)
            .is_err()
        {
            eprintln!("skipped: whiteouts need CAP_MKNOD");
            return;
        }
        assert!(view.read("etc/passwd").unwrap_err().is_not_found());
        assert_eq!(view.read("etc/group").unwrap(), b"lower");
        rustix::fs::setxattr(&upper, "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty())
            .unwrap();
        assert!(view.read("etc/group").unwrap_err().is_not_found());
    }
}
