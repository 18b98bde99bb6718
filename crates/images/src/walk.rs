//! From a descriptor to what it refers to: index -> manifests -> config and layers.
//!
//! Documents are foreign: their size is bounded, their nesting is bounded, and one that could be read as two kinds of
//! document is refused (reliability.md SEC-006).

mod document;

use content::Store;
use content::store::read_blob;
use types::oci::image::media;
use types::oci::{Descriptor, ImageConfig, Index, Manifest};
use types::platform::Platform;
use types::{Error, Result, ResultExt};

/// The largest index, manifest or config that is read, in bytes.
pub const DOCUMENT_LIMIT: u64 = 8 << 20;
/// How deep indexes may nest.
pub const MAX_DEPTH: usize = 4;
/// How many manifests an index, and how many layers a manifest may name.
pub const MAX_CHILDREN: usize = 10_000;
/// Upstream's mark of a manifest that describes another one (referrers): never an image of its own.
pub(crate) const SUBJECT: &str = "io.containerd.manifest.subject";

/// Which images of an index are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Those of every platform.
    All,
    /// Those that run on this one.
    Only(Platform),
    /// Those of exactly these.
    Any(Vec<Platform>),
}

impl Wanted {
    /// Whether `descriptor` is wanted; one without a platform is.
    pub fn matches(&self, descriptor: &Descriptor) -> bool {
        descriptor.platform.as_ref().is_none_or(|platform| self.suits(platform))
    }
}

impl Wanted {
    /// Whether an image for `platform` is wanted.
    pub fn suits(&self, platform: &Platform) -> bool {
        match self {
            Self::All => true,
            Self::Only(wanted) => wanted.matches(platform),
            Self::Any(platforms) => place(platforms, platform).is_some(),
        }
    }

    /// How well `descriptor` is what is wanted: smaller is better; one without a platform comes last.
    pub fn rank(&self, descriptor: &Descriptor) -> usize {
        let Some(image) = &descriptor.platform else { return usize::MAX };
        let rank = match self {
            Self::All => Some(0),
            Self::Only(platform) => platform.rank(image).map(|rank| rank as usize),
            Self::Any(platforms) => place(platforms, image),
        };
        rank.unwrap_or(usize::MAX - 1)
    }
}

/// Where among `platforms` an image's is, to the letter but for Go's spelling.
pub(crate) fn place(platforms: &[Platform], image: &Platform) -> Option<usize> {
    let of = |platform: &Platform| {
        let Platform { os, architecture, variant, .. } = platform.clone().normalized();
        (os, architecture, variant)
    };
    platforms.iter().position(|wanted| of(wanted) == of(image))
}

/// Reads an index.
pub async fn read_index(store: &dyn Store, descriptor: &Descriptor) -> Result<Index> {
    let bytes = read_blob(store, &descriptor.digest, DOCUMENT_LIMIT).await?;
    document::index(&bytes, &descriptor.media_type).context(|| format!("read index {}", descriptor.digest))
}

/// Reads a manifest.
pub async fn read_manifest(store: &dyn Store, descriptor: &Descriptor) -> Result<Manifest> {
    let bytes = read_blob(store, &descriptor.digest, DOCUMENT_LIMIT).await?;
    document::manifest(&bytes, &descriptor.media_type)
        .context(|| format!("read manifest {}", descriptor.digest))
}

/// Whether a media type is a layer's, those that may not be redistributed included.
pub fn is_layer(media_type: &str) -> bool {
    media::is_layer(media_type)
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.diff.tar")
}

/// Reads an image config.
pub async fn read_config(store: &dyn Store, descriptor: &Descriptor) -> Result<ImageConfig> {
    let bytes = read_blob(store, &descriptor.digest, DOCUMENT_LIMIT).await?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::invalid(format!("image config {} is not valid: {e}", descriptor.digest)))
}

/// What `descriptor` directly refers to: the manifests of an index, the config and layers of a manifest.
pub async fn children(store: &dyn Store, descriptor: &Descriptor) -> Result<Vec<Descriptor>> {
    if media::is_index(&descriptor.media_type) {
        return Ok(read_index(store, descriptor).await?.manifests);
    }
    if media::is_manifest(&descriptor.media_type) {
        let manifest = read_manifest(store, descriptor).await?;
        return Ok(std::iter::once(manifest.config).chain(manifest.layers).collect());
    }
    Ok(Vec::new())
}

/// The manifest of the image that suits `platform` best. `NotFound` if there is none.
pub async fn manifest_for(
    store: &dyn Store,
    target: &Descriptor,
    platform: &Platform,
) -> Result<(Descriptor, Manifest)> {
    let mut best: Option<(u32, Descriptor, Manifest)> = None;
    let mut queue = vec![(target.clone(), 0)];
    while let Some((descriptor, depth)) = queue.pop() {
        if media::is_index(&descriptor.media_type) {
            nested(&descriptor, depth)?;
            let manifests = read_index(store, &descriptor).await?.manifests;
            // Reversed, so that the first of two equally good ones wins.
            let wanted = manifests.into_iter().rev().filter(|m| !m.annotations.contains_key(SUBJECT));
            queue.extend(wanted.map(|manifest| (manifest, depth + 1)));
        } else if media::is_manifest(&descriptor.media_type) {
            let Some((rank, manifest)) = rank(store, &descriptor, platform).await? else { continue };
            if best.as_ref().is_none_or(|(best, ..)| rank < *best) {
                best = Some((rank, descriptor, manifest));
            }
        }
    }
    best.map(|(_, descriptor, manifest)| (descriptor, manifest)).ok_or_else(|| {
        Error::not_found(format!("no match for platform {platform} in manifest {}: not found", target.digest))
    })
}

/// How well the image of a manifest suits `platform`, by the descriptor's word or else by its config's.
async fn rank(
    store: &dyn Store,
    descriptor: &Descriptor,
    platform: &Platform,
) -> Result<Option<(u32, Manifest)>> {
    let by_index = descriptor.platform.as_ref().filter(|p| !p.os.is_empty()).map(|p| platform.rank(p));
    if by_index == Some(None) {
        return Ok(None);
    }
    let manifest = match read_manifest(store, descriptor).await {
        // An index may name images that were not fetched.
        Err(error) if error.is_not_found() && by_index.is_some() => return Ok(None),
        manifest => manifest?,
    };
    let rank = match by_index {
        Some(rank) => rank,
        None => platform.rank(&read_config(store, &manifest.config).await?.platform),
    };
    Ok(rank.map(|rank| (rank, manifest)))
}

/// Refuses an index below too many others.
pub fn nested(index: &Descriptor, depth: usize) -> Result<()> {
    if depth >= MAX_DEPTH {
        return Err(Error::invalid(format!("index {} is nested more than {MAX_DEPTH} deep", index.digest)));
    }
    Ok(())
}
