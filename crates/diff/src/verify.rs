//! Whether a filesystem still has what a layer put there, entry by entry and byte by byte, and putting it there again.
//!
//! The filesystem is the merged view of the layer and those below it: so links, and files of lower layers, are where the
//! archive means them to be. An entry that a later one replaces does not count. Times are not compared, nor is what is there
//! beyond the archive: nothing that loses files adds any.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::BufRead;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use content::{Reader as Blob, Store};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tokio::runtime::Handle;
use types::mount::Mount;
use types::oci::Descriptor;
use types::{Class, Digest, Error, Result};

use crate::applier::{Applier as _, ApplyOptions};
use crate::blob::BlobReader;
use crate::compression::Wrapping;
use crate::extract::in_user_namespace;
use crate::extract::name::{Meaning, Path};
use crate::pipeline::Room;
use crate::tar::{Entry, Kind, Reader, Region};
use crate::walking::WalkingApplier;
use crate::{pipeline, stack};

/// So many differences are kept; one is enough to tell.
const KEPT: usize = 1000;
/// The largest piece of a file that is compared at once.
const PIECE: usize = 64 << 10;
/// File capabilities, the one attribute without which programs stop working.
const CAPABILITY: &[u8] = b"security.capability";

/// How an entry differs from what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// There is nothing.
    Missing,
    /// There is something else: another type, another device, another link.
    Other,
    /// The file has this many bytes instead of that many.
    Size(u64, u64),
    /// The file has other bytes.
    Bytes,
    /// Another owner, group, mode or capability.
    Attributes,
    /// A lower layer's file is seen that the layer hides.
    Visible,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::Other => f.write_str("is something else"),
            Self::Size(0, wanted) => write!(f, "is empty instead of {wanted} bytes"),
            Self::Size(has, wanted) => write!(f, "has {has} bytes instead of {wanted}"),
            Self::Bytes => f.write_str("has other bytes"),
            Self::Attributes => f.write_str("has another owner, mode or capability"),
            Self::Visible => f.write_str("should be hidden"),
        }
    }
}

/// What became of a comparison.
#[derive(Debug)]
pub struct Verdict {
    /// The diff id of the archive that was compared with.
    pub diff_id: Digest,
    /// How many entries it has.
    pub entries: u64,
    /// What differs, by path; not more than a thousand.
    pub differences: BTreeMap<PathBuf, Difference>,
}

/// Compares the layer in `blob`, compressed or not, with what is seen in `view`. Blocks.
pub fn compare(blob: Arc<dyn Blob>, view: &FsPath, runtime: Handle) -> Result<Verdict> {
    let source = BlobReader::new(blob, runtime).buffered();
    let mut comparison = Comparison::new(view)?;
    let ((), passed) = pipeline::run(source, Wrapping::Detect, Room(u64::MAX), |stream| {
        let mut reader = Reader::new(stream);
        while let Some(entry) = reader.next_entry()? {
            comparison.entry(&mut reader, &entry)?;
        }
        comparison.whiteouts()
    })?;
    let differences = comparison.differences.into_iter();
    let differences = differences.map(|(name, found)| (PathBuf::from(OsStr::from_bytes(&name)), found));
    Ok(Verdict {
        diff_id: passed.digest,
        entries: comparison.entries,
        differences: differences.take(KEPT).collect(),
    })
}

/// The directory that holds the topmost layer of a view, if the view is plain directories.
pub fn top_of(view: &[Mount]) -> Option<PathBuf> {
    match stack::bind(view) {
        Some(bind) => Some(bind.source),
        None => stack::overlay(view)?.lowers.into_iter().next(),
    }
}

/// Extracts `layer` again over what is left of it in the topmost directory of `view`, durably; answers with its diff id.
///
/// Nobody may have that directory mounted meanwhile. Done half, it can be done again.
pub async fn mend(store: Arc<dyn Store>, layer: &Descriptor, view: &[Mount]) -> Result<Digest> {
    let mounts = writable(view)?;
    let applied = WalkingApplier::new(store)
        .apply(layer, &mounts, ApplyOptions { sync: true, ..ApplyOptions::default() })
        .await?;
    Ok(applied.uncompressed.digest)
}

/// The mounts of a view with its topmost directory to be written to.
fn writable(view: &[Mount]) -> Result<Vec<Mount>> {
    let complex =
        || Error::unimplemented("the layer is not a plain directory, so it cannot be written to in place");
    if let Some(bind) = stack::bind(view) {
        let source = bind.source.to_string_lossy().into_owned();
        let options = vec!["rbind".to_owned(), "rw".to_owned()];
        return Ok(vec![Mount { kind: "bind".to_owned(), source, target: String::new(), options }]);
    }
    let overlay = stack::overlay(view).ok_or_else(complex)?;
    let Some((upper, below)) = overlay.lowers.split_first() else { return Err(complex()) };
    let work = upper.with_file_name("work");
    std::fs::create_dir_all(&work)?;
    let text =
        |path: &FsPath| path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,");
    let below: Vec<String> = below.iter().map(|path| text(path)).collect();
    Ok(vec![Mount {
        kind: "overlay".to_owned(),
        source: "overlay".to_owned(),
        target: String::new(),
        options: vec![
            format!("workdir={}", text(&work)),
            format!("upperdir={}", text(upper)),
            format!("lowerdir={}", below.join(":")),
            "index=off".to_owned(),
        ],
    }])
}

struct Comparison {
    root: OwnedFd,
    /// The directory of the last entry.
    last: Option<(Vec<u8>, OwnedFd)>,
    entries: u64,
    /// What this layer makes, and the directories of that: its own whiteouts do not hide it.
    made: HashSet<Vec<u8>>,
    hidden: Vec<Path>,
    differences: BTreeMap<Vec<u8>, Difference>,
    owners: bool,
}

impl Comparison {
    fn new(view: &FsPath) -> Result<Self> {
        Ok(Self {
            root: sys::fs::open_dir(view)?,
            last: None,
            entries: 0,
            made: HashSet::new(),
            hidden: Vec::new(),
            differences: BTreeMap::new(),
            owners: !in_user_namespace(),
        })
    }

    fn entry<R: BufRead>(&mut self, reader: &mut Reader<R>, entry: &Entry) -> Result<()> {
        let path = Path::parse(&entry.name)?;
        if path.is_root() {
            return Ok(());
        }
        self.entries += 1;
        match path.meaning()? {
            Meaning::Ignored | Meaning::Opaque => return Ok(()),
            Meaning::Whiteout(hidden) => {
                let hidden = [path.parent(), hidden].join(&b'/');
                self.hidden.push(Path::parse(&hidden)?);
                return Ok(());
            }
            Meaning::Entry => {}
        }
        if !self.owners && matches!(entry.kind, Kind::Char | Kind::Block) {
            return Ok(());
        }
        let found = match self.look(&path)? {
            None => Some(Difference::Missing),
            Some(stat) => self.differs(reader, entry, &path, &stat)?,
        };
        if entry.kind != Kind::Directory {
            // It takes the place of whatever was there, and of what that had in it.
            let below = [path.bytes(), b"/"].concat();
            self.differences.retain(|name, _| !name.starts_with(&below));
        }
        self.note(&path, found);
        self.made.extend(path.ancestors().map(<[u8]>::to_vec));
        self.made.insert(path.bytes().to_vec());
        Ok(())
    }

    /// Looks for what the layer hides, unless it has something of its own there.
    fn whiteouts(&mut self) -> Result<()> {
        for hidden in std::mem::take(&mut self.hidden) {
            let seen = !self.made.contains(hidden.bytes()) && self.look(&hidden)?.is_some();
            self.note(&hidden, seen.then_some(Difference::Visible));
        }
        Ok(())
    }

    fn note(&mut self, path: &Path, found: Option<Difference>) {
        match found {
            Some(found) => drop(self.differences.insert(path.bytes().to_vec(), found)),
            None => drop(self.differences.remove(path.bytes())),
        }
    }

    /// What is there under a path, without following its last component.
    fn look(&mut self, path: &Path) -> Result<Option<Stat>> {
        let Some(dir) = self.dir(path.parent())? else { return Ok(None) };
        match rustix::fs::statat(dir, OsStr::from_bytes(path.name()), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(std::io::Error::from(errno).into()),
        }
    }

    /// The directory of a path, as a process in the container would come to it.
    fn dir(&mut self, parent: &[u8]) -> Result<Option<&OwnedFd>> {
        if parent.is_empty() {
            return Ok(Some(&self.root));
        }
        if self.last.as_ref().is_none_or(|(path, _)| path != parent) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match sys::fs::open_in_root(&self.root, OsStr::from_bytes(parent), flags) {
                Ok(dir) => self.last = Some((parent.to_vec(), dir)),
                Err(error) if error.is_not_found() => return Ok(None),
                // Something else, or a link that leads nowhere, has the directory's place.
                Err(error) if matches!(error.class(), Class::InvalidArgument | Class::FailedPrecondition) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.last.as_ref().map(|(_, dir)| dir))
    }

    fn differs<R: BufRead>(
        &mut self,
        reader: &mut Reader<R>,
        entry: &Entry,
        path: &Path,
        stat: &Stat,
    ) -> Result<Option<Difference>> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let wanted = match entry.kind {
            Kind::HardLink => return self.link_differs(entry, stat),
            Kind::File => FileType::RegularFile,
            Kind::Symlink => FileType::Symlink,
            Kind::Char => FileType::CharacterDevice,
            Kind::Block => FileType::BlockDevice,
            Kind::Directory => FileType::Directory,
            Kind::Fifo => FileType::Fifo,
            Kind::Other(_) => return Ok(None),
        };
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        if kind != wanted || matches!(entry.kind, Kind::Char | Kind::Block) && stat.st_rdev != device {
            return Ok(Some(Difference::Other));
        }
        let Some(dir) = self.dir(path.parent())? else { return Ok(Some(Difference::Missing)) };
        let name = OsStr::from_bytes(path.name());
        if entry.kind == Kind::Symlink {
            let target = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(std::io::Error::from)?;
            return Ok((target.to_bytes() != entry.link).then_some(Difference::Other));
        }
        if entry.kind == Kind::File {
            let has = u64::try_from(stat.st_size).unwrap_or(0);
            if has != entry.size {
                return Ok(Some(Difference::Size(has, entry.size)));
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(std::io::Error::from)?;
            let file = File::from(file);
            if !same_bytes(reader, &file, entry.sparse.as_deref())? {
                return Ok(Some(Difference::Bytes));
            }
            if !same_capability(&file, entry) {
                return Ok(Some(Difference::Attributes));
            }
        }
        Ok(self.attributes_differ(entry, stat).then_some(Difference::Attributes))
    }

    /// A second name is compared by its first one, which was compared already.
    fn link_differs(&mut self, entry: &Entry, stat: &Stat) -> Result<Option<Difference>> {
        let target = Path::parse(&entry.link)?;
        let Some(first) = self.look(&target)? else { return Ok(None) };
        // Another entry may have taken the first name since; what was lost is empty.
        let empty = stat.st_size == 0 && first.st_size > 0 && stat.st_ino != first.st_ino;
        Ok(empty.then(|| Difference::Size(0, u64::try_from(first.st_size).unwrap_or(0))))
    }

    fn attributes_differ(&self, entry: &Entry, stat: &Stat) -> bool {
        // A second name may have brought attributes of its own.
        if stat.st_nlink > 1 && entry.kind == Kind::File {
            return false;
        }
        let owner = self.owners && (stat.st_uid, stat.st_gid) != (entry.uid, entry.gid);
        owner || stat.st_mode & 0o7777 != entry.mode & 0o7777
    }
}

/// Whether `file` has the bytes of the current body, where they belong.
fn same_bytes<R: BufRead>(reader: &mut Reader<R>, file: &File, sparse: Option<&[Region]>) -> Result<bool> {
    let whole = [Region { offset: 0, length: u64::MAX }];
    let mut regions = sparse.unwrap_or(&whole).iter().filter(|region| region.length > 0).copied();
    let mut current = regions.next();
    let mut buffer = vec![0; PIECE];
    loop {
        let bytes = reader.body()?;
        let (Some(region), false) = (current.as_mut(), bytes.is_empty()) else { return Ok(true) };
        let count = bytes.len().min(PIECE).min(usize::try_from(region.length).unwrap_or(PIECE));
        let there = &mut buffer[..count];
        match file.read_exact_at(there, region.offset) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read?,
        }
        if there != &bytes[..count] {
            return Ok(false);
        }
        reader.consume(count);
        region.offset += count as u64;
        region.length -= count as u64;
        if region.length == 0 {
            current = regions.next();
        }
    }
}

fn same_capability(file: &File, entry: &Entry) -> bool {
    if !entry.xattrs.iter().any(|(name, _)| name == CAPABILITY) {
        return true;
    }
    // Its form depends on who looks; that it is there does not.
    !matches!(
        rustix::fs::fgetxattr(file.as_fd(), OsStr::from_bytes(CAPABILITY), &mut [0_u8; 64][..]),
        Err(Errno::NODATA)
    )
}
