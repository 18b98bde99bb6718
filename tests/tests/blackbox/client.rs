//! What the client does beside running containers: it shows images, installs from them, and speaks with shims.

use containerd_tests::Daemon;
use containerd_tests::binaries::beyond_upstream;

#[test]
fn an_image_is_shown_as_the_tree_of_its_documents() {
    let daemon = Daemon::shared();
    if daemon.lacks_flag(&["images", "inspect"], "--content") {
        return;
    }
    let image = daemon.image();
    let tree = daemon.ctr(&["images", "inspect", "--content", image]).ok();
    assert!(tree.starts_with(&format!("{image}\n│    Created: ")), "{tree}");
    for part in
        ["└── application/vnd.oci.image.", "├── application/vnd.oci.image.config.v1+json @sha256:", "│"]
    {
        assert!(tree.contains(part), "{part}: {tree}");
    }
    assert!(tree.contains("\"schemaVersion\": 2"), "the manifest's text is missing: {tree}");
    daemon.ctr(&["images", "inspect", "docker.io/library/absent:1"]).fails().says("not found");
}

#[test]
fn programs_of_an_image_are_installed_once_unless_replaced() {
    let daemon = Daemon::shared();
    let image = daemon.image();
    let place = daemon.dir().join(daemon.id("opt"));
    std::fs::create_dir_all(place.join("bin")).unwrap();
    let path = place.to_str().unwrap();
    daemon.ctr(&["install", "--path", path, image]).ok();
    let shell = place.join("bin/sh");
    assert!(shell.symlink_metadata().is_ok(), "{:?}", std::fs::read_dir(place.join("bin")).unwrap().count());
    daemon.ctr(&["install", "--path", path, image]).fails().says("cannot replace bin/");
    daemon.ctr(&["install", "--replace", "--path", path, image]).ok();
    assert!(shell.symlink_metadata().is_ok());
}

#[test]
fn a_shim_answers_without_its_daemon() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("direct"));
    daemon.ctr(&["run", "-d", image, &id, "sleep", "1000"]).ok();
    let state = daemon.ctr(&["shim", "--id", &id, "state"]).ok();
    assert!(state.contains(&format!("\"id\": \"{id}\"")) && state.contains("\"status\": 2"), "{state}");
    let pid = daemon.task_pid(&id);
    assert!(state.contains(&format!("\"pid\": {pid},")), "{pid}: {state}");
    daemon.ctr(&["shim", "--id", &id, "start", &id]).fails().says("rpc error: code = ");
    daemon.ctr(&["shim", "--id", "nobody", "state"]).fails().says("fail to connect to container ");
    daemon.ctr(&["tasks", "delete", "--force", &id]).run();
    daemon.ctr(&["containers", "delete", &id]).ok();
}

#[test]
fn records_that_are_larger_together_than_a_message_are_listed() {
    let daemon = Daemon::start();
    let spec = daemon.dir().join("large.json");
    let large = "x".repeat(5 << 20);
    std::fs::write(&spec, format!(r#"{{"ociVersion":"1.1.0","annotations":{{"large":"{large}"}}}}"#))
        .unwrap();
    let ids = ["a", "b", "c", "d"].map(|name| daemon.id(name));
    for id in &ids {
        daemon.ctr(&["containers", "create", "--config", spec.to_str().unwrap(), id]).ok();
    }
    let listed = daemon.ctr(&["containers", "ls", "-q"]).ok();
    assert!(listed.lines().eq(&ids), "{listed}");
    assert_eq!(daemon.ctr(&["containers", "ls"]).ok().lines().count(), 1 + ids.len());
    if !daemon.lacks_flag(&["images", "prune"], "--all") {
        daemon.ctr(&["images", "prune", "--all"]).ok();
    }
}

#[test]
fn what_is_not_there_yet_is_named() {
    if beyond_upstream("commands that are still to come say so") {
        return;
    }
    let daemon = Daemon::shared();
    daemon.ctr(&["images", "convert", "--erofs", "raw", daemon.image(), "y"]).fails().says("not there yet");
}
