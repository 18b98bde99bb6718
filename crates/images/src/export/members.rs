//! The members of an archive, by name.

use std::collections::BTreeMap;

use bytes::Bytes;
use content::Reader;
use tokio::sync::mpsc;
use types::Result;
use types::oci::Descriptor;

use super::{AHEAD, Member, PIECE};
use crate::walk::SUBJECT;

/// What goes into an archive.
pub(super) struct Members {
    named: BTreeMap<String, Member>,
    skip_non_distributable: bool,
}

impl Members {
    pub(super) fn new(skip_non_distributable: bool) -> Self {
        Self { named: BTreeMap::new(), skip_non_distributable }
    }

    /// Adds a blob, and the directories on the way to it.
    pub(super) fn blob(&mut self, blob: &Descriptor) {
        if self.skip_non_distributable && is_non_distributable(&blob.media_type) {
            return;
        }
        let directory = format!("blobs/{}/", blob.digest.algorithm().name());
        let name = format!("{directory}{}", blob.digest.hex());
        for directory in ["blobs/".to_owned(), directory] {
            self.named.entry(directory).or_insert(Member::Directory);
        }
        self.named.entry(name).or_insert_with(|| Member::Blob(Box::new(blob.clone())));
    }

    pub(super) fn document(&mut self, name: &str, bytes: Vec<u8>, mode: u32) {
        self.named.insert(name.to_owned(), Member::Document(bytes.into(), mode));
    }

    /// Manifests that are here only because they describe another: nothing else in the archive leads to them.
    pub(super) fn referrers(&self) -> Vec<Descriptor> {
        self.named
            .values()
            .filter_map(|member| match member {
                Member::Blob(blob) => Some(&**blob),
                Member::Directory | Member::Document(..) => None,
            })
            .filter(|blob| blob.annotations.contains_key(SUBJECT))
            .cloned()
            .collect()
    }

    pub(super) fn into_sorted(self) -> impl Iterator<Item = (String, Member)> {
        self.named.into_iter()
    }
}

fn is_non_distributable(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
}

/// Reads a blob ahead of whoever takes its pieces.
pub(super) fn read(reader: Box<dyn Reader>) -> mpsc::Receiver<Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let mut at = 0;
        loop {
            let piece = reader.read_at(at, PIECE).await;
            match &piece {
                Ok(piece) if piece.is_empty() => return,
                Ok(piece) => at += piece.len() as u64,
                Err(_) => {}
            }
            let failed = piece.is_err();
            if sender.send(piece).await.is_err() || failed {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use types::Digest;
    use types::oci::image::media;

    use super::*;

    fn blob(media_type: &str, text: &str) -> Descriptor {
        Descriptor::new(media_type, Digest::of(text.as_bytes()), text.len() as u64)
    }

    #[test]
    fn members_are_ordered_by_name_and_there_once() {
        let mut members = Members::new(true);
        let one = blob(media::OCI_LAYER, "one");
        members.document("oci-layout", Vec::new(), 0o444);
        members.blob(&one);
        members.blob(&one);
        members.blob(&blob("application/vnd.oci.image.layer.nondistributable.v1.tar", "two"));
        members.document("index.json", Vec::new(), 0o644);
        let names: Vec<String> = members.into_sorted().map(|(name, _)| name).collect();
        let layer = format!("blobs/sha256/{}", one.digest.hex());
        assert_eq!(names, ["blobs/", "blobs/sha256/", &layer, "index.json", "oci-layout"]);
    }
}
