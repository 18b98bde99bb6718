//! A tar archive onto a directory, with the rules of layers (image-spec, layer.md).
//!
//! Every name is opened, made, linked or removed relative to the descriptor of its directory, without following what it
//! may be; the directory is resolved by the kernel with the target as `/`. So no entry, whatever the ones before it did,
//! reaches anything outside, also while somebody else renames things inside.
//!
//! ```text
//!  name          an entry's name -> directory, name, whiteout or not
//!  parents       directory -> descriptor, made where missing
//!  attributes    owner, mode, extended attributes, times
//!  whiteout      what hides or removes things of layers below
//!  deferred      times of directories, set when nothing is added any more
//!  rebase        a layer that was extracted before those below it were there
//! ```

mod attributes;
mod deferred;
pub(crate) mod name;
mod parents;
mod rebase;
mod whiteout;

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{BufRead, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use types::{Class, Error, Result};

use crate::tar::{Entry, Kind, Reader};

use deferred::Deferred;
use name::{Meaning, Path};
use parents::{Lowers, Parents};
use whiteout::Unpacked;

pub use rebase::{Later, rebase};
pub(crate) use whiteout::set_opaque;

/// The attribute by which overlayfs knows a directory that hides those below.
pub(crate) const OPAQUE_XATTR: &CStr = c"trusted.overlay.opaque";

/// Where a layer goes.
pub enum Target {
    /// The whole filesystem as it will be seen: whiteouts remove.
    View(PathBuf),
    /// The upper directory of an overlay: whiteouts are left for overlayfs to see.
    Upper {
        /// The directory.
        dir: PathBuf,
        /// The directories below, topmost first.
        lowers: Vec<PathBuf>,
    },
    /// The same, before the layers below are there: [`rebase()`] completes it.
    Rebase(PathBuf),
}

impl Target {
    /// Where the files are written.
    pub fn dir(&self) -> &std::path::Path {
        match self {
            Self::View(dir) | Self::Upper { dir, .. } | Self::Rebase(dir) => dir,
        }
    }
}

/// Why an extraction did not come to its end.
#[derive(Debug)]
pub enum Stop {
    /// It cannot be done.
    Failed(Error),
    /// The upper directory alone is not enough: the layer must be applied to the mounted overlay, from the start.
    NeedsMergedView,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Failed(std::io::Error::from(errno).into())
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Extracts the archive in `reader` onto `target`, until `cancel` is set. Answers with what is left to do for
/// [`Target::Rebase`].
pub fn extract<R: BufRead>(
    reader: &mut Reader<R>,
    target: Target,
    cancel: &AtomicBool,
) -> Result<Later, Stop> {
    let mut extractor = Extractor::new(target, cancel)?;
    while let Some(entry) = reader.next_entry()? {
        if let Err(stop) = extractor.entry(reader, &entry) {
            return Err(match stop {
                // With the layers below in sight it may be right: their turn decides.
                Stop::Failed(error) if extractor.parents.later().is_some() && depends_on_view(&error) => {
                    Stop::NeedsMergedView
                }
                stop => named(stop, &entry),
            });
        }
    }
    extractor.deferred.set_times(extractor.parents.root())?;
    Ok(extractor.parents.into_later())
}

fn depends_on_view(error: &Error) -> bool {
    matches!(error.class(), Class::AlreadyExists | Class::NotFound | Class::Unknown)
}

fn named(stop: Stop, entry: &Entry) -> Stop {
    match stop {
        Stop::Failed(error) => {
            let mut name = String::from_utf8_lossy(&entry.name).into_owned();
            if name.chars().count() > 256 {
                name = name.chars().take(256).chain("…".chars()).collect();
            }
            Stop::Failed(error.context(format!("extract {name:?}")))
        }
        Stop::NeedsMergedView => Stop::NeedsMergedView,
    }
}

struct Extractor<'a> {
    cancel: &'a AtomicBool,
    parents: Parents,
    deferred: Deferred,
    /// Only where whiteouts remove: what this layer itself has made stays.
    unpacked: Option<Unpacked>,
    makes_devices: bool,
}

impl<'a> Extractor<'a> {
    fn new(target: Target, cancel: &'a AtomicBool) -> Result<Self> {
        let (dir, lowers) = match target {
            Target::View(dir) => (dir, Lowers::View),
            Target::Upper { dir, lowers } => (dir, Lowers::Known(lowers)),
            Target::Rebase(dir) => (dir, Lowers::Later(Later::default())),
        };
        let unpacked = matches!(lowers, Lowers::View).then(Unpacked::default);
        let parents = Parents::new(sys::fs::open_dir(&dir)?, lowers);
        let makes_devices = !in_user_namespace();
        Ok(Self { cancel, parents, deferred: Deferred::default(), unpacked, makes_devices })
    }

    fn entry<R: BufRead>(&mut self, reader: &mut Reader<R>, entry: &Entry) -> Result<(), Stop> {
        check_canceled(self.cancel)?;
        // As upstream: nobody may make devices in a user namespace, and images go without them.
        if !self.makes_devices && matches!(entry.kind, Kind::Char | Kind::Block) {
            return Ok(());
        }
        let path = Path::parse(&entry.name)?;
        // The root belongs to the snapshotter.
        if path.is_root() {
            return Ok(());
        }
        let meaning = path.meaning()?;
        if meaning == Meaning::Ignored {
            return Ok(());
        }
        let dir = self.parents.make(path.parent())?;
        self.keep_implied()?;
        match meaning {
            Meaning::Ignored => return Ok(()),
            Meaning::Whiteout(hidden) => return self.whiteout(&path, &dir, hidden, entry),
            Meaning::Opaque => return self.opaque(&path, &dir),
            Meaning::Entry => {}
        }
        self.make(reader, entry, &path, &dir)?;
        if let Some(unpacked) = &mut self.unpacked {
            unpacked.add(&path)?;
        }
        Ok(())
    }

    fn keep_implied(&mut self) -> Result<()> {
        for implied in self.parents.take_implied() {
            if let Some(times) = implied.times {
                self.deferred.push(&implied.path, &times)?;
            }
        }
        Ok(())
    }

    fn make<R: BufRead>(
        &mut self,
        reader: &mut Reader<R>,
        entry: &Entry,
        path: &Path,
        dir: &Rc<OwnedFd>,
    ) -> Result<(), Stop> {
        let name = OsStr::from_bytes(path.name());
        match entry.kind {
            Kind::File => self.file(reader, entry, dir, name),
            Kind::Directory => self.directory(entry, path, dir),
            Kind::Symlink => {
                let link = OsStr::from_bytes(&entry.link);
                self.place(dir, name, |dir| rustix::fs::symlinkat(link, dir, name))?;
                attributes::set_at(dir.as_fd(), name, entry, Some(FileType::Symlink))
            }
            Kind::HardLink => self.hard_link(entry, dir, name),
            Kind::Char => self.node(entry, dir, name, FileType::CharacterDevice),
            Kind::Block => self.node(entry, dir, name, FileType::BlockDevice),
            Kind::Fifo => self.node(entry, dir, name, FileType::Fifo),
            Kind::Other(flag) => Err(Error::invalid(format!("unhandled tar header type {flag}")).into()),
        }
    }

    /// Makes something under a name that must be new, after removing what has it.
    fn place<T>(
        &mut self,
        dir: &OwnedFd,
        name: &OsStr,
        mut make: impl FnMut(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> Result<T, Stop> {
        match make(dir.as_fd()) {
            Err(Errno::EXIST) => {
                self.remove(dir, name)?;
                Ok(make(dir.as_fd())?)
            }
            made => Ok(made?),
        }
    }

    fn remove(&mut self, dir: &OwnedFd, name: &OsStr) -> Result<(), Stop> {
        self.parents.forget();
        Ok(sys::fs::remove_tree_at(dir, std::path::Path::new(name))?)
    }

    fn directory(&mut self, entry: &Entry, path: &Path, dir: &Rc<OwnedFd>) -> Result<(), Stop> {
        let name = OsStr::from_bytes(path.name());
        // Ours alone until it has its owner and mode.
        let mode = Mode::RWXU;
        let mut replaced = false;
        match rustix::fs::mkdirat(dir, name, mode) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    self.remove(dir, name)?;
                    rustix::fs::mkdirat(dir, name, mode)?;
                    replaced = true;
                }
            }
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(dir, name, flags, Mode::empty())?;
        if let Some(later) = self.parents.later() {
            later.named(rustix::fs::fstat(&made)?.st_ino);
        }
        // A directory that takes the place of this layer's own whiteout or file hides what is below, as that did.
        if replaced && self.parents.has_lowers() {
            set_opaque(made.as_fd())?;
        }
        attributes::set_open(made.as_fd(), entry)?;
        self.deferred.push(path.bytes(), &attributes::timestamps(entry))?;
        Ok(())
    }

    fn file<R: BufRead>(
        &mut self,
        reader: &mut Reader<R>,
        entry: &Entry,
        dir: &OwnedFd,
        name: &OsStr,
    ) -> Result<(), Stop> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let file: File = self.place(dir, name, |dir| rustix::fs::openat(dir, name, flags, mode))?.into();
        match &entry.sparse {
            None => copy(reader, self.cancel, |bytes| (&file).write_all(bytes))?,
            Some(regions) => {
                file.set_len(entry.size)?;
                let mut regions = regions.iter().filter(|region| region.length > 0);
                let mut current = regions.next().copied();
                copy(reader, self.cancel, |mut bytes| {
                    while let Some(region) = current.as_mut().filter(|_| !bytes.is_empty()) {
                        let count =
                            usize::try_from(region.length).map_or(bytes.len(), |l| l.min(bytes.len()));
                        file.write_all_at(&bytes[..count], region.offset)?;
                        bytes = &bytes[count..];
                        region.offset += count as u64;
                        region.length -= count as u64;
                        if region.length == 0 {
                            current = regions.next().copied();
                        }
                    }
                    Ok(())
                })?;
            }
        }
        Ok(attributes::set_open(file.as_fd(), entry)?)
    }

    fn node(&mut self, entry: &Entry, dir: &OwnedFd, name: &OsStr, kind: FileType) -> Result<(), Stop> {
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        let mode = Mode::from_raw_mode(entry.mode);
        self.place(dir, name, |dir| rustix::fs::mknodat(dir, name, kind, mode, device))?;
        attributes::set_at(dir.as_fd(), name, entry, Some(kind))
    }

    /// Another name of what an entry before has made, be it a symbolic link.
    fn hard_link(&mut self, entry: &Entry, dir: &OwnedFd, name: &OsStr) -> Result<(), Stop> {
        let target = Path::parse(&entry.link)?;
        let shown = String::from_utf8_lossy(&entry.link);
        let missing = || Stop::from(Error::not_found(format!("hard link to {shown:?}: no such file")));
        if target.is_root() || entry.link.ends_with(b"/") {
            return Err(Error::invalid(format!("hard link to the directory {shown:?}")).into());
        }
        let below = self.parents.has_lowers();
        let stop = || if below { Stop::NeedsMergedView } else { missing() };
        let Some(from) = self.parents.existing(target.parent())? else { return Err(stop()) };
        let base = OsStr::from_bytes(target.name());
        let link = |dir: BorrowedFd<'_>| rustix::fs::linkat(&*from, base, dir, name, AtFlags::empty());
        match self.place(dir, name, link) {
            // Perhaps a file of a layer below, which only the merged view can link to.
            Err(Stop::Failed(error)) if error.is_not_found() => return Err(stop()),
            linked => linked?,
        }
        attributes::set_at(dir.as_fd(), name, entry, None)
    }
}

/// Hands the body on piece by piece.
fn copy<R: BufRead>(
    reader: &mut Reader<R>,
    cancel: &AtomicBool,
    mut write: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), Stop> {
    loop {
        check_canceled(cancel)?;
        let bytes = reader.body()?;
        if bytes.is_empty() {
            return Ok(());
        }
        write(bytes)?;
        let count = bytes.len();
        reader.consume(count);
    }
}

fn check_canceled(cancel: &AtomicBool) -> Result<(), Stop> {
    if cancel.load(Ordering::Relaxed) { Err(Error::new(Class::Canceled, "canceled").into()) } else { Ok(()) }
}

/// Whether this process's user namespace is not the first one: it maps less than all ids.
pub(crate) fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = ["0", "0", "4294967295"];
    !map.is_empty() && !map.split_whitespace().eq(whole)
}
