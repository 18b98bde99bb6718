//! Manifests and indexes that can be read in one way only.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use types::oci::image::media;
use types::oci::{Descriptor, Index, Manifest};
use types::{Error, Result};

use super::MAX_CHILDREN;

/// Keys that decide what a document is.
const TELLING: [&str; 6] = ["mediaType", "config", "layers", "manifests", "fsLayers", "schemaVersion"];

/// Reads an index that its descriptor calls `media_type`.
pub fn index(bytes: &[u8], media_type: &str) -> Result<Index> {
    let keys = keys(bytes)?;
    if keys.iter().any(|key| key == "config" || key == "layers") {
        return Err(confused("index", "manifest", media_type));
    }
    let index: Index = parse(bytes)?;
    check_type(&index.media_type, media_type)?;
    check_children(&index.manifests)?;
    Ok(index)
}

/// Reads a manifest that its descriptor calls `media_type`.
pub fn manifest(bytes: &[u8], media_type: &str) -> Result<Manifest> {
    let keys = keys(bytes)?;
    if keys.iter().any(|key| key == "manifests") {
        return Err(confused("manifest", "index", media_type));
    }
    let manifest: Manifest = parse(bytes)?;
    check_type(&manifest.media_type, media_type)?;
    check_children(&manifest.layers)?;
    size_of(&manifest.config)?;
    Ok(manifest)
}

fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| Error::invalid(error.to_string()))
}

fn confused(expected: &str, found: &str, media_type: &str) -> Error {
    Error::invalid(format!("media-type: expected {expected} but found {found} ({media_type})"))
}

/// What the document calls itself, where it does, must be what its descriptor calls it.
fn check_type(own: &str, media_type: &str) -> Result<()> {
    if own.is_empty() || own == media_type {
        return Ok(());
    }
    if media::is_index(own) != media::is_index(media_type) {
        let (expected, found) =
            if media::is_index(own) { ("manifest", "index") } else { ("index", "manifest") };
        return Err(confused(expected, found, media_type));
    }
    Err(Error::invalid(format!("media-type: expected {media_type} but the document says {own}")))
}

fn check_children(children: &[Descriptor]) -> Result<()> {
    if children.len() > MAX_CHILDREN {
        return Err(Error::invalid(format!(
            "{} entries, more than the {MAX_CHILDREN} allowed",
            children.len()
        )));
    }
    children.iter().try_for_each(|child| size_of(child).map(drop))
}

/// A descriptor's size, which may not be negative.
fn size_of(descriptor: &Descriptor) -> Result<u64> {
    u64::try_from(descriptor.size).map_err(|_| {
        let Descriptor { size, digest, media_type, .. } = descriptor;
        Error::invalid(format!("invalid size {size} in {digest} ({media_type})"))
    })
}

/// Those keys of the top level that tell what a document is. One that Go would take for a telling one (it ignores case)
/// and we would not, or that is there twice, makes the document ambiguous.
fn keys(bytes: &[u8]) -> Result<Vec<String>> {
    let Keys(keys) = parse(bytes)?;
    if keys.iter().any(|key| key == "fsLayers") {
        return Err(Error::invalid("media-type: schema 1 not supported"));
    }
    Ok(keys)
}

struct Keys(Vec<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys: Vec<String> = Vec::new();
                while let Some((key, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                    let telling = |known: &&&str| known.eq_ignore_ascii_case(&key);
                    let Some(known) = TELLING.iter().find(telling) else { continue };
                    if key != **known || keys.contains(&key) {
                        let error = format!("media-type: ambiguous key {key:?}");
                        return Err(serde::de::Error::custom(error));
                    }
                    keys.push(key);
                }
                Ok(Keys(keys))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SEC-006: whatever the document, at most one of the two readings succeeds.
    #[test]
    fn no_document_is_both_an_index_and_a_manifest() {
        let digest = types::Digest::of(b"x");
        let config =
            format!(r#""config":{{"mediaType":"{}","digest":"{digest}","size":1}}"#, media::OCI_CONFIG);
        let (layers, manifests) = (r#""layers":[]"#, r#""manifests":[]"#);
        let index_type = format!(r#""mediaType":"{}""#, media::OCI_INDEX);
        let manifest_type = format!(r#""mediaType":"{}""#, media::OCI_MANIFEST);
        let documents = [
            format!("{{{config},{layers},{manifests}}}"),
            format!("{{{config},{layers},\"Manifests\":[]}}"),
            format!("{{{config},{layers},\"manifests\":null}}"),
            format!("{{{index_type},{config},{layers}}}"),
            format!("{{{manifest_type},{manifests}}}"),
            format!("{{{manifests},\"Config\":{{}}}}"),
            format!("{{{manifests},\"LAYERS\":[]}}"),
            format!("{{{manifest_type},\"mediatype\":\"{}\",{manifests}}}", media::OCI_INDEX),
            format!("{{{index_type},{index_type},{manifests}}}"),
            format!("{{{config},{config},{layers}}}"),
            format!("{{{config},{layers},\"fsLayers\":[]}}"),
            "{\"schemaVersion\":1,\"fsLayers\":[{\"blobSum\":\"x\"}],\"history\":[]}".to_owned(),
            "[]".to_owned(),
            "{".to_owned(),
            String::new(),
            format!("{{{config},\"layers\":[{{\"digest\":\"{digest}\",\"size\":-1}}]}}"),
        ];
        for text in &documents {
            assert!(manifest(text.as_bytes(), media::OCI_MANIFEST).is_err(), "{text}");
            assert!(index(text.as_bytes(), media::OCI_INDEX).is_err(), "{text}");
        }
        let good = format!("{{{manifest_type},{config},{layers}}}");
        assert!(manifest(good.as_bytes(), media::OCI_MANIFEST).is_ok());
        assert!(manifest(good.as_bytes(), media::DOCKER_MANIFEST).is_err());
        assert!(index(good.as_bytes(), media::OCI_INDEX).is_err());
        let good = format!("{{{manifests}}}");
        assert!(index(good.as_bytes(), media::OCI_INDEX).is_ok());
        assert!(manifest(good.as_bytes(), media::OCI_MANIFEST).is_err());
    }
}
