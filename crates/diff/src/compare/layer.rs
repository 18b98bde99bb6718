//! What differs, as entries of a layer: image-spec's layer.md with upstream's choices.
//!
//! Times are cut to whole seconds, names of users are left out, a whiteout has no time at all. Directories on the way to
//! an entry come before it. Of several names of one file the first that the layer needs has the content; names that did
//! not change are added behind it as links.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::AtomicBool;

use rustix::fs::{FileType, Stat};
use types::{Class, Error, Result, ResultExt};

use super::same::check;
use super::tree::{Found, Tree, failed, shown};
use super::walk::Change;
use crate::tar::{Entry, Kind, Time, Writer};

/// Something that takes bytes out of a file without a copy between.
pub(super) trait Sink: Write {
    /// Takes up to `most` of the file's next bytes; 0 at its end.
    fn take_from(&mut self, file: &File, most: u64) -> io::Result<u64>;
}

/// A layer that grows.
pub(super) struct Layer<'a, S: Sink> {
    tar: Writer<S>,
    upper: &'a Tree,
    epoch: Option<Time>,
    cancel: &'a AtomicBool,
    /// Of files with several names: the one that has the content.
    sources: HashMap<(u64, u64), Vec<u8>>,
    /// Names that did not change, of files that may yet turn out to have.
    unchanged: HashMap<(u64, u64), Vec<Vec<u8>>>,
    /// Directories that the layer has.
    dirs: HashSet<Vec<u8>>,
}

impl<'a, S: Sink> Layer<'a, S> {
    pub(super) fn new(out: S, upper: &'a Tree, epoch: Option<Time>, cancel: &'a AtomicBool) -> Self {
        let (sources, unchanged, dirs) = Default::default();
        Self { tar: Writer::new(out), upper, epoch, cancel, sources, unchanged, dirs }
    }

    pub(super) fn finish(self) -> Result<S> {
        self.tar.finish()
    }

    /// Adds a change.
    pub(super) fn add(&mut self, change: Change, path: &[u8], found: Option<Found<'_>>) -> Result<()> {
        match found {
            None => self.whiteout(path),
            Some(found) => self.present(change, path, &found).context(|| format!("add {:?}", shown(path))),
        }
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        let name = match parent(path) {
            Some(dir) => [dir, b"/.wh.", &path[dir.len() + 1..]].concat(),
            None => [b".wh.", path].concat(),
        };
        self.entry(&Entry { name, ..Entry::new(Kind::File) })
    }

    fn present(&mut self, change: Change, path: &[u8], found: &Found<'_>) -> Result<()> {
        let Some(kind) = kind(found.file_type())? else { return Ok(()) };
        let mut links = Vec::new();
        let mut entry = self.describe(kind, path, &found.stat);
        if let Some(link) = found.link() {
            if let Some(source) = self.sources.get(&link) {
                (entry.kind, entry.link) = (Kind::HardLink, source.clone());
            } else if change == Change::Same {
                self.unchanged.entry(link).or_default().push(path.to_vec());
                return Ok(());
            } else {
                self.sources.insert(link, path.to_vec());
                links = self.unchanged.remove(&link).unwrap_or_default();
            }
        }
        entry.xattrs = capability(found.capability()?);
        match entry.kind {
            Kind::File if found.stat.st_size > 0 => self.file(&mut entry, &found.open()?)?,
            Kind::Symlink => {
                entry.link = found.target()?;
                self.entry(&entry)?;
            }
            _ => self.entry(&entry)?,
        }
        for name in links {
            let link = Entry { name, kind: Kind::HardLink, link: path.to_vec(), size: 0, ..entry.clone() };
            self.entry(&link)?;
        }
        Ok(())
    }

    fn file(&mut self, entry: &mut Entry, file: &File) -> Result<()> {
        entry.size = file.metadata()?.len();
        self.entry(entry)?;
        while self.tar.missing() > 0 {
            check(self.cancel)?;
            // What is added to the file meanwhile is not in the layer; what is taken away is missed.
            if self.tar.body_with(|out, most| out.take_from(file, most))? == 0 {
                return Err(Error::new(Class::Unavailable, "it became shorter while it was read"));
            }
        }
        Ok(())
    }

    /// Everything but links, content and capabilities.
    fn describe(&self, kind: Kind, path: &[u8], stat: &Stat) -> Entry {
        let mut name = path.to_vec();
        if kind == Kind::Directory {
            name.push(b'/');
        }
        let mtime = Time { secs: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 };
        let mtime = self.epoch.map_or(mtime, |epoch| mtime.min(epoch));
        let device = match kind {
            Kind::Char | Kind::Block => (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
            _ => (0, 0),
        };
        Entry {
            name,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Time { secs: mtime.secs, nanos: 0 },
            device,
            ..Entry::new(kind)
        }
    }

    /// Writes an entry, and before it the directories on the way that are missing.
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        let path = entry.name.strip_suffix(b"/").unwrap_or(&entry.name);
        let mut missing = Vec::new();
        let mut above = parent(path);
        while let Some(dir) = above.filter(|dir| !self.dirs.contains(*dir)) {
            missing.push(dir);
            above = parent(dir);
        }
        for dir in missing.into_iter().rev() {
            self.dir(dir)?;
        }
        if entry.kind == Kind::Directory {
            self.dirs.insert(path.to_vec());
        }
        self.tar.entry(entry)
    }

    fn dir(&mut self, path: &[u8]) -> Result<()> {
        self.dirs.insert(path.to_vec());
        // Whoever took it away meanwhile took away what is in it, too.
        let Some(dir) = self.upper.dir(path)? else { return Ok(()) };
        let stat =
            rustix::fs::fstat(&dir).map_err(|errno| failed(errno, format!("stat {:?}", shown(path))))?;
        let mut entry = self.describe(Kind::Directory, path, &stat);
        entry.xattrs = capability(sys::fs::get_xattr(&dir, c"security.capability")?.unwrap_or_default());
        self.tar.entry(&entry)
    }
}

fn parent(path: &[u8]) -> Option<&[u8]> {
    path.iter().rposition(|byte| *byte == b'/').map(|at| &path[..at])
}

fn capability(value: Vec<u8>) -> Vec<(Vec<u8>, Vec<u8>)> {
    if value.is_empty() { Vec::new() } else { vec![(b"security.capability".to_vec(), value)] }
}

/// What an entry makes of a file; `None` of a socket, which is nothing without its process.
fn kind(file_type: FileType) -> Result<Option<Kind>> {
    Ok(Some(match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::Char,
        FileType::BlockDevice => Kind::Block,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => return Ok(None),
        other => return Err(Error::invalid(format!("unknown type of file {other:?}"))),
    }))
}
