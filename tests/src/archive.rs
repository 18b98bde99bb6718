//! Images made on the spot: OCI layouts and docker-save archives around one busybox.

use std::io::Write;
use std::sync::OnceLock;

use registry::fake::Fake;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::binaries;
use crate::tar::{self, Entry, Kind};

/// The image that most tests run.
pub const IMAGE: &str = "docker.io/library/blackbox:latest";

/// How a layer is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// `application/vnd.oci.image.layer.v1.tar`
    Plain,
    /// `...tar+gzip`
    Gzip,
    /// `...tar+zstd`
    Zstd,
}

/// An image in the making: layers and a config, bottom layer first.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    layers: Vec<(Vec<u8>, Packing)>,
    config: Value,
    annotations: Value,
}

impl Image {
    /// No layers; runs `sh` at `/`.
    pub fn named(name: impl Into<String>) -> Self {
        let config = json!({
            "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "FLAVOUR=vanilla"],
            "Cmd": ["sh"],
            "WorkingDir": "/",
        });
        Self { name: name.into(), layers: Vec::new(), config, annotations: json!({}) }
    }

    /// The suite's three-layer image: busybox and users; a change, a whiteout and an opaque directory; a data file.
    pub fn standard() -> Self {
        Self::named(IMAGE)
            .layer(&base_layer(), Packing::Gzip)
            .layer(
                &[
                    Entry::file("etc/greeting", "from the second layer\n"),
                    Entry::file("etc/.wh.removed", ""),
                    Entry::dir("opaque"),
                    Entry::file("opaque/.wh..wh..opq", ""),
                    Entry::file("opaque/new", "new\n"),
                ],
                Packing::Gzip,
            )
            .layer(&[Entry::dir("data"), Entry::file("data/payload", vec![7; 65_536])], Packing::Gzip)
    }

    /// Adds a layer of `entries` on top.
    #[must_use]
    pub fn layer(self, entries: &[Entry], packing: Packing) -> Self {
        self.raw_layer(tar::archive(entries), packing)
    }

    /// Adds a layer of these bytes, whatever they are, on top.
    #[must_use]
    pub fn raw_layer(mut self, bytes: Vec<u8>, packing: Packing) -> Self {
        self.layers.push((bytes, packing));
        self
    }

    /// Sets a key of the image config's `config` object.
    #[must_use]
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    /// Sets an annotation of the manifest.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations[key] = value.into();
        self
    }

    /// The entries of the image as an OCI layout; tests damage them before they make the archive.
    pub fn oci_entries(&self) -> Vec<Entry> {
        let mut entries = vec![
            Entry::file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
            Entry::dir("blobs"),
            Entry::dir("blobs/sha256"),
        ];
        let mut add = |media: &str, bytes: Vec<u8>| {
            let descriptor =
                json!({"mediaType": media, "digest": format!("sha256:{}", hex(&bytes)), "size": bytes.len()});
            entries.push(Entry::file(format!("blobs/sha256/{}", hex(&bytes)), bytes));
            descriptor
        };
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|(bytes, packing)| add(media_type(*packing), pack(bytes, *packing)))
            .collect();
        let config = add("application/vnd.oci.image.config.v1+json", self.config_bytes());
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
        });
        if self.annotations != json!({}) {
            manifest["annotations"] = self.annotations.clone();
        }
        let mut manifest =
            add("application/vnd.oci.image.manifest.v1+json", manifest.to_string().into_bytes());
        manifest["annotations"] = json!({"io.containerd.image.name": self.name});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        entries.push(Entry::file("index.json", index.to_string()));
        entries
    }

    /// The image as an OCI layout in an archive.
    pub fn oci(&self) -> Vec<u8> {
        tar::archive(&self.oci_entries())
    }

    /// Puts the image into a registry; gives its reference there.
    ///
    /// # Panics
    /// If what was made here is no image.
    pub fn publish(&self, registry: &Fake, repository: &str, tag: &str) -> String {
        for entry in self.oci_entries() {
            let Kind::File(bytes) = entry.kind else { continue };
            if entry.name.starts_with("blobs/") {
                put(registry, (repository, tag), bytes);
            }
        }
        registry.reference(repository, tag)
    }

    /// The image as `docker save` writes it: plain layers, `manifest.json`.
    pub fn docker(&self) -> Vec<u8> {
        let config = self.config_bytes();
        let config_name = format!("{}.json", hex(&config));
        let mut entries = vec![Entry::file(&config_name, config)];
        let mut names = Vec::new();
        for (bytes, _) in &self.layers {
            let dir = hex(bytes);
            names.push(format!("{}/layer.tar", &dir[..32]));
            entries.push(Entry::dir(&dir[..32]));
            entries.push(Entry::file(format!("{}/layer.tar", &dir[..32]), bytes.clone()));
        }
        let manifest = json!([{"Config": config_name, "RepoTags": [self.name], "Layers": names}]);
        entries.push(Entry::file("manifest.json", manifest.to_string()));
        tar::archive(&entries)
    }

    /// The digests of the layers' plain bytes, bottom first.
    pub fn diff_ids(&self) -> Vec<String> {
        self.layers.iter().map(|(bytes, _)| format!("sha256:{}", hex(bytes))).collect()
    }

    /// The name of the snapshot of the whole image, as the image specification computes it.
    pub fn chain_id(&self) -> String {
        self.diff_ids()
            .into_iter()
            .reduce(|below, diff| format!("sha256:{}", hex(format!("{below} {diff}").as_bytes())))
            .unwrap_or_default()
    }

    fn config_bytes(&self) -> Vec<u8> {
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids()},
        })
        .to_string()
        .into_bytes()
    }
}

/// Busybox with a link for each of its commands that tests use, users and groups, and things for other layers to
/// remove.
pub fn base_layer() -> Vec<Entry> {
    let mut entries = vec![
        Entry::dir("bin"),
        Entry::file("bin/busybox", busybox().to_vec()).mode(0o755),
        Entry::dir("etc"),
        Entry::file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"),
        Entry::file("etc/group", "root:x:0:\nalice:x:1000:\nstaff:x:50:alice\n"),
        Entry::file("etc/greeting", "from the first layer\n"),
        Entry::file("etc/removed", "gone\n"),
        Entry::dir("opaque"),
        Entry::file("opaque/old", "old\n"),
        Entry::dir("home"),
        Entry::dir("home/alice").owner(1000, 1000),
        Entry::dir("root").mode(0o700),
        Entry::dir("tmp").mode(0o1777),
    ];
    for dir in ["dev", "proc", "sys", "run", "usr", "var"] {
        entries.push(Entry::dir(dir));
    }
    for applet in
        "cat cp date grep dd df echo env false head hostname id kill ls mkdir mount nproc ps pwd rm seq sh sleep sort stat \
         stty tail test touch true tty umask uname wc yes"
            .split_whitespace()
    {
        entries.push(Entry::symlink(format!("bin/{applet}"), "busybox"));
    }
    entries
}

/// Puts one blob of an image into a registry; its manifest gets the tag.
pub fn put(registry: &Fake, (repository, tag): (&str, &str), bytes: Vec<u8>) {
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if document["mediaType"] == MANIFEST {
        registry.add_manifest(repository, Some(tag), MANIFEST, bytes);
    } else {
        registry.add_blob(repository, bytes);
    }
}

/// Gzip of `bytes`.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}

/// The hexadecimal SHA-256 of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pack(bytes: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => bytes.to_vec(),
        Packing::Gzip => gzip(bytes),
        Packing::Zstd => zstd::encode_all(bytes, 1).expect("writing to memory"),
    }
}

fn media_type(packing: Packing) -> &'static str {
    match packing {
        Packing::Plain => "application/vnd.oci.image.layer.v1.tar",
        Packing::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Packing::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
    }
}

fn busybox() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let path = binaries::busybox();
        std::fs::read(&path)
            .unwrap_or_else(|error| panic!("a static busybox is needed; {}: {error}", path.display()))
    })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
