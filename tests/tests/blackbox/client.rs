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

/// A call of Version as HTTP/2 has it, with a name for the server that is written out. Gives the frames of the answer: type and
/// payload.
fn call_by_name(daemon: &Daemon, name: &str) -> Vec<(u8, Vec<u8>)> {
    use std::io::{Read, Write};

    let literal = |index: u8, value: &str| {
        [&[0x40 | index, u8::try_from(value.len()).unwrap()], value.as_bytes()].concat()
    };
    let method = "/containerd.services.version.v1.Version/Version";
    let named = |name: &str, value: &str| {
        [
            &[0x40, u8::try_from(name.len()).unwrap()],
            name.as_bytes(),
            &[u8::try_from(value.len()).unwrap()],
            value.as_bytes(),
        ]
        .concat()
    };
    // :method POST, :scheme http, :path, :authority, content-type, te.
    let headers = [
        vec![0x83, 0x86],
        literal(4, method),
        literal(1, name),
        literal(31, "application/grpc"),
        named("te", "trailers"),
    ]
    .concat();
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        [&[0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let mut socket = std::os::unix::net::UnixStream::connect(daemon.address()).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    socket
        .write_all(&[frame(4, 0, 0, &[]), frame(1, 4, 1, &headers), frame(0, 1, 1, &[0; 5])].concat())
        .unwrap();
    let mut frames = Vec::new();
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        socket.read_exact(&mut payload).unwrap();
        let (kind, is_last) = (head[3], head[3] == 3 || head[3] == 7 || head[3] == 1 && head[4] & 1 == 1);
        frames.push((kind, payload));
        if is_last {
            return frames;
        }
    }
}

/// Go's gRPC calls a server by the path that it dials, unless it is told another name.
#[test]
fn a_server_that_is_called_by_its_path_answers() {
    let daemon = Daemon::shared();
    let mut answers = Vec::new();
    for name in ["localhost", "%2Frun%2Fcontainerd%2Fcontainerd.sock", "/run/containerd/containerd.sock"] {
        let frames = call_by_name(&daemon, name);
        let kinds: Vec<u8> = frames.iter().map(|(kind, _)| *kind).collect();
        assert!(kinds.contains(&0) && !kinds.contains(&3) && !kinds.contains(&7), "{name}: {frames:?}");
        let said = frames.into_iter().find(|(kind, payload)| *kind == 0 && payload.len() > 5);
        answers.push(said.unwrap_or_else(|| panic!("{name} is not answered")).1);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}
