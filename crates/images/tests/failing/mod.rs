//! A snapshotter of which one step fails, once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use snapshots::Snapshotter;
use types::fields::FieldPaths;
use types::filters::Filters;
use types::mount::Mount;
use types::snapshot::{Info, Usage};
use types::{Error, Labels, Result};

/// A step that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Prepare,
    Commit,
    Remove,
}

pub struct Failing {
    pub inner: Arc<dyn Snapshotter>,
    pub step: Step,
    /// How many such steps succeed before the one that fails.
    pub after: AtomicUsize,
}

impl Failing {
    pub fn new(inner: &Arc<dyn Snapshotter>, step: Step, after: usize) -> Arc<Self> {
        Arc::new(Self { inner: Arc::clone(inner), step, after: AtomicUsize::new(after) })
    }

    fn pass(&self, step: Step) -> Result<()> {
        // Once: afterwards the count has wrapped and does not come to zero again.
        if step == self.step && self.after.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Err(Error::exhausted(format!("{step:?}: no space left on device")));
        }
        Ok(())
    }
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
        self.inner.prepare(key, parent, labels).await
    }

    async fn view(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
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
}
