//! Blobs: read and hashed, and what they tell of layers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use api::containerd::services::leases::v1::{AddResourceRequest, Resource};
use content::Store;
use remote::{RemoteStore, from_status};
use serde::Deserialize;
use types::digest::{Algorithm, Hasher};
use types::filters::Filters;
use types::{Class, Digest, Error, Labels, Result, ResultExt, labels};

use super::{Broken, Done, Progress, Report, Space};

/// Read at a time.
const PIECE: usize = 1 << 20;
/// The largest manifest or config, as everywhere.
const DOCUMENT: u64 = 8 << 20;
/// How long what a dropped blob refers to is kept for the pull that fetches it again.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// What is known of all blobs.
#[derive(Default)]
pub(super) struct Blobs {
    all: BTreeMap<Digest, Blob>,
    /// By the digest of the uncompressed archive: layers that may be whole.
    layers: BTreeMap<Digest, Digest>,
}

#[derive(Default)]
struct Blob {
    size: u64,
    whole: bool,
    /// By namespace.
    labels: BTreeMap<String, Labels>,
}

impl Blobs {
    /// The blob and its size that uncompresses to `diff_id`, if it is there and whole.
    pub(super) fn of_diff(&self, diff_id: &Digest) -> Option<(&Digest, u64)> {
        let digest = self.layers.get(diff_id).unwrap_or(diff_id);
        self.all
            .get_key_value(digest)
            .filter(|(_, blob)| blob.whole)
            .map(|(digest, blob)| (digest, blob.size))
    }

    /// Every diff id that is known.
    pub(super) fn diff_ids(&self) -> impl Iterator<Item = &Digest> {
        self.layers.keys()
    }
}

/// What we read of a manifest or a config.
#[derive(Deserialize)]
struct Document {
    config: Option<Child>,
    #[serde(default)]
    layers: Vec<Child>,
    rootfs: Option<Rootfs>,
}

#[derive(Deserialize)]
struct Child {
    digest: String,
}

#[derive(Deserialize)]
struct Rootfs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// Reads every blob.
pub(super) async fn check(spaces: &[Space], report: &mut Report) -> Result<Blobs> {
    let mut blobs = list(spaces).await?;
    let mut documents = BTreeMap::new();
    let count = blobs.all.len();
    for (number, (digest, blob)) in blobs.all.iter_mut().enumerate() {
        Progress::at("blob", number + 1, count);
        let Some(space) = spaces.iter().find(|space| blob.labels.contains_key(&space.name)) else { continue };
        match verify(&space.client.content(), digest, blob.size).await? {
            Ok(document) => {
                blob.whole = true;
                report.bytes += blob.size;
                documents.extend(document.map(|document| (digest.clone(), document)));
            }
            Err(reason) => report.broken.push(Broken {
                kind: "blob",
                id: digest.to_string(),
                namespaces: blob.labels.keys().cloned().collect(),
                snapshotter: String::new(),
                reason,
                done: Done::Nothing,
                because: String::new(),
            }),
        }
    }
    report.blobs = count;
    blobs.layers = layers(&blobs, &documents);
    Ok(blobs)
}

async fn list(spaces: &[Space]) -> Result<Blobs> {
    let mut blobs = Blobs::default();
    for space in spaces {
        let mut note = |info: types::content::Info| {
            let blob: &mut Blob = blobs.all.entry(info.digest).or_default();
            blob.size = blob.size.max(info.size);
            blob.labels.insert(space.name.clone(), info.labels);
            Ok(())
        };
        space.client.content().walk(&Filters::default(), &mut note).await?;
    }
    Ok(blobs)
}

/// Reads a blob; answers with it if it is a small document, or with what is wrong with it.
async fn verify(store: &RemoteStore, digest: &Digest, size: u64) -> Result<Result<Option<Vec<u8>>, String>> {
    let read = async || {
        let reader = store.reader(digest).await?;
        let (mut hasher, mut offset, mut document) = (Hasher::new(digest.algorithm()), 0, None);
        loop {
            let piece = reader.read_at(offset, PIECE).await?;
            if offset == 0 && size <= DOCUMENT && piece.first() == Some(&b'{') {
                document = Some(Vec::new());
            }
            if piece.is_empty() {
                return Ok::<_, Error>((hasher.finish(), offset, document));
            }
            hasher.update(&piece);
            offset += piece.len() as u64;
            if let Some(document) = &mut document {
                document.extend_from_slice(&piece);
            }
        }
    };
    match read().await {
        Ok((_, has, _)) if has != size => Ok(Err(format!("has {has} bytes instead of {size}"))),
        Ok((found, ..)) if found != *digest => Ok(Err(format!("has other bytes, of digest {found}"))),
        Ok((.., document)) => Ok(Ok(document)),
        Err(error)
            if matches!(
                error.class(),
                Class::Unavailable | Class::Canceled | Class::DeadlineExceeded | Class::PermissionDenied
            ) =>
        {
            Err(error)
        }
        Err(error) => Ok(Err(format!("cannot be read: {error}"))),
    }
}

/// Which blob is which layer: by labels, and by every manifest that has its config, whoever refers to it.
fn layers(blobs: &Blobs, documents: &BTreeMap<Digest, Vec<u8>>) -> BTreeMap<Digest, Digest> {
    let mut layers = BTreeMap::new();
    for (digest, blob) in blobs.all.iter().filter(|(_, blob)| blob.whole) {
        let labelled =
            blob.labels.values().filter_map(|labels| labels.get(labels::UNCOMPRESSED)?.parse().ok());
        layers.extend(labelled.map(|diff_id: Digest| (diff_id, digest.clone())));
    }
    let parse = |bytes: &[u8]| serde_json::from_slice::<Document>(bytes).ok();
    for manifest in documents.values().filter_map(|bytes| parse(bytes)) {
        let config = manifest.config.and_then(|config| config.digest.parse::<Digest>().ok());
        let config = config.and_then(|config| parse(documents.get(&config)?));
        let diff_ids =
            config.and_then(|config| config.rootfs).map(|rootfs| rootfs.diff_ids).unwrap_or_default();
        if diff_ids.len() != manifest.layers.len() {
            continue;
        }
        for (diff_id, layer) in diff_ids.iter().zip(&manifest.layers) {
            if let (Ok(diff_id), Ok(layer)) = (diff_id.parse(), layer.digest.parse()) {
                layers.entry(diff_id).or_insert(layer);
            }
        }
    }
    layers
}

/// Files of the store's directory that no namespace knows.
pub(super) fn strays(root: &str, blobs: &Blobs, repair: bool, report: &mut Report) -> Result<()> {
    let mut whole = 0;
    for algorithm in [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512] {
        let dir = Path::new(root).join("blobs").join(algorithm.name());
        // Another machine's daemon, or no blobs of that kind.
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries {
            let name = entry.context(|| format!("list {dir:?}"))?.file_name();
            let Ok(digest) = format!("{}:{}", algorithm.name(), name.to_string_lossy()).parse() else {
                continue;
            };
            if blobs.all.contains_key(&digest) {
                continue;
            }
            let path = dir.join(&name);
            let Ok(found) = hash(&path, algorithm) else { continue };
            if found == digest {
                whole += 1;
                continue;
            }
            let mut broken = Broken {
                kind: "file",
                id: path.display().to_string(),
                namespaces: Vec::new(),
                snapshotter: String::new(),
                reason: "no namespace knows this blob, and it is not whole".to_owned(),
                done: Done::Nothing,
                because: String::new(),
            };
            if repair {
                match fs::remove_file(&path) {
                    Ok(()) => broken.done = Done::Dropped,
                    Err(error) => broken.because = error.to_string(),
                }
            }
            report.broken.push(broken);
        }
    }
    if whole > 0 {
        report
            .notes
            .push(format!("{whole} blobs below {root} are whole and no namespace knows them; they stay"));
    }
    Ok(())
}

fn hash(path: &Path, algorithm: Algorithm) -> std::io::Result<Digest> {
    let mut hasher = Hasher::new(algorithm);
    let mut file = fs::File::open(path)?;
    let mut piece = vec![0; PIECE];
    loop {
        match std::io::Read::read(&mut file, &mut piece)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&piece[..count]),
        }
    }
}

/// Takes broken blobs from their namespaces. What they refer to is kept for a day.
pub(super) async fn drop_broken(spaces: &[Space], blobs: &Blobs, report: &mut Report) -> Result<()> {
    let mut leases = BTreeSet::new();
    for broken in report.broken.iter_mut().filter(|broken| broken.kind == "blob") {
        let digest: Digest = broken.id.parse()?;
        let Some(blob) = blobs.all.get(&digest) else { continue };
        let mut dropped = Ok(());
        for space in spaces {
            let Some(labels) = blob.labels.get(&space.name) else { continue };
            dropped = dropped.and(drop_from(space, &digest, labels, &mut leases).await);
        }
        match dropped {
            Ok(()) => broken.done = Done::Dropped,
            Err(error) => broken.because = error.to_string(),
        }
    }
    for lease in leases {
        report
            .notes
            .push(format!("what the dropped blobs refer to is kept for 24 hours, by the lease {lease}"));
    }
    Ok(())
}

async fn drop_from(
    space: &Space,
    digest: &Digest,
    labels: &Labels,
    leases: &mut BTreeSet<String>,
) -> Result<()> {
    let kept: Vec<Resource> = labels.iter().filter_map(|(key, value)| resource(key, value)).collect();
    if !kept.is_empty() {
        let lease = space.client.lease(None, KEPT).await?;
        for resource in kept {
            let request = AddResourceRequest { id: lease.id.clone(), resource: Some(resource) };
            space.client.leases().add_resource(request).await.map_err(from_status)?;
        }
        leases.insert(format!("{} of namespace {}", lease.id, space.name));
    }
    match space.client.content().delete(digest).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// What a label of a blob refers to, as a lease holds it.
fn resource(key: &str, value: &str) -> Option<Resource> {
    let is = |prefix: &str| {
        key.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '/']))
    };
    let r#type = if is(labels::GC_REF_CONTENT) {
        "content".to_owned()
    } else if is(labels::GC_REF_SNAPSHOT) {
        format!("snapshots/{}", key[labels::GC_REF_SNAPSHOT.len()..].get(1..)?)
    } else {
        return None;
    };
    Some(Resource { id: value.to_owned(), r#type })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_known_by_labels_and_by_manifests_that_nobody_names() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let config = format!(r#"{{"rootfs":{{"diff_ids":["{}","{}"]}}}}"#, digest("one"), digest("two"));
        let manifest = format!(
            r#"{{"config":{{"digest":"{}"}},"layers":[{{"digest":"{}"}},{{"digest":"{}"}}]}}"#,
            digest(&config),
            digest("one.gz"),
            digest("two.gz")
        );
        let mut blobs = Blobs::default();
        for name in ["one.gz", "two.gz", "three.gz"] {
            let blob = Blob { size: 1, whole: name != "two.gz", ..Blob::default() };
            blobs.all.insert(digest(name), blob);
        }
        let labels = Labels::from([(labels::UNCOMPRESSED.to_owned(), digest("three").to_string())]);
        blobs.all.get_mut(&digest("three.gz")).unwrap().labels.insert("default".into(), labels);
        let documents = [&config, &manifest].map(|text| (digest(text), text.clone().into_bytes())).into();
        blobs.layers = layers(&blobs, &documents);
        assert_eq!(blobs.of_diff(&digest("one")), Some((&digest("one.gz"), 1)));
        assert_eq!(blobs.of_diff(&digest("two")), None, "it is broken");
        assert_eq!(blobs.of_diff(&digest("three")), Some((&digest("three.gz"), 1)));
    }

    #[test]
    fn labels_name_what_must_be_kept() {
        let of = |key: &str| resource(key, "x").map(|resource| resource.r#type);
        assert_eq!(of("containerd.io/gc.ref.content.l.0").as_deref(), Some("content"));
        assert_eq!(of("containerd.io/gc.ref.snapshot.overlayfs").as_deref(), Some("snapshots/overlayfs"));
        assert_eq!(of("containerd.io/gc.ref.contents"), None);
        assert_eq!(of("containerd.io/uncompressed"), None);
    }
}
