//! An image from the content store to a registry.
//!
//! ```text
//!  target ── index ──┬── manifest ──┬── config      first what nothing is below: configs and layers, several at a time,
//!                    │              └── layers      then the manifests, then the indexes, the innermost first
//!                    └── manifest ...
//! ```
//!
//! What the registry has already is not sent. What it has under another name is mounted from there, as far as the labels that a
//! pull has left tell (`containerd.io/distribution.source.<host>`). A registry thus never has a manifest whose content is not
//! there, and a push that was cut short is gone on with by the next.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use content::Store;
use content::store::read_blob;
use futures_util::stream::{self, FuturesUnordered, StreamExt as _, TryStreamExt as _};
use registry::{Offer, Pushed, Pusher, Source};
use tokio::sync::Semaphore;
use types::oci::Descriptor;
use types::oci::image::media;
use types::reference::Reference;
use types::{Digest, Error, Labels, Result, ResultExt};

use crate::progress::{Event, Progress, Silent};
use crate::walk::{self, DOCUMENT_LIMIT, Wanted};

/// The label of a blob that names the repositories of a host that have it.
const SOURCE_LABEL: &str = "containerd.io/distribution.source";
/// Bytes of a blob that are read at a time.
const PIECE: usize = 256 << 10;

/// What becomes of layers that may not be redistributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonDistributable {
    /// They are pushed as all others.
    Push,
    /// Those are pushed whose content is here; usually it is not, as they come from elsewhere.
    PushIfHere,
    /// They are not pushed.
    Skip,
}

/// What to push and how.
#[derive(Clone)]
pub struct Push {
    /// Has the image.
    pub store: Arc<dyn Store>,
    /// Where it goes.
    pub reference: Reference,
    /// Which manifests of an index, and with what below them.
    pub wanted: Wanted,
    /// What becomes of layers that may not be redistributed.
    pub non_distributable: NonDistributable,
    /// How many things are sent at a time, by all who share it.
    pub uploads: Arc<Semaphore>,
}

/// A piece of content and where a registry may have it, too.
struct Part {
    content: Descriptor,
    parent: Option<Digest>,
    sources: Labels,
}

/// What is pushed, by when.
#[derive(Default)]
struct Plan {
    blobs: Vec<Part>,
    manifests: Vec<Part>,
    /// The outermost first.
    indexes: Vec<Part>,
}

impl Push {
    /// Pushes `target` and what it refers to. Dropping it half-way leaves what has been sent to the registry.
    pub async fn run(&self, pusher: &Pusher, target: &Descriptor, progress: Arc<dyn Progress>) -> Result<()> {
        let plan = self.plan(target, &*progress).await?;
        self.push_all(pusher, &plan.blobs, &progress).await?;
        self.push_all(pusher, &plan.manifests, &progress).await?;
        for index in plan.indexes.into_iter().rev() {
            self.push_all(pusher, &[index], &progress).await?;
        }
        Ok(())
    }

    /// Finds what belongs to the image, each thing once.
    async fn plan(&self, target: &Descriptor, progress: &dyn Progress) -> Result<Plan> {
        let mut plan = Plan::default();
        let mut seen = BTreeSet::from([target.digest.clone()]);
        let first = Part { content: target.clone(), parent: None, sources: sources(&target.annotations) };
        let mut queue = VecDeque::from([(first, 0)]);
        while let Some((part, depth)) = queue.pop_front() {
            progress.report(Event::Found(&part.content, part.parent.as_ref()));
            if media::is_index(&part.content.media_type) {
                walk::nested(&part.content, depth)?;
            }
            for child in self.children(&part).await? {
                if seen.insert(child.content.digest.clone()) {
                    queue.push_back((child, depth + 1));
                }
            }
            match &part.content.media_type {
                kind if media::is_index(kind) => plan.indexes.push(part),
                kind if media::is_manifest(kind) => plan.manifests.push(part),
                _ => plan.blobs.push(part),
            }
        }
        Ok(plan)
    }

    async fn children(&self, part: &Part) -> Result<Vec<Part>> {
        let children = walk::children(&*self.store, &part.content)
            .await
            .context(|| format!("find what {} refers to", part.content.digest))?;
        if children.is_empty() {
            return Ok(Vec::new());
        }
        // Most registries take a manifest only if they have its content: where it is from, all below it may be had.
        let mut inherited = sources(&part.content.annotations);
        add(&mut inherited, self.labels(&part.content).await?.unwrap_or_default());
        let mut parts = Vec::new();
        for child in children.into_iter().filter(|child| self.wanted.matches(child)) {
            let labels = self.labels(&child).await?;
            if !self.pushes(&child, labels.is_some()) {
                continue;
            }
            let mut sources = sources(&child.annotations);
            add(&mut sources, labels.unwrap_or_default());
            add(&mut sources, inherited.clone());
            parts.push(Part { content: child, parent: Some(part.content.digest.clone()), sources });
        }
        Ok(parts)
    }

    /// The labels of content that is here.
    async fn labels(&self, content: &Descriptor) -> Result<Option<Labels>> {
        match self.store.info(&content.digest).await {
            Ok(info) => Ok(Some(info.labels)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn pushes(&self, content: &Descriptor, here: bool) -> bool {
        match self.non_distributable {
            NonDistributable::Push => true,
            NonDistributable::PushIfHere => here || !is_non_distributable(&content.media_type),
            NonDistributable::Skip => !is_non_distributable(&content.media_type),
        }
    }

    async fn push_all(&self, pusher: &Pusher, parts: &[Part], progress: &Arc<dyn Progress>) -> Result<()> {
        let each = parts.iter().map(|part| async move {
            let _permit = self.uploads.acquire().await.map_err(|_| Error::internal("a limit was closed"))?;
            let mounts = mounts(&self.reference, &part.sources);
            let Descriptor { media_type, digest, .. } = &part.content;
            let tag = tag(&self.reference, digest);
            send(&self.store, pusher, &part.content, (tag, &mounts, progress))
                .await
                .map(drop)
                .context(|| format!("push {media_type} {digest}"))
        });
        each.collect::<FuturesUnordered<_>>().try_collect().await
    }
}

/// The tag for content of this digest. Of a reference with both only the one content gets it.
fn tag<'a>(reference: &'a Reference, digest: &Digest) -> Option<&'a str> {
    let tag = reference.tag.as_deref()?;
    reference.digest.as_ref().is_none_or(|own| own == digest).then_some(tag)
}

/// Sends one piece of content, unless it is there or the registry can have it from one of the repositories `mounts`. Answers
/// whether it had to be sent.
async fn send(
    store: &Arc<dyn Store>,
    pusher: &Pusher,
    content: &Descriptor,
    (tag, mounts, progress): (Option<&str>, &[String], &Arc<dyn Progress>),
) -> Result<bool> {
    let digest = &content.digest;
    let sent = if media::is_index(&content.media_type) || media::is_manifest(&content.media_type) {
        let bytes = read_blob(&**store, digest, DOCUMENT_LIMIT).await?;
        pusher.manifest(content, Bytes::from(bytes), tag).await? == Pushed::New
    } else {
        match pusher.blob(content, mounts).await? {
            Offer::Exists | Offer::Mounted(_) => false,
            Offer::Wanted(upload) => {
                // Before anything is sent: an upload of what is not here would only be given up by the registry.
                store.info(digest).await?;
                upload.send(body(store, content, progress)).await?;
                true
            }
        }
    };
    progress.report(if sent { Event::Sent(digest) } else { Event::Exists(digest) });
    Ok(sent)
}

/// Pushes one piece of content and nothing that it refers to. It is an error if it is there already.
pub async fn push_one(
    store: &Arc<dyn Store>,
    pusher: &Pusher,
    (reference, content): (&Reference, &Descriptor),
) -> Result<()> {
    let silent = Arc::new(Silent) as Arc<dyn Progress>;
    if send(store, pusher, content, (tag(reference, &content.digest), &[], &silent)).await? {
        return Ok(());
    }
    Err(Error::already_exists(format!("content {} on remote: already exists", content.digest)))
}

/// The bytes of a blob, from the beginning each time they are asked for.
fn body(store: &Arc<dyn Store>, content: &Descriptor, progress: &Arc<dyn Progress>) -> Source {
    let (store, progress) = (Arc::clone(store), Arc::clone(progress));
    let (digest, size) = (content.digest.clone(), content.size.unsigned_abs());
    Arc::new(move || {
        let reading = Reading {
            store: Arc::clone(&store),
            progress: Arc::clone(&progress),
            digest: digest.clone(),
            size,
        };
        stream::try_unfold((reading, None, 0), |(reading, reader, at)| async move {
            let reader = match reader {
                Some(reader) => reader,
                None => reading.store.reader(&reading.digest).await?,
            };
            let bytes = reader.read_at(at, PIECE).await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let at = at + bytes.len() as u64;
            reading.progress.report(Event::Sending(&reading.digest, at, reading.size));
            Ok(Some((bytes, (reading, Some(reader), at))))
        })
        .boxed()
    })
}

/// A blob on its way out.
struct Reading {
    store: Arc<dyn Store>,
    progress: Arc<dyn Progress>,
    digest: Digest,
    size: u64,
}

/// Whether layers of this type come from elsewhere, and may not be given away by others.
pub fn is_non_distributable(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
}

/// Those labels or annotations that name repositories.
fn sources(labels: &Labels) -> Labels {
    let of = |key: &&String| key.strip_prefix(SOURCE_LABEL).is_some_and(|host| host.starts_with('.'));
    labels.iter().filter(|(key, _)| of(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Adds what is not known yet.
fn add(known: &mut Labels, more: Labels) {
    for (key, value) in sources(&more) {
        known.entry(key).or_insert(value);
    }
}

/// The repositories on the same host that may have it, those first whose names have most in common with ours.
fn mounts(reference: &Reference, sources: &Labels) -> Vec<String> {
    let Some((_, path)) = reference.locator.split_once('/') else { return Vec::new() };
    let known = sources.get(&format!("{SOURCE_LABEL}.{}", reference.hostname()));
    let common = |other: &&str| path.split('/').zip(other.split('/')).take_while(|(a, b)| a == b).count();
    let others = known.into_iter().flat_map(|known| known.split(','));
    let mut others: Vec<&str> = others.filter(|other| !other.is_empty() && *other != path).collect();
    // Of equals the last, as by upstream.
    others.reverse();
    others.sort_by_key(|other| std::cmp::Reverse(common(other)));
    others.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_mounted_from_the_repository_that_is_most_like_ours() {
        let sources =
            |repositories: &str| Labels::from([(format!("{SOURCE_LABEL}.r.io"), repositories.to_owned())]);
        let from = |name: &str, known: &str| mounts(&Reference::parse(name).unwrap(), &sources(known));
        assert_eq!(from("r.io:5000/a/b/c:1", "x,a/z,a/b/y"), ["a/b/y", "a/z", "x"]);
        assert_eq!(from("r.io/a:1", "a"), [""; 0]);
        assert_eq!(from("r.io/a:1", "b,c"), ["c", "b"]);
        assert_eq!(from("other.io/a:1", "b"), [""; 0]);
        assert_eq!(from("r.io/a:1", ""), [""; 0]);
    }

    #[test]
    fn only_what_a_reference_means_gets_its_tag() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let both = Reference::parse(&format!("r.io/a:t@{one}")).unwrap();
        assert_eq!((tag(&both, &one), tag(&both, &two)), (Some("t"), None));
        assert_eq!(tag(&Reference::parse("r.io/a:t").unwrap(), &two), Some("t"));
        assert_eq!(tag(&Reference::parse("r.io/a").unwrap(), &two), None);
    }

    #[test]
    fn what_a_parent_tells_of_repositories_does_not_replace_what_content_tells_itself() {
        let label = |value: &str| Labels::from([(format!("{SOURCE_LABEL}.r.io"), value.to_owned())]);
        let mut known = sources(&label("own"));
        let mut parent = label("parents");
        parent.insert("containerd.io/distribution.source".into(), "no host".into());
        parent.insert("other".into(), "x".into());
        add(&mut known, parent);
        assert_eq!(known, label("own"));
    }

    #[test]
    fn layers_that_may_not_be_redistributed_are_known_by_their_type() {
        for (kind, wanted) in [
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", true),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", true),
            (media::OCI_LAYER_GZIP, false),
        ] {
            assert_eq!(is_non_distributable(kind), wanted);
        }
    }
}
