//! Clients that send rubbish, go away or read nothing, and a daemon that is away: the shim goes on.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use api::containerd::task::v3 as wire;
use api::ttrpc::{self, HEADER, Kind, Request};
use support::{Rig, V3, can_run, eventually};
use types::Class;

#[test]
fn rubbish_is_answered_or_ignored_and_hurts_nobody_else() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let mut seed = 1u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33).to_le_bytes()[0]
    };
    for round in 0..200 {
        let mut stream = UnixStream::connect(&rig.address["unix://".len()..]).unwrap();
        let mut bytes: Vec<u8> = (0..round).map(|_| random()).collect();
        if round % 2 == 0 {
            // A valid header in front of rubbish.
            let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
            let mut frame = [length.as_slice(), &[0, 0, 0, 1, 1, 0]].concat();
            frame.append(&mut bytes);
            bytes = frame;
        }
        let _ = stream.write_all(&bytes);
    }
    let mut client = rig.client();
    let unknown = |client: &mut support::Client, service: &str, method: &str| {
        client.call_of::<()>(service, method, &wire::PidsRequest::default()).unwrap_err()
    };
    assert_eq!(unknown(&mut client, "x.Y", "Z").to_string(), "service x.Y");
    assert_eq!(unknown(&mut client, V3, "Z").to_string(), "method Z");
    assert_eq!(unknown(&mut client, V3, "Z").class(), Class::Unimplemented);
    assert_eq!(unknown(&mut client, V3, "Stats").class(), Class::NotFound);
    // Over the limit: answered, skipped, and the connection goes on.
    let stream = client.raw();
    let length = u32::try_from(ttrpc::MAX_MESSAGE + 1).unwrap();
    stream.write_all(&[length.to_be_bytes().as_slice(), &[0, 0, 0, 99, 1, 0]].concat()).unwrap();
    stream.write_all(&vec![0; length as usize]).unwrap();
    let (stream, result) = client.receive();
    assert_eq!((stream, result.unwrap_err().class()), (99, Class::ResourceExhausted));
    client.call::<wire::ConnectResponse>("Connect", &wire::ConnectRequest::default()).unwrap();
    rig.shut_down();
}

#[test]
fn a_client_that_dies_or_reads_nothing_does_not_stop_what_it_began() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    rig.bundle("c1", &["sleep", "1000"]);
    let mut dying = rig.client();
    dying.send(V3, "Create", &rig.create_request("c1"), Duration::ZERO);
    drop(dying);
    eventually("the container", || rig.state("c1", "").is_ok());
    let mut deaf = rig.client();
    deaf.raw().set_nonblocking(true).unwrap();
    let state = wire::StateRequest { id: "c1".into(), exec_id: String::new() };
    let request = Request {
        service: V3.into(),
        method: "State".into(),
        payload: prost::Message::encode_to_vec(&state),
        ..Default::default()
    };
    let frame = ttrpc::frame(Kind::Request, 1, &request).unwrap();
    // Until the shim no longer listens to it.
    while deaf.raw().write_all(&frame).is_ok() {}
    let start = wire::StartRequest { id: "c1".into(), exec_id: String::new() };
    rig.client().call::<wire::StartResponse>("Start", &start).unwrap();
    let rss = std::fs::read_to_string(format!("/proc/{}/statm", rig.pid)).unwrap();
    let pages: u64 = rss.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(pages * 4096 < 16 << 20, "{pages} pages");
    // It reads after all, and everything is there.
    let mut header = [0; HEADER];
    deaf.raw().set_nonblocking(false).unwrap();
    deaf.raw().read_exact(&mut header).unwrap();
    drop(deaf);
    rig.end("c1");
}

#[test]
fn events_wait_for_a_daemon_that_is_away() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    // Nobody answers on this address until later.
    let away = rig.path("away.ttrpc");
    rig.bundle_with("c2", &["true"], r#","io.containerd.runc.v2.group":"other""#);
    let config = std::fs::read_to_string(rig.path("c2/config.json")).unwrap();
    std::fs::write(
        rig.path("c2/config.json"),
        config.replacen("\"io.containerd.runc.v2.group\":\"c1\",", "", 1),
    )
    .unwrap();
    let output = rig.command("c2", "start").env("TTRPC_ADDRESS", &away).output().unwrap();
    let address = support::checked(&output);
    assert_ne!(address, rig.address);
    let mut client = support::Client::connect(&address);
    client.call::<wire::CreateTaskResponse>("Create", &rig.create_request("c2")).unwrap();
    client
        .call::<wire::StartResponse>("Start", &wire::StartRequest { id: "c2".into(), ..Default::default() })
        .unwrap();
    let wait = wire::WaitRequest { id: "c2".into(), ..Default::default() };
    client.call::<wire::WaitResponse>("Wait", &wait).unwrap();
    let events = support::serve_events(&away);
    // A connection is how the shim learns that the daemon may be back.
    support::Client::connect(&address);
    eventually("the events", || events.lock().unwrap().len() == 3);
    let topics: Vec<_> = events.lock().unwrap().iter().map(|(topic, _)| topic.clone()).collect();
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit"]);
    client
        .call::<wire::DeleteResponse>(
            "Delete",
            &wire::DeleteRequest { id: "c2".into(), ..Default::default() },
        )
        .unwrap();
    client.call::<()>("Shutdown", &wire::ShutdownRequest::default()).unwrap();
    rig.shut_down();
}

#[test]
fn without_a_socket_for_events_a_program_tells_them_in_order_until_it_succeeds() {
    if !can_run() {
        return;
    }
    let rig = Rig::with_environment("c1", &[("TTRPC_ADDRESS", "")]);
    let (program, told) = (rig.path("publish"), rig.path("told"));
    // It fails the first time.
    let script = format!(
        "#!/bin/sh\nmkdir {0}.once 2>/dev/null && exit 1\necho \"$@\" $(wc -c) >> {0}\n",
        told.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    rig.run("c1", &["true"]);
    assert_eq!(rig.wait("c1", ""), 0);
    rig.delete("c1", "").unwrap();
    let lines = || std::fs::read_to_string(&told).unwrap_or_default();
    eventually("all is told", || lines().lines().count() == 4);
    let address = rig.path("d.sock");
    for (line, topic) in lines().lines().zip(["create", "start", "exit", "delete"]) {
        let wanted =
            format!("--address {} publish --topic /tasks/{topic} --namespace test ", address.display());
        let length = line.strip_prefix(&wanted).unwrap_or_else(|| panic!("{line}"));
        assert!(length.parse::<usize>().unwrap() > 20, "{line}");
    }
    rig.shut_down();
}
