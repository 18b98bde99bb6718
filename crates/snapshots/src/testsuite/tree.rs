//! Changes to a directory, and comparing two of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// One change.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op<'a> {
    /// Path, content, mode.
    File(&'a str, &'a str, u32),
    /// Path, mode.
    Dir(&'a str, u32),
    Remove(&'a str),
    Rename(&'a str, &'a str),
    Link(&'a str, &'a str),
    Chown(&'a str, u32),
}

pub(super) fn apply(root: &Path, ops: &[Op<'_>]) {
    let at = |path: &str| root.join(path);
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for op in ops {
        match *op {
            Op::File(path, content, bits) => {
                fs::write(at(path), content).unwrap();
                mode(&at(path), bits);
            }
            Op::Dir(path, bits) => {
                fs::create_dir(at(path)).unwrap();
                mode(&at(path), bits);
            }
            Op::Remove(path) => sys::fs::remove_tree(&at(path)).unwrap(),
            Op::Rename(from, to) => fs::rename(at(from), at(to)).unwrap(),
            Op::Link(from, to) => fs::hard_link(at(from), at(to)).unwrap(),
            Op::Chown(path, id) => chown(at(path), Some(id), Some(id)).unwrap(),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    owner: (u32, u32),
    content: Option<Vec<u8>>,
}

/// Same names, types, modes, owners and contents.
pub(super) fn assert_equal(wanted: &Path, found: &Path) {
    assert_eq!(read(wanted), read(found));
}

fn read(root: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut entries = BTreeMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(root.join(&dir)).unwrap() {
            let path = dir.join(entry.unwrap().file_name());
            let metadata = fs::symlink_metadata(root.join(&path)).unwrap();
            let content = metadata.is_file().then(|| fs::read(root.join(&path)).unwrap());
            let owner = (metadata.uid(), metadata.gid());
            if metadata.is_dir() {
                left.push(path.clone());
            }
            entries.insert(path, Entry { mode: metadata.mode(), owner, content });
        }
    }
    entries
}
