//! A tree as a table of facts, and how two of them differ.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use types::Digest;

/// Everything that can be said of one path.
#[derive(Debug, PartialEq)]
pub struct Facts {
    mode: u32,
    owner: (u32, u32),
    size: u64,
    /// None for a directory that no layer gave a time.
    mtime: Option<(i64, i64)>,
    device: u64,
    pub link: Option<PathBuf>,
    xattrs: BTreeMap<String, Vec<u8>>,
    /// The first path that is the same file.
    pub same_as: PathBuf,
    content: Option<Digest>,
}

pub fn walk(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut all = BTreeMap::new();
    let mut inodes: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    let mut paths = Vec::new();
    while let Some(path) = todo.pop() {
        if std::fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{path:?}: {e}")).is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        paths.push(path);
    }
    paths.sort();
    for path in paths {
        let name = path.strip_prefix(root).unwrap().to_owned();
        // The root itself is made by the snapshotter.
        if !name.as_os_str().is_empty() {
            let facts = facts(&path, &name, &mut inodes);
            all.insert(name, facts);
        }
    }
    all
}

pub fn facts(path: &Path, name: &Path, inodes: &mut BTreeMap<u64, PathBuf>) -> Facts {
    let meta = std::fs::symlink_metadata(path).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let fresh = meta.is_dir() && (now - meta.mtime()).abs() < 3600;
    let mut xattrs = BTreeMap::new();
    if meta.is_file() || meta.is_dir() {
        let file = std::fs::File::open(path).unwrap();
        for key in sys::fs::list_xattrs(&file).unwrap() {
            let value = sys::fs::get_xattr(&file, &key).unwrap().unwrap_or_default();
            xattrs.insert(key.to_string_lossy().into_owned(), value);
        }
    }
    Facts {
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        size: if meta.is_dir() { 0 } else { meta.size() },
        mtime: (!fresh).then(|| (meta.mtime(), meta.mtime_nsec())),
        device: meta.rdev(),
        link: std::fs::read_link(path).ok(),
        xattrs,
        same_as: inodes.entry(meta.ino()).or_insert_with(|| name.to_owned()).clone(),
        content: meta.is_file().then(|| Digest::of(&std::fs::read(path).unwrap())),
    }
}

pub fn compare(ours: &BTreeMap<PathBuf, Facts>, theirs: &BTreeMap<PathBuf, Facts>, what: &str) {
    let differences = differences(ours, theirs);
    assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
}

pub fn differences(ours: &BTreeMap<PathBuf, Facts>, theirs: &BTreeMap<PathBuf, Facts>) -> Vec<String> {
    let mut differences = Vec::new();
    for path in ours.keys().chain(theirs.keys()) {
        match (ours.get(path), theirs.get(path)) {
            (Some(one), Some(two)) => {
                // A directory that no layer names has upstream's time of unpacking, and with us that of the layer below.
                let mtime = two.mtime.is_none() || one.mtime == two.mtime;
                let rest = Facts { mtime: None, ..copy(one) } == Facts { mtime: None, ..copy(two) };
                if !mtime || !rest {
                    differences.push(format!("{path:?}: ours {one:?}, upstream's {two:?}"));
                }
            }
            (one, two) => differences.push(format!("{path:?}: ours {one:?}, upstream's {two:?}")),
        }
    }
    differences.sort();
    differences.dedup();
    differences
}

pub fn copy(facts: &Facts) -> Facts {
    let Facts { mode, owner, size, mtime, device, link, xattrs, same_as, content } = facts;
    Facts {
        mode: *mode,
        owner: *owner,
        size: *size,
        mtime: *mtime,
        device: *device,
        link: link.clone(),
        xattrs: xattrs.clone(),
        same_as: same_as.clone(),
        content: content.clone(),
    }
}
