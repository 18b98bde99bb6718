//! Disks that are full or read-only: a clear error, nothing half-done, and work goes on once there is room.

use std::path::{Path, PathBuf};

use containerd_tests::archive::{Image, Packing, base_layer};
use containerd_tests::binaries::{self, beyond_upstream};
use containerd_tests::tar::Entry;
use containerd_tests::{Daemon, Invocation, Ledger};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

/// A small filesystem of its own; gone on drop.
struct Disk(tempfile::TempDir);

impl Disk {
    fn of(megabytes: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={megabytes}m")).unwrap();
        rustix::mount::mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
        rustix::mount::mount_change(dir.path(), MountPropagationFlags::PRIVATE).unwrap();
        Self(dir)
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_path_buf()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

#[track_caller]
fn runs(daemon: &Daemon) {
    let id = daemon.id("runs");
    assert_eq!(daemon.ctr(&["run", "--rm", daemon.image(), &id, "echo", "runs"]).ok(), "runs\n");
}

#[test]
fn an_image_that_does_not_fit_is_an_error_and_leaves_nothing() {
    if beyond_upstream("a refused import leaves nothing") {
        return;
    }
    let disk = Disk::of(48);
    let daemon = Daemon::prepare_below(&disk.path(), binaries::tested(), binaries::suite());
    daemon.launch();
    runs(&daemon);
    let elsewhere = tempfile::tempdir().unwrap();
    for megabytes in [30, 60] {
        // The smaller one fits as a blob but not unpacked, the larger one not even as a blob.
        let layer = [Entry::file("large", noise(megabytes << 20))];
        let image = Image::named("docker.io/library/large:1").layer(&base_layer(), Packing::Plain);
        let archive = elsewhere.path().join("large.tar");
        std::fs::write(&archive, image.layer(&layer, Packing::Plain).oci()).unwrap();
        let before = Ledger::take(&daemon);
        let blobs = daemon.ctr(&["content", "list", "-q"]).ok();
        let done = daemon.ctr(&["images", "import", &archive.to_string_lossy()]).fails();
        // Go writes it small, the C library large. What would fill the disk is stopped a little before.
        let why = ["o space left on device", "max_unpacked_layer (by default the free space less 5%)"];
        assert!(why.iter().any(|why| done.stderr.contains(why)), "{done}");
        Ledger::check(&before, &daemon);
        assert_eq!(daemon.ctr(&["content", "list", "-q"]).ok(), blobs);
        runs(&daemon);
    }
}

#[test]
fn a_container_that_fills_the_disk_does_not_take_the_daemon_along() {
    let disk = Disk::of(40);
    let daemon = Daemon::prepare_below(&disk.path(), binaries::tested(), binaries::suite());
    daemon.launch();
    let (image, id) = (daemon.image(), daemon.id("filler"));
    let script = "dd if=/dev/zero of=/tmp/fill bs=1M; rm /tmp/fill; exit 3";
    let done = daemon.ctr(&["run", "--rm", image, &id, "sh", "-c", script]).run();
    assert_eq!(done.code, 3, "{done}");
    done.says("No space left on device");
    runs(&daemon);
}

#[test]
fn a_root_that_cannot_be_written_is_an_error_that_names_it() {
    let daemon = Daemon::prepare(binaries::tested(), binaries::suite());
    let root = daemon.root();
    std::fs::create_dir(&root).unwrap();
    let read_only = ReadOnly::make(&root);
    let done = Invocation::new(daemon.command()).fails();
    drop(read_only);
    done.says(&root.to_string_lossy());
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0, "something was written");
}

/// A directory bound to itself, read-only; as it was on drop.
struct ReadOnly<'a>(&'a Path);

impl<'a> ReadOnly<'a> {
    fn make(dir: &'a Path) -> Self {
        rustix::mount::mount_bind(dir, dir).unwrap();
        rustix::mount::mount_remount(dir, MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
        Self(dir)
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0, UnmountFlags::DETACH);
    }
}
