//! A content store as a namespace sees it: the local one, and labels in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use content::local::LocalStore;
use content::{Reader, Store, Writer, WriterOptions};
use types::content::{Info, Status};
use types::fields::{FieldPaths, Path as Field};
use types::filters::Filters;
use types::{Digest, Labels, Result, labels};

type All = Arc<Mutex<BTreeMap<Digest, Labels>>>;

pub struct Labelled {
    pub local: Arc<LocalStore>,
    labels: All,
}

impl Labelled {
    pub fn open(dir: &Path) -> Arc<Self> {
        Arc::new(Self { local: LocalStore::open(dir).unwrap(), labels: Arc::default() })
    }

    pub async fn labels(&self, digest: &Digest) -> Labels {
        self.info(digest).await.unwrap().labels
    }

    pub async fn ingests(&self) -> Vec<Status> {
        self.local.list_statuses(&[]).await.unwrap()
    }
}

#[async_trait]
impl Store for Labelled {
    async fn info(&self, digest: &Digest) -> Result<Info> {
        let mut info = self.local.info(digest).await?;
        info.labels = self.labels.lock().unwrap().get(digest).cloned().unwrap_or_default();
        Ok(info)
    }

    async fn update(&self, info: Info, fields: &FieldPaths) -> Result<Info> {
        self.local.info(&info.digest).await?;
        {
            let mut all = self.labels.lock().unwrap();
            let into = all.entry(info.digest.clone()).or_default();
            for path in fields.iter() {
                let Field::Key("labels", key) = path else { panic!("unexpected path {path:?}") };
                labels::apply(into, &info.labels, Some(key));
            }
        }
        self.info(&info.digest).await
    }

    async fn walk(&self, filters: &Filters, each: &mut (dyn FnMut(Info) -> Result<()> + Send)) -> Result<()> {
        self.local.walk(filters, each).await
    }

    async fn delete(&self, digest: &Digest) -> Result<()> {
        self.local.delete(digest).await
    }

    async fn reader(&self, digest: &Digest) -> Result<Box<dyn Reader>> {
        self.local.reader(digest).await
    }

    async fn status(&self, reference: &str) -> Result<Status> {
        self.local.status(reference).await
    }

    async fn list_statuses(&self, filters: &[String]) -> Result<Vec<Status>> {
        self.local.list_statuses(filters).await
    }

    async fn abort(&self, reference: &str) -> Result<()> {
        self.local.abort(reference).await
    }

    async fn writer(&self, options: WriterOptions) -> Result<Box<dyn Writer>> {
        let writer = self.local.writer(options).await?;
        Ok(Box::new(LabelledWriter { writer, labels: Arc::clone(&self.labels) }))
    }
}

struct LabelledWriter {
    writer: Box<dyn Writer>,
    labels: All,
}

#[async_trait]
impl Writer for LabelledWriter {
    async fn write(&mut self, data: Bytes) -> Result<()> {
        self.writer.write(data).await
    }

    async fn status(&self) -> Result<Status> {
        self.writer.status().await
    }

    fn file(&self) -> Option<std::fs::File> {
        self.writer.file()
    }

    async fn digest(&mut self) -> Result<Digest> {
        self.writer.digest().await
    }

    async fn truncate(&mut self, size: u64) -> Result<()> {
        self.writer.truncate(size).await
    }

    async fn commit(&mut self, size: u64, expected: Option<Digest>, labels: Labels) -> Result<()> {
        let digest = self.writer.digest().await?;
        self.writer.commit(size, expected, Labels::new()).await?;
        self.labels.lock().unwrap().insert(digest, labels);
        Ok(())
    }
}
