//! Layers as full copies: needs nothing of the kernel, and everything of the disk (unless the filesystem shares blocks).
//!
//! ```text
//!  <root>/metadata.redb
//!         snapshots/<id>/      the whole tree as of this snapshot; views of a parent have none
//! ```

mod copy;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use types::fields::FieldPaths;
use types::filters::Filters;
use types::mount::Mount;
use types::snapshot::{Info, Kind, Usage};
use types::{Error, Labels, Result, ResultExt};

use crate::area::{Area, Commit, New};
use crate::blocking::blocking;
use crate::index::Record;
use crate::{Snapshotter, usage};

pub use copy::tree_at;

/// The native snapshotter.
pub struct Native {
    area: Arc<Area>,
}

impl Native {
    /// Opens the snapshotter in `root`, which is made if it is not there. Blocks.
    pub fn open(root: impl Into<PathBuf>) -> Result<Arc<Self>> {
        let area = Area::open(&root.into(), "")?;
        area.heal(has_tree, |record, path| fill(&area, path, area.parent(&record.info)?.as_deref()));
        Ok(Arc::new(Self { area: Arc::new(area) }))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Area) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let area = Arc::clone(&self.area);
        blocking(move || work(&area)).await
    }

    async fn create(&self, kind: Kind, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        let (key, parent) = (key.to_owned(), parent.to_owned());
        self.run(move |area| create(area, New { kind, key: &key, parent: &parent, labels })).await
    }
}

#[async_trait]
impl Snapshotter for Native {
    async fn stat(&self, key: &str) -> Result<Info> {
        Ok(self.area.read(|index| index.get(key))?.info.clone())
    }

    async fn update(&self, info: Info, fields: &FieldPaths) -> Result<Info> {
        let fields = fields.clone();
        self.run(move |area| area.update(&info, &fields)).await
    }

    async fn usage(&self, key: &str) -> Result<Usage> {
        let record = self.area.read(|index| index.get(key))?;
        match record.info.kind {
            Kind::Active => self.run(move |area| usage::of_tree(&area.dir(record.id))).await,
            Kind::View | Kind::Committed => Ok(record.usage),
        }
    }

    async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let record = self.area.read(|index| index.get(key)).context(|| "failed to get snapshot mount")?;
        mounts(&self.area, &record)
    }

    async fn prepare(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        self.create(Kind::Active, key, parent, labels).await
    }

    async fn view(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        self.create(Kind::View, key, parent, labels).await
    }

    async fn commit(&self, name: &str, key: &str, parent: Option<&str>, labels: Labels) -> Result<()> {
        let (name, key, parent) = (name.to_owned(), key.to_owned(), parent.map(str::to_owned));
        self.run(move |area| {
            let commit = Commit { name: &name, key: &key, parent: parent.as_deref(), labels };
            area.commit(commit, |active| {
                if active.info.parent.is_empty() && parent.as_deref().is_some_and(|parent| !parent.is_empty())
                {
                    // What the layer removes from its parent was not written down anywhere.
                    return Err(Error::unimplemented("native snapshots cannot be rebased"));
                }
                usage::of_tree(&area.dir(active.id))
            })
            .context(|| "failed to commit snapshot")
        })
        .await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        let key = key.to_owned();
        self.run(move |area| area.remove(&key).context(|| "failed to remove")).await
    }

    async fn walk(&self, filters: &Filters, each: &mut (dyn FnMut(Info) -> Result<()> + Send)) -> Result<()> {
        let records: Vec<Arc<Record>> = self.area.read(|index| index.all().cloned().collect());
        for record in records.iter().filter(|record| filters.matches(&record.info)) {
            each(record.info.clone())?;
        }
        Ok(())
    }

    async fn cleanup(&self) -> Result<()> {
        self.run(Area::cleanup).await
    }

    async fn is_whole(&self, key: &str) -> Result<bool> {
        let key = key.to_owned();
        self.run(move |area| area.is_whole(&key)).await
    }
}

/// A view of a parent shows that one's tree.
fn has_tree(info: &Info) -> bool {
    info.kind != Kind::View || info.parent.is_empty()
}

fn create(area: &Area, new: New<'_>) -> Result<Vec<Mount>> {
    let doing = || "failed to create snapshot";
    let below = area.read(|index| index.may_create(new.key, new.parent)).context(doing)?;
    let staged = match &below {
        Some(_) if new.kind == Kind::View => None,
        below => {
            let staged = area.stage().context(doing)?;
            fill(area, staged.path(), below.as_deref()).context(doing)?;
            Some(staged)
        }
    };
    let record = area.create(new, staged).context(doing)?;
    mounts(area, &record)
}

fn fill(area: &Area, dir: &Path, below: Option<&Record>) -> Result<()> {
    let Some(below) = below else {
        return fs::set_permissions(dir, Permissions::from_mode(0o755)).context(|| format!("make {dir:?}"));
    };
    copy::tree(&area.dir(below.id), dir).context(|| "copying of parent failed")?;
    // A power loss must not leave a snapshot with a part of its parent's files.
    sys::fs::syncfs(dir)
}

fn mounts(area: &Area, record: &Record) -> Result<Vec<Mount>> {
    let info = &record.info;
    let (id, flag) = match info.kind {
        Kind::Active => (record.id, "rw"),
        Kind::View if info.parent.is_empty() => (record.id, "ro"),
        Kind::View => (area.read(|index| index.get(&info.parent))?.id, "ro"),
        Kind::Committed => {
            let name = &info.name;
            let error = format!("requested snapshot {name} not active or view: failed precondition");
            return Err(Error::precondition(error).context("failed to get snapshot mount"));
        }
    };
    Ok(vec![Mount {
        kind: "bind".to_owned(),
        source: area.dir(id).to_string_lossy().into_owned(),
        target: String::new(),
        options: vec!["rbind".to_owned(), flag.to_owned()],
    }])
}

#[cfg(test)]
#[path = "native/tests.rs"]
mod tests;
