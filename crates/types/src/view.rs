//! Records as they lie in the database, nothing copied: for those who look at thousands of them and keep none.

use std::borrow::Cow;
use std::time::SystemTime;

use crate::filters::Fields;

/// Keys and values, ordered by key.
pub type Pairs<'a> = Vec<(&'a str, &'a str)>;

/// An opaque value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnyView<'a> {
    /// What it is.
    pub type_url: &'a str,
    /// Never looked into.
    pub value: &'a [u8],
}

/// An [image](crate::image::Image).
#[derive(Clone, Debug, PartialEq)]
pub struct ImageView<'a> {
    /// The reference.
    pub name: &'a str,
    /// User labels.
    pub labels: Pairs<'a>,
    /// Of the index or manifest it names.
    pub media_type: &'a str,
    /// Of the index or manifest it names.
    pub digest: &'a str,
    /// Of the index or manifest it names, in bytes.
    pub size: i64,
    /// Of the descriptor.
    pub annotations: Pairs<'a>,
    /// Set by the database.
    pub created_at: SystemTime,
    /// Set by the database.
    pub updated_at: SystemTime,
}

/// A [container](crate::container::Container).
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerView<'a> {
    /// Unique within the namespace.
    pub id: &'a str,
    /// User labels.
    pub labels: Pairs<'a>,
    /// The image it was made from.
    pub image: &'a str,
    /// Which shim.
    pub runtime: &'a str,
    /// Passed to the shim untouched.
    pub runtime_options: Option<AnyView<'a>>,
    /// The OCI runtime spec.
    pub spec: Option<AnyView<'a>>,
    /// Whose snapshot the root filesystem is.
    pub snapshotter: &'a str,
    /// The snapshot's key.
    pub snapshot_key: &'a str,
    /// Set by the database.
    pub created_at: SystemTime,
    /// Set by the database.
    pub updated_at: SystemTime,
    /// Clients' own values.
    pub extensions: Vec<(&'a str, AnyView<'a>)>,
    /// The sandbox it belongs to, or empty.
    pub sandbox: &'a str,
}

impl Default for ImageView<'_> {
    fn default() -> Self {
        Self {
            name: "",
            labels: Pairs::new(),
            media_type: "",
            digest: "",
            size: 0,
            annotations: Pairs::new(),
            created_at: SystemTime::UNIX_EPOCH,
            updated_at: SystemTime::UNIX_EPOCH,
        }
    }
}

impl Default for ContainerView<'_> {
    fn default() -> Self {
        Self {
            id: "",
            labels: Pairs::new(),
            image: "",
            runtime: "",
            runtime_options: None,
            spec: None,
            snapshotter: "",
            snapshot_key: "",
            created_at: SystemTime::UNIX_EPOCH,
            updated_at: SystemTime::UNIX_EPOCH,
            extensions: Vec::new(),
            sandbox: "",
        }
    }
}

/// The value of `key`.
pub fn value<'a>(pairs: &Pairs<'a>, key: &str) -> Option<&'a str> {
    pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
}

fn present(text: &str) -> Option<Cow<'_, str>> {
    (!text.is_empty()).then_some(Cow::Borrowed(text))
}

impl Fields for ImageView<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match (path.first()?.as_str(), path.get(1).map(String::as_str)) {
            ("name", _) => present(self.name),
            ("target", Some("digest")) => present(self.digest),
            ("target", Some("mediatype")) => present(self.media_type),
            ("labels", _) => value(&self.labels, &path[1..].join(".")).map(Cow::Borrowed),
            ("annotations", _) => value(&self.annotations, &path[1..].join(".")).map(Cow::Borrowed),
            _ => None,
        }
    }
}

impl Fields for ContainerView<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.first()?.as_str() {
            "id" => present(self.id),
            "image" => present(self.image),
            "runtime" if path.get(1)? == "name" => present(self.runtime),
            "labels" => value(&self.labels, &path[1..].join(".")).map(Cow::Borrowed),
            _ => None,
        }
    }
}
