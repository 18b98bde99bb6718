//! Tar archives made in code, sound and forged ones.
#![allow(dead_code, reason = "each test binary uses another part")]

use std::sync::Arc;

use content::local::LocalStore;
use content::{Store, WriterOptions};
use types::Digest;
use types::oci::Descriptor;

/// One header block before its checksum.
#[derive(Clone)]
pub struct Header(pub [u8; 512]);

impl Header {
    pub fn new(flag: u8, name: &str) -> Self {
        let mut header = Self([0; 512]);
        header.0[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
        header.0[257..265].copy_from_slice(b"ustar\x0000");
        header.0[156] = flag;
        header.mode(if flag == b'5' { 0o755 } else { 0o644 }).owner(0, 0).size(0).mtime(1_000_000_000)
    }

    fn octal(mut self, at: usize, width: usize, value: u64) -> Self {
        let text = format!("{value:0w$o}\0", w = width - 1);
        self.0[at..at + width].copy_from_slice(text.as_bytes());
        self
    }

    pub fn mode(self, mode: u32) -> Self {
        self.octal(100, 8, mode.into())
    }

    pub fn owner(self, uid: u32, gid: u32) -> Self {
        self.octal(108, 8, uid.into()).octal(116, 8, gid.into())
    }

    pub fn size(self, size: u64) -> Self {
        self.octal(124, 12, size)
    }

    pub fn mtime(self, mtime: u64) -> Self {
        self.octal(136, 12, mtime)
    }

    pub fn device(self, major: u32, minor: u32) -> Self {
        self.octal(329, 8, major.into()).octal(337, 8, minor.into())
    }

    pub fn link(mut self, target: &str) -> Self {
        self.0[157..157 + target.len()].copy_from_slice(target.as_bytes());
        self
    }

    pub fn gnu(mut self) -> Self {
        self.0[257..265].copy_from_slice(b"ustar  \0");
        self.0[345..].fill(0);
        self
    }

    /// Any bytes anywhere.
    pub fn raw(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub fn sealed(mut self) -> [u8; 512] {
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|b| u32::from(*b)).sum();
        let text = format!("{sum:06o}\0 ");
        self.0[148..156].copy_from_slice(text.as_bytes());
        self.0
    }
}

/// An archive that grows.
#[derive(Clone, Default)]
pub struct Archive(pub Vec<u8>);

impl Archive {
    /// A header with a body behind it, padded to a block.
    pub fn entry(mut self, header: Header, body: &[u8]) -> Self {
        self.0.extend(header.sealed());
        self.0.extend(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        self.entry(Header::new(b'0', name).size(body.len() as u64), body)
    }

    pub fn dir(self, name: &str) -> Self {
        self.entry(Header::new(b'5', name), b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(Header::new(b'2', name).mode(0o777).link(target), b"")
    }

    pub fn hardlink(self, name: &str, target: &str) -> Self {
        self.entry(Header::new(b'1', name).link(target), b"")
    }

    /// A PAX header for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            body.extend(record(key, value));
        }
        self.entry(Header::new(b'x', "PaxHeaders/x").size(body.len() as u64), &body)
    }

    /// A GNU long name (`L`) or link (`K`) for the next entry.
    pub fn long(self, flag: u8, text: &str) -> Self {
        let body = [text.as_bytes(), b"\0"].concat();
        self.entry(Header::new(flag, "././@LongLink").gnu().size(body.len() as u64), &body)
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// One PAX record with its length in front.
pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = 1 + key.len() + 1 + value.len() + 1;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Puts a layer into a store.
pub async fn store_layer(store: &Arc<LocalStore>, media_type: &str, bytes: &[u8]) -> Descriptor {
    let digest = Digest::of(bytes);
    let reference = format!("layer-{digest}");
    match store.writer(WriterOptions { reference, total: 0, expected: Some(digest.clone()) }).await {
        Ok(mut writer) => {
            writer.write(bytes.to_vec().into()).await.unwrap();
            writer.commit(bytes.len() as u64, Some(digest.clone()), types::Labels::new()).await.unwrap();
        }
        Err(error) => assert!(error.is_already_exists(), "{error}"),
    }
    Descriptor::new(media_type, digest, bytes.len() as u64)
}
