//! A manifest or index that is being edited.

use content::Store;
use content::store::read_blob;
use serde_json::{Map, Value};
use types::oci::Descriptor;
use types::{Digest, Error, Labels, Result, labels};

use super::{json, without};
use crate::walk::DOCUMENT_LIMIT;

/// The fields of documents and of what is in them, in upstream's order.
const ORDER: [&str; 9] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
    "data",
];
const DESCRIPTOR_ORDER: [&str; 8] =
    ["mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType"];
const PLATFORM_ORDER: [&str; 5] = ["architecture", "os", "os.version", "os.features", "variant"];

/// A document and the labels that hold its children.
pub(super) struct Document {
    fields: Map<String, Value>,
    /// The field with the children.
    children: &'static str,
    labels: Labels,
}

impl Document {
    /// Reads one that has been found sound.
    pub(super) async fn read(
        store: &dyn Store,
        descriptor: &Descriptor,
        children: &'static str,
    ) -> Result<Self> {
        let labels = store.info(&descriptor.digest).await?.labels;
        let bytes = read_blob(store, &descriptor.digest, DOCUMENT_LIMIT).await?;
        let fields = serde_json::from_slice(&bytes).map_err(|error| Error::invalid(error.to_string()))?;
        Ok(Self { fields, children, labels })
    }

    /// Gives the document another media type; `false` if it has that already, or none.
    pub(super) fn change_media_type(&mut self, change: fn(&str) -> &str) -> bool {
        let Some(Value::String(media_type)) = self.fields.get_mut("mediaType") else { return false };
        let new = change(media_type).to_owned();
        std::mem::replace(media_type, new.clone()) != new
    }

    /// Puts another child in the place of one, and holds it by a label.
    pub(super) fn replace(&mut self, at: usize, old: &Digest, new: &Descriptor, label: &str) -> Result<()> {
        let child = self.fields.get_mut(self.children).and_then(|all| all.get_mut(at));
        point(child, new)?;
        self.hold(old, new, label);
        Ok(())
    }

    pub(super) fn replace_config(&mut self, old: &Digest, new: &Descriptor) -> Result<()> {
        point(self.fields.get_mut("config"), new)?;
        self.hold(old, new, "config");
        Ok(())
    }

    fn hold(&mut self, old: &Digest, new: &Descriptor, label: &str) {
        self.forget(old);
        self.labels.insert(format!("{}.{label}", labels::GC_REF_CONTENT), new.digest.to_string());
    }

    /// Lets go of a child.
    pub(super) fn forget(&mut self, child: &Digest) {
        without(&mut self.labels, child);
    }

    /// Takes children out.
    pub(super) fn remove(&mut self, left_out: &[usize]) {
        if let Some(Value::Array(all)) = self.fields.get_mut(self.children) {
            let mut at = 0..;
            all.retain(|_| at.next().is_none_or(|at| !left_out.contains(&at)));
        }
    }

    /// The document as text, and its labels.
    pub(super) fn finish(mut self) -> Result<(Vec<u8>, Labels)> {
        for key in ["config", "subject"] {
            if let Some(Value::Object(descriptor)) = self.fields.get_mut(key) {
                order_descriptor(descriptor);
            }
        }
        if let Some(Value::Array(all)) = self.fields.get_mut(self.children) {
            all.iter_mut().filter_map(Value::as_object_mut).for_each(order_descriptor);
        }
        order(&mut self.fields, &ORDER);
        let bytes = serde_json::to_vec(&self.fields)
            .map_err(|error| Error::internal(format!("encode a document: {error}")))?;
        Ok((bytes, self.labels))
    }
}

/// Makes a descriptor in a document point to something else; what it says besides stays.
fn point(child: Option<&mut Value>, new: &Descriptor) -> Result<()> {
    let Some(Value::Object(child)) = child else { return Err(Error::invalid("a child is not a descriptor")) };
    let Value::Object(new) = json(new)? else { return Err(Error::internal("a descriptor is an object")) };
    if !new.contains_key("annotations") {
        child.remove("annotations");
    }
    for key in ["mediaType", "digest", "size"] {
        child.insert(key.to_owned(), new.get(key).cloned().unwrap_or_default());
    }
    Ok(())
}

fn order_descriptor(descriptor: &mut Map<String, Value>) {
    if let Some(Value::Object(platform)) = descriptor.get_mut("platform") {
        order(platform, &PLATFORM_ORDER);
    }
    if let Some(Value::Object(annotations)) = descriptor.get_mut("annotations") {
        annotations.sort_keys();
    }
    order(descriptor, &DESCRIPTOR_ORDER);
}

/// Known fields first, in the given order.
fn order(fields: &mut Map<String, Value>, known: &[&str]) {
    let mut ordered = Map::new();
    for key in known {
        if let Some((key, value)) = fields.remove_entry(*key) {
            ordered.insert(key, value);
        }
    }
    ordered.append(fields);
    *fields = ordered;
}
