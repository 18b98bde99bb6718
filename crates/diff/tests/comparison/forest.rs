//! Trees at random, and what can be said of one.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use types::Digest;

/// The same numbers for the same seed.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

/// Names that sort differently with and without a slash behind them, and that need more than a plain header.
fn name(rng: &mut Rng) -> String {
    let long = "l".repeat(120);
    ["a", "a.b", "a-", "b", "ü", "B", long.as_str(), "c"][rng.below(8) as usize].to_owned()
}

fn dirs(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    let mut at = 0;
    while at < found.len() {
        let mut below: Vec<PathBuf> = std::fs::read_dir(&found[at])
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| std::fs::symlink_metadata(path).unwrap().is_dir())
            .collect();
        below.sort();
        found.extend(below);
        at += 1;
    }
    found
}

fn remove(path: &Path) {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path).unwrap(),
        Ok(_) => std::fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// Whole seconds or not: never twice the same, so that what is changed can be told from what is not.
fn touch(path: &Path, rng: &mut Rng) {
    let time = Timespec {
        tv_sec: 1_000_000_000 + rng.below(1_000_000_000) as i64,
        tv_nsec: if rng.below(2) == 0 { 0 } else { rng.below(1_000_000_000) as i64 },
    };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Changes something in the tree.
pub fn disturb(root: &Path, rng: &mut Rng, root_user: bool) {
    let dirs = dirs(root);
    let dir = &dirs[rng.below(dirs.len() as u64) as usize];
    let path = dir.join(name(rng));
    let exists = std::fs::symlink_metadata(&path).is_ok();
    match rng.below(12) {
        0 | 1 => {
            remove(&path);
            std::fs::create_dir(&path).unwrap();
        }
        2 | 3 => {
            remove(&path);
            let size = rng.below(3) * rng.below(400_000);
            let body: Vec<u8> = (0..size).map(|at| (at ^ rng.0) as u8).collect();
            std::fs::write(&path, body).unwrap();
            touch(&path, rng);
        }
        4 if exists && path.is_file() && !path.is_symlink() => {
            // In place: whatever other names it has see it, too.
            std::fs::write(&path, format!("{}", rng.0)).unwrap();
            touch(&path, rng);
        }
        5 => {
            remove(&path);
            symlink(format!("somewhere/{}", rng.below(100)), &path).unwrap();
            touch(&path, rng);
        }
        6 => {
            let other = dirs[rng.below(dirs.len() as u64) as usize].join(name(rng));
            if other != path && std::fs::symlink_metadata(&other).is_ok_and(|meta| !meta.is_dir()) {
                remove(&path);
                // The directory of the other may have been what was removed.
                drop(std::fs::hard_link(&other, &path));
            }
        }
        7 if exists && !path.is_symlink() => {
            let mode = [0o700, 0o755, 0o1777, 0o4755, 0o2750][rng.below(5) as usize];
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        }
        8 if exists && root_user => {
            std::os::unix::fs::lchown(&path, Some(rng.below(3_000_000) as u32), Some(7)).unwrap();
        }
        9 => {
            remove(&path);
            let kind =
                if root_user && rng.below(2) == 0 { FileType::CharacterDevice } else { FileType::Fifo };
            let device = rustix::fs::makedev(1 + rng.below(500) as u32, rng.below(100_000) as u32);
            rustix::fs::mknodat(CWD, &path, kind, Mode::from_raw_mode(0o620), device).unwrap();
            touch(&path, rng);
        }
        10 if exists && root_user && path.is_file() && !path.is_symlink() => {
            let value = [&[1, 0, 0, 2, rng.below(255) as u8][..], &[0; 15]].concat();
            rustix::fs::setxattr(&path, c"security.capability", &value, XattrFlags::empty()).unwrap();
        }
        _ => remove(&path),
    }
}

/// A file system as a layer can tell it: times in seconds, of directories none.
pub fn facts(root: &Path) -> BTreeMap<PathBuf, String> {
    let (mut all, mut inodes, mut todo) = (BTreeMap::new(), BTreeMap::new(), vec![root.to_owned()]);
    let mut paths = Vec::new();
    while let Some(path) = todo.pop() {
        if std::fs::symlink_metadata(&path).unwrap().is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        paths.push(path);
    }
    paths.sort();
    for path in paths.iter().filter(|path| *path != root) {
        let meta = std::fs::symlink_metadata(path).unwrap();
        let name = path.strip_prefix(root).unwrap().to_owned();
        let same = inodes.entry(meta.ino()).or_insert_with(|| name.clone()).clone();
        let seconds = if meta.is_dir() { 0 } else { meta.mtime() };
        let link = std::fs::read_link(path).ok();
        let content = meta.is_file().then(|| Digest::of(&std::fs::read(path).unwrap()));
        let mut caps = [0; 64];
        let of = CString::new(path.as_os_str().as_bytes()).unwrap();
        let caps = rustix::fs::lgetxattr(&of, c"security.capability", &mut caps[..])
            .map(|size| caps[..size].to_vec());
        let fact = format!(
            "{:o} {}:{} {seconds} {:x} {link:?} {content:?} {:?} same as {same:?}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.rdev(),
            caps.unwrap_or_default()
        );
        all.insert(name, fact);
    }
    all
}

/// A copy with everything that `cp -a` keeps.
pub fn copy(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}
