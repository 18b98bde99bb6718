//! Image records: names that the CRI gives, with its labels.

use std::time::SystemTime;

use api::containerd::services::images::v1 as events;
use types::fields::FieldPaths;
use types::image::Image;
use types::oci::Descriptor;
use types::{Labels, Result};

use crate::cri::Cri;

/// On each image that the CRI knows.
pub const MANAGED: (&str, &str) = ("io.cri-containerd.image", "managed");
/// On each that the kubelet is told never to remove.
pub const PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");

/// The labels of an image with this name.
pub fn labels(cri: &Cri, name: &str) -> Labels {
    let pinned = cri.config.images.pinned.values().any(|pinned| pinned == name);
    let labels = std::iter::once(MANAGED).chain(pinned.then_some(PINNED));
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Points `name` to `target`, with these labels beside those that it has.
pub async fn point(cri: &Cri, name: &str, target: &Descriptor, labels: &Labels) -> Result<()> {
    let images = cri.db.images(&cri.scope(None));
    loop {
        let image = image(name, target, labels);
        match images.create(image).await {
            Ok(Image { name, labels, .. }) => {
                cri.announce("/images/create", &events::ImageCreate { name, labels });
                return Ok(());
            }
            Err(error) if error.is_already_exists() => {}
            Err(error) => return Err(error),
        }
        let changed = match images.get(name) {
            Ok(before) => changed(&before, target, labels),
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        if changed.0.is_empty() {
            return Ok(());
        }
        match images.update(self::image(name, target, labels), &changed).await {
            Ok(Image { name, labels, .. }) => {
                cri.announce("/images/update", &events::ImageUpdate { name, labels });
                return Ok(());
            }
            // Somebody has just removed it.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
}

fn image(name: &str, target: &Descriptor, labels: &Labels) -> Image {
    let now = SystemTime::now();
    Image {
        name: name.to_owned(),
        labels: labels.clone(),
        target: target.clone(),
        created_at: now,
        updated_at: now,
    }
}

/// What has to be changed about a record.
fn changed(before: &Image, target: &Descriptor, labels: &Labels) -> FieldPaths {
    let target = (before.target.digest != target.digest).then(|| "target".to_owned());
    let labels = labels.iter().filter(|(key, value)| before.labels.get(*key) != Some(*value));
    FieldPaths(target.into_iter().chain(labels.map(|(key, _)| format!("labels.{key}"))).collect())
}
