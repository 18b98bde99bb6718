//! The directories of a snapshotter and its records, kept in step.
//!
//! ```text
//!  <root>/metadata.redb
//!         snapshots/<id>        belongs to a record
//!                   new-<id>    is being made, no record yet
//!                   rm-<id>     is being removed, no record any more
//!
//!  create   make new-<id>, rename it to <id>, write the record
//!  remove   remove the record, rename <id> to rm-<id>, delete that
//! ```
//!
//! Killed at any point, this leaves records with their directory, and perhaps directories without a record, which
//! [`Area::cleanup`] deletes; it runs when the area is opened. A power loss may also take the directory of an active
//! snapshot whose record was durable: its files were never promised, so [`Area::heal`] makes it anew.
//!
//! Files are on the disk before the record that calls them committed. If they are gone all the same (an earlier daemon,
//! somebody's `rm`), the snapshot is lost: [`Area::is_whole`] says so, and who commits the same name again replaces it, below
//! whatever stands on it.

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use types::fields::{FieldPaths, Path as Field};
use types::snapshot::{Info, Kind, Usage};
use types::{Error, Labels, Result, ResultExt, labels};

use crate::index::{Change, Index, Record};
use crate::records::Records;
use crate::sync::FilesystemSync;

/// The database's name, and that of upstream's, whose directories are not ours.
const DATABASE: &str = "metadata.redb";
const UPSTREAMS: &str = "metadata.db";

/// See the module.
pub(crate) struct Area {
    snapshots: PathBuf,
    /// Where a snapshot's files are in its directory.
    files: &'static str,
    records: Records,
    sync: FilesystemSync,
    /// The ids of the `new-` directories that somebody is filling.
    making: Mutex<HashSet<u64>>,
}

/// A snapshot that is about to be.
pub(crate) struct New<'a> {
    pub(crate) kind: Kind,
    pub(crate) key: &'a str,
    pub(crate) parent: &'a str,
    pub(crate) labels: Labels,
}

/// A snapshot that is about to be committed.
pub(crate) struct Commit<'a> {
    pub(crate) name: &'a str,
    pub(crate) key: &'a str,
    pub(crate) parent: Option<&'a str>,
    pub(crate) labels: Labels,
}

/// A directory that is being made; gone when dropped, unless it was placed.
pub(crate) struct Staged<'a> {
    area: &'a Area,
    id: u64,
    path: Option<PathBuf>,
}

impl Area {
    /// Opens the area `root`, which is made if it is not there. `files` is where a snapshot's files are in its directory.
    pub(crate) fn open(root: &Path, files: &'static str) -> Result<Self> {
        if root.to_str().is_none() {
            return Err(Error::invalid(format!(
                "the path {root:?} cannot stand in mount options: it is not UTF-8"
            )));
        }
        check_owner(root)?;
        let snapshots = root.join("snapshots");
        for dir in [root, &snapshots] {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).context(|| format!("make {dir:?}"))?;
        }
        let records = Records::open(&root.join(DATABASE))?;
        let sync = FilesystemSync::open(&snapshots)?;
        let area = Self { snapshots, files, records, sync, making: Mutex::default() };
        let orphans = area.orphans()?;
        if !orphans.is_empty() {
            // A tree that was being removed may be large, and the daemon is waited for.
            std::thread::Builder::new()
                .name("sweep".to_owned())
                .spawn(move || orphans.iter().for_each(|orphan| delete(orphan)))
                .context(|| "sweep removed snapshots")?;
        }
        Ok(area)
    }

    /// Looks at the records. Not for long: changes wait for it.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        self.records.read(look)
    }

    /// The snapshot below one that exists.
    pub(crate) fn parent(&self, info: &Info) -> Result<Option<Arc<Record>>> {
        match info.parent.as_str() {
            "" => Ok(None),
            parent => self.read(|index| index.get(parent)).map(Some),
        }
    }

    /// Where the snapshot's files are.
    pub(crate) fn dir(&self, id: u64) -> PathBuf {
        self.snapshots.join(id.to_string())
    }

    /// Where the layer's own files are.
    pub(crate) fn files(&self, id: u64) -> PathBuf {
        self.dir(id).join(self.files)
    }

    /// Whether a snapshot has its files, and each one below it. `NotFound` if there is no record of it.
    pub(crate) fn is_whole(&self, key: &str) -> Result<bool> {
        let mut next = key.to_owned();
        while !next.is_empty() {
            let record = self.read(|index| index.get(&next))?;
            if self.is_lost(&record) {
                return Ok(false);
            }
            next.clone_from(&record.info.parent);
        }
        Ok(true)
    }

    /// Whether a committed snapshot's files are gone.
    fn is_lost(&self, record: &Record) -> bool {
        if record.info.kind != Kind::Committed {
            return false;
        }
        match fs::read_dir(self.files(record.id)) {
            // The directory counts as one.
            Ok(mut entries) => record.usage.inodes > 1 && entries.next().is_none(),
            Err(error) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        }
    }

    /// A committed snapshot of this name whose files are gone.
    fn lost(&self, name: &str) -> Option<Arc<Record>> {
        self.read(|index| index.get(name)).ok().filter(|record| self.is_lost(record))
    }

    /// A new, empty directory for a snapshot that will be created.
    pub(crate) fn stage(&self) -> Result<Staged<'_>> {
        let id = self.records.new_id();
        self.making().insert(id);
        let path = self.snapshots.join(format!("new-{id}"));
        let staged = Staged { area: self, id, path: Some(path) };
        DirBuilder::new()
            .mode(0o700)
            .create(staged.path())
            .context(|| format!("make {:?}", staged.path()))?;
        Ok(staged)
    }

    /// Records a snapshot; `staged` becomes its directory.
    pub(crate) fn create(&self, new: New<'_>, staged: Option<Staged<'_>>) -> Result<Arc<Record>> {
        let mut turn = self.records.turn();
        self.read(|index| index.may_create(new.key, new.parent))?;
        let now = SystemTime::now();
        let info = Info {
            kind: new.kind,
            name: new.key.to_owned(),
            parent: new.parent.to_owned(),
            labels: new.labels,
            created_at: now,
            updated_at: now,
        };
        let id = staged.as_ref().map_or_else(|| self.records.new_id(), |staged| staged.id);
        let placed = staged.map(Staged::place).transpose()?;
        let record = Arc::new(Record { id, info, usage: Usage::default() });
        turn.write(Change { insert: Some(Arc::clone(&record)), remove: None })?;
        if let Some(placed) = placed {
            placed.keep();
        }
        Ok(record)
    }

    /// Changes labels.
    pub(crate) fn update(&self, info: &Info, fields: &FieldPaths) -> Result<Info> {
        fields.check(&[], &["labels"], &format!("snapshot {:?}", info.name))?;
        let mut turn = self.records.turn();
        let mut record = Record::clone(&*self.read(|index| index.get(&info.name))?);
        if fields.all() {
            labels::apply(&mut record.info.labels, &info.labels, None);
        }
        for path in fields.iter() {
            let key = match path {
                Field::Field(_) => None,
                Field::Key(_, key) => Some(key),
            };
            labels::apply(&mut record.info.labels, &info.labels, key);
        }
        record.info.updated_at = SystemTime::now();
        let updated = record.info.clone();
        turn.write(Change { insert: Some(Arc::new(record)), remove: None })?;
        Ok(updated)
    }

    /// Turns an active snapshot into a committed one, with what `measure` says it occupies.
    ///
    /// Its files are made durable first, so that no power loss leaves a committed snapshot with empty ones.
    pub(crate) fn commit(
        &self,
        commit: Commit<'_>,
        measure: impl FnOnce(&Record) -> Result<Usage>,
    ) -> Result<()> {
        let lost = self.lost(commit.name);
        let may = |index: &Index| {
            index.may_commit(commit.name, commit.key, commit.parent, lost.as_ref().map(|lost| lost.id))
        };
        let (active, _) = self.read(may)?;
        let usage = measure(&active)?;
        // One call for the layer, however many files it has; it also writes what others have not synced yet.
        self.sync.all(|| self.records.next_id())?;
        if self.sync.is_suspect(active.id) {
            let text = format!("a write to the disk failed while snapshot {:?} was filled", commit.key);
            return Err(Error::data_loss(text));
        }

        let mut turn = self.records.turn();
        let (still, parent) = self.read(may)?;
        if still.id != active.id {
            let text = format!("snapshot {:?} was replaced while it was being committed", commit.key);
            return Err(Error::unavailable(text));
        }
        let now = SystemTime::now();
        let info = Info {
            kind: Kind::Committed,
            name: commit.name.to_owned(),
            parent,
            labels: commit.labels,
            created_at: now,
            updated_at: now,
        };
        let record = Arc::new(Record { id: active.id, info, usage });
        turn.write(Change { insert: Some(record), remove: Some(commit.key.to_owned()) })?;
        if let Some(gone) = lost.and_then(|lost| self.set_aside(&lost.id.to_string())) {
            tracing::info!(snapshot = %commit.name, "a committed snapshot whose files were gone has them again");
            delete(&gone);
        }
        Ok(())
    }

    /// Removes a snapshot and its files.
    pub(crate) fn remove(&self, key: &str) -> Result<()> {
        let mut turn = self.records.turn();
        let record = self.read(|index| index.may_remove(key))?;
        turn.write(Change { remove: Some(key.to_owned()), insert: None })?;
        let gone = self.set_aside(&record.id.to_string());
        drop(turn);
        if let Some(gone) = gone {
            delete(&gone);
        }
        Ok(())
    }

    /// Deletes directories that belong to no record.
    pub(crate) fn cleanup(&self) -> Result<()> {
        self.orphans()?.iter().for_each(|orphan| delete(orphan));
        Ok(())
    }

    /// Sets directories aside that belong to no record, and says where they are now.
    fn orphans(&self) -> Result<Vec<PathBuf>> {
        let doing = || format!("list {:?}", self.snapshots);
        let mut orphans = Vec::new();
        let turn = self.records.turn();
        let known: HashSet<String> =
            self.read(|index| index.all().map(|record| record.id.to_string()).collect());
        for entry in fs::read_dir(&self.snapshots).context(doing)? {
            let name = entry.context(doing)?.file_name().to_string_lossy().into_owned();
            let making = |text: &str| text.parse().is_ok_and(|id| self.making().contains(&id));
            if !known.contains(&name) && !name.strip_prefix("new-").is_some_and(making) {
                orphans.extend(self.set_aside(&name));
            }
        }
        drop(turn);
        Ok(orphans)
    }

    /// Makes, by `fill`, the directories that records should have and that are not there. One that cannot be made is
    /// logged: the others are not given up for it.
    pub(crate) fn heal(
        &self,
        has_files: impl Fn(&Info) -> bool,
        fill: impl Fn(&Record, &Path) -> Result<()>,
    ) {
        let records: Vec<Arc<Record>> = self.read(|index| index.all().cloned().collect());
        for record in records {
            let dir = self.dir(record.id);
            if !has_files(&record.info) || self.files(record.id).exists() {
                continue;
            }
            let name = &record.info.name;
            if record.info.kind == Kind::Committed {
                tracing::error!(snapshot = %name, path = %dir.display(), "the files of a committed snapshot are gone; the next pull or unpack of its image restores them");
                continue;
            }
            tracing::warn!(snapshot = %name, path = %dir.display(), "the files of a snapshot are gone, it is empty now");
            let healed = self.stage().and_then(|staged| {
                fill(&record, staged.path())?;
                if let Some(rest) = dir.exists().then(|| self.set_aside(&record.id.to_string())).flatten() {
                    delete(&rest);
                }
                fs::rename(staged.path(), &dir).context(|| format!("make {dir:?}"))
            });
            if let Err(error) = healed {
                tracing::error!(snapshot = %name, %error, "the files of a snapshot cannot be made anew");
            }
        }
    }

    /// Gives a directory without record a name that says so.
    fn set_aside(&self, name: &str) -> Option<PathBuf> {
        let from = self.snapshots.join(name);
        if name.starts_with("rm-") {
            return Some(from);
        }
        let to = self.snapshots.join(format!("rm-{name}"));
        match fs::rename(&from, &to) {
            Ok(()) => Some(to),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // An older remnant has the name; this one is deleted under its own.
            Err(_) => Some(from),
        }
    }

    fn making(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Staged<'_> {
    /// Where the files go for now.
    pub(crate) fn path(&self) -> &Path {
        // Only `keep` takes it, and consumes the value.
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// Gives it its final name.
    fn place(mut self) -> Result<Self> {
        let to = self.area.dir(self.id);
        fs::rename(self.path(), &to).context(|| format!("rename {:?} to {to:?}", self.path()))?;
        self.path = Some(to);
        Ok(self)
    }

    fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.path.take().filter(|path| path.exists()) {
            delete(&path);
        }
        self.area.making().remove(&self.id);
    }
}

/// The record is gone, and with it the snapshot: what cannot be deleted now is deleted by the next cleanup.
fn delete(path: &Path) {
    if let Err(error) = sys::fs::remove_tree(path) {
        tracing::warn!(path = %path.display(), %error, "failed to remove directory");
    }
}

/// Refuses a directory that something else than this snapshotter has filled.
fn check_owner(root: &Path) -> Result<()> {
    if root.join(DATABASE).exists() {
        return Ok(());
    }
    let full = fs::read_dir(root.join("snapshots")).is_ok_and(|mut entries| entries.next().is_some());
    if full || root.join(UPSTREAMS).exists() {
        return Err(Error::precondition(format!(
            "{root:?} holds snapshots of another containerd; they are left as they are: move the directory away, or use another root"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(area: &Area, key: &str) -> Result<Arc<Record>> {
        let staged = area.stage()?;
        fs::write(staged.path().join("file"), key)?;
        area.create(New { kind: Kind::Active, key, parent: "", labels: Labels::new() }, Some(staged))
    }

    fn names(root: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(root.join("snapshots"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_process_left_without_a_record_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let area = Area::open(dir.path(), "").unwrap();
        create(&area, "kept").unwrap();
        drop(area);
        for name in ["new-7", "rm-8", "9", "something"] {
            fs::create_dir_all(dir.path().join("snapshots").join(name).join("fs/deep")).unwrap();
        }
        let area = Area::open(dir.path(), "").unwrap();
        assert_eq!(area.read(|index| index.get("kept")).unwrap().id, 1);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while names(dir.path()) != ["1"] {
            assert!(std::time::Instant::now() < deadline, "{:?}", names(dir.path()));
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_is_being_made_is_not_swept_and_goes_with_its_guard() {
        let dir = tempfile::tempdir().unwrap();
        let area = Area::open(dir.path(), "").unwrap();
        let staged = area.stage().unwrap();
        area.cleanup().unwrap();
        assert_eq!(names(dir.path()), ["new-1"]);
        drop(staged);
        assert!(names(dir.path()).is_empty());
        create(&area, "one").unwrap();
        assert!(create(&area, "one").unwrap_err().is_already_exists());
        assert_eq!(names(dir.path()), ["2"]);
    }

    #[test]
    fn lost_files_of_an_active_snapshot_are_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let area = Area::open(dir.path(), "").unwrap();
        create(&area, "one").unwrap();
        fs::remove_dir_all(area.dir(1)).unwrap();
        create(&area, "two").unwrap();
        fs::remove_dir_all(area.dir(2)).unwrap();
        area.heal(
            |_| true,
            |record, path| match record.id {
                1 => Err(Error::not_found("its parent is gone too")),
                _ => Ok(fs::write(path.join("healed"), &record.info.name)?),
            },
        );
        assert_eq!(fs::read(area.dir(2).join("healed")).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["2"]);
    }

    fn commit(area: &Area, name: &str, key: &str, inodes: u64) -> Result<()> {
        let commit = Commit { name, key, parent: None, labels: Labels::new() };
        area.commit(commit, |_| Ok(Usage { inodes, size: 0 }))
    }

    #[test]
    fn a_committed_snapshot_without_its_files_is_replaced_below_what_stands_on_it() {
        let dir = tempfile::tempdir().unwrap();
        let area = Area::open(dir.path(), "").unwrap();
        create(&area, "first").unwrap();
        commit(&area, "base", "first", 2).unwrap();
        let above = New { kind: Kind::Active, key: "above", parent: "base", labels: Labels::new() };
        area.create(above, Some(area.stage().unwrap())).unwrap();
        create(&area, "again").unwrap();
        assert!(commit(&area, "base", "again", 2).unwrap_err().is_already_exists());
        assert!(area.is_whole("above").unwrap());

        // Empty, and then gone.
        fs::remove_file(area.dir(1).join("file")).unwrap();
        assert!(!area.is_whole("base").unwrap() && !area.is_whole("above").unwrap());
        fs::remove_dir(area.dir(1)).unwrap();
        drop(area);
        let area = Area::open(dir.path(), "").unwrap();
        area.heal(|_| true, |_, _| Err(Error::internal("committed ones are not made up")));
        assert!(!area.is_whole("above").unwrap());
        commit(&area, "base", "again", 2).unwrap();
        assert!(area.is_whole("above").unwrap());
        let base = area.read(|index| index.get("base")).unwrap();
        assert_eq!(area.read(|index| index.chain("base")).unwrap(), [base.id]);
        assert_eq!(fs::read(area.dir(base.id).join("file")).unwrap(), b"again");
        assert!(area.remove("base").is_err(), "the one above still stands on it");
    }

    #[test]
    fn what_was_filled_when_a_sync_failed_is_never_committed() {
        let dir = tempfile::tempdir().unwrap();
        let area = Area::open(dir.path(), "").unwrap();
        create(&area, "first").unwrap();
        create(&area, "beside").unwrap();
        area.sync.fails.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(commit(&area, "one", "first", 2).unwrap_err().to_string().contains("(os error 5)"));
        // The next call says yes, although the kernel has dropped the pages.
        for (name, key) in [("one", "first"), ("two", "beside")] {
            let error = commit(&area, name, key, 2).unwrap_err();
            assert_eq!(error.class(), types::Class::DataLoss, "{error}");
            assert!(area.read(|index| index.get(name)).is_err());
            area.remove(key).unwrap();
        }
        create(&area, "again").unwrap();
        commit(&area, "one", "again", 2).unwrap();
        assert_eq!(names(dir.path()), ["3"]);
    }

    #[test]
    fn the_snapshots_of_another_containerd_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("snapshots/1/fs")).unwrap();
        let error = Area::open(dir.path(), "").err().unwrap();
        assert_eq!(error.class(), types::Class::FailedPrecondition, "{error}");
        assert_eq!(names(dir.path()), ["1"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(UPSTREAMS), "bolt").unwrap();
        assert!(Area::open(dir.path(), "").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_full_disk_is_survived() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let disk = types::mount::Mount {
            kind: "tmpfs".to_owned(),
            source: "tmpfs".to_owned(),
            target: String::new(),
            options: vec!["size=8m".to_owned()],
        };
        let disk = sys::mount::TempMount::below(dir.path(), &[disk]).unwrap();
        let area = Area::open(disk.path(), "").unwrap();
        create(&area, "before").unwrap();
        drop(fs::write(disk.path().join("filler"), vec![1; 9 << 20]));
        let error =
            (0..5000).find_map(|i| create(&area, &format!("{i}-{}", "x".repeat(2000))).err()).unwrap();
        assert_eq!(error.class(), types::Class::ResourceExhausted, "{error}");
        let name = "a name that needs pages of its own ".repeat(4000);
        if let Err(error) = commit(&area, &name, "before", 2) {
            assert_eq!(error.class(), types::Class::ResourceExhausted, "{error}");
            assert_eq!(area.read(|index| index.get("before")).unwrap().info.kind, Kind::Active);
        }
        fs::remove_file(disk.path().join("filler")).unwrap();
        create(&area, "after").unwrap();
        if area.read(|index| index.get("before")).is_ok() {
            commit(&area, &name, "before", 2).unwrap();
        }
        for key in [name.as_str(), "after"] {
            assert!(area.dir(area.read(|index| index.get(key)).unwrap().id).join("file").exists());
        }
        drop(area);
        disk.close().unwrap();
    }
}
