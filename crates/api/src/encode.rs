//! Messages for lists, written from records as they lie in the database: a list of thousands is not first taken apart
//! into as many nouns and messages.
//!
//! What is written here is what [`convert`] and prost would write of the same record, which the tests
//! hold it to.

use std::time::SystemTime;

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType, encode_key, encode_varint, encoded_len_varint, skip_field};
use prost::{DecodeError, Message};
use types::snapshot::Info;
use types::view::{AnyView, ContainerView, ImageView};

use crate::convert;

/// A message that is encoded already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded(pub Bytes);

impl Message for Encoded {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    /// It is only ever sent.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        skip_field(wire_type, tag, buf, ctx)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// Adds a container to a `ListContainersResponse`, or makes a `ListContainerMessage` of it.
pub fn listed_container(c: &ContainerView<'_>, out: &mut Vec<u8>) {
    // The specification is most of it.
    let about = c.spec.map_or(0, |spec| spec.value.len()) + 256;
    message_of(about, 1, out, |out| {
        text(1, c.id, out);
        pairs(2, &c.labels, out);
        text(3, c.image, out);
        message(4, out, |out| {
            text(1, c.runtime, out);
            c.runtime_options.iter().for_each(|options| any(2, options, out));
        });
        c.spec.iter().for_each(|spec| any(5, spec, out));
        text(6, c.snapshotter, out);
        text(7, c.snapshot_key, out);
        time(8, c.created_at, out);
        time(9, c.updated_at, out);
        for (key, value) in &c.extensions {
            message(10, out, |out| {
                text(1, key, out);
                if *value != AnyView::default() {
                    any(2, value, out);
                }
            });
        }
        text(11, c.sandbox, out);
    });
}

/// Adds an image to a `ListImagesResponse`.
pub fn listed_image(i: &ImageView<'_>, out: &mut Vec<u8>) {
    message_of(256, 1, out, |out| {
        text(1, i.name, out);
        pairs(2, &i.labels, out);
        message(3, out, |out| {
            text(1, i.media_type, out);
            text(2, i.digest, out);
            number(3, i.size.cast_unsigned(), out);
            pairs(5, &i.annotations, out);
        });
        time(7, i.created_at, out);
        time(8, i.updated_at, out);
    });
}

/// Adds a snapshot to a `ListSnapshotsResponse`.
pub fn listed_snapshot(i: &Info, out: &mut Vec<u8>) {
    message(1, out, |out| {
        text(1, &i.name, out);
        text(2, &i.parent, out);
        number(3, convert::snapshot_kind(i.kind).cast_unsigned().into(), out);
        time(4, i.created_at, out);
        time(5, i.updated_at, out);
        for (key, value) in &i.labels {
            pair(6, key, value, out);
        }
    });
}

/// What has the value that absence means is left out.
fn text(tag: u32, text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() {
        bytes(tag, text.as_bytes(), out);
    }
}

fn bytes(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn number(tag: u32, number: u64, out: &mut Vec<u8>) {
    if number != 0 {
        encode_key(tag, WireType::Varint, out);
        encode_varint(number, out);
    }
}

fn pairs(tag: u32, pairs: &[(&str, &str)], out: &mut Vec<u8>) {
    for (key, value) in pairs {
        pair(tag, key, value, out);
    }
}

fn pair(tag: u32, key: &str, value: &str, out: &mut Vec<u8>) {
    message(tag, out, |out| {
        text(1, key, out);
        text(2, value, out);
    });
}

fn any(tag: u32, any: &AnyView<'_>, out: &mut Vec<u8>) {
    message_of(any.type_url.len() + any.value.len(), tag, out, |out| {
        text(1, any.type_url, out);
        if !any.value.is_empty() {
            bytes(2, any.value, out);
        }
    });
}

fn time(tag: u32, time: SystemTime, out: &mut Vec<u8>) {
    let (seconds, nanos) = types::time::unix(time);
    message(tag, out, |out| {
        number(1, seconds.cast_unsigned(), out);
        number(2, nanos.into(), out);
    });
}

/// A message within a message: its length stands before it, and is known when it has been written.
fn message(tag: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    message_of(0, tag, out, write);
}

/// The same for about `guess` bytes: what is written need not be moved if its length has as many digits as that.
fn message_of(guess: usize, tag: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    encode_key(tag, WireType::LengthDelimited, out);
    let at = out.len();
    let guessed = at + encoded_len_varint(guess as u64);
    out.resize(guessed, 0);
    write(out);
    let (length, end) = (out.len() - guessed, out.len());
    let begin = at + encoded_len_varint(length as u64);
    if begin != guessed {
        out.resize(end.max(begin + length), 0);
        out.copy_within(guessed..end, begin);
        out.truncate(begin + length);
    }
    encode_varint(length as u64, &mut &mut out[at..begin]);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use types::container::{Container, RuntimeInfo};
    use types::image::Image;
    use types::snapshot::Kind;
    use types::{Any, Digest, Labels};

    use super::*;
    use crate::containerd::services::{
        containers::v1 as containers, images::v1 as images, snapshots::v1 as snapshots,
    };

    fn view(any: &Any) -> AnyView<'_> {
        AnyView { type_url: &any.type_url, value: &any.value }
    }

    fn views(labels: &Labels) -> Vec<(&str, &str)> {
        labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }

    fn labels() -> Labels {
        [("a".to_owned(), "x".repeat(200)), ("b".to_owned(), String::new())].into()
    }

    #[test]
    fn a_container_is_written_as_prost_writes_it() {
        let long = Any::new("spec", vec![7; 5000]);
        let full = Container {
            id: "c1".into(),
            labels: labels(),
            image: "i".into(),
            runtime: RuntimeInfo { name: "r".into(), options: Some(Any::new("o", [1, 2])) },
            spec: Some(long),
            snapshotter: "overlayfs".into(),
            snapshot_key: "k".into(),
            created_at: SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5),
            updated_at: SystemTime::UNIX_EPOCH - Duration::new(3, 0),
            extensions: [("e".to_owned(), Any::new("t", [0; 300])), ("f".to_owned(), Any::default())].into(),
            sandbox: "s".into(),
        };
        let bare = Container {
            labels: Labels::new(),
            image: String::new(),
            runtime: RuntimeInfo { name: "r".into(), options: None },
            spec: None,
            extensions: [].into(),
            sandbox: String::new(),
            created_at: SystemTime::UNIX_EPOCH,
            ..full.clone()
        };
        for container in [full, bare] {
            let seen = ContainerView {
                id: &container.id,
                labels: views(&container.labels),
                image: &container.image,
                runtime: &container.runtime.name,
                runtime_options: container.runtime.options.as_ref().map(view),
                spec: container.spec.as_ref().map(view),
                snapshotter: &container.snapshotter,
                snapshot_key: &container.snapshot_key,
                created_at: container.created_at,
                updated_at: container.updated_at,
                extensions: container.extensions.iter().map(|(key, any)| (key.as_str(), view(any))).collect(),
                sandbox: &container.sandbox,
            };
            let mut written = Vec::new();
            listed_container(&seen, &mut written);
            let container = Some(convert::container_to_wire(container.clone()));
            assert_eq!(written, containers::ListContainerMessage { container }.encode_to_vec());
        }
    }

    #[test]
    fn a_length_that_was_guessed_badly_is_put_right() {
        for guess in [0, 127, 128, 20_000] {
            for length in [0, 1, 127, 128, 129, 16_383, 16_384] {
                let mut written = vec![9];
                message_of(guess, 3, &mut written, |out| out.extend(vec![7; length]));
                let mut expected = vec![9];
                bytes(3, &vec![7; length], &mut expected);
                assert_eq!(written, expected, "{length} for {guess}");
            }
        }
    }

    #[test]
    fn images_are_written_as_prost_writes_them() {
        let mut target = types::oci::Descriptor::new("m".to_owned(), Digest::of(b"x"), 7);
        target.annotations = labels();
        let (created_at, updated_at) = (SystemTime::now(), SystemTime::UNIX_EPOCH);
        let image = Image { name: "n".repeat(130), labels: labels(), target, created_at, updated_at };
        let seen = ImageView {
            name: &image.name,
            labels: views(&image.labels),
            media_type: &image.target.media_type,
            digest: image.target.digest.as_str(),
            size: image.target.size,
            annotations: views(&image.target.annotations),
            created_at,
            updated_at,
        };
        let mut written = Vec::new();
        listed_image(&seen, &mut written);
        listed_image(&seen, &mut written);
        let image = convert::image_to_wire(image.clone());
        assert_eq!(
            written,
            images::ListImagesResponse { images: vec![image.clone(), image] }.encode_to_vec()
        );
    }

    #[test]
    fn snapshots_are_written_as_prost_writes_them() {
        let (mut written, mut info) = (Vec::new(), Vec::new());
        for kind in [Kind::View, Kind::Active, Kind::Committed] {
            let (created_at, updated_at) = (SystemTime::UNIX_EPOCH, SystemTime::now());
            let (name, parent) = ("n".to_owned(), "p".to_owned());
            let snapshot = Info { kind, name, parent, labels: labels(), created_at, updated_at };
            listed_snapshot(&snapshot, &mut written);
            info.push(convert::snapshot_to_wire(snapshot));
        }
        assert_eq!(written, snapshots::ListSnapshotsResponse { info }.encode_to_vec());
    }
}
