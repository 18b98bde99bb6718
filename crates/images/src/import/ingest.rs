//! Members into blobs.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use content::{Store, Writer, WriterOptions};
use tokio::sync::mpsc;
use types::digest::{Algorithm, Hasher};
use types::oci::image::media;
use types::oci::{Descriptor, Index};
use types::{Digest, Error, Labels, Result, ResultExt};

use super::archive::{self, Found};
use crate::progress::{Event, Progress};
use crate::unpack::unique;

/// Members up to this size wait in memory until it is known whether they are needed.
const SMALL: u64 = 64 << 10;
/// How much may wait there.
const MEMORY: usize = 32 << 20;
/// How large a JSON file at the top of an archive may be, in bytes (as upstream).
const JSON_LIMIT: u64 = 20 << 20;

/// A member of the archive.
#[derive(Clone, Debug)]
enum Member {
    Memory(Bytes),
    Stored(Digest, u64),
}

/// One import's view of the store.
pub struct Ingest<'a> {
    store: Arc<dyn Store>,
    progress: &'a dyn Progress,
    members: BTreeMap<String, Member>,
    links: BTreeMap<String, Option<String>>,
    in_memory: usize,
}

impl<'a> Ingest<'a> {
    pub fn new(store: Arc<dyn Store>, progress: &'a dyn Progress) -> Self {
        let (members, links) = Default::default();
        Self { store, progress, members, links, in_memory: 0 }
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Reads the whole archive.
    pub async fn read_members(&mut self, archive: Box<dyn Read + Send>) -> Result<()> {
        let mut found = archive::members(archive)?;
        let mut next = found.recv().await.transpose()?;
        while let Some(member) = next {
            next = match member {
                Found::File(name, size) => {
                    self.progress.report(Event::Member(&name, size));
                    self.read_file(&name, size, &mut found)
                        .await
                        .context(|| format!("failed to ingest {name:?}"))?;
                    found.recv().await.transpose()?
                }
                Found::Link(name, target) => {
                    self.links.insert(name, target);
                    found.recv().await.transpose()?
                }
                Found::Piece(_) => return Err(Error::internal("a piece of an archive without its file")),
            };
        }
        Ok(())
    }

    async fn read_file(
        &mut self,
        name: &str,
        size: u64,
        found: &mut mpsc::Receiver<Result<Found>>,
    ) -> Result<()> {
        let mut pieces = Pieces { found, left: size };
        let is_json = matches!(name, "index.json" | "oci-layout" | "manifest.json");
        if is_json && size > JSON_LIMIT {
            return Err(Error::invalid(format!("{size} bytes are more than the {JSON_LIMIT} allowed")));
        }
        let small = size <= SMALL && self.in_memory + size as usize <= MEMORY;
        let member = if is_json || small {
            let bytes = pieces.collect().await?;
            if !is_json {
                self.in_memory += bytes.len();
            }
            Member::Memory(bytes)
        } else {
            let (digest, size) = self.stream(size, expected_digest(name)?, &mut pieces).await?;
            Member::Stored(digest, size)
        };
        self.members.insert(name.to_owned(), member);
        Ok(())
    }

    /// Writes a blob from the archive; the pieces are taken even if the blob is there.
    async fn stream(
        &mut self,
        size: u64,
        expected: Option<Digest>,
        pieces: &mut Pieces<'_>,
    ) -> Result<(Digest, u64)> {
        let reference = format!("import-{}", unique());
        let options = WriterOptions { reference: reference.clone(), total: size, expected: expected.clone() };
        let mut writer = match (self.store.writer(options).await, &expected) {
            (Err(error), Some(expected)) if error.is_already_exists() => {
                while let Some(piece) = pieces.next().await? {
                    self.progress.report(Event::Stored(piece.len() as u64));
                }
                return Ok((expected.clone(), size));
            }
            (writer, _) => writer?,
        };
        let written = self.fill(&mut *writer, size, expected, pieces).await;
        drop(writer);
        if written.is_err() {
            abort(&*self.store, &reference).await;
        }
        Ok((written?, size))
    }

    async fn fill(
        &mut self,
        writer: &mut dyn Writer,
        size: u64,
        expected: Option<Digest>,
        pieces: &mut Pieces<'_>,
    ) -> Result<Digest> {
        // What another namespace has is there at once.
        let mut there = writer.status().await?.offset;
        while let Some(mut piece) = pieces.next().await? {
            self.progress.report(Event::Stored(piece.len() as u64));
            let known = usize::try_from(there).unwrap_or(usize::MAX).min(piece.len());
            drop(piece.split_to(known));
            there -= known as u64;
            if !piece.is_empty() {
                writer.write(piece).await?;
            }
        }
        let digest = match &expected {
            Some(expected) => expected.clone(),
            None => writer.digest().await?,
        };
        self.commit(writer, size, &digest, Labels::new()).await?;
        Ok(digest)
    }

    /// Commits; that the blob is there already is as good.
    pub async fn commit(
        &self,
        writer: &mut dyn Writer,
        size: u64,
        digest: &Digest,
        labels: Labels,
    ) -> Result<()> {
        match writer.commit(size, Some(digest.clone()), labels).await {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(()),
        }
    }

    /// Lets the caller's lease hold a blob that was found. `false` if it is gone again.
    pub async fn hold(&self, digest: &Digest) -> Result<bool> {
        let reference = format!("import-{}", unique());
        let options =
            WriterOptions { reference: reference.clone(), total: 0, expected: Some(digest.clone()) };
        match self.store.writer(options).await {
            Err(error) if error.is_already_exists() => Ok(true),
            Err(error) => Err(error),
            Ok(writer) => {
                drop(writer);
                abort(&*self.store, &reference).await;
                Ok(false)
            }
        }
    }

    /// Stores bytes that are in memory.
    pub async fn store_bytes(&mut self, bytes: Bytes, labels: Labels) -> Result<(Digest, u64)> {
        let digest = Digest::of(&bytes);
        self.store_as(digest, bytes, labels).await
    }

    /// Stores bytes that have this digest.
    async fn store_as(&mut self, digest: Digest, bytes: Bytes, labels: Labels) -> Result<(Digest, u64)> {
        let size = bytes.len() as u64;
        let reference = format!("import-{}", unique());
        let options =
            WriterOptions { reference: reference.clone(), total: size, expected: Some(digest.clone()) };
        let mut writer = match self.store.writer(options).await {
            Err(error) if error.is_already_exists() => return Ok((digest, size)),
            writer => writer?,
        };
        let mut done = write_rest(&mut *writer, bytes).await;
        if done.is_ok() {
            done = self.commit(&mut *writer, size, &digest, labels).await;
        }
        drop(writer);
        if done.is_err() {
            abort(&*self.store, &reference).await;
        }
        done.map(|()| (digest, size))
    }

    /// The index of an OCI layout, or `None` if the archive is none.
    pub fn layout(&self) -> Result<Option<Bytes>> {
        #[derive(serde::Deserialize)]
        struct Layout {
            #[serde(rename = "imageLayoutVersion", default)]
            version: String,
        }
        let Some(Member::Memory(bytes)) = self.members.get("oci-layout") else { return Ok(None) };
        let layout: Layout =
            serde_json::from_slice(bytes).map_err(|e| Error::invalid(format!("untar oci layout: {e}")))?;
        if layout.version.is_empty() {
            return Ok(None);
        }
        if layout.version != "1.0.0" {
            return Err(Error::invalid(format!("unsupported OCI version {}", layout.version)));
        }
        match self.members.get("index.json") {
            Some(Member::Memory(bytes)) => Ok(Some(bytes.clone())),
            _ => Err(Error::invalid("missing index.json in OCI layout 1.0.0")),
        }
    }

    /// Stores the blobs of an OCI layout that still wait in memory; each must have the digest that its name says.
    pub async fn store_layout_blobs(&mut self) -> Result<()> {
        let names: Vec<String> =
            self.members.keys().filter(|name| name.starts_with("blobs/")).cloned().collect();
        for name in names {
            let Some(expected) = expected_digest(&name)? else { continue };
            let (digest, _) = self.stored(&name).await?;
            if digest != expected {
                return Err(Error::precondition(format!(
                    "archive member {name:?}: unexpected commit digest {digest}, expected {expected}"
                )));
            }
        }
        Ok(())
    }

    /// Stores the index of the archive.
    pub async fn store_index(&mut self, bytes: &Bytes) -> Result<Descriptor> {
        // Read once to say what is wrong with it in terms of the archive.
        let index = serde_json::from_slice::<Index>(bytes)
            .map_err(|e| Error::invalid(format!("index.json is not valid: {e}")))?;
        let (digest, size) = self.store_bytes(bytes.clone(), Labels::new()).await?;
        // No descriptor says what it is: of the kinds of index, its own word counts.
        let media_type = Some(index.media_type).filter(|own| media::is_index(own));
        Ok(Descriptor::new(media_type.unwrap_or_else(|| media::OCI_INDEX.to_owned()), digest, size))
    }

    /// What `docker save` says about the images, if it wrote the archive.
    pub fn docker_manifest(&self) -> Option<Bytes> {
        match self.members.get("manifest.json") {
            Some(Member::Memory(bytes)) => Some(bytes.clone()),
            _ => None,
        }
    }

    /// Makes sure that every symbolic link leads to a member.
    pub fn check_links(&self) -> Result<()> {
        for (name, target) in &self.links {
            if self.resolve(name).is_none() {
                return Err(Error::invalid(format!(
                    "no target for symlink layer from {name:?} to {target:?}"
                )));
            }
        }
        Ok(())
    }

    fn resolve<'n>(&'n self, name: &'n str) -> Option<&'n str> {
        let mut name = name;
        // A chain is as long as there are links, or it is a loop.
        for _ in 0..=self.links.len() {
            match self.links.get(name) {
                Some(target) => name = target.as_deref()?,
                None => return self.members.contains_key(name).then_some(name),
            }
        }
        None
    }

    /// The digest and size of a member, which is stored if it was not; links are followed inside the archive.
    pub async fn stored(&mut self, name: &str) -> Result<(Digest, u64)> {
        let missing = || Error::not_found(format!("archive member {name:?} not found"));
        let name = self.resolve(name).ok_or_else(missing)?.to_owned();
        match self.members.get(&name).cloned().ok_or_else(missing)? {
            Member::Stored(digest, size) => Ok((digest, size)),
            Member::Memory(bytes) => {
                // A name that promises a digest says of which kind, too.
                let kind = expected_digest(&name)?.map_or(Algorithm::Sha256, |digest| digest.algorithm());
                let mut hasher = Hasher::new(kind);
                hasher.update(&bytes);
                let (digest, size) = self.store_as(hasher.finish(), bytes, Labels::new()).await?;
                self.members.insert(name, Member::Stored(digest.clone(), size));
                Ok((digest, size))
            }
        }
    }
}

async fn abort(store: &dyn Store, reference: &str) {
    match store.abort(reference).await {
        Err(error) if !error.is_not_found() => tracing::warn!(%error, reference, "an ingest stays"),
        _ => {}
    }
}

/// The digest that a member's name promises: `blobs/<algorithm>/<hex>`.
fn expected_digest(name: &str) -> Result<Option<Digest>> {
    let Some((algorithm, hex)) = name.strip_prefix("blobs/").and_then(|rest| rest.split_once('/')) else {
        return Ok(None);
    };
    format!("{algorithm}:{hex}").parse().map(Some).context(|| format!("archive member {name:?}"))
}

/// Writes what is missing: what another namespace has is there at once.
async fn write_rest(writer: &mut dyn Writer, mut bytes: Bytes) -> Result<()> {
    let there = usize::try_from(writer.status().await?.offset).unwrap_or(usize::MAX);
    drop(bytes.split_to(there.min(bytes.len())));
    if bytes.is_empty() { Ok(()) } else { writer.write(bytes).await }
}

/// The pieces of one file.
struct Pieces<'a> {
    found: &'a mut mpsc::Receiver<Result<Found>>,
    left: u64,
}

impl Pieces<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        match self.found.recv().await.transpose()? {
            Some(Found::Piece(piece)) => {
                self.left = self.left.saturating_sub(piece.len() as u64);
                Ok(Some(piece))
            }
            _ => Err(Error::invalid("the archive ends early: unexpected EOF")),
        }
    }

    async fn collect(&mut self) -> Result<Bytes> {
        let mut all = Vec::new();
        while let Some(piece) = self.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.into())
    }
}
