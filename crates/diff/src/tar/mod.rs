//! Reading tar archives that come from strangers, and writing our own.
//!
//! The rules are those of Go's archive/tar, which every other tool of the container world agrees with: what overrides
//! what when a header, a PAX record and a GNU extension disagree, which entries have a body, where an archive ends.
//! Where this reader is stricter it refuses; it never comes to a third answer (SEC-086). Header and checksum are
//! `tar_core`'s, whose own resolution of extensions differs from Go's and is not used.
//!
//! Memory is bounded: an extension has at most [`MAX_SPECIAL`] bytes, a sparse map [`MAX_REGIONS`] regions, bodies
//! are handed out in the pieces that the source delivers.
//!
//! ```text
//!  header        one block -> a raw entry; numbers in octal and base-256
//!  pax           records of an extended header
//!  sparse        the maps of sparse files: old GNU, 0.0, 0.1, 1.0
//!  reader        blocks -> entries and their bodies
//!  writer        entries and their bodies -> blocks
//! ```

mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

use types::{Class, Error};

pub use reader::Reader;
pub use sparse::Region;
pub use writer::Writer;

/// The unit of everything in a tar archive, in bytes.
pub const BLOCK: usize = 512;
/// The largest PAX header, GNU long name, GNU long link and sparse map, in bytes. The same as in Go and libarchive.
pub const MAX_SPECIAL: u64 = 1 << 20;
/// The most regions of a sparse file.
pub const MAX_REGIONS: usize = 50_000;
/// The most extension headers in front of one entry; three have a use.
pub const MAX_PENDING: usize = 32;

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of an entry before.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A type flag that we make nothing of.
    Other(u8),
}

/// A point in time, as archives tell it: seconds since the epoch, perhaps negative, and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since 1970.
    pub secs: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// One entry, with all extensions resolved. Names are bytes, as on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path as written: perhaps absolute, perhaps with `..`.
    pub name: Vec<u8>,
    /// What it makes.
    pub kind: Kind,
    /// The target of a link, as written.
    pub link: Vec<u8>,
    /// Permissions, setuid, setgid and sticky: twelve bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The size of the file it makes, in bytes.
    pub size: u64,
    /// Modification time.
    pub mtime: Time,
    /// Access time, where the archive tells.
    pub atime: Option<Time>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes (`SCHILY.xattr.`), in the archive's order; the last of a name counts.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Of a sparse file, where the bytes of the body belong.
    pub sparse: Option<Vec<Region>>,
}

impl Entry {
    /// An entry of a kind, with nothing else said.
    pub fn new(kind: Kind) -> Self {
        Self {
            name: Vec::new(),
            kind,
            link: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Time::default(),
            atime: None,
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        }
    }
}

/// An archive that does not follow the format.
pub(crate) fn malformed(why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("invalid tar archive: {why}"))
}

/// A source that failed, or ended too early: cut and damaged archives are the archive's fault.
pub(crate) fn unreadable(error: std::io::Error) -> Error {
    use std::io::ErrorKind as K;
    let error = match error.downcast::<Error>() {
        Ok(ours) => return ours,
        Err(error) => error,
    };
    match error.kind() {
        K::UnexpectedEof => malformed("unexpected end"),
        K::InvalidData | K::InvalidInput => malformed(format!("damaged compressed data: {error}")),
        // zstd reports damage without a kind.
        K::Other => Error::caused(Class::InvalidArgument, "read the archive", error),
        _ => Error::from(error),
    }
}
