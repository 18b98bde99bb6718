//! One blob from the registry into the store.
//!
//! References of ingests are upstream's, so that a client that pulls the same blob on its own and we wait for each other.
//! What an earlier pull left is gone on with. If the whole then turns out to be wrong, that may be the old part's fault (a
//! power cut leaves zeros), and it is fetched once more from its beginning.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use content::locks::Held;
use content::{Writer, WriterOptions};
use diff::arriving::Sender;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use types::oci::Descriptor;
use types::oci::image::media;
use types::{Class, Error, Labels, Result, ResultExt, labels};

use crate::progress::Event;
use crate::unpack::set_labels;
use crate::walk;

use super::Job;
use super::shared::permit;

/// In upstream's names of ingests, where a descriptor has it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The longest pause between two looks at a reference that somebody else has.
const LONGEST_PAUSE: u64 = 2048;

/// Puts the blob into the store, unless it is there.
pub(super) async fn fetch(job: &Job, descriptor: &Descriptor) -> Result<()> {
    let doing = || format!("fetch {}", descriptor.digest);
    loop {
        let Some(mut ingest) = Ingest::open(job, descriptor).await.context(doing)? else { return Ok(()) };
        ingest.receive(None).await.context(doing)?;
        match ingest.commit(Labels::new()).await.context(doing)? {
            Committed::Yes => return Ok(()),
            Committed::Again => {}
        }
    }
}

/// The name of a blob's ingest, as upstream has it.
pub fn reference(descriptor: &Descriptor) -> String {
    let Descriptor { media_type, digest, annotations, .. } = descriptor;
    let kind = match media_type.as_str() {
        t if media::is_manifest(t) => "manifest",
        t if media::is_index(t) => "index",
        t if walk::is_layer(t) => "layer",
        t if is_known_config(t) => "config",
        "application/vnd.in-toto+json" => "attestation",
        _ => "unknown",
    };
    match annotations.get(REF_NAME) {
        Some(name) => format!("{kind}-{name}@{digest}"),
        None => format!("{kind}-{digest}"),
    }
}

fn is_known_config(media_type: &str) -> bool {
    media::is_config(media_type)
        || matches!(
            media_type,
            "application/vnd.containerd.container.checkpoint.config.v1+proto"
                | "application/vnd.containerd.container.criu.checkpoint.criu.tar"
        )
}

/// What became of an ingest that was complete.
pub(super) enum Committed {
    /// It is a blob.
    Yes,
    /// What an earlier pull had left of it was wrong, and is gone.
    Again,
}

/// Where the bytes of a layer go while they arrive.
pub(super) struct Feed {
    pub(super) sender: Sender,
    /// How many bytes have been extracted.
    pub(super) taken: Arc<AtomicU64>,
}

/// A blob that is being fetched. Nobody else in this daemon fetches it meanwhile.
pub(super) struct Ingest<'a> {
    job: &'a Job,
    descriptor: &'a Descriptor,
    writer: Box<dyn Writer>,
    offset: u64,
    resumed: u64,
    _alone: Held,
}

impl<'a> Ingest<'a> {
    /// Begins, or goes on. `None` if the blob is there already; then it is labelled and reported.
    pub(super) async fn open(job: &'a Job, descriptor: &'a Descriptor) -> Result<Option<Self>> {
        let digest = &descriptor.digest;
        if descriptor.size <= 0 {
            return Err(Error::invalid(format!(
                "unable to fetch descriptor ({digest}) which reports content size of zero: invalid argument"
            )));
        }
        let alone = job.pull.shared.alone(&job.cancel, &format!("blob {digest}")).await?;
        let mut writer = match open_writer(job, descriptor).await {
            Ok(writer) => writer,
            Err(error) if error.is_already_exists() => {
                set_labels(&*job.pull.store, digest, source_label(job, descriptor).await?).await?;
                job.watched.report(Event::Exists(digest));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut offset = writer.status().await?.offset;
        if offset > descriptor.size.unsigned_abs() {
            writer.truncate(0).await?;
            offset = 0;
        }
        Ok(Some(Self { job, descriptor, writer, offset, resumed: offset, _alone: alone }))
    }

    /// How many bytes an earlier pull left, and the file that has them, where it is one.
    pub(super) fn left_behind(&self) -> (u64, Option<File>) {
        (self.resumed, self.writer.file())
    }

    /// Receives the rest, and hands it on to `feed` as long as that wants it.
    pub(super) async fn receive(&mut self, feed: Option<&Feed>) -> Result<()> {
        let received = self.receive_rest(feed).await;
        match &received {
            // It is a lie from here on, and would be one again.
            Err(error) if error.class() == Class::InvalidArgument => self.writer.truncate(0).await?,
            _ => {}
        }
        received
    }

    async fn receive_rest(&mut self, feed: Option<&Feed>) -> Result<()> {
        let (job, descriptor) = (self.job, self.descriptor);
        let size = descriptor.size.unsigned_abs();
        job.watched.report(Event::Fetching(&descriptor.digest, self.offset, size));
        if self.offset == size {
            return Ok(());
        }
        if let Some(content) = inline(descriptor) {
            self.take(content.slice(usize::try_from(self.offset).unwrap_or(0)..), feed).await?;
            return self.check_complete();
        }
        let _permit = permit(&job.cancel, &job.pull.shared.downloads).await?;
        let limits = &job.pull.limits;
        if limits.fetch_buffer > 0 && size - self.offset > limits.fetch_buffer {
            match self.receive_parts(feed).await {
                // A host without ranges: all at once, then.
                Err(error) if error.class() == Class::Unimplemented => {}
                received => return received,
            }
        }
        let mut body = job.cancel.or(job.pull.fetcher.open(descriptor, self.offset)).await?;
        while let Some(chunk) = job.cancel.or(body.chunk()).await? {
            self.take(chunk, feed).await?;
        }
        self.check_complete()
    }

    /// The same by several requests at once, each for a part of the blob; put together in order.
    async fn receive_parts(&mut self, feed: Option<&Feed>) -> Result<()> {
        let (job, descriptor) = (self.job, self.descriptor);
        let (size, step) = (descriptor.size.unsigned_abs(), job.pull.limits.fetch_buffer);
        let mut parts = FuturesOrdered::new();
        let mut next = self.offset;
        loop {
            while next < size && parts.len() < job.pull.limits.parts.max(1) {
                let range = next..size.min(next + step);
                next = range.end;
                parts.push_back(async move {
                    let mut body = job.pull.fetcher.open_range(descriptor, range).await?;
                    let mut chunks: Vec<Bytes> = Vec::new();
                    while let Some(chunk) = body.chunk().await? {
                        chunks.push(chunk);
                    }
                    Ok(chunks)
                });
            }
            let Some(part) = job.cancel.or(async { parts.next().await.transpose() }).await? else { break };
            for chunk in part {
                self.take(chunk, feed).await?;
            }
        }
        self.check_complete()
    }

    async fn take(&mut self, chunk: Bytes, feed: Option<&Feed>) -> Result<()> {
        let (job, digest, size) = (self.job, &self.descriptor.digest, self.descriptor.size.unsigned_abs());
        self.offset += chunk.len() as u64;
        if self.offset > size {
            return Err(Error::invalid(format!(
                "{} sent more than the {size} bytes of {digest}",
                job.pull.source.host
            )));
        }
        if let Some(feed) = feed {
            // An extraction that has failed tells why in its end; the blob is fetched all the same.
            feed.sender.send(chunk.clone()).await;
            let taken = feed.taken.load(Ordering::Relaxed);
            job.watched.report(Event::Extracting(digest, taken, size));
        }
        self.writer.write(chunk).await?;
        job.watched.report(Event::Fetching(digest, self.offset, size));
        Ok(())
    }

    fn check_complete(&self) -> Result<()> {
        let size = self.descriptor.size.unsigned_abs();
        if self.offset == size {
            return Ok(());
        }
        Err(Error::unavailable(format!(
            "{} sent {} of the {size} bytes of {}: unexpected EOF",
            self.job.pull.source.host, self.offset, self.descriptor.digest
        )))
    }

    /// Whether the bytes are the right ones. If not they are gone.
    pub(super) async fn verify(&mut self) -> Result<Committed> {
        let expected = &self.descriptor.digest;
        // The writer hashes with the kind that it was told; of another kind only the commit can tell.
        let digest = self.writer.digest().await?;
        if digest == *expected || digest.algorithm() != expected.algorithm() {
            return Ok(Committed::Yes);
        }
        self.writer.truncate(0).await?;
        if self.resumed > 0 {
            tracing::warn!(%expected, "what an earlier pull left of a blob was wrong; it is fetched again");
            return Ok(Committed::Again);
        }
        let host = &self.job.pull.source.host;
        Err(Error::precondition(format!(
            "{host} sent something else: unexpected commit digest {digest}, expected {expected}: failed precondition"
        )))
    }

    /// Makes it a blob, with `more` labels.
    pub(super) async fn commit(mut self, more: Labels) -> Result<Committed> {
        match self.verify().await {
            Ok(Committed::Yes) => {}
            Ok(Committed::Again) => return Ok(Committed::Again),
            Err(error) => {
                self.discard().await;
                return Err(error);
            }
        }
        let (job, descriptor) = (self.job, self.descriptor);
        let (digest, size) = (&descriptor.digest, descriptor.size.unsigned_abs());
        let mut labels = source_label(job, descriptor).await?;
        labels.extend(more);
        match self.writer.commit(size, Some(digest.clone()), labels.clone()).await {
            Ok(()) => {}
            // A client that pulls on its own was first.
            Err(error) if error.is_already_exists() => set_labels(&*job.pull.store, digest, labels).await?,
            Err(error) => {
                return Err(error.context(format!("failed commit on ref {:?}", reference(descriptor))));
            }
        }
        job.watched.report(Event::Fetched(digest));
        Ok(Committed::Yes)
    }

    /// Throws it away.
    pub(super) async fn discard(self) {
        let reference = reference(self.descriptor);
        drop(self.writer);
        match self.job.pull.store.abort(&reference).await {
            Err(error) if !error.is_not_found() => tracing::warn!(%error, reference, "an ingest stays"),
            _ => {}
        }
    }
}

/// The content that a descriptor brings along, as long as it says that it is. It is verified as any other.
fn inline(descriptor: &Descriptor) -> Option<Bytes> {
    if descriptor.data.is_empty() {
        return None;
    }
    let content = STANDARD.decode(&descriptor.data).ok()?;
    (content.len() as u64 == descriptor.size.unsigned_abs()).then(|| content.into())
}

/// Opens the writer, after whoever else has it: a client that fetches the same blob by itself.
async fn open_writer(job: &Job, descriptor: &Descriptor) -> Result<Box<dyn Writer>> {
    let options = WriterOptions {
        reference: reference(descriptor),
        total: descriptor.size.unsigned_abs(),
        expected: Some(descriptor.digest.clone()),
    };
    let mut longest = 16;
    loop {
        match job.pull.store.writer(options.clone()).await {
            Err(error) if error.class() == Class::Unavailable => {
                let pause = Duration::from_millis(rand::random_range(1..longest));
                let waited = tokio::time::timeout(pause, job.cancel.or(std::future::pending::<Result<()>>()));
                if waited.await.is_ok() {
                    // Who gives up should know for what we waited.
                    return Err(error);
                }
                longest = (longest * 2).min(LONGEST_PAUSE);
            }
            opened => return opened,
        }
    }
}

/// The label that tells other pushes where a blob can be had: all repositories of this registry, in upstream's form.
async fn source_label(job: &Job, descriptor: &Descriptor) -> Result<Labels> {
    let source = &job.pull.source;
    let key = format!("{}.{}", labels::DISTRIBUTION_SOURCE, source.host);
    let known = match job.pull.store.info(&descriptor.digest).await {
        Ok(info) => info.labels.get(&key).cloned().unwrap_or_default(),
        Err(error) if error.is_not_found() => String::new(),
        Err(error) => return Err(error),
    };
    let value = with_repository(&known, &source.repository);
    match labels::validate(&key, &value) {
        Ok(()) => Ok(Labels::from([(key, value)])),
        Err(error) => {
            tracing::warn!(%error, digest = %descriptor.digest, "skip to append distribution label");
            Ok(Labels::new())
        }
    }
}

fn with_repository(known: &str, repository: &str) -> String {
    let all: std::collections::BTreeSet<&str> =
        known.split(',').chain([repository]).filter(|repository| !repository.is_empty()).collect();
    all.into_iter().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use types::Digest;

    use super::*;

    #[test]
    fn ingests_are_named_as_upstream_names_them() {
        let digest = Digest::of(b"x");
        for (media_type, kind) in [
            (media::OCI_MANIFEST, "manifest"),
            (media::DOCKER_LIST, "index"),
            (media::OCI_LAYER_ZSTD, "layer"),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "layer"),
            (media::DOCKER_CONFIG, "config"),
            ("application/vnd.in-toto+json", "attestation"),
            ("text/plain", "unknown"),
        ] {
            let descriptor = Descriptor::new(media_type, digest.clone(), 1);
            assert_eq!(reference(&descriptor), format!("{kind}-{digest}"));
        }
        let mut named = Descriptor::new(media::OCI_MANIFEST, digest.clone(), 1);
        named.annotations.insert(REF_NAME.to_owned(), "v1".to_owned());
        assert_eq!(reference(&named), format!("manifest-v1@{digest}"));
    }

    #[test]
    fn repositories_are_listed_once_and_sorted() {
        assert_eq!(with_repository("", "b"), "b");
        assert_eq!(with_repository("b", "a"), "a,b");
        assert_eq!(with_repository("a,c", "b"), "a,b,c");
        assert_eq!(with_repository("a,b", "b"), "a,b");
    }
}
