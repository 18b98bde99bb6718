//! Images: names for descriptors.

use std::collections::BTreeMap;
use std::time::SystemTime;

use prost::Message;
use types::fields::{FieldPaths, Path};
use types::filters::Filters;
use types::image::Image;
use types::oci::Descriptor;
use types::time::parse_rfc3339;
use types::view::ImageView;
use types::{Digest, Error, Result, Scope, crash, labels};

use crate::db::Db;
use crate::leases;
use crate::record::{Time, look, record, stored, time};
use crate::schema::IMAGES;
use crate::tx::{Counts, NEXT, Source, Tx};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ImageRecord {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    #[prost(btree_map = "string, string", tag = "2")]
    labels: BTreeMap<String, String>,
    #[prost(string, tag = "3")]
    media_type: String,
    #[prost(string, tag = "4")]
    digest: String,
    #[prost(int64, tag = "5")]
    size: i64,
    #[prost(btree_map = "string, string", tag = "6")]
    annotations: BTreeMap<String, String>,
    #[prost(message, optional, tag = "7")]
    created: Option<Time>,
    #[prost(message, optional, tag = "8")]
    updated: Option<Time>,
}
record!(ImageRecord, "image", 1);

/// The images of a namespace.
pub struct Images {
    db: Db,
    scope: Scope,
    epoch: Option<SystemTime>,
}

impl Images {
    pub(crate) fn new(db: Db, scope: Scope) -> Self {
        Self { db, scope, epoch: None }
    }

    /// The same images, but what is created or updated gets this time (`source_date_epoch`).
    pub fn at(self, epoch: SystemTime) -> Self {
        Self { epoch: Some(epoch), ..self }
    }

    /// The image called `name`.
    pub fn get(&self, name: &str) -> Result<Image> {
        let row = self.db.read(|txn| txn.get(IMAGES, (self.scope.namespace.as_str(), name)))?;
        row.ok_or_else(|| not_found(name))?.into_image(name)
    }

    /// Calls `each` for every image that a filter matches (`name`, `target.digest`, `target.mediatype`,
    /// `labels.<key>`, `annotations.<key>`), ordered by name. All are of one version of the database, which is kept
    /// until `each` has seen the last.
    pub fn list(&self, filters: &Filters, each: &mut dyn FnMut(&ImageView<'_>) -> Result<()>) -> Result<()> {
        let ns = self.scope.namespace.as_str();
        self.db.read(|txn| {
            txn.scan_bytes(
                IMAGES,
                (ns, ""),
                |key| key.0 == ns,
                |key, bytes| {
                    let image = view(key.1, bytes)?;
                    if filters.matches(&image) {
                        each(&image)?;
                    }
                    NEXT
                },
            )
        })
    }

    /// Adds an image and answers with its times. It is added to the lease if it has a label that lets it expire.
    pub async fn create(&self, image: Image) -> Result<Image> {
        let mut image = Image { labels: stored(image.labels), ..image };
        image.target.annotations = stored(image.target.annotations);
        validate(&image)?;
        let (scope, epoch) = (self.scope.clone(), self.epoch);
        self.db
            .mutate(move |tx| {
                let key = (scope.namespace.as_str(), image.name.as_str());
                if tx.has(IMAGES.table, key)? {
                    return Err(Error::already_exists(format!("image {:?}: already exists", image.name)));
                }
                hold(tx, &scope, &image)?;
                image.created_at = epoch.unwrap_or_else(SystemTime::now);
                image.updated_at = image.created_at;
                tx.ensure_namespace(&scope.namespace)?;
                tx.put(IMAGES, key, image.clone().into())?;
                Ok(image.clone())
            })
            .await
            .inspect(|_| crash::point("image-row"))
    }

    /// Changes the fields of a mask (`labels`, `target`, `annotations`; `labels.<key>`, `annotations.<key>`), or all of
    /// these, and answers with the result.
    pub async fn update(&self, image: Image, fields: &FieldPaths) -> Result<Image> {
        if image.name.is_empty() {
            return Err(Error::invalid("image name is required for update: invalid argument"));
        }
        let (scope, epoch, fields) = (self.scope.clone(), self.epoch, fields.clone());
        self.db
            .mutate(move |tx| {
                let key = (scope.namespace.as_str(), image.name.as_str());
                let row = tx.get(IMAGES, key)?.ok_or_else(|| not_found(&image.name))?;
                let mut updated = row.into_image(&image.name)?;
                if fields.all() {
                    updated = Image { created_at: updated.created_at, ..image.clone() };
                }
                for (path, text) in fields.iter().zip(&fields.0) {
                    set(&mut updated, &image, path, text)?;
                }
                updated.labels = stored(updated.labels);
                updated.target.annotations = stored(updated.target.annotations);
                validate(&updated)?;
                hold(tx, &scope, &updated)?;
                updated.updated_at = epoch.unwrap_or_else(SystemTime::now);
                tx.put(IMAGES, key, updated.clone().into())?;
                Ok(updated)
            })
            .await
            .inspect(|image| self.tell_expiry(image))
    }

    /// Tells whoever schedules collections when an image expires.
    fn tell_expiry(&self, image: &Image) {
        let expiry = image.labels.get(labels::GC_EXPIRE).and_then(|text| parse_rfc3339(text));
        expiry.into_iter().for_each(|expiry| self.db.inner.observed.changes.expires(expiry));
    }

    /// Removes a name; with a target only if it still names that. What nothing else keeps goes with the next collection.
    pub async fn delete(&self, name: &str, target: Option<&Digest>) -> Result<()> {
        let (scope, name, target) = (self.scope.clone(), name.to_owned(), target.cloned());
        self.db
            .mutate(move |tx| {
                let key = (scope.namespace.as_str(), name.as_str());
                let row = tx.get(IMAGES, key)?.ok_or_else(|| not_found(&name))?;
                if let Some(target) = target.as_ref().filter(|target| target.as_str() != row.digest) {
                    return Err(Error::not_found(format!(
                        "image {name:?} has target {}, not {target}: not found",
                        row.digest
                    )));
                }
                tx.count_as(Counts::Deletion);
                leases::drop_resource(tx, &scope, "images", &name)?;
                tx.remove(IMAGES.table, key)?;
                Ok(())
            })
            .await
            .inspect(|()| crash::point("image-row-deleted"))
    }
}

fn not_found(name: &str) -> Error {
    Error::not_found(format!("image {name:?}: not found"))
}

/// Adds an image that may expire to the lease; others need none.
fn hold(tx: &Tx<'_>, scope: &Scope, image: &Image) -> Result<()> {
    if image.labels.contains_key(labels::GC_EXPIRE) {
        leases::add_resource(tx, scope, "images", &image.name)?;
    }
    Ok(())
}

fn set(updated: &mut Image, from: &Image, path: Path<'_>, text: &str) -> Result<()> {
    match path {
        Path::Field("labels") => labels::apply(&mut updated.labels, &from.labels, None),
        Path::Key("labels", key) => labels::apply(&mut updated.labels, &from.labels, Some(key)),
        Path::Field("annotations") => {
            labels::apply(&mut updated.target.annotations, &from.target.annotations, None);
        }
        Path::Key("annotations", key) => {
            labels::apply(&mut updated.target.annotations, &from.target.annotations, Some(key));
        }
        // The target is replaced as a whole: it comes as a whole from wherever it was found.
        Path::Field("target") => updated.target.clone_from(&from.target),
        Path::Field(_) | Path::Key(..) => {
            return Err(Error::invalid(format!(
                "cannot update {text:?} field on image {:?}: invalid argument",
                updated.name
            )));
        }
    }
    Ok(())
}

fn validate(image: &Image) -> Result<()> {
    if image.name.is_empty() {
        return Err(Error::invalid("image name must not be empty: invalid argument"));
    }
    labels::validate_all(&image.labels).map_err(|e| e.context("image.Labels"))?;
    if image.target.size <= 0 {
        return Err(Error::invalid("target.Size must be greater than zero: invalid argument"));
    }
    if image.target.media_type.is_empty() {
        return Err(Error::invalid("target.MediaType must be set: invalid argument"));
    }
    labels::writable(&image.labels).map_err(|e| e.context(format!("writing labels for image {}", image.name)))
}

impl ImageRecord {
    /// An image of this digest.
    #[cfg(test)]
    pub(crate) fn of_target(digest: &str, labels: BTreeMap<String, String>) -> Self {
        Self { digest: digest.to_owned(), labels, ..Self::default() }
    }

    fn into_image(self, name: &str) -> Result<Image> {
        let digest: Digest = self.digest.parse().map_err(|e: Error| e.context(format!("image {name:?}")))?;
        let mut target = Descriptor::new(self.media_type, digest, 0);
        target.size = self.size;
        target.annotations = self.annotations;
        Ok(Image {
            name: name.to_owned(),
            labels: self.labels,
            target,
            created_at: time(self.created),
            updated_at: time(self.updated),
        })
    }
}

impl From<Image> for ImageRecord {
    fn from(image: Image) -> Self {
        Self {
            version: 0,
            labels: image.labels,
            media_type: image.target.media_type,
            digest: image.target.digest.into(),
            size: image.target.size,
            annotations: image.target.annotations,
            created: Some(image.created_at.into()),
            updated: Some(image.updated_at.into()),
        }
    }
}

/// The image `name` in the bytes of its record.
fn view<'a>(name: &'a str, bytes: &'a [u8]) -> Result<ImageView<'a>> {
    let mut image = ImageView { name, ..ImageView::default() };
    look::<ImageRecord>(name, bytes, |number, part| {
        match number {
            2 => image.labels.push(part.pair()?),
            3 => image.media_type = part.text()?,
            4 => image.digest = part.text()?,
            5 => image.size = part.number()?.cast_signed(),
            6 => image.annotations.push(part.pair()?),
            7 => image.created_at = part.time()?,
            8 => image.updated_at = part.time()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use types::Class;

    use super::*;
    use crate::fakes::{Bench, labels, ns, paths, scope};

    /// Words of the error, and what it takes to get it.
    type Case = (&'static str, fn(&mut Image));

    fn image(name: &str) -> Image {
        let mut target =
            Descriptor::new("application/vnd.oci.image.index.v1+json", Digest::of(name.as_bytes()), 7);
        target.annotations = labels(&[("a", "1")]);
        Image {
            name: name.to_owned(),
            labels: labels(&[("k", "v")]),
            target,
            created_at: SystemTime::UNIX_EPOCH,
            updated_at: SystemTime::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn every_field_comes_back_with_the_annotations_of_the_target() {
        let bench = Bench::new();
        let images = bench.open().images(&scope("a"));
        let created = images.create(image("x y/z:1")).await.unwrap();
        assert!(created.created_at > SystemTime::UNIX_EPOCH);
        let Image { created_at, updated_at, .. } = created.clone();
        assert_eq!(created, Image { created_at, updated_at, ..image("x y/z:1") });
        assert_eq!(images.get("x y/z:1").unwrap(), created);
        let mut seen = 0;
        let mut each = |image: &ImageView<'_>| {
            let mut target = Descriptor::new(image.media_type.to_owned(), image.digest.parse().unwrap(), 0);
            (target.size, target.annotations) = (image.size, labels(&image.annotations));
            let (name, labels) = (image.name.to_owned(), labels(&image.labels));
            let (created_at, updated_at) = (image.created_at, image.updated_at);
            assert_eq!(Image { name, labels, target, created_at, updated_at }, created);
            seen += 1;
            Ok(())
        };
        images.list(&Filters::default(), &mut each).unwrap();
        assert_eq!(seen, 1);
        assert_eq!(images.get("y").unwrap_err().to_string(), r#"image "y": not found"#);
        let error = images.create(image("x y/z:1")).await.unwrap_err();
        assert_eq!(error.to_string(), r#"image "x y/z:1": already exists"#);
    }

    #[tokio::test]
    async fn a_source_date_sets_the_times() {
        let bench = Bench::new();
        let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(42);
        let images = bench.open().images(&scope("a")).at(epoch);
        let created = images.create(image("x")).await.unwrap();
        assert_eq!((created.created_at, created.updated_at), (epoch, epoch));
    }

    #[tokio::test]
    async fn a_mask_changes_what_it_names() {
        let bench = Bench::new();
        let images = bench.open().images(&scope("a"));
        images.create(image("x")).await.unwrap();
        let mut change = image("x");
        change.labels = labels(&[("k", "w"), ("l", "m")]);
        change.target.annotations = labels(&[("b", "2")]);
        change.target.size = 8;
        let mask = paths(&["labels.l", "annotations.b", "annotations.a"]);
        let updated = images.update(change.clone(), &mask).await.unwrap();
        assert_eq!(updated.labels, labels(&[("k", "v"), ("l", "m")]));
        assert_eq!((updated.target.annotations, updated.target.size), (labels(&[("b", "2")]), 7));
        let updated = images.update(change.clone(), &paths(&["target"])).await.unwrap();
        assert_eq!((updated.labels, updated.target.size), (labels(&[("k", "v"), ("l", "m")]), 8));
        let updated = images.update(change.clone(), &FieldPaths::default()).await.unwrap();
        assert_eq!(updated.labels, change.labels);
        let error = images.update(change, &paths(&["name"])).await.unwrap_err();
        assert_eq!(error.to_string(), r#"cannot update "name" field on image "x": invalid argument"#);
        assert!(images.update(image("y"), &mask).await.unwrap_err().is_not_found());
    }

    #[tokio::test]
    async fn what_is_missing_is_refused() {
        let bench = Bench::new();
        let images = bench.open().images(&scope("a"));
        let cases: [Case; 4] = [
            ("image name must not be empty", |i| i.name.clear()),
            ("target.Size must be greater than zero", |i| i.target.size = 0),
            ("target.MediaType must be set", |i| i.target.media_type.clear()),
            ("image.Labels: label key", |i| drop(i.labels.insert("k".repeat(5000), String::from("v")))),
        ];
        for (words, spoil) in cases {
            let mut spoilt = image("x");
            spoil(&mut spoilt);
            let error = images.create(spoilt).await.unwrap_err();
            assert_eq!(error.class(), Class::InvalidArgument);
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[tokio::test]
    async fn an_image_is_deleted_only_with_the_target_that_is_meant() {
        let bench = Bench::new();
        let images = bench.open().images(&scope("a"));
        images.create(image("x")).await.unwrap();
        let other = Digest::of(b"other");
        let error = images.delete("x", Some(&other)).await.unwrap_err();
        let target = Digest::of(b"x");
        assert_eq!(error.to_string(), format!(r#"image "x" has target {target}, not {other}: not found"#));
        images.delete("x", Some(&target)).await.unwrap();
        assert_eq!(images.delete("x", None).await.unwrap_err().to_string(), r#"image "x": not found"#);
    }

    #[tokio::test]
    async fn only_an_image_that_may_expire_is_added_to_the_lease() {
        let bench = Bench::new();
        let db = bench.open();
        let leases = db.leases(&ns("a"));
        leases.create(Some("l".to_owned()), labels(&[])).await.unwrap();
        let images = db.images(&scope("a").with_lease("l"));
        images.create(image("stays")).await.unwrap();
        let mut expiring = image("expires");
        expiring.labels.insert(labels::GC_EXPIRE.to_owned(), "2026-01-01T00:00:00Z".to_owned());
        images.create(expiring.clone()).await.unwrap();
        let held = leases.list_resources("l").unwrap();
        assert_eq!(
            held.iter().map(|r| (r.kind.as_str(), r.id.as_str())).collect::<Vec<_>>(),
            [("images", "expires")]
        );
        images.delete("expires", None).await.unwrap();
        assert!(leases.list_resources("l").unwrap().is_empty());
        let unleased = db.images(&scope("a").with_lease("nowhere"));
        let error = unleased.create(expiring).await.unwrap_err();
        assert_eq!(error.to_string(), "lease does not exist: not found");
    }

    #[tokio::test]
    async fn lists_are_ordered_and_filtered() {
        let bench = Bench::new();
        let db = bench.open();
        for (namespace, name) in [("a", "x"), ("a", "b"), ("b", "c")] {
            db.images(&scope(namespace)).create(image(name)).await.unwrap();
        }
        let names = |filter: &str| {
            let mut names = Vec::new();
            let filters = Filters::parse(&[filter]).unwrap();
            db.images(&scope("a"))
                .list(&filters, &mut |image| {
                    names.push(image.name.to_owned());
                    Ok(())
                })
                .unwrap();
            names
        };
        assert_eq!(names(""), ["b", "x"]);
        assert_eq!(names("name~=^x,target.mediatype"), ["x"]);
        assert_eq!(names(&format!("target.digest=={}", Digest::of(b"b"))), ["b"]);
        assert_eq!(names("annotations.a==1,labels.k==v"), ["b", "x"]);
        assert_eq!(names("target.size"), [""; 0]);
    }
}
