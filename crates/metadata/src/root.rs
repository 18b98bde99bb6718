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

use std::fs::{self, File};
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
#[derive(Debug)]
pub struct RootLock {
    _directory: File,
}

/// Refuses a root that is not ours or in use. See [`crate::Db::check_root`].
pub(crate) fn check(root: &Path) -> Result<()> {
    // A root that does not exist is in nobody's use. One in use is not looked at: its user may be about to begin it.
    let _lock = if root.exists() { Some(lock(root)?) } else { None };
    check_owner(root)
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
        let begun =
            ["metadata.redb", "metadata.redb.new"].map(|name| path.file_name() == Some(name.as_ref()));
        return Ok((!begun.contains(&true)).then(|| path.to_owned()));
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

/// Makes `root`, takes its lock, and only then, when nobody else can change the answer, asks whose it is.
pub(crate) fn take(root: &Path) -> Result<RootLock> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .context(|| format!("create root {}", root.display()))?;
    let lock = lock(root)?;
    check_owner(root)?;
    Ok(lock)
}

/// Takes the lock of `root`, or says who has it.
pub(crate) fn lock(root: &Path) -> Result<RootLock> {
    let doing = || format!("lock root {}", root.display());
    let directory = File::open(root).context(doing)?;
    if !sys::fs::lock(&directory).context(doing)? {
        return Err(Error::precondition(format!(
            "root {} is in use by another containerd-rs daemon: stop it, or choose another with --root",
            root.display()
        )));
    }
    Ok(RootLock { _directory: directory })
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use types::Class;

    use super::*;

    /// Every file below `root` with its bytes and time of change, every directory with its time.
    fn everything(root: &Path) -> BTreeMap<PathBuf, (std::time::SystemTime, Vec<u8>)> {
        let mut all = BTreeMap::new();
        let mut open = vec![root.to_owned()];
        while let Some(path) = open.pop() {
            let metadata = fs::symlink_metadata(&path).unwrap();
            let mut bytes = Vec::new();
            if metadata.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                bytes = fs::read(&path).unwrap();
            }
            all.insert(path, (metadata.modified().unwrap(), bytes));
        }
        all
    }

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            if text.is_empty() {
                fs::create_dir_all(path).unwrap();
            } else {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
        }
        root
    }

    fn refused(files: &[(&str, &str)], words: &[&str]) {
        let root = root(files);
        let before = everything(root.path());
        let error = check(root.path()).unwrap_err();
        assert_eq!(error.class(), Class::FailedPrecondition);
        let text = error.to_string();
        assert!(text.contains(&root.path().display().to_string()), "the path is named: {text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is in: {text}");
        }
        assert!(everything(root.path()) == before, "something was touched");
    }

    const BLOB: (&str, &str) = ("io.containerd.content.v1.content/blobs/sha256/00", "blob");
    const MARK: (&str, &str) = ("io.containerd.metadata.v1.redb/format", "containerd-rs metadata format 1\n");

    #[test]
    fn a_root_with_nothing_of_containerd_is_ours_to_begin() {
        check(Path::new("/nowhere/at/all")).unwrap();
        for files in [
            &[][..],
            &[("lost+found", ""), ("somebody/elses/file", "x")],
            &[("io.containerd.content.v1.content/ingest", ""), ("io.containerd.metadata.v1.redb", "")],
            &[("io.containerd.snapshotter.v1.overlayfs/metadata.redb", "x")],
            &[("io.containerd.snapshotter.v1.overlayfs/metadata.redb.new", "x")],
            &[("io.containerd.metadata.v1.redb/format.tmp", "conta")],
            &[MARK],
        ] {
            let root = root(files);
            let before = everything(root.path());
            check(root.path()).unwrap();
            assert!(everything(root.path()) == before);
        }
    }

    #[test]
    fn upstreams_root_is_left_as_it_is() {
        let files = [("io.containerd.metadata.v1.bolt/meta.db", "bolt"), BLOB];
        refused(&files, &["belongs to containerd", "meta.db", "move the directory away", "--root"]);
    }

    #[test]
    fn what_nobody_can_account_for_is_left_as_it_is() {
        refused(&[BLOB], &["blobs/sha256/00", "--root"]);
        refused(&[("io.containerd.snapshotter.v1.native/metadata.db", "x")], &["metadata.db"]);
        refused(&[("io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs", "")], &["snapshots/1"]);
        refused(&[("io.containerd.metadata.v1.redb/meta.redb", "x")], &["meta.redb"]);
        refused(&[MARK, BLOB], &["is missing", "put the database back"]);
    }

    #[test]
    fn a_newer_or_foreign_marker_is_refused() {
        let mark = |text| [("io.containerd.metadata.v1.redb/format", text), BLOB];
        refused(&mark("containerd-rs metadata format 2\n"), &["newer containerd-rs", "format is 2"]);
        refused(&mark("containerd-rs metadata format next\n"), &["newer containerd-rs"]);
        refused(&mark("something else"), &["belongs to somebody else"]);
    }

    #[test]
    fn a_root_that_both_used_is_refused() {
        let both = [
            MARK,
            ("io.containerd.metadata.v1.redb/meta.redb", "x"),
            ("io.containerd.metadata.v1.bolt/meta.db", "x"),
        ];
        refused(&both, &["since then, by containerd"]);
    }

    #[test]
    fn a_root_in_use_is_refused_and_free_when_its_user_ends() {
        let root = root(&[MARK]);
        let held = lock(root.path()).unwrap();
        let error = check(root.path()).unwrap_err();
        assert!(error.to_string().contains("in use by another containerd-rs daemon"), "{error}");
        drop(held);
        check(root.path()).unwrap();
    }

    #[test]
    fn claiming_is_idempotent_and_makes_a_private_directory() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join(OURS);
        claim(&dir).unwrap();
        claim(&dir).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        check(root.path()).unwrap();
    }
}
