//! Images into an archive: an OCI layout, and in it what `docker load` looks for.
//!
//! ```text
//!  blobs/sha256/<hex>   indexes, manifests, configs and layers, each once
//!  index.json           an entry for each image, with its name in two annotations
//!  manifest.json        one image for each that fits the platform, for Docker
//!  oci-layout
//! ```
//!
//! Members are ordered by name and have no times, so the same images always give the same archive. Every blob is hashed on its
//! way out: an archive is never written from content that is not what its name says.

mod docker;
mod members;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use content::Store;
use diff::tar::{Entry, Kind, Writer};
use serde::Serialize;
use types::digest::Hasher;
use types::oci::image::media;
use types::oci::{Descriptor, Index};
use types::platform::Platform;
use types::{Digest, Error, Result, ResultExt, labels};

use crate::walk;
use members::Members;

/// Bytes of a blob that are read at a time.
const PIECE: usize = 1 << 20;
/// Pieces that may wait while one is written.
const AHEAD: usize = 3;

/// Which images of an index go into the archive, and what besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Those of these platforms, the best first.
    pub platforms: Vec<Platform>,
    /// All of them; `platforms` still says which one Docker gets.
    pub all_platforms: bool,
    /// No `manifest.json`.
    pub skip_docker_manifest: bool,
    /// No layers that may not be redistributed.
    pub skip_non_distributable: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            platforms: vec![Platform::host()],
            all_platforms: false,
            skip_docker_manifest: false,
            skip_non_distributable: false,
        }
    }
}

/// Where an archive goes.
#[async_trait]
pub trait Output: Send {
    /// Takes the next bytes.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;
}

/// Writes `images`, names and what they point to, as an archive. After an error the archive is not complete.
pub async fn export(
    store: &Arc<dyn Store>,
    images: &[(String, Descriptor)],
    options: &Options,
    output: &mut dyn Output,
) -> Result<()> {
    let plan = Plan::of(&**store, images, options).await?;
    let mut archive = Archive { tar: Writer::new(Vec::new()), output };
    for (name, member) in plan.members.into_sorted() {
        match member {
            Member::Directory => archive.directory(&name).await?,
            Member::Document(bytes, mode) => archive.document(&name, bytes, mode).await?,
            Member::Blob(blob) => {
                let doing = || format!("export {}", blob.digest);
                archive.blob(&**store, &name, &blob).await.context(doing)?;
            }
        }
    }
    archive.end().await
}

/// Something in the archive.
enum Member {
    Directory,
    /// What is made here, and its mode.
    Document(Bytes, u32),
    Blob(Box<Descriptor>),
}

/// What an archive will consist of. Manifests have been read, layers have not.
struct Plan<'a> {
    store: &'a dyn Store,
    options: &'a Options,
    members: Members,
    /// For Docker: manifests in the order in which they were found, and their names.
    loadable: Vec<(Descriptor, Vec<String>)>,
    /// Of indexes that were seen: the manifest for Docker, if one fits.
    resolved: BTreeMap<Digest, Option<Digest>>,
}

impl<'a> Plan<'a> {
    async fn of(
        store: &'a dyn Store,
        images: &[(String, Descriptor)],
        options: &'a Options,
    ) -> Result<Plan<'a>> {
        let mut plan = Plan {
            store,
            options,
            members: Members::new(options.skip_non_distributable),
            loadable: Vec::new(),
            resolved: BTreeMap::new(),
        };
        let mut listed = Vec::new();
        for (name, target) in images {
            let image = with_sources(store, names::annotated(name, target)).await?;
            plan.add_image(name, &image).await.context(|| format!("export image {name}"))?;
            listed.push(image);
        }
        listed.extend(plan.members.referrers());
        let index = Index {
            schema_version: 2,
            media_type: media::OCI_INDEX.to_owned(),
            manifests: listed,
            ..Index::default()
        };
        plan.members.document("index.json", json(&index)?, 0o644);
        plan.members.document("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(), 0o444);
        if !options.skip_docker_manifest && !plan.loadable.is_empty() {
            plan.members.document("manifest.json", docker::manifest(store, &plan.loadable).await?, 0o644);
        }
        Ok(plan)
    }

    async fn add_image(&mut self, name: &str, image: &Descriptor) -> Result<()> {
        let loadable = if media::is_manifest(&image.media_type) {
            self.add_tree(image).await?;
            Some(self.load(image))
        } else if media::is_index(&image.media_type) {
            self.add_index(image).await?
        } else {
            return Err(Error::invalid("only manifests may be exported: invalid argument"));
        };
        if let Some((_, names)) = loadable.and_then(|at| self.loadable.get_mut(at)) {
            names.push(name.to_owned());
        }
        Ok(())
    }

    /// Makes a manifest one that Docker gets; answers with its place.
    fn load(&mut self, manifest: &Descriptor) -> usize {
        let known = self.loadable.iter().position(|(known, _)| known.digest == manifest.digest);
        known.unwrap_or_else(|| {
            self.loadable.push((manifest.clone(), Vec::new()));
            self.loadable.len() - 1
        })
    }

    /// Adds an index with those of its manifests that are wanted; answers with the place of the one that fits best.
    async fn add_index(&mut self, index: &Descriptor) -> Result<Option<usize>> {
        if let Some(known) = self.resolved.get(&index.digest) {
            let place = |best: &Digest| self.loadable.iter().position(|(m, _)| m.digest == *best);
            return Ok(known.as_ref().and_then(place));
        }
        self.members.blob(index);
        let (mut wanted, mut best) = (0, None::<(usize, Descriptor)>);
        for manifest in walk::read_index(self.store, index).await?.manifests {
            let rank = self.rank(manifest.platform.as_ref());
            if rank.is_none() && !self.options.all_platforms {
                continue;
            }
            self.add_tree(&manifest).await?;
            let Some(rank) = rank else { continue };
            wanted += 1;
            // Of equal ones the first; one that names no platform is the last choice. An index in an index is for nobody.
            let better = best.as_ref().is_none_or(|(best, _)| rank < *best);
            if better && media::is_manifest(&manifest.media_type) {
                best = Some((rank, manifest));
            }
        }
        if wanted == 0 {
            return Err(Error::not_found("no manifest found for platform: not found"));
        }
        let best = best.map(|(_, manifest)| manifest);
        self.resolved.insert(index.digest.clone(), best.as_ref().map(|best| best.digest.clone()));
        Ok(best.map(|best| self.load(&best)))
    }

    /// Where among the platforms an image's is; behind all for one that names none.
    fn rank(&self, platform: Option<&Platform>) -> Option<usize> {
        platform.map_or(Some(usize::MAX), |platform| walk::place(&self.options.platforms, platform))
    }

    /// Adds a descriptor and everything below it.
    async fn add_tree(&mut self, root: &Descriptor) -> Result<()> {
        let mut queue = vec![(root.clone(), 0)];
        let mut seen = BTreeSet::new();
        while let Some((descriptor, depth)) = queue.pop() {
            if !seen.insert(descriptor.digest.clone()) {
                continue;
            }
            if media::is_index(&descriptor.media_type) {
                walk::nested(&descriptor, depth)?;
            }
            self.members.blob(&descriptor);
            let children = walk::children(self.store, &descriptor).await?;
            queue.extend(children.into_iter().map(|child| (child, depth + 1)));
        }
        Ok(())
    }
}

/// The registries that a blob came from, as annotations.
async fn with_sources(store: &dyn Store, mut image: Descriptor) -> Result<Descriptor> {
    let labels = store.info(&image.digest).await?.labels;
    let sources = labels.into_iter().filter(|(key, _)| key.starts_with(labels::DISTRIBUTION_SOURCE));
    image.annotations.extend(sources);
    Ok(image)
}

/// As Go writes JSON: with the characters of HTML escaped, which only occur inside of strings.
fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    let text = serde_json::to_string(value).map_err(|e| Error::internal(format!("encode JSON: {e}")))?;
    let escaped = [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ];
    Ok(escaped.iter().fold(text, |text, (char, escape)| text.replace(*char, escape)).into_bytes())
}

/// The archive while it is written.
struct Archive<'a> {
    /// Holds what has not been handed over yet: headers and padding.
    tar: Writer<Vec<u8>>,
    output: &'a mut dyn Output,
}

impl Archive<'_> {
    async fn directory(&mut self, name: &str) -> Result<()> {
        let entry = Entry { name: name.into(), mode: 0o755, ..Entry::new(Kind::Directory) };
        self.tar.entry(&entry)?;
        self.hand_over().await
    }

    async fn document(&mut self, name: &str, bytes: Bytes, mode: u32) -> Result<()> {
        let size = bytes.len() as u64;
        self.tar.entry(&Entry { name: name.into(), mode, size, ..Entry::new(Kind::File) })?;
        self.tar.body(&bytes)?;
        self.hand_over().await
    }

    async fn blob(&mut self, store: &dyn Store, name: &str, blob: &Descriptor) -> Result<()> {
        let reader = store.reader(&blob.digest).await?;
        let size = reader.size();
        if i64::try_from(size) != Ok(blob.size) {
            return Err(Error::precondition(format!(
                "unexpected copy size for {name}: it has {size} bytes, its descriptor says {}",
                blob.size
            )));
        }
        self.tar.entry(&Entry { name: name.into(), mode: 0o444, size, ..Entry::new(Kind::File) })?;
        self.hand_over().await?;
        let mut pieces = members::read(reader);
        let mut hasher = Hasher::new(blob.digest.algorithm());
        while let Some(piece) = pieces.recv().await.transpose()? {
            hasher.update(&piece);
            self.tar.body_with(|_, _| Ok(piece.len() as u64))?;
            self.output.write(piece).await?;
        }
        let digest = hasher.finish();
        if digest != blob.digest {
            return Err(Error::precondition(format!("unexpected digest {digest} copied")));
        }
        Ok(())
    }

    async fn end(self) -> Result<()> {
        let rest = self.tar.finish()?;
        self.output.write(rest.into()).await
    }

    async fn hand_over(&mut self) -> Result<()> {
        let mut waiting = Vec::new();
        self.tar.body_with(|held, _| {
            std::mem::swap(held, &mut waiting);
            Ok(0)
        })?;
        self.output.write(waiting.into()).await
    }
}
