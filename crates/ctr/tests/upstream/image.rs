//! An image of one layer around the machine's static busybox, as an OCI layout in an archive.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:web:/:/bin/sh\nonly:x:33:33::/:/bin/false\n";
pub const GROUP: &str = "root:x:0:\nweb:x:1001:web\nwheel:x:10:root,web\nvideo:x:44:web\n";

pub struct Image;

impl Image {
    /// The archive of `docker.io/library/<name>:latest` with this `config` object.
    pub fn archive(name: &str, config: &Value) -> Vec<u8> {
        let layer = layer();
        let mut archive = Tar::default();
        let mut blob = |media: &str, bytes: &[u8]| {
            let hex = hex(bytes);
            archive.file(&format!("blobs/sha256/{hex}"), bytes, 0o644);
            json!({"mediaType": media, "digest": format!("sha256:{hex}"), "size": bytes.len()})
        };
        let diff_id = format!("sha256:{}", hex(&layer));
        let layer = blob("application/vnd.oci.image.layer.v1.tar", &layer);
        let config = json!({"architecture": "amd64", "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
        let config = blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let media = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": media, "config": config, "layers": [layer]});
        let mut manifest = blob(media, manifest.to_string().as_bytes());
        manifest["annotations"] =
            json!({"io.containerd.image.name": format!("docker.io/library/{name}:latest")});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        archive.file("index.json", index.to_string().as_bytes(), 0o644);
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644);
        archive.finish()
    }
}

fn layer() -> Vec<u8> {
    let mut tar = Tar::default();
    for directory in ["bin", "etc", "data", "tmp"] {
        tar.entry(&format!("{directory}/"), &Kind::Directory, 0o755);
    }
    tar.file("bin/busybox", &std::fs::read("/bin/busybox").unwrap(), 0o755);
    for applet in ["sh", "sleep", "echo", "true", "id"] {
        tar.entry(&format!("bin/{applet}"), &Kind::Link("busybox"), 0o777);
    }
    tar.file("etc/passwd", PASSWD.as_bytes(), 0o644);
    tar.file("etc/group", GROUP.as_bytes(), 0o644);
    tar.finish()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

enum Kind<'a> {
    Directory,
    File(&'a [u8]),
    Link(&'a str),
}

/// A ustar archive in the making.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn file(&mut self, name: &str, bytes: &[u8], mode: u32) {
        self.entry(name, &Kind::File(bytes), mode);
    }

    fn entry(&mut self, name: &str, kind: &Kind<'_>, mode: u32) {
        let (flag, link, bytes) = match kind {
            Kind::Directory => (b'5', "", &[][..]),
            Kind::File(bytes) => (b'0', "", *bytes),
            Kind::Link(target) => (b'2', *target, &[][..]),
        };
        let mut header = [0; 512];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", bytes.len()));
        put(136, "00000000000");
        put(148, "        ");
        put(157, link);
        put(257, "ustar\x0000");
        header[156] = flag;
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(header);
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}
