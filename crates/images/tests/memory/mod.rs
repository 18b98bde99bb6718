//! A content store in memory, with labels: what the namespaced stores look like from here.

#![allow(dead_code, reason = "each test binary uses another part")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use content::{Reader, Store, Writer, WriterOptions};
use types::content::{Info, Status};
use types::digest::{Algorithm, Hasher};
use types::fields::{FieldPaths, Path};
use types::filters::Filters;
use types::{Digest, Error, Labels, Result, labels};

#[derive(Default)]
pub struct Memory {
    blobs: Arc<Mutex<BTreeMap<Digest, (Bytes, Labels)>>>,
    ingests: Arc<Mutex<BTreeSet<String>>>,
    /// What another namespace has: an ingest of one of these begins whole.
    elsewhere: BTreeMap<Digest, Bytes>,
}

impl Memory {
    /// An empty namespace beside one that has `blobs`.
    pub fn beside(blobs: &[&[u8]]) -> Self {
        let elsewhere = blobs.iter().map(|blob| (Digest::of(blob), Bytes::copy_from_slice(blob))).collect();
        Self { elsewhere, ..Self::default() }
    }

    pub fn digests(&self) -> Vec<Digest> {
        self.blobs.lock().unwrap().keys().cloned().collect()
    }
}

fn info(digest: &Digest, blob: &(Bytes, Labels)) -> Info {
    let now = SystemTime::now();
    let size = blob.0.len() as u64;
    Info { digest: digest.clone(), size, created_at: now, updated_at: now, labels: blob.1.clone() }
}

fn ingest(reference: &str, offset: usize) -> Status {
    let (started_at, offset) = (SystemTime::now(), offset as u64);
    let reference = reference.to_owned();
    Status { reference, offset, total: 0, expected: None, started_at, updated_at: started_at }
}

fn missing(digest: &Digest) -> Error {
    Error::not_found(format!("content {digest}: not found"))
}

#[async_trait]
impl Store for Memory {
    async fn info(&self, digest: &Digest) -> Result<Info> {
        let blobs = self.blobs.lock().unwrap();
        blobs.get(digest).map(|blob| info(digest, blob)).ok_or_else(|| missing(digest))
    }

    async fn update(&self, change: Info, fields: &FieldPaths) -> Result<Info> {
        let mut blobs = self.blobs.lock().unwrap();
        let blob = blobs.get_mut(&change.digest).ok_or_else(|| missing(&change.digest))?;
        for path in fields.iter() {
            let Path::Key("labels", key) = path else { panic!("unexpected path {path:?}") };
            labels::apply(&mut blob.1, &change.labels, Some(key));
        }
        Ok(info(&change.digest, blob))
    }

    async fn walk(&self, filters: &Filters, each: &mut (dyn FnMut(Info) -> Result<()> + Send)) -> Result<()> {
        let blobs = self.blobs.lock().unwrap();
        blobs
            .iter()
            .map(|(digest, blob)| info(digest, blob))
            .filter(|i| filters.matches(i))
            .try_for_each(each)
    }

    async fn delete(&self, digest: &Digest) -> Result<()> {
        self.blobs.lock().unwrap().remove(digest).map(drop).ok_or_else(|| missing(digest))
    }

    async fn reader(&self, digest: &Digest) -> Result<Box<dyn Reader>> {
        let blobs = self.blobs.lock().unwrap();
        blobs
            .get(digest)
            .map(|b| Box::new(Blob(b.0.clone())) as Box<dyn Reader>)
            .ok_or_else(|| missing(digest))
    }

    async fn status(&self, reference: &str) -> Result<Status> {
        Err(Error::not_found(reference))
    }

    async fn list_statuses(&self, _filters: &[String]) -> Result<Vec<Status>> {
        Ok(self.ingests.lock().unwrap().iter().map(|reference| ingest(reference, 0)).collect())
    }

    async fn abort(&self, reference: &str) -> Result<()> {
        let removed = self.ingests.lock().unwrap().remove(reference);
        removed.then_some(()).ok_or_else(|| Error::not_found(reference))
    }

    async fn writer(&self, options: WriterOptions) -> Result<Box<dyn Writer>> {
        if options.expected.as_ref().is_some_and(|expected| self.blobs.lock().unwrap().contains_key(expected))
        {
            return Err(Error::already_exists("content: already exists"));
        }
        self.ingests.lock().unwrap().insert(options.reference.clone());
        let (blobs, ingests) = (Arc::clone(&self.blobs), Arc::clone(&self.ingests));
        let shared = options.expected.as_ref().and_then(|expected| self.elsewhere.get(expected));
        let bytes = shared.map(|shared| shared.to_vec()).unwrap_or_default();
        Ok(Box::new(Ingest { blobs, ingests, reference: options.reference, bytes }))
    }
}

struct Blob(Bytes);

#[async_trait]
impl Reader for Blob {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        let start = (offset as usize).min(self.0.len());
        Ok(self.0.slice(start..(start + len).min(self.0.len())))
    }
}

struct Ingest {
    blobs: Arc<Mutex<BTreeMap<Digest, (Bytes, Labels)>>>,
    ingests: Arc<Mutex<BTreeSet<String>>>,
    reference: String,
    bytes: Vec<u8>,
}

#[async_trait]
impl Writer for Ingest {
    async fn write(&mut self, data: Bytes) -> Result<()> {
        self.bytes.extend_from_slice(&data);
        Ok(())
    }

    async fn status(&self) -> Result<Status> {
        Ok(ingest(&self.reference, self.bytes.len()))
    }

    async fn digest(&mut self) -> Result<Digest> {
        Ok(Digest::of(&self.bytes))
    }

    async fn truncate(&mut self, _size: u64) -> Result<()> {
        self.bytes.clear();
        Ok(())
    }

    async fn commit(&mut self, size: u64, expected: Option<Digest>, labels: Labels) -> Result<()> {
        self.ingests.lock().unwrap().remove(&self.reference);
        let algorithm = expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let mut hasher = Hasher::new(algorithm);
        hasher.update(&self.bytes);
        let digest = hasher.finish();
        if size != 0 && size != self.bytes.len() as u64 {
            return Err(Error::precondition("unexpected commit size"));
        }
        if expected.is_some_and(|expected| expected != digest) {
            return Err(Error::precondition("unexpected commit digest"));
        }
        if self.blobs.lock().unwrap().contains_key(&digest) {
            return Err(Error::already_exists("content: already exists"));
        }
        self.blobs.lock().unwrap().insert(digest, (std::mem::take(&mut self.bytes).into(), labels));
        Ok(())
    }
}
