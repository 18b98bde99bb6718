//! How a layer or archive is compressed, and reading it uncompressed with bounded memory.
//!
//! What the first bytes say counts, as upstream: many layers wear the wrong media type. Nothing is executed to inflate
//! (upstream runs `igzip` or `unpigz` where it finds them), so no binary of an image can be (SEC-069).

use std::io::{self, BufRead, BufReader, Read};

use types::{Error, Result};

const GZIP: [u8; 3] = [0x1f, 0x8b, 0x08];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Zstandard's skippable frames: the low four bits are free.
const SKIPPABLE: u32 = 0x184d_2a50;

/// The largest window that a zstd frame may ask for, as a power of two: 128 MiB, what `zstd --long` writes.
const WINDOW_LOG: u32 = 27;

/// Read from the compressed file at a time.
const INPUT: usize = 128 << 10;

/// A compression that can be undone here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// None at all.
    Plain,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878, any number of frames.
    Zstd,
}

/// Whether the media type of a layer lets its content be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// A plain tar, whatever its first bytes look like.
    Never,
    /// The first bytes decide.
    Detect,
}

impl Compression {
    /// What the first bytes say; ten are enough.
    pub fn detect(head: &[u8]) -> Self {
        if head.starts_with(&GZIP) {
            return Self::Gzip;
        }
        if head.starts_with(&ZSTD) {
            return Self::Zstd;
        }
        match head.first_chunk::<4>() {
            Some(magic) if head.len() >= 8 && u32::from_le_bytes(*magic) & 0xffff_fff0 == SKIPPABLE => {
                Self::Zstd
            }
            _ => Self::Plain,
        }
    }
}

/// How to read a layer of this media type; `Unimplemented` if it is not a layer that we know.
pub fn of_media_type(media_type: &str) -> Result<Wrapping> {
    const DOCKER: [&str; 5] = [
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    ];
    const OCI: [&str; 2] =
        ["application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.nondistributable.v1.tar"];
    let (base, suffix) = media_type.split_once('+').map_or((media_type, None), |(b, s)| (b, Some(s)));
    match suffix {
        // Docker's types are often wrong about compression.
        None if DOCKER.contains(&base) => Ok(Wrapping::Detect),
        None if OCI.contains(&base) => Ok(Wrapping::Never),
        Some("gzip" | "zstd") if OCI.contains(&base) => Ok(Wrapping::Detect),
        _ => {
            Err(Error::unimplemented(format!("no stream processor for layers of media type {media_type:?}")))
        }
    }
}

/// A reader of the uncompressed bytes.
pub struct Decoder<R: BufRead>(Inner<R>);

enum Inner<R: BufRead> {
    Plain(Head<R>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Head<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Head<R>>>),
}

type Head<R> = io::Chain<io::Cursor<Vec<u8>>, R>;

impl<R: Read> Decoder<BufReader<R>> {
    /// Looks at the first bytes of `source`.
    pub fn new(source: R, wrapping: Wrapping) -> io::Result<Self> {
        Self::buffered(BufReader::with_capacity(INPUT, source), wrapping)
    }
}

impl<R: BufRead> Decoder<R> {
    /// As [`Decoder::new`] for a source that has its bytes in memory: they are not copied once more.
    pub fn buffered(source: R, wrapping: Wrapping) -> io::Result<Self> {
        let (head, source) = peek(source)?;
        let compression = match wrapping {
            Wrapping::Never => Compression::Plain,
            Wrapping::Detect => Compression::detect(&head),
        };
        Ok(Self(match compression {
            Compression::Plain => Inner::Plain(source),
            Compression::Gzip => Inner::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(source))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
                decoder.window_log_max(WINDOW_LOG)?;
                Inner::Zstd(Box::new(decoder))
            }
        }))
    }

    /// What the first bytes said.
    pub fn compression(&self) -> Compression {
        match self.0 {
            Inner::Plain(_) => Compression::Plain,
            Inner::Gzip(_) => Compression::Gzip,
            Inner::Zstd(_) => Compression::Zstd,
        }
    }
}

/// The first bytes, and a reader that starts with them. A short first read would hide a magic number.
fn peek<R: BufRead>(mut source: R) -> io::Result<(Vec<u8>, Head<R>)> {
    let mut head = Vec::with_capacity(10);
    source.by_ref().take(10).read_to_end(&mut head)?;
    let whole = io::Cursor::new(head.clone()).chain(source);
    Ok((head, whole))
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(source) => source.read(buf),
            Inner::Gzip(decoder) => decoder.read(buf),
            Inner::Zstd(decoder) => decoder.read(buf),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn inflate(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        Decoder::new(bytes, Wrapping::Detect)?.read_to_end(&mut all)?;
        Ok(all)
    }

    #[test]
    fn all_members_and_frames_are_read() {
        let members = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
        assert_eq!(inflate(&members).unwrap(), b"one two");
        let frames =
            [zstd::encode_all(&b"one "[..], 1).unwrap(), zstd::encode_all(&b"two"[..], 1).unwrap()].concat();
        assert_eq!(inflate(&frames).unwrap(), b"one two");
        let skippable = [&[0x51, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9][..], &frames].concat();
        assert_eq!(inflate(&skippable).unwrap(), b"one two");
    }

    #[test]
    fn what_is_not_compressed_stays_as_it_is() {
        for bytes in [&b""[..], b"x", b"\x1f\x8b", b"plain text that is longer than the head"] {
            assert_eq!(inflate(bytes).unwrap(), bytes);
        }
        let mut all = Vec::new();
        Decoder::new(&gzip(b"x")[..], Wrapping::Never).unwrap().read_to_end(&mut all).unwrap();
        assert_eq!(all, gzip(b"x"));
    }

    #[test]
    fn a_cut_or_damaged_stream_is_an_error() {
        let mut packed = gzip(&[7; 100_000]);
        assert!(inflate(&packed[..packed.len() - 9]).is_err());
        let last = packed.len() - 6;
        packed[last] ^= 1;
        assert!(inflate(&packed).is_err());
        let packed = zstd::encode_all(&[7; 100_000][..], 1).unwrap();
        assert!(inflate(&packed[..packed.len() - 3]).is_err());
        assert!(inflate(&[&gzip(b"x")[..], b"garbage that follows"].concat()).is_err());
    }

    #[test]
    fn a_window_beyond_the_limit_is_refused() {
        // A frame header with window descriptor 0xa8: 2^31 bytes.
        assert!(inflate(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00]).is_err());
    }

    #[test]
    fn media_types_say_whether_to_look() {
        use types::oci::image::media;
        for (media_type, wanted) in [
            (media::OCI_LAYER, Wrapping::Never),
            (media::OCI_LAYER_GZIP, Wrapping::Detect),
            (media::OCI_LAYER_ZSTD, Wrapping::Detect),
            (media::DOCKER_LAYER, Wrapping::Detect),
            (media::DOCKER_LAYER_GZIP, Wrapping::Detect),
        ] {
            assert_eq!(of_media_type(media_type).unwrap(), wanted);
        }
        for media_type in ["", "text/plain", "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"] {
            assert_eq!(of_media_type(media_type).unwrap_err().class(), types::Class::Unimplemented);
        }
    }
}
