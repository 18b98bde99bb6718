//! A snapshotter whose steps fail when they are told to.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use snapshots::Snapshotter;
use types::fields::FieldPaths;
use types::filters::Filters;
use types::mount::Mount;
use types::snapshot::{Info, Kind, Usage};
use types::{Error, Labels, Result};

/// A step that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Prepare,
    View,
    Commit,
    Remove,
}

/// Which of a step's calls fail.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    /// The one after so many.
    After(usize),
    /// All of them.
    All,
}

pub struct Failing {
    inner: Arc<dyn Snapshotter>,
    order: Mutex<Option<(Step, Which)>>,
    /// Committed snapshots that it makes by itself when they are to be prepared, as a remote snapshotter does.
    brings: Mutex<Vec<String>>,
}

impl Failing {
    /// Fails at nothing yet.
    pub fn new(inner: Arc<dyn Snapshotter>) -> Arc<Self> {
        Arc::new(Self { inner, order: Mutex::default(), brings: Mutex::default() })
    }

    /// From now on these fail, and no others.
    pub fn fail(&self, step: Step, which: Which) {
        *self.order.lock().unwrap() = Some((step, which));
    }

    /// From now on nothing fails.
    pub fn heal(&self) {
        *self.order.lock().unwrap() = None;
    }

    /// From now on the snapshot called `name` comes by itself.
    pub fn bring(&self, name: &str) {
        self.brings.lock().unwrap().push(name.to_owned());
    }

    /// The name under which the snapshot will be committed, if it comes by itself.
    fn brought(&self, labels: &Labels) -> Option<String> {
        let name = labels.get(types::labels::SNAPSHOT_REF)?;
        self.brings.lock().unwrap().contains(name).then(|| name.clone())
    }

    fn pass(&self, step: Step) -> Result<()> {
        let mut order = self.order.lock().unwrap();
        match &mut *order {
            Some((failing, Which::After(left))) if *failing == step && *left > 0 => {
                *left -= 1;
                return Ok(());
            }
            Some((failing, which)) if *failing == step => {
                if let Which::After(_) = which {
                    *order = None;
                }
            }
            _ => return Ok(()),
        }
        Err(Error::exhausted(format!("{step:?} was told to fail: no space left on device")))
    }
}

/// Kind and name of all that a snapshotter has.
pub async fn snapshots_of(snapshotter: &dyn Snapshotter) -> Vec<(Kind, String)> {
    let mut all = Vec::new();
    let mut take = |info: Info| {
        all.push((info.kind, info.name));
        Ok(())
    };
    snapshotter.walk(&Filters::default(), &mut take).await.unwrap();
    all
}

#[async_trait]
impl Snapshotter for Failing {
    async fn stat(&self, key: &str) -> Result<Info> {
        self.inner.stat(key).await
    }

    async fn update(&self, info: Info, fields: &FieldPaths) -> Result<Info> {
        self.inner.update(info, fields).await
    }

    async fn usage(&self, key: &str) -> Result<Usage> {
        self.inner.usage(key).await
    }

    async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        self.inner.mounts(key).await
    }

    async fn prepare(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        self.pass(Step::Prepare)?;
        if let Some(name) = self.brought(&labels) {
            self.inner.prepare("by itself", parent, Labels::new()).await?;
            self.inner.commit(&name, "by itself", None, labels).await?;
            return Err(Error::already_exists(format!("target snapshot {name:?}")));
        }
        self.inner.prepare(key, parent, labels).await
    }

    async fn view(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        self.pass(Step::View)?;
        self.inner.view(key, parent, labels).await
    }

    async fn commit(&self, name: &str, key: &str, parent: Option<&str>, labels: Labels) -> Result<()> {
        self.pass(Step::Commit)?;
        self.inner.commit(name, key, parent, labels).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.pass(Step::Remove)?;
        self.inner.remove(key).await
    }

    async fn walk(&self, filters: &Filters, each: &mut (dyn FnMut(Info) -> Result<()> + Send)) -> Result<()> {
        self.inner.walk(filters, each).await
    }

    async fn cleanup(&self) -> Result<()> {
        self.inner.cleanup().await
    }

    async fn is_whole(&self, key: &str) -> Result<bool> {
        self.inner.is_whole(key).await
    }

    fn can_rebase(&self) -> bool {
        self.inner.can_rebase()
    }

    fn owners(&self) -> snapshots::shift::Owners {
        self.inner.owners()
    }
}
