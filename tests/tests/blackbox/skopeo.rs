//! Images travel between containerd and another project's tool: skopeo reads what was pushed and exported, and what it writes is
//! imported and pulled.

use containerd_tests::archive::{IMAGE, Image, Packing, base_layer};
use containerd_tests::{Daemon, Invocation, binaries};
use registry::fake::Fake;

/// Runs skopeo; `false` where there is none.
#[track_caller]
fn skopeo(arguments: &[&str]) -> bool {
    let Some(command) = binaries::skopeo(arguments) else { return false };
    Invocation::new(command).ok();
    true
}

#[track_caller]
fn runs(daemon: &Daemon, image: &str) {
    let id = daemon.id("travelled");
    assert_eq!(daemon.ctr(&["run", "--rm", image, &id, "echo", "it runs"]).ok(), "it runs\n");
}

#[test]
fn what_was_pushed_is_copied_and_pulled_again() {
    let daemon = Daemon::start();
    let image = daemon.image();
    let registry = Fake::start();
    let (name, copy) = (registry.reference("app", "1"), registry.reference("copy", "1"));
    daemon.ctr(&["images", "push", &name, image]).ok();
    let (from, to) = (format!("docker://{name}"), format!("docker://{copy}"));
    if !skopeo(&["copy", "--src-tls-verify=false", "--dest-tls-verify=false", &from, &to]) {
        return;
    }
    daemon.ctr(&["images", "pull", &copy]).ok();
    runs(&daemon, &copy);
}

#[test]
fn what_was_exported_is_read() {
    let daemon = Daemon::start();
    let image = daemon.image();
    let archive = daemon.dir().join("exported.tar");
    let archive = archive.to_str().unwrap();
    daemon.ctr(&["images", "export", archive, image]).ok();
    let layout = daemon.dir().join("layout");
    for (source, kind) in [("oci-archive", ""), ("docker-archive", "docker")] {
        let to = format!("oci:{}{kind}", layout.display());
        if !skopeo(&["copy", &format!("{source}:{archive}"), &to]) {
            return;
        }
    }
}

#[test]
fn what_it_writes_is_imported_and_runs() {
    let registry = Fake::start();
    let name = Image::named("x").layer(&base_layer(), Packing::Gzip).publish(&registry, "x", "1");
    for kind in ["oci-archive", "docker-archive"] {
        let daemon = Daemon::start();
        let archive = daemon.dir().join("written.tar");
        let to = format!("{kind}:{}:docker.io/library/written:1", archive.display());
        if !skopeo(&["copy", "--src-tls-verify=false", &format!("docker://{name}"), &to]) {
            return;
        }
        let archive = archive.to_str().unwrap();
        daemon.ctr(&["images", "import", "--base-name", "docker.io/library/written", archive]).ok();
        let names = daemon.ctr(&["images", "ls", "-q"]).ok();
        runs(&daemon, names.lines().next().unwrap_or(IMAGE));
    }
}
