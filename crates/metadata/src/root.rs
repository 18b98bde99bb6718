//! Whose root is it? Asked before anything is created, answered without touching anything.
//!
//! ```text
//!  <root>/io.containerd.metadata.v1.redb/format      "containerd-rs metadata format 1": written before everything else
//!                                        meta.redb   the database; its format record says the same
//! ```
//!
//! The `format` file is what the check reads. The database itself cannot be asked without changing it: after a crash,
//! opening it repairs it, and it may be one of a newer program, which is to be left as it is.
//!
//! | root                                                      | answer                               |
//! | --------------------------------------------------------- | ------------------------------------ |
//! | does not exist, is empty, holds nothing of containerd     | ours to begin                        |
//! | `format` is ours and not newer, `meta.redb` is there      | ours                                 |
//! | `format` names a newer layout or another product          | refused                              |
//! | `format` is ours, but so much as a blob and no `meta.redb` | refused: nobody knows what these are |
//! | upstream's `meta.db`, or any file of containerd's plugins | refused: not ours                    |
//! | any of these, and another daemon holds the lock           | refused: in use                      |
//!
//! The lock is an flock on the root directory itself. It needs no file, so that asking leaves no trace, and it goes
//! with the process that held it, however that ended.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use types::{Error, Result, ResultExt};

use crate::schema::{FORMAT, PRODUCT};

/// The directory of our database below the root.
const OURS: &str = "io.containerd.metadata.v1.redb";
/// The file in it that says whose it is.
const MARKER: &str = "format";
/// The marker while it is being written.
const DRAFT: &str = "format.tmp";
/// The database file in it.
pub(crate) const DATABASE: &str = "meta.redb";
/// Upstream's database.
const UPSTREAM: &str = "io.containerd.metadata.v1.bolt/meta.db";

const WAYS_OUT: &str = "move the directory away, or choose another with --root";

/// The lock of a root, held until dropped.
pub(crate) struct RootLock {
    _directory: File,
}

/// Refuses a root that is not ours or in use. See [`crate::Db::check_root`].
pub(crate) fn check(root: &Path) -> Result<()> {
    check_owner(root)?;
    match fs::metadata(root) {
        Ok(_) => lock(root).map(drop),
        // A root that does not exist is in nobody's use.
        Err(_) => Ok(()),
    }
}

/// Refuses a root that is not ours.
pub(crate) fn check_owner(root: &Path) -> Result<()> {
    let doing = || format!("look at root {}", root.display());
    if let Err(error) = fs::metadata(root) {
        return if absent(&error) { Ok(()) } else { Err(error).context(doing) };
    }
    let shown = root.display();
    let upstream = root.join(UPSTREAM).exists();
    match read_marker(root).context(doing)? {
        None if upstream => Err(Error::precondition(format!(
            "root {shown} belongs to containerd (it holds {UPSTREAM}), and containerd-rs never touches what is not \
             its own: {WAYS_OUT}"
        ))),
        None => match first_foreign(root).context(doing)? {
            None => Ok(()),
            Some(path) => Err(Error::precondition(format!(
                "root {shown} belongs to somebody else (it holds {} and no database of containerd-rs), and \
                 containerd-rs never touches what is not its own: {WAYS_OUT}",
                path.display()
            ))),
        },
        Some(marker) => {
            check_marker(root, &marker)?;
            if upstream {
                return Err(Error::precondition(format!(
                    "root {shown} is used by containerd-rs and, since then, by containerd (it holds {UPSTREAM}); \
                     both would remove each other's blobs: {WAYS_OUT}"
                )));
            }
            check_database(root).context(doing)?
        }
    }
}

/// The product and the version of the layout.
fn check_marker(root: &Path, marker: &str) -> Result<()> {
    let path = root.join(OURS).join(MARKER);
    let newer = |found: &str| {
        Error::precondition(format!(
            "root {} was written by a newer containerd-rs (its metadata format is {found}, this program knows up to \
             {FORMAT}): run the newer program, {WAYS_OUT}",
            root.display()
        ))
    };
    let mut words = marker.split_whitespace();
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(PRODUCT), Some("metadata"), Some("format"), Some(version)) => match version.parse::<u32>() {
            Ok(version) if version <= FORMAT => Ok(()),
            Ok(_) | Err(_) => Err(newer(version)),
        },
        _ => Err(Error::precondition(format!(
            "root {} belongs to somebody else ({} does not name containerd-rs), and containerd-rs never touches what \
             is not its own: {WAYS_OUT}",
            root.display(),
            path.display()
        ))),
    }
}

/// A marker without a database is a first start that ended early, unless there is something to lose.
fn check_database(root: &Path) -> io::Result<Result<()>> {
    if root.join(OURS).join(DATABASE).exists() {
        return Ok(Ok(()));
    }
    Ok(match first_foreign(root)? {
        None => Ok(()),
        Some(path) => Err(Error::precondition(format!(
            "root {} is ours, but its database {OURS}/{DATABASE} is missing, and without it nobody knows what {} \
             belongs to: put the database back, {WAYS_OUT}",
            root.display(),
            path.display()
        ))),
    })
}

fn read_marker(root: &Path) -> io::Result<Option<String>> {
    match fs::read(root.join(OURS).join(MARKER)) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The first thing below `io.containerd.*` that a beginning of ours would not have left, relative to the root.
fn first_foreign(root: &Path) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with("io.containerd.") || name == OURS {
            continue;
        }
        if let Some(path) = first_file(&entry.path())? {
            return Ok(Some(path.strip_prefix(root).map(Path::to_owned).unwrap_or(path)));
        }
    }
    let ours = match fs::read_dir(root.join(OURS)) {
        Ok(entries) => entries,
        Err(error) if absent(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    for entry in ours {
        // The marker may be there before anything else, or have been cut short.
        let name = entry?.file_name();
        if name != MARKER && name != DRAFT {
            return Ok(Some(Path::new(OURS).join(name)));
        }
    }
    Ok(None)
}

/// The first file in the tree at `path`, or the first snapshot. Symlinks count as files and are not followed.
fn first_file(path: &Path) -> io::Result<Option<PathBuf>> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if absent(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    if !kind.is_dir() {
        // Our snapshotters make their databases before ours is there; upstream's are called metadata.db.
        let begun = path.file_name() == Some("metadata.redb".as_ref());
        return Ok((!begun).then(|| path.to_owned()));
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?.path();
        let found = match path.file_name() {
            Some(name) if name == "snapshots" => Some(entry),
            _ => first_file(&entry)?,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Takes the lock of `root`, or says who has it.
pub(crate) fn lock(root: &Path) -> Result<RootLock> {
    let doing = || format!("lock root {}", root.display());
    let directory = File::open(root).context(doing)?;
    match directory.try_lock() {
        Ok(()) => Ok(RootLock { _directory: directory }),
        Err(TryLockError::WouldBlock) => Err(Error::precondition(format!(
            "root {} is in use by another containerd-rs daemon: stop it, or choose another with --root",
            root.display()
        ))),
        Err(TryLockError::Error(error)) => Err(error).context(doing),
    }
}

/// Makes the database's directory and writes, durably, that it is ours. Does nothing where that is written already.
pub(crate) fn claim(dir: &Path) -> Result<()> {
    let doing = || format!("create {}", dir.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).context(doing)?;
    let marker = dir.join(MARKER);
    if marker.exists() {
        return Ok(());
    }
    let draft = dir.join(DRAFT);
    let written = (|| -> io::Result<()> {
        let mut file = File::create(&draft)?;
        file.write_all(format!("{PRODUCT} metadata format {FORMAT}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, &marker)?;
        File::open(dir)?.sync_all()?;
        // The directory's own entry, too.
        dir.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    })();
    written.context(doing)
}

fn absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
