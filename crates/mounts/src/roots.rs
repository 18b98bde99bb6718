//! The directories in which the daemon may make files for its callers: its own root, and the mount points of activations.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{OFlags, ResolveFlags};
use rustix::io::Errno;
use types::{Error, Result, ResultExt};

/// Where callers may have files made.
#[derive(Clone, Debug)]
pub struct Roots(pub Vec<PathBuf>);

/// A name in an open directory that lies in one of the roots.
#[derive(Debug)]
pub struct Place {
    /// The directory.
    pub parent: OwnedFd,
    /// The name in it.
    pub name: std::ffi::OsString,
}

impl Roots {
    /// Opens the directory that holds `path`. Symbolic links may be on the way, but none that leads out of the root.
    pub fn place(&self, path: &str, doing: &str) -> Result<Place> {
        let path = Path::new(path);
        let inside = self.0.iter().find_map(|root| path.strip_prefix(root).ok().map(|rest| (root, rest)));
        let (root, rest) = inside.ok_or_else(|| {
            Error::unimplemented(format!("no root {path:?} configured for {doing}: not implemented"))
        })?;
        let name = match rest.components().next_back() {
            Some(Component::Normal(name)) => name,
            _ => return Err(Error::invalid(format!("{path:?} names no file in {root:?}: invalid argument"))),
        };
        let parent = open_beneath(root, rest.parent().unwrap_or(Path::new("")))?;
        Ok(Place { parent, name: name.to_owned() })
    }
}

fn open_beneath(root: &Path, path: &Path) -> Result<OwnedFd> {
    let root = sys::fs::open_dir(root)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    sys::fs::openat2(&root, path, flags, resolve)
        .map_err(std::io::Error::from)
        .context(|| format!("open directory {path:?}"))
}

impl Place {
    /// Opens the file without following a link in its place; none if nothing is there.
    pub fn open(&self, flags: OFlags) -> Result<Option<OwnedFd>> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match sys::fs::openat2(&self.parent, Path::new(self.name()), flags | OFlags::NOFOLLOW, resolve) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(std::io::Error::from(errno)).context(|| format!("open {:?}", self.name)),
        }
    }

    /// The name in the directory.
    pub fn name(&self) -> &OsStr {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use types::Class;

    use super::*;

    #[test]
    fn places_are_only_found_in_a_root() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(top.path().join("root/a")).unwrap();
        std::os::unix::fs::symlink("/etc", top.path().join("root/out")).unwrap();
        let roots = Roots(vec![top.path().join("root")]);
        let place = |path: &str| roots.place(&top.path().join(path).to_string_lossy(), "mkdir");
        assert_eq!(place("root/a/b").unwrap().name(), "b");
        assert_eq!(place("root2/b").unwrap_err().class(), Class::Unimplemented);
        assert_eq!(place("root").unwrap_err().class(), Class::InvalidArgument);
        assert_eq!(place("root/a/..").unwrap_err().class(), Class::InvalidArgument);
        assert!(place("root/out/passwd").is_err());
        assert!(place("root/../root/../x/y").is_err());
    }
}
