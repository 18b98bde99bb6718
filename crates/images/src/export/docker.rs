//! `manifest.json`, by which `docker load` finds images.

use content::Store;
use serde::Serialize;
use types::oci::Descriptor;
use types::{Digest, Result};

use super::{json, names};
use crate::walk;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    config: String,
    /// Go writes nothing as `null`.
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// The document for manifests and their names.
pub(super) async fn manifest(store: &dyn Store, images: &[(Descriptor, Vec<String>)]) -> Result<Vec<u8>> {
    let member = |digest: &Digest| format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
    let some = |all: Vec<String>| Some(all).filter(|all| !all.is_empty());
    let mut listed = Vec::new();
    for (descriptor, names) in images {
        let manifest = walk::read_manifest(store, descriptor).await?;
        let tags = names.iter().map(|name| names::familiar(name)).collect::<Result<Vec<_>>>()?;
        listed.push(Image {
            config: member(&manifest.config.digest),
            repo_tags: some(tags),
            layers: some(manifest.layers.iter().map(|layer| member(&layer.digest)).collect()),
        });
    }
    json(&listed)
}
