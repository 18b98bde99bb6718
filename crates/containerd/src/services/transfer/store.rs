//! Image records at either end of a transfer: what they are called, and how they are written.

use std::time::SystemTime;

use api::containerd::services::images::v1 as events;
use api::containerd::types::transfer as wire;
use images::import::{IMAGE_NAME, Names, REF_NAME, complete};
use types::fields::FieldPaths;
use types::image::Image;
use types::oci::Descriptor;
use types::undo::Undo;
use types::{Labels, Result, labels};

use super::Job;
use crate::services::House;

/// Images by the names that a client has chosen.
pub struct ImageStore(pub wire::ImageStore);

impl Names for ImageStore {
    fn index(&self, index: &Descriptor) -> Vec<String> {
        let own = Some(self.0.name.clone()).filter(|name| !name.is_empty());
        let extra =
            self.0.extra_references.iter().filter(|r| !r.is_prefix || r.add_digest).map(|reference| {
                if reference.is_prefix { by_digest(reference, index) } else { reference.name.clone() }
            });
        own.into_iter().chain(extra).collect()
    }

    fn manifest(&self, manifest: &Descriptor) -> Vec<String> {
        let mut names = Vec::new();
        for reference in self.0.extra_references.iter().filter(|reference| reference.is_prefix) {
            let name = name(manifest, reference);
            let with_digest = reference.add_digest && (name.is_none() || !reference.skip_named_digest);
            names.extend(name);
            if with_digest {
                names.push(by_digest(reference, manifest));
            }
        }
        names
    }
}

fn by_digest(reference: &wire::ImageReference, image: &Descriptor) -> String {
    format!("{}@{}", reference.name, image.digest)
}

/// What an archive calls an image. A full name is taken as it is or not at all.
fn name(manifest: &Descriptor, reference: &wire::ImageReference) -> Option<String> {
    if reference.name.is_empty() {
        return None;
    }
    let annotation = |key: &str| manifest.annotations.get(key).filter(|value| !value.is_empty());
    let complete = |name: &String| complete(name, &reference.name, !reference.allow_overwrite);
    match annotation(IMAGE_NAME) {
        Some(name) => complete(name).filter(|completed| completed == name),
        None => annotation(REF_NAME).and_then(complete),
    }
}

impl ImageStore {
    /// The labels of an image: those with other names than the first go with that one.
    fn labels(&self, name: &str) -> Labels {
        let mut labels = self.0.labels.clone();
        if !self.0.name.is_empty() && name != self.0.name {
            let (seconds, _) = types::time::unix(SystemTime::now());
            let now = types::time::rfc3339(types::time::from_unix(seconds, 0));
            labels.insert("containerd.io/gc.bref.image".to_owned(), self.0.name.clone());
            labels.insert(labels::GC_EXPIRE.to_owned(), now);
        }
        labels
    }

    /// Points `names` to what they name now. What fails leaves them as they were.
    pub async fn write(&self, job: &Job, images: &[(String, Descriptor)]) -> Result<()> {
        let mut undo = Undo::new("name images");
        for (name, target) in images {
            let now = SystemTime::now();
            let image = Image {
                name: name.clone(),
                labels: self.labels(name),
                target: target.clone(),
                created_at: now,
                updated_at: now,
            };
            match point(&job.house, job, image).await {
                Ok(before) => undo.push("restore an image", restore(job, name.clone(), before)),
                Err(error) => {
                    for left in undo.unwind().await {
                        tracing::warn!(step = left.step, error = %left.error, "an image was not restored");
                    }
                    return Err(error);
                }
            }
        }
        undo.commit();
        Ok(())
    }
}

/// Creates or replaces an image; answers with what it was before.
async fn point(house: &House, job: &Job, image: Image) -> Result<Option<Image>> {
    let images = house.db.images(&job.scope);
    loop {
        match images.create(image.clone()).await {
            Ok(Image { name, labels, .. }) => {
                house.announce(&job.scope.namespace, "/images/create", &events::ImageCreate { name, labels });
                return Ok(None);
            }
            Err(error) if error.is_already_exists() => {}
            Err(error) => return Err(error),
        }
        let before = images.get(&image.name);
        match images.update(image.clone(), &FieldPaths::default()).await {
            Ok(Image { name, labels, .. }) => {
                house.announce(&job.scope.namespace, "/images/update", &events::ImageUpdate { name, labels });
                return before.map(Some);
            }
            // Somebody has just removed it.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
}

fn restore(
    job: &Job,
    name: String,
    before: Option<Image>,
) -> impl Future<Output = Result<()>> + Send + 'static {
    let (house, scope) = (job.house.clone(), job.scope.clone());
    async move {
        let images = house.db.images(&scope);
        match before {
            Some(before) => images.update(before, &FieldPaths::default()).await.map(drop),
            None => {
                images.delete(&name, None).await?;
                house.announce(&scope.namespace, "/images/delete", &events::ImageDelete { name });
                Ok(())
            }
        }
    }
}

/// Gives an image other names.
pub async fn tag(job: &mut Job, from: ImageStore, to: ImageStore) -> Result<()> {
    let target = job.house.db.images(&job.scope).get(&from.0.name)?.target;
    let names: Vec<_> = to.index(&target).into_iter().map(|name| (name, target.clone())).collect();
    if names.is_empty() {
        return Err(types::Error::not_found("no image name found: not found"));
    }
    to.write(job, &names).await
}

#[cfg(test)]
mod tests {
    use types::Digest;
    use types::oci::image::media;

    use super::*;

    fn image(annotations: &[(&str, &str)]) -> Descriptor {
        let mut image = Descriptor::new(media::OCI_MANIFEST, Digest::of(b"x"), 1);
        image.annotations = annotations.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        image
    }

    fn prefix(name: &str, overwrite: bool, add_digest: bool, skip_named_digest: bool) -> ImageStore {
        let reference = wire::ImageReference {
            name: name.into(),
            is_prefix: true,
            allow_overwrite: overwrite,
            add_digest,
            skip_named_digest,
        };
        ImageStore(wire::ImageStore { extra_references: vec![reference], ..Default::default() })
    }

    #[test]
    fn names_follow_upstreams_rules_for_prefixes_and_digests() {
        let digest = Digest::of(b"x");
        let by_digest = format!("p@{digest}");
        let (tag, full, none) = (image(&[(REF_NAME, "v1")]), image(&[(IMAGE_NAME, "r.io/x:1")]), image(&[]));
        for (store, image, wanted) in [
            (prefix("p", true, false, false), &tag, vec!["p:v1"]),
            (prefix("p", true, false, false), &full, vec!["r.io/x:1"]),
            (prefix("p", false, false, false), &full, vec![]),
            (prefix("r.io/x", false, false, false), &full, vec!["r.io/x:1"]),
            (prefix("p", true, true, false), &tag, vec!["p:v1", &by_digest]),
            (prefix("p", true, true, true), &tag, vec!["p:v1"]),
            (prefix("p", true, true, true), &none, vec![&by_digest]),
            (prefix("p", true, false, false), &none, vec![]),
            (prefix("", true, true, false), &tag, vec![&format!("@{digest}")]),
        ] {
            assert_eq!(store.manifest(image), wanted);
        }
        let mut whole = prefix("p", true, true, true);
        whole.0.name = "whole".into();
        assert_eq!(whole.index(&none), ["whole", &by_digest]);
        assert_eq!(whole.labels("whole"), Labels::new());
        assert_eq!(whole.labels(&by_digest)["containerd.io/gc.bref.image"], "whole");
    }
}
