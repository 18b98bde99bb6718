//! What snapshotters are told that bring layers themselves, by the labels that upstream's `pkg/snapshotters` gives them.
//!
//! Nothing of it comes from the image's annotations: those are a stranger's word.

use types::{Digest, Labels, labels};

use crate::unpack::Layer;

/// The image's name.
const REFERENCE: &str = "containerd.io/snapshot/cri.image-ref";
/// The digest of its manifest.
const MANIFEST: &str = "containerd.io/snapshot/cri.manifest-digest";
/// The digest of the layer's blob.
const LAYER: &str = "containerd.io/snapshot/cri.layer-digest";
/// The digests of this layer and those above it, as many as a label can hold.
const LAYERS: &str = "containerd.io/snapshot/cri.image-layers";

/// Says of each layer of the image called `reference` where it comes from.
pub(super) fn tell(layers: &mut [Layer], reference: &str, manifest: &Digest) {
    let digests: Vec<Digest> = layers.iter().map(|layer| layer.blob.digest.clone()).collect();
    for (n, layer) in layers.iter_mut().enumerate() {
        let said = [
            (REFERENCE, reference.to_owned()),
            (MANIFEST, manifest.to_string()),
            (LAYER, digests[n].to_string()),
            (LAYERS, as_many_as_fit(&digests[n..])),
        ];
        layer.more = said.map(|(key, value)| (key.to_owned(), value)).into_iter().collect::<Labels>();
    }
}

fn as_many_as_fit(digests: &[Digest]) -> String {
    let mut joined = String::new();
    for digest in digests {
        let comma = if joined.is_empty() { "" } else { "," };
        if LAYERS.len() + joined.len() + comma.len() + digest.as_str().len() > labels::MAX_SIZE {
            break;
        }
        joined.push_str(comma);
        joined.push_str(digest.as_str());
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_holds_as_many_layers_as_it_can() {
        let digests: Vec<Digest> = (0..100).map(|n: u8| Digest::of(&[n])).collect();
        let held = as_many_as_fit(&digests);
        assert!(labels::validate(LAYERS, &held).is_ok());
        // 4096 bytes less the key's, in parts of 71 and a comma.
        assert_eq!(held.split(',').count(), (4096 - LAYERS.len() + 1) / 72);
        assert!(held.starts_with(digests[0].as_str()));
        assert_eq!(as_many_as_fit(&digests[98..]), format!("{},{}", digests[98], digests[99]));
    }
}
