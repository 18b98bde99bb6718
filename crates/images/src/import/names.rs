//! What imported images are called.

use types::oci::Descriptor;
use types::{Error, Result};

use crate::walk::SUBJECT;

/// The annotation that carries a full image name.
pub const IMAGE_NAME: &str = "io.containerd.image.name";
/// The annotation that carries a tag, or a name.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What the images of an archive are called.
pub trait Names: Send + Sync {
    /// The names of the index as a whole, which is only kept if it has one.
    fn index(&self, index: &Descriptor) -> Vec<String>;

    /// The names of one of its manifests.
    fn manifest(&self, manifest: &Descriptor) -> Vec<String>;
}

/// How a client names images; the flags `--base-name`, `--digests`, `--skip-digest-for-named` and `--index-name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// In front of bare tags and digests.
    pub prefix: String,
    /// Whether full names that do not begin with the prefix are left out.
    pub only_prefixed: bool,
    /// Which images also get a name made of the prefix and their digest.
    pub digests: DigestNames,
    /// A name for the index.
    pub index: Option<String>,
}

/// Which images get a name by digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DigestNames {
    /// None.
    #[default]
    None,
    /// Those that have no other.
    Unnamed,
    /// All.
    All,
}

impl Names for Naming {
    fn index(&self, _index: &Descriptor) -> Vec<String> {
        self.index.iter().cloned().collect()
    }

    /// None, one, or one by name and one by digest.
    fn manifest(&self, manifest: &Descriptor) -> Vec<String> {
        let annotation = |key: &str| manifest.annotations.get(key).filter(|value| !value.is_empty());
        let by_name = match annotation(IMAGE_NAME) {
            Some(name) => Some(name.clone()),
            None => annotation(REF_NAME).and_then(|name| complete(name, &self.prefix, self.only_prefixed)),
        };
        let wants_digest = match self.digests {
            DigestNames::None => false,
            DigestNames::Unnamed => by_name.is_none(),
            DigestNames::All => true,
        } && !manifest.annotations.contains_key(SUBJECT);
        let by_digest = wants_digest.then(|| format!("{}@{}", self.prefix, manifest.digest));
        by_name.into_iter().chain(by_digest).collect()
    }
}

/// A full name out of what an archive says: bare tags get the prefix. `None` of a full one that does not begin with it,
/// where all must.
pub fn complete(name: &str, prefix: &str, only_prefixed: bool) -> Option<String> {
    if !name.contains(['/', ':', '@']) {
        return Some(format!("{prefix}:{name}"));
    }
    let rest = name.strip_prefix(prefix);
    let prefixed = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']));
    (prefixed || !only_prefixed).then(|| name.to_owned())
}

/// The annotations of an image that `docker save` calls `tag`: its full name, and the tag alone.
pub fn annotations(tag: &str) -> Result<[(String, String); 2]> {
    let reference = types::reference::Reference::normalize(tag)
        .map_err(|e: Error| e.context(format!("normalize image ref {tag:?}")))?;
    let full = reference.to_string();
    let object = reference.tag.unwrap_or_else(|| full.clone());
    Ok([(IMAGE_NAME.to_owned(), full), (REF_NAME.to_owned(), object)])
}

#[cfg(test)]
mod tests {
    use types::Digest;

    use super::*;

    fn named(annotations: &[(&str, &str)]) -> Descriptor {
        let mut descriptor = Descriptor::new("", Digest::of(b""), 0);
        descriptor.annotations = annotations.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        descriptor
    }

    #[test]
    fn bare_tags_get_the_prefix_and_full_names_stay() {
        let naming =
            Naming { prefix: "import".into(), only_prefixed: false, digests: DigestNames::None, index: None };
        assert_eq!(naming.manifest(&named(&[(REF_NAME, "v1")])), ["import:v1"]);
        assert_eq!(naming.manifest(&named(&[(REF_NAME, "r.io/x:v1")])), ["r.io/x:v1"]);
        assert_eq!(naming.manifest(&named(&[(IMAGE_NAME, "full"), (REF_NAME, "v1")])), ["full"]);
        assert!(naming.manifest(&named(&[])).is_empty());
    }

    #[test]
    fn a_base_name_leaves_other_names_out() {
        let naming = Naming {
            prefix: "r.io/x".into(),
            only_prefixed: true,
            digests: DigestNames::Unnamed,
            index: None,
        };
        assert_eq!(naming.manifest(&named(&[(REF_NAME, "r.io/x/y:1")])), ["r.io/x/y:1"]);
        let digest = Digest::of(b"");
        assert_eq!(naming.manifest(&named(&[(REF_NAME, "r.io/xy:1")])), [format!("r.io/x@{digest}")]);
    }
}
