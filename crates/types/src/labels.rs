//! Labels and what may be one.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// Key and value pairs on a record.
pub type Labels = BTreeMap<String, String>;

/// A key and its value together may have this many bytes.
pub const MAX_SIZE: usize = 4096;

/// On a layer blob: the digest of its uncompressed form (its diff id).
pub const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// Prefix of labels on content that point to other content which must stay: `<prefix>config`, `<prefix>l.N`, `<prefix>m.N`.
pub const GC_REF_CONTENT: &str = "containerd.io/gc.ref.content";
/// Prefix of labels that point to a snapshot: `<prefix>.<snapshotter>`.
pub const GC_REF_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot";
/// Keeps a resource although nothing refers to it.
pub const GC_ROOT: &str = "containerd.io/gc.root";
/// When a lease ends by itself, RFC 3339.
pub const GC_EXPIRE: &str = "containerd.io/gc.expire";
/// On a snapshot that is being prepared: the name it will be committed under.
pub const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";
/// Prefix of snapshot labels that are handed on to the snapshotter itself.
pub const SNAPSHOT_INHERITED: &str = "containerd.io/snapshot/";
/// On a layer's snapshot: the digest of the layer, uncompressed.
pub const SNAPSHOT_DIFF_ID: &str = "containerd.io/snapshot/diff-id";
/// On a layer's snapshot: the chain id of the layers below.
pub const SNAPSHOT_PARENT: &str = "containerd.io/snapshot/parent-chain-id";
/// Prefix of labels on blobs that name the registry they came from.
pub const DISTRIBUTION_SOURCE: &str = "containerd.io/distribution.source";

/// Refuses a label that is too large, with upstream's words.
pub fn validate(key: &str, value: &str) -> Result<()> {
    let size = key.len() + value.len();
    if size > MAX_SIZE {
        // Long keys are cut in the message, as upstream does.
        let shown: String = key.chars().take(64).collect();
        return Err(Error::invalid(format!(
            "label key and value length ({size} bytes) greater than maximum size ({MAX_SIZE} bytes), key: {shown}: invalid argument"
        )));
    }
    Ok(())
}

/// [`validate`] for each label.
pub fn validate_all(labels: &Labels) -> Result<()> {
    labels.iter().try_for_each(|(key, value)| validate(key, value))
}

/// Refuses a value without a key, which upstream's database refuses to write, with the words of that.
pub fn writable(labels: &Labels) -> Result<()> {
    match labels.get("").filter(|value| !value.is_empty()) {
        Some(value) => Err(Error::invalid(format!("failed to set label \"\"={value:?}: key required"))),
        None => Ok(()),
    }
}

/// Whether image data may never set this key (reliability.md SEC-024): it steers the daemon.
pub fn is_reserved(key: &str) -> bool {
    key.starts_with("containerd.io/")
        || key.starts_with("io.cri-containerd")
        || key.starts_with("io.containerd.")
}

/// Applies an Update of labels: all of them (`key` is `None`) or one, where an empty value removes the key.
pub fn apply(into: &mut Labels, from: &Labels, key: Option<&str>) {
    match key {
        None => {
            *into = from.clone();
            into.retain(|_, value| !value.is_empty());
        }
        Some(key) => match from.get(key).filter(|value| !value.is_empty()) {
            Some(value) => drop(into.insert(key.to_owned(), value.clone())),
            None => drop(into.remove(key)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_a_key_and_a_size() {
        assert!(validate("a", "").is_ok() && validate("", "").is_ok());
        assert!(writable(&Labels::from([(String::new(), String::new())])).is_ok());
        let without = Labels::from([(String::new(), "x".to_owned())]);
        assert_eq!(
            writable(&without).unwrap_err().to_string(),
            "failed to set label \"\"=\"x\": key required"
        );
        assert!(validate("a", &"x".repeat(MAX_SIZE - 1)).is_ok());
        assert!(validate("a", &"x".repeat(MAX_SIZE)).is_err());
    }
}
