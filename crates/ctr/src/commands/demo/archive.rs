//! The demo's image: an OCI layout archive made of Debian's `busybox-static`, nothing fetched.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tar_core::EntryType;
use tar_core::builder::EntryBuilder;
use types::Digest;

/// The name the image is imported under.
pub const NAME: &str = "docker.io/library/busybox:demo";

/// Where a static busybox may be, besides the directories given.
const PLACES: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

/// A busybox that runs in an empty root filesystem.
pub fn find_busybox(peers: Option<&Path>) -> Result<PathBuf> {
    let cached = peers.map(|dir| dir.join("bin/busybox"));
    cached
        .into_iter()
        .chain(PLACES.iter().map(PathBuf::from))
        .find(|path| std::fs::read(path).is_ok_and(|elf| is_static(&elf)))
        .context("no static busybox found: apt-get install busybox-static")
}

/// Writes the archive and answers with the digest of the image's manifest.
pub fn write(busybox: &Path, to: &Path) -> Result<Digest> {
    let layer = layer(&std::fs::read(busybox)?)?;
    let diff_id = Digest::of(&layer);
    let platform = types::platform::Platform::host();
    let config = serde_json::to_vec(&json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": { "Env": ["PATH=/bin"], "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    }))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": types::oci::image::media::OCI_MANIFEST,
        "config": descriptor(types::oci::image::media::OCI_CONFIG, &config),
        "layers": [descriptor(types::oci::image::media::OCI_LAYER, &layer)],
    }))?;
    let mut named = descriptor(types::oci::image::media::OCI_MANIFEST, &manifest);
    named["annotations"] = json!({ "io.containerd.image.name": NAME });
    let index = serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [named] }))?;

    let mut tar = Tar(Vec::new());
    tar.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.file("index.json", 0o644, &index)?;
    for blob in [&layer, &config, &manifest] {
        tar.file(&format!("blobs/sha256/{}", Digest::of(blob).hex()), 0o644, blob)?;
    }
    std::fs::File::create(to)?.write_all(&tar.finish()).with_context(|| format!("write {}", to.display()))?;
    Ok(Digest::of(&manifest))
}

fn descriptor(media_type: &str, bytes: &[u8]) -> serde_json::Value {
    json!({ "mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len() })
}

fn layer(busybox: &[u8]) -> Result<Vec<u8>> {
    let mut tar = Tar(Vec::new());
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp", "out"] {
        tar.entry(dir, EntryType::Directory, 0o755, Body::None)?;
    }
    tar.file("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n")?;
    tar.file("etc/group", 0o644, b"root:x:0:\n")?;
    tar.file("bin/busybox", 0o755, busybox)?;
    for applet in ["sh", "true", "cat", "echo", "hostname", "id", "ls", "sleep", "usleep", "ps"] {
        tar.entry(&format!("bin/{applet}"), EntryType::Link, 0o755, Body::LinkTo("bin/busybox"))?;
    }
    Ok(tar.finish())
}

struct Tar(Vec<u8>);

/// What follows an entry's header, or stands in it.
enum Body<'a> {
    None,
    LinkTo(&'a str),
    Bytes(&'a [u8]),
}

impl Tar {
    fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        self.entry(path, EntryType::Regular, mode, Body::Bytes(bytes))
    }

    fn entry(&mut self, path: &str, kind: EntryType, mode: u32, body: Body<'_>) -> Result<()> {
        let mut entry = EntryBuilder::new_ustar();
        let bytes = match body {
            Body::Bytes(bytes) => bytes,
            Body::None | Body::LinkTo(_) => &[],
        };
        entry.path(path).entry_type(kind).mode(mode)?.uid(0)?.gid(0)?.mtime(0)?.size(bytes.len() as u64)?;
        if let Body::LinkTo(target) = body {
            entry.link_name(target);
        }
        self.0.extend_from_slice(&entry.finish_bytes());
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        Ok(())
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// Whether a 64-bit ELF file asks for no program interpreter (elf(5), PT_INTERP).
fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    program_header_types(elf).is_ok_and(|types| !types.contains(&PT_INTERP))
}

fn program_header_types(elf: &[u8]) -> Result<Vec<u32>> {
    let number = |at: usize, len: usize| -> Result<usize> {
        let bytes = elf.get(at..at + len).context("file ends early")?;
        Ok(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    };
    if elf.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("not a 64-bit little-endian ELF file");
    }
    let (offset, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    (0..count).map(|i| Ok(u32::try_from(number(offset + i * size, 4)?)?)).collect()
}
