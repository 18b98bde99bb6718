//! What belongs to another daemon is left as it is, to the byte.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use containerd_tests::archive::hex;
use containerd_tests::binaries::{self, Suite, beyond_upstream};
use containerd_tests::{Daemon, Finished, Invocation};

/// Every path below `dir` with its kind, mode, owner, time and contents.
fn inventory(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let contents = if meta.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            String::new()
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else if meta.is_file() {
            hex(&fs::read(&path).unwrap())
        } else {
            format!("device {}", meta.rdev())
        };
        let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
        found.insert(path, format!("{:o} {}:{} {times:?} {contents}", meta.mode(), meta.uid(), meta.gid()));
    }
    found
}

/// Starts a daemon that must refuse; it has two seconds to say why.
#[track_caller]
fn refused(daemon: &Daemon) -> Finished {
    let started = std::time::Instant::now();
    let done = Invocation::new(daemon.command()).run();
    assert!(done.code != 0, "it serves: {done}");
    assert!(started.elapsed() < Duration::from_secs(2), "it took {:?}: {done}", started.elapsed());
    done
}

fn prepared() -> Daemon {
    Daemon::prepare(binaries::tested(), binaries::suite())
}

#[test]
fn a_live_root_of_upstream_is_left_as_it_is() {
    if beyond_upstream("a foreign root is refused") {
        return;
    }
    let Some(peer) = binaries::peer() else { return };
    let upstream = Daemon::start_of(peer.clone(), Suite::Upstream);
    let archive = upstream.archive("image.tar", &containerd_tests::archive::Image::standard().oci());
    upstream.ctr_of(&peer, &["images", "import", &archive]).ok();
    let id = upstream.id("live");
    upstream.ctr_of(&peer, &["run", "-d", containerd_tests::archive::IMAGE, &id, "sleep", "1000"]).ok();

    let daemon = prepared();
    let copied = Command::new("cp").arg("-a").args([upstream.root(), daemon.root()]).status().unwrap();
    assert!(copied.success());
    let before = inventory(&daemon.root());
    let done = refused(&daemon);
    done.says(&daemon.root().to_string_lossy());
    done.says("meta.db");
    assert_eq!(inventory(&daemon.root()), before);
    assert!(!daemon.state().exists(), "the state directory was made");
}

#[test]
fn blobs_that_no_database_knows_are_left_as_they_are() {
    if beyond_upstream("a foreign root is refused") {
        return;
    }
    let daemon = prepared();
    let blobs = daemon.root().join("io.containerd.content.v1.content/blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(hex(b"foreign")), "foreign").unwrap();
    let before = inventory(&daemon.root());
    refused(&daemon).says(&daemon.root().to_string_lossy());
    assert_eq!(inventory(&daemon.root()), before);
}

#[test]
fn a_second_daemon_on_one_root_is_refused_and_the_first_goes_on() {
    if beyond_upstream("a second daemon is refused within a second") {
        return;
    }
    let daemon = Daemon::start();
    let mut command = Command::new(&binaries::tested().daemon);
    command.arg("--root").arg(daemon.root()).arg("--state").arg(daemon.dir().join("other-state"));
    command.arg("--address").arg(daemon.dir().join("other.sock")).stdin(Stdio::null());
    let started = std::time::Instant::now();
    let done = Invocation::new(command).fails();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    done.says(&daemon.root().to_string_lossy());
    assert_eq!(daemon.ctr(&["images", "list", "-q"]).ok(), "");
}
