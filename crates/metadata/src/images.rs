//! Images: names for descriptors.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use prost::Message;
use types::fields::{FieldPaths, Path};
use types::filters::{Fields, Filters, label};
use types::image::Image;
use types::oci::Descriptor;
use types::{Digest, Error, Result, Scope, labels};

use crate::db::Db;
use crate::leases;
use crate::record::{Time, record, stored, time};
use crate::schema::IMAGES;
use crate::tx::{NEXT, Source, Tx};

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
    pub fn list(&self, filters: &Filters, each: &mut dyn FnMut(Image) -> Result<()>) -> Result<()> {
        let ns = self.scope.namespace.as_str();
        self.db.read(|txn| {
            txn.scan(
                IMAGES,
                (ns, ""),
                |key| key.0 == ns,
                |key, row| {
                    let image = row.into_image(key.1)?;
                    if filters.matches(&ImageFields(&image)) {
                        each(image)?;
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
    }

    /// Removes a name; with a target only if it still names that. Blobs and snapshots stay until they are removed.
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
                leases::drop_resource(tx, &scope, "images", &name)?;
                tx.remove(IMAGES.table, key)?;
                Ok(())
            })
            .await
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
    Ok(())
}

impl ImageRecord {
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

/// What a filter sees of an image.
struct ImageFields<'a>(&'a Image);

impl Fields for ImageFields<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        let value = match (path.first()?.as_str(), path.get(1).map(String::as_str)) {
            ("name", _) => self.0.name.as_str(),
            ("target", Some("digest")) => self.0.target.digest.as_str(),
            ("target", Some("mediatype")) => self.0.target.media_type.as_str(),
            ("labels", _) => return label(&self.0.labels, &path[1..]),
            ("annotations", _) => return label(&self.0.target.annotations, &path[1..]),
            _ => return None,
        };
        (!value.is_empty()).then_some(Cow::Borrowed(value))
    }
}
