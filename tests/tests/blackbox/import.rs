//! `ctr images import`: archives of both kinds become images that run.

use containerd_tests::archive::{Image, Packing, base_layer, gzip};
use containerd_tests::tar::Entry;
use containerd_tests::{Daemon, proc};

/// Imports an archive; gives what `ctr` printed.
#[track_caller]
fn import(daemon: &Daemon, bytes: &[u8], flags: &[&str]) -> String {
    let archive = daemon.archive("import.tar", bytes);
    let mut arguments = vec!["images", "import"];
    arguments.extend(flags);
    arguments.push(&archive);
    daemon.ctr(&arguments).ok()
}

#[track_caller]
fn runs(daemon: &Daemon, image: &str) {
    let id = daemon.id("import");
    assert_eq!(daemon.ctr(&["run", "--rm", image, &id, "echo", "it runs"]).ok(), "it runs\n");
}

fn one_layer(name: &str, packing: Packing) -> Image {
    Image::named(name).layer(&base_layer(), packing)
}

#[test]
fn an_oci_layout_is_imported_under_the_name_it_carries() {
    let daemon = Daemon::shared();
    let name = "docker.io/library/oci:1";
    import(&daemon, &one_layer(name, Packing::Gzip).oci(), &[]);
    assert!(daemon.ctr(&["images", "list", "-q"]).ok().lines().any(|line| line == name));
    runs(&daemon, name);
}

#[test]
fn plain_and_zstd_layers_are_unpacked_as_well() {
    let daemon = Daemon::shared();
    for (name, packing) in
        [("docker.io/library/plain:1", Packing::Plain), ("docker.io/library/zstd:1", Packing::Zstd)]
    {
        import(&daemon, &one_layer(name, packing).oci(), &[]);
        runs(&daemon, name);
    }
}

#[test]
fn an_archive_of_docker_save_is_imported() {
    let daemon = Daemon::shared();
    let name = "docker.io/library/saved:1";
    import(&daemon, &one_layer(name, Packing::Plain).docker(), &[]);
    runs(&daemon, name);
}

#[test]
fn a_compressed_archive_is_imported() {
    let daemon = Daemon::shared();
    if daemon.lacks_flag(&["images", "import"], "--sync-fs") {
        return; // As old as the flag; the clients of 1.x take only plain archives.
    }
    let name = "docker.io/library/packed:1";
    import(&daemon, &gzip(&one_layer(name, Packing::Plain).docker()), &[]);
    runs(&daemon, name);
}

#[test]
fn an_archive_can_come_from_standard_input() {
    let daemon = Daemon::shared();
    let name = "docker.io/library/piped:1";
    daemon.ctr(&["images", "import", "-"]).input(one_layer(name, Packing::Gzip).oci()).ok();
    runs(&daemon, name);
}

#[test]
fn importing_twice_changes_nothing() {
    let daemon = Daemon::shared();
    let archive = one_layer("docker.io/library/again:1", Packing::Gzip).oci();
    import(&daemon, &archive, &[]);
    let find = || {
        let list = daemon.ctr(&["images", "list"]).ok();
        let line = list.lines().find(|line| line.starts_with("docker.io/library/again:1 "));
        line.unwrap_or_else(|| panic!("not listed: {list}")).to_owned()
    };
    let before = find();
    import(&daemon, &archive, &[]);
    assert_eq!(find(), before);
}

#[test]
fn what_one_namespace_has_is_imported_into_another() {
    let daemon = Daemon::shared();
    let name = "docker.io/library/both:1";
    let archive = daemon.archive("both.tar", &one_layer(name, Packing::Gzip).oci());
    let other = format!("{}-other", daemon.namespace());
    for namespace in [daemon.namespace(), &other] {
        let import = daemon.ctr(&["-n", namespace, "images", "import", &archive]).ok();
        assert!(import.contains(name), "{import}");
        assert!(daemon.ctr(&["-n", namespace, "images", "check", "-q"]).ok().contains(name));
        let id = daemon.id("both");
        assert_eq!(
            daemon.ctr(&["-n", namespace, "run", "--rm", name, &id, "echo", "it runs"]).ok(),
            "it runs\n"
        );
    }
    // The runtime leaves a namespace's group, and the daemon's own end sees to its own namespace only.
    proc::cgroups(&other).iter().for_each(|group| drop(std::fs::remove_dir(group)));
}

#[test]
fn an_image_that_was_only_stored_is_unpacked_on_its_first_run() {
    let daemon = Daemon::shared();
    let name = "docker.io/library/stored:1";
    let image = one_layer(name, Packing::Gzip).layer(&[Entry::file("etc/only-here", "")], Packing::Gzip);
    import(&daemon, &image.oci(), &["--no-unpack"]);
    assert!(!daemon.ctr(&["snapshots", "list"]).ok().contains(&image.chain_id()));
    runs(&daemon, name);
    assert!(daemon.ctr(&["snapshots", "list"]).ok().contains(&image.chain_id()));
}

#[test]
fn layers_that_images_share_are_stored_once() {
    let daemon = Daemon::shared();
    let layer = |text: &str| [Entry::file("etc/own", text)];
    let one = one_layer("docker.io/library/share:1", Packing::Gzip).layer(&layer("1"), Packing::Gzip);
    let two = one_layer("docker.io/library/share:2", Packing::Gzip).layer(&layer("2"), Packing::Gzip);
    import(&daemon, &one.oci(), &[]);
    let before = daemon.ctr(&["snapshots", "list"]).ok().lines().count();
    import(&daemon, &two.oci(), &[]);
    let now = daemon.ctr(&["snapshots", "list"]).ok();
    assert!(now.contains(&two.chain_id()), "{now}");
    // Other tests import side by side; they never remove, and only the shared base is looked for.
    assert!(now.lines().count() > before);
    let base = &one.diff_ids()[0];
    assert_eq!(
        now.matches(&format!("{base} ")).count() - now.matches(&format!(" {base} ")).count(),
        1,
        "{now}"
    );
}

#[test]
fn images_are_deleted_by_name() {
    let daemon = Daemon::shared();
    let (one, two) = ("docker.io/library/deleted:1", "docker.io/library/deleted:2");
    import(&daemon, &one_layer(one, Packing::Gzip).oci(), &[]);
    import(&daemon, &one_layer(two, Packing::Gzip).oci(), &[]);
    daemon.ctr(&["images", "delete", one]).ok();
    let list = daemon.ctr(&["images", "list", "-q"]).ok();
    assert!(!list.contains(one) && list.contains(two), "{list}");
    runs(&daemon, two);
    daemon.ctr(&["images", "delete", "docker.io/library/absent:1"]).run().says("not found");
}

#[test]
fn labels_of_an_image_are_set_and_shown() {
    let daemon = Daemon::shared();
    let name = "docker.io/library/labelled:1";
    import(&daemon, &one_layer(name, Packing::Gzip).oci(), &[]);
    daemon.ctr(&["images", "label", name, "tier=web"]).ok();
    let list = daemon.ctr(&["images", "list", &format!("name=={name}")]).ok();
    assert!(list.contains("tier=web"), "{list}");
}

#[test]
fn a_complete_image_is_reported_complete() {
    let daemon = Daemon::shared();
    let name = "docker.io/library/whole:1";
    import(&daemon, &one_layer(name, Packing::Gzip).oci(), &[]);
    let report = daemon.ctr(&["images", "check", &format!("name=={name}")]).ok();
    let line = report.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    assert!(line.contains("complete (2/2)"), "{report}");
}

#[test]
fn an_image_is_mounted_on_the_host_and_unmounted() {
    let daemon = Daemon::shared();
    let image = daemon.image();
    let target = tempfile::tempdir().unwrap();
    let path = target.path().to_string_lossy().into_owned();
    daemon.ctr(&["images", "mount", image, &path]).ok();
    let greeting = std::fs::read_to_string(target.path().join("etc/greeting")).unwrap_or_default();
    daemon.ctr(&["images", "unmount", "--rm", &path]).ok();
    assert_eq!(greeting, "from the second layer\n");
    assert_eq!(proc::mounts_below(target.path()), Vec::<std::path::PathBuf>::new());
}
