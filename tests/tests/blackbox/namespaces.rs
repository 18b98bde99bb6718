//! Namespaces keep tenants apart and can be removed when they are empty.

use containerd_tests::Daemon;
use containerd_tests::archive::{Image, Packing, base_layer};

#[test]
fn namespaces_are_created_labelled_listed_and_removed() {
    let daemon = Daemon::shared();
    let name = daemon.id("tenant");
    daemon.ctr(&["namespaces", "create", &name, "tier=one"]).ok();
    daemon.ctr(&["namespaces", "create", &name]).fails().says("already exists");
    let line = |list: String| list.lines().find(|line| line.starts_with(&name)).map(str::to_owned);
    assert!(line(daemon.ctr(&["namespaces", "list"]).ok()).is_some_and(|line| line.contains("tier=one")));
    daemon.ctr(&["namespaces", "label", &name, "tier=two"]).ok();
    assert!(line(daemon.ctr(&["namespaces", "list"]).ok()).is_some_and(|line| line.contains("tier=two")));
    daemon.ctr(&["namespaces", "remove", &name]).ok();
    assert_eq!(line(daemon.ctr(&["namespaces", "list"]).ok()), None);
}

#[test]
fn a_namespace_that_is_in_use_is_not_removed() {
    let daemon = Daemon::shared();
    let name = daemon.id("used");
    let image = Image::named("docker.io/library/tenant:1").layer(&base_layer(), Packing::Gzip);
    let archive = daemon.archive("tenant.tar", &image.oci());
    daemon.ctr(&["--namespace", &name, "images", "import", &archive]).ok();
    daemon.ctr(&["namespaces", "remove", &name]).fails().says("must be empty");
    assert!(daemon.ctr(&["namespaces", "list", "-q"]).ok().lines().any(|line| line == name));
}

#[test]
fn a_name_that_is_no_identifier_is_refused() {
    let daemon = Daemon::shared();
    for name in ["has space", "-leading", "a/b", "..", "ä"] {
        daemon.ctr(&["namespaces", "create", "--", name]).fails();
    }
}

#[test]
fn containers_and_images_of_one_namespace_are_not_seen_in_another() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("hidden"));
    let other = daemon.id("other");
    daemon.ctr(&["containers", "create", image, &id, "true"]).ok();
    assert_eq!(daemon.ctr(&["--namespace", &other, "containers", "list", "-q"]).ok(), "");
    assert_eq!(daemon.ctr(&["--namespace", &other, "images", "list", "-q"]).ok(), "");
    daemon.ctr(&["--namespace", &other, "containers", "info", &id]).fails().says("not found");
    daemon.ctr(&["containers", "delete", &id]).ok();
}
