//! ImageStatus: nothing if the image is not there, or not all of it.

use std::collections::BTreeMap;

use api::cri::{ImageStatusRequest, ImageStatusResponse};
use content::store::read_blob;
use images::walk::DOCUMENT_LIMIT;
use serde_json::{Map, Value, json};
use types::{Result, ResultExt};

use super::{Image, watch, wire};
use crate::cri::Cri;

/// What the image specification knows of an image's configuration.
const SPEC: [&str; 10] = [
    "created",
    "author",
    "architecture",
    "variant",
    "os",
    "os.version",
    "os.features",
    "config",
    "rootfs",
    "history",
];

/// Answers the call.
pub async fn run(cri: &Cri, request: ImageStatusRequest) -> Result<ImageStatusResponse> {
    let name = request.image.unwrap_or_default().image;
    let image = match cri.images.resolve(&name) {
        Ok(image) => image,
        Err(error) if error.is_not_found() => return Ok(ImageStatusResponse::default()),
        Err(error) => return Err(error.context(format!("can not resolve {name:?} locally"))),
    };
    // By the word of the disk: a kubelet that is told so pulls it again.
    if !watch::is_there(cri, &image).await? {
        return Ok(ImageStatusResponse::default());
    }
    let info = if request.verbose { info(cri, &image).await? } else { BTreeMap::new() };
    Ok(ImageStatusResponse { image: Some(wire::image(&image)), info })
}

async fn info(cri: &Cri, image: &Image) -> Result<BTreeMap<String, String>> {
    let store = cri.db.content(cri.scope(None));
    let read = read_blob(&*store, &image.id.parse()?, DOCUMENT_LIMIT).await;
    let bytes =
        read.context(|| format!("failed to generate image info: read config of image {}", image.id))?;
    let config: Map<String, Value> = serde_json::from_slice(&bytes).unwrap_or_default();
    let spec: Map<String, Value> =
        config.into_iter().filter(|(key, _)| SPEC.contains(&key.as_str())).collect();
    let info = json!({ "chainID": image.chain_id, "imageSpec": spec });
    Ok(BTreeMap::from([("info".to_owned(), info.to_string())]))
}
