//! Layers as directories, merged by overlayfs.
//!
//! ```text
//!  <root>/metadata.redb
//!         snapshots/<id>/fs      the layer: upper directory, later a lower one
//!                        work    overlayfs's own, of active snapshots
//! ```
//!
//! Layout and mounts are upstream's, option by option: other programs read both.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rustix::fs::{AtFlags, CWD, FileType, Gid, RawDir, Uid};
use types::fields::FieldPaths;
use types::filters::Filters;
use types::mount::Mount;
use types::snapshot::{Info, Kind, Usage};
use types::{Error, Labels, Result, ResultExt};

use crate::area::{Area, Commit, New};
use crate::blocking::blocking;
use crate::index::Record;
use crate::shift::{GID_MAPPING, IdMaps, ONLY_REMAP_IDS, Owners, REMAP_IDS, UID_MAPPING};
use crate::{Snapshotter, usage};

/// On answers, where [`Options::upperdir_label`] is set: the layer's directory.
pub const UPPERDIR_LABEL: &str = "containerd.io/snapshot/overlay.upperdir";

/// How mounts are answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Added to every overlay mount.
    pub mount_options: Vec<String>,
    /// Say where the layer is, in [`UPPERDIR_LABEL`].
    pub upperdir_label: bool,
    /// Ask for idmapped mounts where a snapshot has id mappings, if the kernel can shift the owners of layers.
    pub remap_ids: bool,
    /// Where the kernel cannot, a copy may be made whose files are given away.
    pub slow_chown: bool,
}

/// The overlayfs snapshotter.
pub struct Overlay {
    inner: Arc<Inner>,
}

struct Inner {
    area: Area,
    options: Options,
}

impl Overlay {
    /// Opens the snapshotter in `root`, which is made if it is not there. Blocks.
    pub fn open(root: impl Into<PathBuf>, mut options: Options) -> Result<Arc<Self>> {
        let root = root.into();
        let area = Area::open(&root, "fs")?;
        check_file_types(&root)?;
        let has = |wanted: &str| options.mount_options.iter().any(|o| o.split('=').next() == Some(wanted));
        let mut more = Vec::new();
        if !has("userxattr") && in_user_namespace() && !on_tmpfs(&root)? {
            more.push("userxattr".to_owned());
        }
        if !has("index") && Path::new("/sys/module/overlay/parameters/index").exists() {
            more.push("index=off".to_owned());
        }
        options.mount_options.append(&mut more);
        options.remap_ids = options.remap_ids && can_shift_owners(&root);
        let inner = Inner { area, options };
        inner.area.heal(
            |_| true,
            |record, path| {
                let below = inner.area.parent(&record.info)?;
                inner.fill(path, record.info.kind, below.as_deref(), &record.info.labels)
            },
        );
        Ok(Arc::new(Self { inner: Arc::new(inner) }))
    }

    /// What the kernel and the settings make of it, by the names of a plugin's capabilities.
    pub fn capabilities(&self) -> &'static [&'static str] {
        match (self.inner.options.remap_ids, self.inner.options.slow_chown) {
            (true, true) => &[REMAP_IDS],
            (true, false) => &[REMAP_IDS, ONLY_REMAP_IDS],
            (false, true) => &[],
            (false, false) => &[ONLY_REMAP_IDS],
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        blocking(move || work(&inner)).await
    }

    async fn create(&self, kind: Kind, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        let (key, parent) = (key.to_owned(), parent.to_owned());
        self.run(move |inner| inner.create(New { kind, key: &key, parent: &parent, labels })).await
    }
}

#[async_trait]
impl Snapshotter for Overlay {
    async fn stat(&self, key: &str) -> Result<Info> {
        let record = self.inner.area.read(|index| index.get(key))?;
        Ok(self.inner.shown(&record))
    }

    async fn update(&self, info: Info, fields: &FieldPaths) -> Result<Info> {
        let fields = fields.clone();
        self.run(move |inner| {
            inner.area.update(&info, &fields)?;
            Ok(inner.shown(&*inner.area.read(|index| index.get(&info.name))?))
        })
        .await
    }

    async fn usage(&self, key: &str) -> Result<Usage> {
        let record = self.inner.area.read(|index| index.get(key))?;
        match record.info.kind {
            Kind::Active => self.run(move |inner| usage::of_tree(&inner.upper(record.id))).await,
            Kind::View | Kind::Committed => Ok(record.usage),
        }
    }

    async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let record = self.inner.area.read(|index| index.get(key)).context(|| "failed to get active mount")?;
        self.inner.mounts(&record)
    }

    async fn prepare(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        self.create(Kind::Active, key, parent, labels).await
    }

    async fn view(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        self.create(Kind::View, key, parent, labels).await
    }

    async fn commit(&self, name: &str, key: &str, parent: Option<&str>, labels: Labels) -> Result<()> {
        let (name, key, parent) = (name.to_owned(), key.to_owned(), parent.map(str::to_owned));
        self.run(move |inner| {
            let commit = Commit { name: &name, key: &key, parent: parent.as_deref(), labels };
            let committed = inner.area.commit(commit, |active| usage::of_tree(&inner.upper(active.id)));
            committed.context(|| format!("failed to commit snapshot {key}"))
        })
        .await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        let key = key.to_owned();
        self.run(move |inner| inner.area.remove(&key).context(|| format!("failed to remove snapshot {key}")))
            .await
    }

    async fn walk(&self, filters: &Filters, each: &mut (dyn FnMut(Info) -> Result<()> + Send)) -> Result<()> {
        let records: Vec<Arc<Record>> = self.inner.area.read(|index| index.all().cloned().collect());
        for record in records {
            let info = self.inner.shown(&record);
            if filters.matches(&info) {
                each(info)?;
            }
        }
        Ok(())
    }

    async fn cleanup(&self) -> Result<()> {
        self.run(|inner| inner.area.cleanup()).await
    }

    async fn is_whole(&self, key: &str) -> Result<bool> {
        let key = key.to_owned();
        self.run(move |inner| inner.area.is_whole(&key)).await
    }

    fn can_rebase(&self) -> bool {
        true
    }

    fn owners(&self) -> Owners {
        Owners::of(self.capabilities())
    }
}

impl Inner {
    fn upper(&self, id: u64) -> PathBuf {
        self.area.files(id)
    }

    fn create(&self, new: New<'_>) -> Result<Vec<Mount>> {
        let doing = || "failed to create snapshot";
        // Looked at again when the record is written; here it saves making directories for nothing.
        let below = self.area.read(|index| index.may_create(new.key, new.parent)).context(doing)?;
        let staged = self.area.stage().context(doing)?;
        self.fill(staged.path(), new.kind, below.as_deref(), &new.labels).context(doing)?;
        let record = self.area.create(new, Some(staged)).context(doing)?;
        self.mounts(&record)
    }

    /// Makes the directories of a snapshot in `dir`.
    fn fill(&self, dir: &Path, kind: Kind, below: Option<&Record>, labels: &Labels) -> Result<()> {
        let upper = dir.join("fs");
        // The root of the merged tree looks like the upper directory, so that takes after the layer below.
        let (mut owner, mut mode) = (None, 0o755);
        if let Some(below) = below {
            let path = self.upper(below.id);
            let like = fs::metadata(&path).context(|| format!("failed to stat parent {path:?}"))?;
            (owner, mode) = (Some((like.uid(), like.gid())), like.mode() & 0o7777);
        }
        owner = IdMaps::of(labels)?.map(|maps| maps.root()).transpose()?.or(owner);
        make(&upper, mode)?;
        if let Some((uid, gid)) = owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::chownat(CWD, &upper, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(io::Error::from)
                .context(|| format!("failed to chown {upper:?}"))?;
        }
        if kind == Kind::Active {
            make(&dir.join("work"), 0o711)?;
        }
        Ok(())
    }

    fn shown(&self, record: &Record) -> Info {
        let mut info = record.info.clone();
        if self.options.upperdir_label {
            info.labels.insert(UPPERDIR_LABEL.to_owned(), text(&self.upper(record.id)));
        }
        info
    }

    fn mounts(&self, record: &Record) -> Result<Vec<Mount>> {
        let info = &record.info;
        if info.kind == Kind::Committed {
            let name = &info.name;
            let error = format!("requested snapshot {name} not active or view: failed precondition");
            return Err(Error::precondition(error).context("failed to get active mount"));
        }
        let parents =
            self.area.read(|index| index.chain(&info.parent)).context(|| "failed to get parent chain")?;
        let mut options = self.remapping(&info.labels);
        let only = match (&parents[..], info.kind) {
            ([], Kind::View) => Some((record.id, "ro")),
            ([], _) => Some((record.id, "rw")),
            // Overlayfs cannot merge a single directory.
            ([parent], Kind::View) => Some((*parent, "ro")),
            _ => None,
        };
        if let Some((id, flag)) = only {
            options.extend([flag.to_owned(), "rbind".to_owned()]);
            let source = text(&self.upper(id));
            return Ok(vec![Mount { kind: "bind".to_owned(), source, target: String::new(), options }]);
        }
        if info.kind == Kind::Active {
            options.push(format!("workdir={}", escaped(&self.area.dir(record.id).join("work"), "\\,")));
            options.push(format!("upperdir={}", escaped(&self.upper(record.id), "\\,")));
        }
        let lower: Vec<String> = parents.iter().map(|id| escaped(&self.upper(*id), "\\,:")).collect();
        options.push(format!("lowerdir={}", lower.join(":")));
        options.extend(self.options.mount_options.iter().cloned());
        Ok(vec![Mount {
            kind: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options,
        }])
    }

    fn remapping(&self, labels: &Labels) -> Vec<String> {
        let wanted = [("uidmap", UID_MAPPING), ("gidmap", GID_MAPPING)];
        let maps =
            wanted.iter().filter_map(|(option, label)| Some(format!("{option}={}", labels.get(*label)?)));
        if self.options.remap_ids { maps.collect() } else { Vec::new() }
    }
}

/// Makes a directory of exactly this mode, whatever the daemon's umask is.
fn make(dir: &Path, mode: u32) -> Result<()> {
    let made = DirBuilder::new()
        .mode(mode)
        .create(dir)
        .and_then(|()| fs::set_permissions(dir, Permissions::from_mode(mode)));
    made.context(|| format!("make {dir:?}"))
}

/// Whether this kernel mounts an overlay of idmapped layers (Linux 5.19) on this filesystem: tried, as upstream does.
fn can_shift_owners(root: &Path) -> bool {
    let area = root.join("probe");
    let [one, other, target] = ["one", "other", "target"].map(|name| area.join(name));
    // What a crash left.
    let _ = sys::mount::unmount(&target, sys::mount::UnmountFlags::DETACH);
    let _ = fs::remove_dir_all(&area);
    let tried = || -> Result<()> {
        for dir in [&area, &one, &other, &target] {
            make(dir, 0o700)?;
        }
        let lower = format!("lowerdir={}:{}", escaped(&one, "\\,:"), escaped(&other, "\\,:"));
        let overlay = Mount {
            kind: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options: vec!["uidmap=0:1:1".to_owned(), "gidmap=0:1:1".to_owned(), lower],
        };
        sys::mount::mount_all(&[overlay], &target)?;
        sys::mount::unmount(&target, sys::mount::UnmountFlags::DETACH)
    };
    let can = tried().is_ok();
    if let Err(error) = fs::remove_dir_all(&area) {
        tracing::warn!(%error, "remove {area:?}");
    }
    can
}

/// Overlayfs needs directories that tell the types of their entries (xfs: `ftype=1`).
fn check_file_types(root: &Path) -> Result<()> {
    let dir = sys::fs::open_dir(root)?;
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(&dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(io::Error::from).context(|| format!("list {root:?}"))?;
        if entry.file_name() == c"snapshots" && entry.file_type() == FileType::Unknown {
            return Err(Error::precondition(format!(
                "{root:?} does not support d_type. If the backing filesystem is xfs, please reformat with ftype=1 to enable d_type support"
            )));
        }
    }
    Ok(())
}

/// In the first user namespace all ids are mapped to themselves.
fn in_user_namespace() -> bool {
    static ANSWER: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *ANSWER.get_or_init(|| {
        fs::read_to_string("/proc/self/uid_map")
            .is_ok_and(|map| map.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"])
    })
}

fn on_tmpfs(path: &Path) -> Result<bool> {
    const TMPFS: i64 = 0x0102_1994;
    let stat = rustix::fs::statfs(path).map_err(io::Error::from).context(|| format!("look at {path:?}"))?;
    Ok(i128::from(stat.f_type) == i128::from(TMPFS))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Overlayfs takes these characters of a path for its own, unless a backslash precedes them.
fn escaped(path: &Path, special: &str) -> String {
    let path = path.to_string_lossy();
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if special.contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
#[path = "overlay/tests.rs"]
mod tests;
