//! What goes out: images as archives, changes of a container as layers. And transfers whose client goes away.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use containerd_tests::archive::{IMAGE, Image, Packing};
use containerd_tests::binaries::{self, beyond_upstream};
use containerd_tests::deadline::eventually;
use containerd_tests::tar::Entry;
use containerd_tests::{Daemon, proc};

/// A client that can be taken away.
struct Client(Child);

impl Client {
    fn start(mut command: Command, input: Stdio, output: Stdio) -> Self {
        Self(command.stdin(input).stdout(output).stderr(Stdio::null()).spawn().unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Our client, and upstream's where it is at hand and transfers (from 2.0 on).
fn clients(daemon: &Daemon) -> Vec<PathBuf> {
    let transfers = |peer: &binaries::Binaries| {
        daemon.ctr_of(peer, &["images", "export", "--help"]).run().stdout.contains("--local")
    };
    let peer = binaries::peer().filter(transfers).map(|peer| peer.ctr);
    std::iter::once(daemon.ctr_binary().to_owned()).chain(peer).collect()
}

fn lines(daemon: &Daemon, arguments: &[&str]) -> usize {
    daemon.ctr(arguments).ok().lines().count()
}

/// Upstream's client holds what it does by a lease of its own, which outlives it by a day.
fn end_leases(daemon: &Daemon, ctr: &Path) {
    if ctr != daemon.ctr_binary() {
        for lease in daemon.api().leases() {
            daemon.ctr(&["leases", "rm", "--sync", &lease]).ok();
        }
    }
}

#[track_caller]
fn nothing_stays(daemon: &Daemon, ctr: &Path) {
    let what = |daemon: &Daemon| {
        let (images, blobs) =
            (lines(daemon, &["images", "ls", "-q"]), lines(daemon, &["content", "ls", "-q"]));
        let (ingests, snapshots) =
            (lines(daemon, &["content", "active"]) - 1, lines(daemon, &["snapshots", "ls"]) - 1);
        (images, blobs, ingests, snapshots, daemon.api().leases(), proc::mounts_below(daemon.dir()))
    };
    eventually("nothing is left of it", || {
        end_leases(daemon, ctr);
        what(daemon) == (0, 0, 0, 0, Vec::new(), Vec::new())
    });
}

fn exported(daemon: &Daemon, flags: &[&str], images: &[&str]) -> PathBuf {
    let path = PathBuf::from(daemon.archive("export.tar", b"something that was there before"));
    let arguments = [&["images", "export"], flags, &[path.to_str().unwrap()], images].concat();
    daemon.ctr(&arguments).ok();
    path
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

#[test]
fn what_is_exported_is_imported_elsewhere_and_runs() {
    let (daemon, other) = (Daemon::shared(), Daemon::start());
    let image = daemon.image();
    let by_transfer = exported(&daemon, &[], &[image]);
    assert_eq!(
        std::fs::read(&by_transfer).unwrap(),
        std::fs::read(exported(&daemon, &[], &[image])).unwrap()
    );
    if !daemon.lacks_flag(&["images", "export"], "--local") {
        let locally = exported(&daemon, &["--local"], &[image]);
        assert_eq!(std::fs::read(&by_transfer).unwrap(), std::fs::read(&locally).unwrap());
    }
    let piped = daemon.client(daemon.ctr_binary(), &["images", "export", "-", image]).output().unwrap();
    assert_eq!(piped.stdout, std::fs::read(&by_transfer).unwrap());
    other.ctr(&["images", "import", by_transfer.to_str().unwrap()]).ok();
    let id = other.id("exported");
    assert_eq!(other.ctr(&["run", "--rm", image, &id, "echo", "it runs"]).ok(), "it runs\n");
}

#[test]
fn others_read_what_is_exported() {
    if !has("skopeo") {
        return;
    }
    let daemon = Daemon::shared();
    let archive = exported(&daemon, &[], &[daemon.image()]);
    for kind in ["oci-archive", "docker-archive"] {
        let target = tempfile::tempdir().unwrap();
        let source = format!("{kind}:{}", archive.display());
        let copied = Command::new("skopeo")
            .args(["copy", "--insecure-policy", &source, &format!("dir:{}", target.path().display())])
            .output()
            .unwrap();
        assert!(copied.status.success(), "{kind}: {}", String::from_utf8_lossy(&copied.stderr));
    }
    if daemon.lacks_flag(&["images", "export"], "--local") {
        return; // The flag below does nothing in 1.6.
    }
    let plain = exported(&daemon, &["--skip-manifest-json"], &[IMAGE]);
    let listed = Command::new("tar").arg("-tf").arg(&plain).output().unwrap().stdout;
    let listed = String::from_utf8(listed).unwrap();
    assert!(listed.contains("index.json") && !listed.contains("manifest.json"), "{listed}");
}

#[test]
fn an_image_that_is_not_there_is_not_exported() {
    let daemon = Daemon::shared();
    let missing = daemon.dir().join("missing.tar");
    daemon.ctr(&["images", "export", missing.to_str().unwrap(), "r.io/no/such:1"]).fails().says("not found");
    if !beyond_upstream("an export that fails leaves no file") {
        assert!(!missing.exists());
    }
}

#[test]
fn an_image_has_more_than_one_name() {
    let daemon = Daemon::start();
    if daemon.lacks_flag(&["images", "tag"], "--local") {
        return; // Without transfers, a name that is taken stays as it is.
    }
    let image = daemon.image();
    for flags in [&[][..], &["--force"]] {
        let arguments = [&["images", "tag"], flags, &[image, "r.io/other:1", "r.io/third:1"]].concat();
        assert_eq!(daemon.ctr(&arguments).ok(), "r.io/other:1\nr.io/third:1\n");
    }
    daemon.ctr(&["images", "tag", "--local", image, "r.io/other:1"]).fails().says("already exists");
    daemon.ctr(&["images", "tag", "r.io/no/such:1", "r.io/other:1"]).fails().says("not found");
    daemon.ctr(&["images", "rm", image]).ok();
    assert_eq!(daemon.ctr(&["run", "--rm", "r.io/third:1", &daemon.id("tag"), "echo", "x"]).ok(), "x\n");
}

fn names(layer: &Path) -> Vec<String> {
    let listed = Command::new("tar").arg("-tf").arg(layer).output().unwrap();
    String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn what_a_container_has_changed_is_a_layer() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("changed"));
    let script = "echo x > /etc/new; rm /etc/greeting; mkdir -p /deep/er; echo y > /deep/er/z";
    daemon.ctr(&["run", image, &id, "sh", "-c", script]).ok();
    for (media_type, file) in [("", "a.tar.gz"), ("application/vnd.oci.image.layer.v1.tar", "a.tar")] {
        let layer = daemon.dir().join(format!("{id}-{file}"));
        let flags = if media_type.is_empty() { vec![] } else { vec!["--media-type", media_type] };
        let arguments = [&["snapshots", "diff"], &flags[..], &[&id]].concat();
        let made = daemon.client(daemon.ctr_binary(), &arguments).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        std::fs::write(&layer, made.stdout).unwrap();
        let names = names(&layer);
        for wanted in ["etc/new", "etc/.wh.greeting", "deep/er/z"] {
            assert!(names.iter().any(|name| name == wanted), "{wanted} in {names:?}");
        }
        assert!(!names.iter().any(|name| name.starts_with("bin/")), "{names:?}");
    }
    // Nothing differs between a snapshot and itself.
    let none = daemon.client(daemon.ctr_binary(), &["snapshots", "diff", &id, &id]).output().unwrap();
    assert!(none.status.success() && none.stdout.len() < 100, "{}", String::from_utf8_lossy(&none.stderr));
    daemon.ctr(&["containers", "rm", &id]).ok();
}

#[test]
fn a_client_that_goes_in_the_middle_of_an_archive_leaves_nothing() {
    if beyond_upstream("a transfer without its client leaves nothing") {
        return;
    }
    let daemon = Daemon::start();
    let noise: Vec<u8> =
        (0..6_000_000_u64).flat_map(|at| at.wrapping_mul(at ^ 0x9E37_79B9_7F4A_7C15).to_le_bytes()).collect();
    let archive =
        Image::named("docker.io/library/half:1").layer(&[Entry::file("noise", noise)], Packing::Plain).oci();
    for ctr in clients(&daemon) {
        let mut client =
            Client::start(daemon.client(&ctr, &["images", "import", "-"]), Stdio::piped(), Stdio::null());
        let mut stdin = client.0.stdin.take().unwrap();
        stdin.write_all(&archive[..archive.len() / 2]).unwrap();
        eventually("it is being stored", || lines(&daemon, &["content", "active"]) > 1);
        client.kill();
        drop(stdin);
        nothing_stays(&daemon, &ctr);
    }
}

#[test]
fn a_client_that_goes_while_layers_are_unpacked_leaves_nothing() {
    if beyond_upstream("a transfer without its client leaves nothing") {
        return;
    }
    let daemon = Daemon::start();
    let many: Vec<Entry> = (0..40_000).map(|at| Entry::file(format!("files/{at}"), "x")).collect();
    let archive = Image::named("docker.io/library/many:1").layer(&many, Packing::Plain).oci();
    let archive = daemon.archive("many.tar", &archive);
    for ctr in clients(&daemon) {
        let command = daemon.client(&ctr, &["images", "import", &archive]);
        let mut client = Client::start(command, Stdio::null(), Stdio::null());
        eventually("it is being unpacked", || daemon.ctr(&["snapshots", "ls"]).ok().contains("extract-"));
        client.kill();
        nothing_stays(&daemon, &ctr);
    }
}

#[test]
fn a_client_that_goes_in_the_middle_of_an_export_leaves_no_lease() {
    if beyond_upstream("a transfer without its client leaves nothing") {
        return;
    }
    let daemon = Daemon::start();
    let noise = vec![b'x'; 30 << 20];
    let large =
        Image::named("docker.io/library/large:1").layer(&[Entry::file("large", noise)], Packing::Plain).oci();
    daemon.ctr(&["images", "import", "--no-unpack", &daemon.archive("large.tar", &large)]).ok();
    for ctr in clients(&daemon) {
        let command = daemon.client(&ctr, &["images", "export", "-", "docker.io/library/large:1"]);
        // Nobody reads: it waits with more to come than fits into a pipe.
        let mut client = Client::start(command, Stdio::null(), Stdio::piped());
        eventually("it is under way", || !daemon.api().leases().is_empty());
        client.kill();
        eventually("its lease is gone", || {
            end_leases(&daemon, &ctr);
            daemon.api().leases().is_empty()
        });
    }
}
