//! Layers with everything in them, and layers that no tool writes.

use types::Digest;
use types::oci::image::media;

use crate::archive::{Archive, Header, gzip};

pub fn base() -> Vec<u8> {
    let long = "long/".to_owned() + &"n".repeat(150) + "/" + &"m".repeat(120);
    let sparse = b"2\n4096\n3\n1048573\n3\n";
    let mut body = sparse.to_vec();
    body.resize(512, 0);
    body.extend(b"abcend");
    Archive::default()
        .entry(Header::new(b'5', "./").mode(0o700).owner(9, 9), b"")
        .entry(Header::new(b'5', "etc/").mode(0o750).owner(7, 8).mtime(1_234), b"")
        .file("etc/a", "a")
        .file("etc/b", "b")
        .entry(Header::new(b'0', "etc/su").mode(0o6755).owner(1000, 1001).size(2), b"su")
        .entry(Header::new(b'5', "tmp").mode(0o1777), b"")
        .file("implied/by/name", "x")
        .entry(Header::new(b'3', "dev/null").mode(0o666).device(1, 3), b"")
        .entry(Header::new(b'4', "dev/disk").mode(0o660).owner(0, 6).device(259, 70_000), b"")
        .entry(Header::new(b'6', "dev/pipe").mode(0o620), b"")
        .dir("usr")
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .file("lib/through", "link")
        .symlink("absolute", "/etc/passwd")
        .hardlink("hard", "etc/a")
        .hardlink("lib/hard2", "/etc/a")
        .hardlink("linkhard", "absolute")
        .pax(&[("mtime", b"1350244992.023960108"), ("SCHILY.xattr.user.one", b"1\0\xff")])
        .file("xattr", "x")
        .pax(&[("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0")])
        .file("caps", "c")
        .pax(&[("SCHILY.xattr.trusted.forged", b"x"), ("path", "ünïcode/näme".as_bytes())])
        .file("ignored", "x")
        .long(b'L', &long)
        .file("short", "long name")
        .long(b'K', &"t".repeat(300))
        .entry(Header::new(b'2', "longlink").gnu().link("t"), b"")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.realsize", b"1048576"),
        ])
        .entry(Header::new(b'0', "GNUSparseFile.0/sparse").size(body.len() as u64), &body)
        .pax(&[("uid", b"2000000"), ("gid", b"3000000"), ("mtime", b"-5")])
        .file("bigid", "x")
        .entry(Header::new(b'0', "base256").gnu().raw(108, b"\x80\0\0\0\0\x2d\xc6\xc0").size(1), b"x")
        .dir("opaque")
        .file("opaque/old", "x")
        .dir("opaque/sub")
        .file("opaque/sub/old", "x")
        .dir("gone")
        .file("gone/deep", "x")
        .dir("typed")
        .file("typed/x", "x")
        .file("becomes", "a directory")
        .end()
}

pub fn second() -> Vec<u8> {
    Archive::default()
        .file("etc/.wh.a", "")
        .file("etc/c", "c")
        .entry(Header::new(b'5', "opaque").mode(0o711).mtime(77), b"")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "n")
        .file("opaque/sub/new", "n")
        .file(".wh.gone", "")
        .file("typed", "now a file")
        .dir("becomes")
        .file("becomes/inner", "x")
        .entry(Header::new(b'0', "etc/su").mode(0o755).size(3), b"new")
        .file("deep/implied/only/here", "x")
        .file(".wh.never-was", "")
        .symlink("xattr", "etc/b")
        .end()
}

pub fn third() -> Vec<u8> {
    Archive::default()
        .file("etc/a", "again")
        .hardlink("etc/a2", "etc/a")
        .file("gone", "a file now")
        .file("opaque/sub/.wh.new", "")
        .entry(Header::new(b'5', "tmp").mode(0o777).owner(1, 1), b"")
        .file("usr/lib/more", "m")
        .file(".wh.typed", "")
        .file("etc/../usr/./lib//x", "cleaned")
        .end()
}

/// Layers that no tool writes, on top of [`odd_base`].
pub fn odd_layers() -> Vec<(String, Archive)> {
    let new = Archive::default;
    let mut all: Vec<(String, Archive)> = Vec::new();
    let whiteouts = [
        ".wh.g",
        ".wh..g",
        ".wh.d",
        "d/.wh.a",
        "d/.wh.b",
        "d/b/.wh.c",
        ".wh.",
        ".wh..",
        ".wh...",
        ".wh....",
        ".wh./",
        ".wh.d/",
        "d/.wh.",
        "d/.wh..",
        "d/.wh...",
        ".wh..wh..opq",
        "d/.wh..wh..opq",
        "d/b/.wh..wh..opq",
        ".wh..wh.x",
        ".wh..wh.",
        ".wh.x/y",
        "d/../.wh.g",
        "./.wh.g",
        "//.wh.g",
        "/.wh.g",
        ".wh.lib",
        "lib/.wh.so",
        "up/.wh.g",
        "out/.wh.x",
        "g/.wh.x",
        "missing/.wh.x",
        "d/.wh.../x",
        ".wh../x",
        "d/.wh.b/x",
        ".wh.wh.",
        "..wh.g",
        "wh.g",
        ".wh",
        ".wh.\u{e4}",
        ".wh. ",
    ];
    for name in whiteouts {
        for flag in [b'0', b'5', b'2'] {
            let header = Header::new(flag, name).link(if flag == b'2' { "g" } else { "" });
            all.push((format!("{name} as {}", flag as char), new().entry(header, b"")));
        }
        all.push((
            format!("{name} after an entry"),
            new().file("g", "new").dir("d").file("d/n", "n").file(name, ""),
        ));
        all.push((
            format!("{name} before an entry"),
            new().file(name, "").file("g", "new").dir("d").file("d/n", "n"),
        ));
    }
    for (what, layer) in [
        ("through a link below", new().file("lib/new", "n").file("usr/lib/two", "2")),
        ("onto a link below", new().file("lib", "now a file")),
        ("a directory onto a link below", new().dir("lib").file("lib/x", "x")),
        ("out of the root by a link", new().symlink("o", "/../../../..").file("o/x", "x")),
        ("a dangling link as parent", new().symlink("o", "no/where").file("o/x", "x")),
        ("a loop of links", new().symlink("o", "p").symlink("p", "o").file("o/x", "x")),
        ("a hard link to a file below", new().hardlink("h", "g")),
        ("a hard link through a link below", new().hardlink("h", "lib/so")),
        ("a hard link to a link below", new().hardlink("h", "lib")),
        ("a hard link to a directory", new().hardlink("h", "d")),
        ("a hard link to itself", new().file("s", "x").hardlink("s", "s")),
        ("a hard link to a later file", new().hardlink("h", "later").file("later", "x")),
        ("a hard link out", new().hardlink("h", "../../g")),
        ("a hard link to the root", new().hardlink("h", "/")),
        ("the root as a link", new().symlink("./", "/etc").file("x", "x")),
        ("the root as a file", new().file("/", "x")),
        ("a file as parent", new().file("g/x", "x")),
        ("a file then its child", new().file("p", "x").file("p/q", "y")),
        ("a directory onto a file below", new().dir("g").file("g/x", "x")),
        ("a file onto a directory below", new().file("d", "x")),
        ("a file onto a directory and back", new().file("d", "x").dir("d").file("d/x", "x")),
        ("the same twice", new().file("t", "1").file("t", "2").dir("t").symlink("t", "g")),
        ("a device onto a directory", new().entry(Header::new(b'3', "d").device(1, 3), b"")),
        // Not here: device 0:0, which overlayfs itself takes for a whiteout, ours and upstream's alike.
        ("a fifo as parent", new().entry(Header::new(b'6', "f"), b"").file("f/x", "x")),
        ("up and down", new().file("d/../../x", "x")),
        ("an empty name", new().file("", "x").file("x", "y")),
    ] {
        all.push((what.to_owned(), layer));
    }
    all
}

pub fn odd_base() -> Vec<u8> {
    let base = Archive::default()
        .dir("d")
        .file("d/a", "a")
        .dir("d/b")
        .file("d/b/c", "c")
        .file("g", "g")
        .file(".g", "g");
    base.dir("usr")
        .dir("usr/lib")
        .file("usr/lib/so", "so")
        .symlink("lib", "usr/lib")
        .symlink("up", "..")
        .end()
}

/// An OCI layout of an image with these layers.
pub fn image(layers: &[Vec<u8>]) -> Vec<u8> {
    let json = |digest: &Digest, size: usize, media_type: &str| {
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
    };
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("\"{}\"", Digest::of(layer))).collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    );
    let packed: Vec<Vec<u8>> = layers.iter().map(|layer| gzip(layer)).collect();
    let blobs: Vec<String> =
        packed.iter().map(|blob| json(&Digest::of(blob), blob.len(), media::OCI_LAYER_GZIP)).collect();
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]}}"#,
        media::OCI_MANIFEST,
        json(&Digest::of(config.as_bytes()), config.len(), media::OCI_CONFIG),
        blobs.join(",")
    );
    let (digest, size) = (Digest::of(manifest.as_bytes()), manifest.len());
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{digest}","size":{size},"annotations":{{"org.opencontainers.image.ref.name":"example.com/x:1"}}}}]}}"#,
        media::OCI_MANIFEST
    );
    let mut all =
        Archive::default().file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#).file("index.json", index);
    for blob in packed.iter().map(Vec::as_slice).chain([config.as_bytes(), manifest.as_bytes()]) {
        all = all.file(&format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
    }
    all.end()
}
