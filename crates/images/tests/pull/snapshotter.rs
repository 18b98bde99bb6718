//! A snapshotter that fails when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use snapshots::Snapshotter;
use snapshots::overlay::{Options, Overlay};
use types::fields::FieldPaths;
use types::filters::Filters;
use types::mount::Mount;
use types::snapshot::{Info, Kind, Usage};
use types::{Error, Labels, Result};

pub struct Failing {
    inner: Arc<Overlay>,
    pub commit: AtomicBool,
    pub view: AtomicBool,
}

impl Failing {
    pub fn open(dir: std::path::PathBuf) -> Arc<Self> {
        let inner = Overlay::open(dir, Options::default()).unwrap();
        Arc::new(Self { inner, commit: AtomicBool::default(), view: AtomicBool::default() })
    }

    /// Kind and name of all there is.
    pub async fn all(&self) -> Vec<(Kind, String)> {
        let mut all = Vec::new();
        let mut take = |info: Info| {
            all.push((info.kind, info.name));
            Ok(())
        };
        self.walk(&Filters::default(), &mut take).await.unwrap();
        all
    }

    fn fail(when: &AtomicBool) -> Result<()> {
        if when.load(Ordering::SeqCst) { Err(Error::unavailable("told to fail")) } else { Ok(()) }
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
        self.inner.prepare(key, parent, labels).await
    }

    async fn view(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        Self::fail(&self.view)?;
        self.inner.view(key, parent, labels).await
    }

    async fn commit(&self, name: &str, key: &str, parent: Option<&str>, labels: Labels) -> Result<()> {
        Self::fail(&self.commit)?;
        self.inner.commit(name, key, parent, labels).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.inner.remove(key).await
    }

    async fn walk(&self, filters: &Filters, each: &mut (dyn FnMut(Info) -> Result<()> + Send)) -> Result<()> {
        self.inner.walk(filters, each).await
    }

    async fn cleanup(&self) -> Result<()> {
        self.inner.cleanup().await
    }

    fn can_rebase(&self) -> bool {
        true
    }
}
