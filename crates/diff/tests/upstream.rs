//! The same three layers unpacked by upstream's containerd and by us are the same tree, entry by entry.
//!
//! `CONTAINERD_UPSTREAM_BIN` names the directory of upstream's `containerd` and `ctr` (2.3.4); without it, and without
//! root, nothing is compared and the test says so.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test ends where it fails")]

mod archive;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use archive::{Archive, Header, gzip, store_layer};
use content::local::LocalStore;
use diff::{Applier as _, ApplyOptions, WalkingApplier};
use sys::mount::TempMount;
use types::mount::Mount;
use types::oci::image::{chain_id, media};
use types::{Digest, Result};

/// Everything that can be said of one path.
#[derive(Debug, PartialEq)]
struct Facts {
    mode: u32,
    owner: (u32, u32),
    size: u64,
    /// None for a directory that no layer gave a time.
    mtime: Option<(i64, i64)>,
    device: u64,
    link: Option<PathBuf>,
    xattrs: BTreeMap<String, Vec<u8>>,
    /// The first path that is the same file.
    same_as: PathBuf,
    content: Option<Digest>,
}

fn walk(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut all = BTreeMap::new();
    let mut inodes: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    let mut paths = Vec::new();
    while let Some(path) = todo.pop() {
        if std::fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{path:?}: {e}")).is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        paths.push(path);
    }
    paths.sort();
    for path in paths {
        let name = path.strip_prefix(root).unwrap().to_owned();
        // The root itself is made by the snapshotter.
        if !name.as_os_str().is_empty() {
            let facts = facts(&path, &name, &mut inodes);
            all.insert(name, facts);
        }
    }
    all
}

fn facts(path: &Path, name: &Path, inodes: &mut BTreeMap<u64, PathBuf>) -> Facts {
    let meta = std::fs::symlink_metadata(path).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let fresh = meta.is_dir() && (now - meta.mtime()).abs() < 3600;
    let mut xattrs = BTreeMap::new();
    if meta.is_file() || meta.is_dir() {
        let file = std::fs::File::open(path).unwrap();
        for key in sys::fs::list_xattrs(&file).unwrap() {
            let value = sys::fs::get_xattr(&file, &key).unwrap().unwrap_or_default();
            xattrs.insert(key.to_string_lossy().into_owned(), value);
        }
    }
    Facts {
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        size: if meta.is_dir() { 0 } else { meta.size() },
        mtime: (!fresh).then(|| (meta.mtime(), meta.mtime_nsec())),
        device: meta.rdev(),
        link: std::fs::read_link(path).ok(),
        xattrs,
        same_as: inodes.entry(meta.ino()).or_insert_with(|| name.to_owned()).clone(),
        content: meta.is_file().then(|| Digest::of(&std::fs::read(path).unwrap())),
    }
}

fn base() -> Vec<u8> {
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

fn second() -> Vec<u8> {
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

fn third() -> Vec<u8> {
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

/// An OCI layout of an image with these layers.
fn image(layers: &[Vec<u8>]) -> Vec<u8> {
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

/// Upstream's daemon with a root of its own.
struct Upstream {
    bin: PathBuf,
    dir: PathBuf,
    daemon: Child,
}

impl Upstream {
    fn start(bin: PathBuf, dir: &Path) -> Self {
        let config = format!(
            "version = 3\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \
             \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\"]\n[grpc]\naddress = {:?}\n[plugins.\"io.containerd.gc.v1.scheduler\"]\n\
             mutation_threshold = 0\ndeletion_threshold = 0\nschedule_delay = \"1h\"\nstartup_delay = \"1h\"\n",
            dir.join("root"),
            dir.join("state"),
            dir.join("sock")
        );
        std::fs::write(dir.join("config.toml"), config).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let daemon = Command::new(bin.join("containerd"))
            .arg("-c")
            .arg(dir.join("config.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let upstream = Self { bin, dir: dir.to_owned(), daemon };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !upstream.command(&["version"]).status.success() {
            assert!(Instant::now() < deadline, "{}", std::fs::read_to_string(dir.join("log")).unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
        upstream
    }

    fn command(&self, args: &[&str]) -> std::process::Output {
        Command::new(self.bin.join("ctr")).arg("-a").arg(self.dir.join("sock")).args(args).output().unwrap()
    }

    fn ctr(&self, args: &[&str]) -> String {
        let output = self.command(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "ctr {args:?}: {out} {err}");
        out.into_owned()
    }

    /// The tree that it makes of an image, or nothing if it refuses it.
    fn try_unpack(&self, archive: &Path, top: &Digest) -> Option<BTreeMap<PathBuf, Facts>> {
        let archive = archive.to_str().unwrap();
        let args = ["images", "import", "--local", "--snapshotter", "native", archive];
        let output = self.command(&args);
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(error.contains("failed to extract layer"), "{error}");
            return None;
        }
        let key = format!("seen-{}", top.hex());
        let mount =
            self.ctr(&["snapshots", "--snapshotter", "native", "view", "--mounts", &key, top.as_str()]);
        // One bind mount, as JSON.
        let (_, source) = mount.split_once("\"Source\": \"").unwrap();
        Some(walk(Path::new(source.split_once('"').unwrap().0)))
    }

    /// The tree that it makes of an image.
    fn unpack(&self, archive: &Path, snapshotter: &str, top: &Digest) -> BTreeMap<PathBuf, Facts> {
        self.ctr(&["images", "import", "--local", "--snapshotter", snapshotter, archive.to_str().unwrap()]);
        self.ctr(&["snapshots", "--snapshotter", snapshotter, "view", "seen", top.as_str()]);
        let target = self.dir.join(snapshotter);
        std::fs::create_dir(&target).unwrap();
        let mount = self.ctr(&[
            "snapshots",
            "--snapshotter",
            snapshotter,
            "mounts",
            target.to_str().unwrap(),
            "seen",
        ]);
        let mounted = Command::new("sh").arg("-c").arg(&mount).status().unwrap();
        assert!(mounted.success(), "{mount}");
        let tree = walk(&target);
        assert!(Command::new("umount").arg(&target).status().unwrap().success());
        tree
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn mount(kind: &str, source: &Path, options: Vec<String>) -> Mount {
    Mount { kind: kind.into(), source: source.display().to_string(), target: String::new(), options }
}

/// The tree that we make of the layers, as an overlay.
async fn ours_as_overlay(top: &Path, layers: &[Vec<u8>]) -> Result<BTreeMap<PathBuf, Facts>> {
    let (store, work) = (LocalStore::open(top.join("content")).unwrap(), top.join("work"));
    std::fs::create_dir(&work).unwrap();
    let applier = WalkingApplier::new(Arc::clone(&store) as _);
    let mut dirs: Vec<String> = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let dir = top.join(format!("layer{at}"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
        let lowers = dirs.iter().rev().cloned().collect::<Vec<_>>().join(":");
        let mounts = if dirs.is_empty() {
            mount("bind", &dir, vec!["rw".into(), "rbind".into()])
        } else {
            let (work, upper) =
                (format!("workdir={}", work.display()), format!("upperdir={}", dir.display()));
            mount("overlay", Path::new("overlay"), vec![work, upper, format!("lowerdir={lowers}")])
        };
        let blob = store_layer(&store, media::OCI_LAYER_GZIP, &gzip(layer)).await;
        let applied = applier.apply(&blob, &[mounts], ApplyOptions::default()).await?;
        assert_eq!(applied.uncompressed.digest, Digest::of(layer));
        dirs.push(dir.display().to_string());
    }
    dirs.reverse();
    let view = vec![mount("overlay", Path::new("overlay"), vec![format!("lowerdir={}", dirs.join(":"))])];
    let view = TempMount::new(&view).unwrap();
    let tree = walk(view.path());
    view.close().unwrap();
    Ok(tree)
}

/// The same in one directory, layer onto layer.
async fn ours_in_place(top: &Path, layers: &[Vec<u8>]) -> Result<BTreeMap<PathBuf, Facts>> {
    let (store, dir) = (LocalStore::open(top.join("content")).unwrap(), top.join("flat"));
    std::fs::create_dir(&dir).unwrap();
    let applier = WalkingApplier::new(Arc::clone(&store) as _);
    for layer in layers {
        let blob = store_layer(&store, media::OCI_LAYER, layer).await;
        let bind = mount("bind", &dir, vec!["rw".into(), "rbind".into()]);
        applier.apply(&blob, &[bind], ApplyOptions { sync: true }).await?;
    }
    Ok(walk(&dir))
}

fn compare(ours: &BTreeMap<PathBuf, Facts>, theirs: &BTreeMap<PathBuf, Facts>, what: &str) {
    let differences = differences(ours, theirs);
    assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
}

fn differences(ours: &BTreeMap<PathBuf, Facts>, theirs: &BTreeMap<PathBuf, Facts>) -> Vec<String> {
    let mut differences = Vec::new();
    for path in ours.keys().chain(theirs.keys()) {
        match (ours.get(path), theirs.get(path)) {
            (Some(one), Some(two)) => {
                // A directory that no layer names has upstream's time of unpacking, and with us that of the layer below.
                let mtime = two.mtime.is_none() || one.mtime == two.mtime;
                let rest = Facts { mtime: None, ..copy(one) } == Facts { mtime: None, ..copy(two) };
                if !mtime || !rest {
                    differences.push(format!("{path:?}: ours {one:?}, upstream's {two:?}"));
                }
            }
            (one, two) => differences.push(format!("{path:?}: ours {one:?}, upstream's {two:?}")),
        }
    }
    differences.sort();
    differences.dedup();
    differences
}

fn copy(facts: &Facts) -> Facts {
    let Facts { mode, owner, size, mtime, device, link, xattrs, same_as, content } = facts;
    Facts {
        mode: *mode,
        owner: *owner,
        size: *size,
        mtime: *mtime,
        device: *device,
        link: link.clone(),
        xattrs: xattrs.clone(),
        same_as: same_as.clone(),
        content: content.clone(),
    }
}

/// Where upstream is, if this run may and can compare with it.
fn upstream_bin() -> Option<PathBuf> {
    let Some(bin) = std::env::var_os("CONTAINERD_UPSTREAM_BIN") else {
        eprintln!("SKIPPED: CONTAINERD_UPSTREAM_BIN is not set, nothing was compared with upstream");
        return None;
    };
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return None;
    }
    Some(bin.into())
}

#[tokio::test]
async fn three_layers_are_unpacked_as_upstream_does() {
    let Some(bin) = upstream_bin() else { return };
    let top = tempfile::tempdir().unwrap();
    let layers = [base(), second(), third()];
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let chain = chain_id(&diff_ids).unwrap();
    let archive = top.path().join("image.tar");
    std::fs::write(&archive, image(&layers)).unwrap();
    let upstream = Upstream::start(bin, top.path());
    let theirs = upstream.unpack(&archive, "overlayfs", &chain);
    assert!(theirs.len() > 40, "{theirs:?}");
    let overlay = tempfile::tempdir().unwrap();
    compare(&ours_as_overlay(overlay.path(), &layers).await.unwrap(), &theirs, "overlayfs");
    let theirs = upstream.unpack(&archive, "native", &chain);
    let flat = tempfile::tempdir().unwrap();
    // Upstream's native snapshotter copies a symbolic link once for each of its names.
    let apart = |mut tree: BTreeMap<PathBuf, Facts>| {
        tree.iter_mut().filter(|(_, f)| f.link.is_some()).for_each(|(path, f)| f.same_as.clone_from(path));
        tree
    };
    compare(&apart(ours_in_place(flat.path(), &layers).await.unwrap()), &apart(theirs), "native");
}

/// Layers that no tool writes, on top of [`odd_base`].
fn odd_layers() -> Vec<(String, Archive)> {
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

fn odd_base() -> Vec<u8> {
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

/// SEC-087, 118: of every odd layer we make what upstream's applier makes of it on a whole filesystem (its native
/// snapshotter), or refuse it, and the same whether an overlay or a directory is written.
#[tokio::test]
async fn odd_layers_make_upstreams_tree_or_are_refused() {
    let Some(bin) = upstream_bin() else { return };
    let top = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(bin, top.path());
    let (mut wrong, mut equal) = (Vec::new(), 0);
    for (what, layer) in odd_layers() {
        let layers = [odd_base(), layer.end()];
        let chain = chain_id(&[Digest::of(&layers[0]), Digest::of(&layers[1])]).unwrap();
        let archive = top.path().join("image.tar");
        std::fs::write(&archive, image(&layers)).unwrap();
        let theirs = upstream.try_unpack(&archive, &chain);
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ours = [
            ("overlay", ours_as_overlay(one.path(), &layers).await),
            ("in place", ours_in_place(two.path(), &layers).await),
        ];
        for (how, ours) in ours {
            match (ours, &theirs) {
                (Ok(ours), Some(theirs)) => match differences(&ours, theirs) {
                    none if none.is_empty() => equal += 1,
                    some => wrong.push(format!("{what} ({how}):\n  {}", some.join("\n  "))),
                },
                (Err(error), Some(_)) => eprintln!("stricter: {what} ({how}): {error}"),
                (Ok(_), None) => eprintln!("more lenient: {what} ({how})"),
                (Err(_), None) => {}
            }
        }
    }
    eprintln!("{equal} equal trees");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
