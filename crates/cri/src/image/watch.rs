//! Keeps what is known of images in step with their records, whoever changes those.

use api::containerd::services::images::v1 as events;
use types::events::{Envelope, Subscription};
use types::filters::Filters;
use types::image::Image as Row;
use types::{Error, Result};

use super::facts::{Facts, missing};
use super::{Image, records};
use crate::cri::Cri;

/// Learns of all images that there are, and begins to listen for changes.
pub async fn load(cri: &Cri) {
    let changes = cri.bus.subscribe();
    look_at_all(cri).await;
    // It does not keep the CRI, which ends with the daemon.
    tokio::spawn(follow(cri.clone(), changes));
}

async fn follow(cri: Cri, mut changes: Subscription) {
    loop {
        match changes.next().await {
            Ok(envelope) => {
                if let Some(name) = changed(&cri, &envelope) {
                    look_or_warn(&cri, &name).await;
                }
            }
            // It was cut off because there was too much at once: what was missed is found by looking at everything.
            Err(_) => {
                changes = cri.bus.subscribe();
                look_at_all(&cri).await;
            }
        }
    }
}

/// The image that an event is about.
fn changed(cri: &Cri, envelope: &Envelope) -> Option<String> {
    if envelope.namespace != cri.namespace.as_str() {
        return None;
    }
    let event = &envelope.event;
    match envelope.topic.as_str() {
        "/images/create" => api::any::unpack::<events::ImageCreate>(event).ok().map(|event| event.name),
        "/images/update" => api::any::unpack::<events::ImageUpdate>(event).ok().map(|event| event.name),
        "/images/delete" => api::any::unpack::<events::ImageDelete>(event).ok().map(|event| event.name),
        _ => None,
    }
}

async fn look_at_all(cri: &Cri) {
    let mut names: Vec<String> = cri.images.change(|known| known.names());
    let listed = cri.db.images(&cri.scope(None)).list(&Filters::default(), &mut |image| {
        names.push(image.name.to_owned());
        Ok(())
    });
    if let Err(error) = listed {
        tracing::warn!(%error, "images cannot be listed");
    }
    names.sort();
    names.dedup();
    for name in names {
        look_or_warn(cri, &name).await;
    }
}

async fn look_or_warn(cri: &Cri, name: &str) {
    if let Err(error) = look(cri, name).await {
        tracing::warn!(image = name, %error, "an image is not as it should be, and not there for Kubernetes");
    }
}

/// Looks at what is called `name` now. An image that was made by somebody else gets the CRI's labels, and its id as a name.
pub async fn look(cri: &Cri, name: &str) -> Result<()> {
    let _one = cri.images.looking.lock().await;
    let looked = match cri.db.images(&cri.scope(None)).get(name) {
        Ok(row) => learn(cri, row).await,
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    };
    if !matches!(looked, Ok(true)) {
        cri.images.change(|known| known.remove(name));
    }
    looked.map(drop)
}

/// Whether the image is one that can be used.
async fn learn(cri: &Cri, row: Row) -> Result<bool> {
    let known = cri.images.change(|known| known.facts(&row.target.digest));
    let facts = match known {
        Some(facts) => facts,
        None => read(cri, &row).await?,
    };
    let wanted = records::labels(cri, &row.name);
    if wanted.iter().any(|(key, value)| row.labels.get(key) != Some(value)) {
        let id = facts.id.to_string();
        records::point(cri, &id, &row.target, &wanted).await?;
        records::point(cri, &row.name, &row.target, &wanted).await?;
        cri.images.change(|known| known.add(&id, row.target.digest.clone(), &facts, false));
    }
    let (pinned, yes) = records::PINNED;
    let pinned = wanted.contains_key(pinned) || row.labels.get(pinned).is_some_and(|value| value == yes);
    cri.images.change(|known| known.add(&row.name, row.target.digest, &facts, pinned));
    Ok(true)
}

/// Reads what the blobs say, if they are all there.
async fn read(cri: &Cri, row: &Row) -> Result<Facts> {
    let store = cri.db.content(cri.scope(None));
    let (facts, manifest) = Facts::read(&*store, &row.target).await?;
    check(cri, &facts, missing(&*store, &manifest).await?).await?;
    Ok(facts)
}

/// Layers may be missing where they are not kept once they are unpacked, or come by the snapshotter, if they are unpacked.
async fn check(cri: &Cri, facts: &Facts, missing: Option<types::Digest>) -> Result<()> {
    let Some(digest) = missing else { return Ok(()) };
    let settings = &cri.config.images;
    if settings.discard_unpacked_layers || !settings.disable_snapshot_annotations {
        let snapshotter = cri.db.snapshotter(cri.scope(None), &settings.snapshotter)?;
        if snapshotter.is_whole(&facts.chain_id).await? {
            return Ok(());
        }
    }
    Err(Error::not_found(format!("layer {digest}: not found")))
}

/// Whether all of an image is still there, by the word of the disk.
pub async fn is_there(cri: &Cri, image: &Image) -> Result<bool> {
    let Some(name) = image.references.first() else { return Ok(false) };
    let looked = match cri.db.images(&cri.scope(None)).get(name) {
        Ok(row) => read(cri, &row).await.map(drop),
        Err(error) => Err(error),
    };
    match looked {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}
