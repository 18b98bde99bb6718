//! Exec, attach and port-forward as a kubelet's clients have them: every byte, in both directions, until an end that is told with
//! its code; who goes away without a word leaves nothing.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use api::cri as wire;
use containerd_tests::{Cri, WebSocket, eventually, kubelet, proc};
use tonic::{Code, Status};

const V5: &str = "v5.channel.k8s.io";

/// A kubelet with one pod of one container.
struct Kubelet {
    cri: Cri,
    pod: String,
    container: String,
}

impl Kubelet {
    fn start(script: &str) -> Option<Self> {
        Self::with(script, |_| {})
    }

    fn with(script: &str, change: impl FnOnce(&mut wire::ContainerConfig)) -> Option<Self> {
        let cri = Cri::start()?;
        let image = wire::ImageSpec { image: cri.image().to_owned(), ..Default::default() };
        eventually("the image is known", || {
            let request = wire::ImageStatusRequest { image: Some(image.clone()), verbose: false };
            cri.call(cri.images().image_status(request)).unwrap().image.is_some()
        });
        let mut config = wire::ContainerConfig {
            metadata: Some(wire::ContainerMetadata { name: "main".to_owned(), attempt: 0 }),
            image: Some(image),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: "main.log".to_owned(),
            linux: Some(wire::LinuxContainerConfig::default()),
            ..Default::default()
        };
        change(&mut config);
        let (pod, pod_config) = (cri.pod("web"), cri.pod_config("web"));
        let request = wire::CreateContainerRequest {
            pod_sandbox_id: pod.clone(),
            config: Some(config),
            sandbox_config: Some(pod_config),
        };
        let container = cri.call(cri.client().create_container(request)).unwrap().container_id;
        let request = wire::StartContainerRequest { container_id: container.clone() };
        cri.call(cri.client().start_container(request)).unwrap();
        Some(Self { cri, pod, container })
    }

    fn exec_url(&self, script: &str, tty: bool) -> String {
        let request = wire::ExecRequest {
            container_id: self.container.clone(),
            cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
            tty,
            stdin: true,
            stdout: true,
            stderr: !tty,
        };
        self.cri.call(self.cri.client().exec(request)).unwrap().url
    }

    fn exec(&self, script: &str, tty: bool) -> WebSocket {
        WebSocket::open(&self.exec_url(script, tty), V5)
    }

    fn attach(&self, tty: bool) -> WebSocket {
        let request = wire::AttachRequest {
            container_id: self.container.clone(),
            stdin: true,
            stdout: true,
            stderr: !tty,
            tty,
        };
        WebSocket::open(&self.cri.call(self.cri.client().attach(request)).unwrap().url, V5)
    }

    fn sync(&self, script: &str, timeout: i64) -> Result<wire::ExecSyncResponse, Status> {
        let cmd = ["sh", "-c", script].map(str::to_owned).to_vec();
        let request = wire::ExecSyncRequest { container_id: self.container.clone(), cmd, timeout };
        let client = self.cri.client().max_decoding_message_size(64 << 20);
        let mut client = client;
        self.cri.call(client.exec_sync(request))
    }

    /// What the daemon and shims of this kubelet have: descriptors, and processes.
    fn held(&self) -> (usize, BTreeSet<i32>) {
        let pid = self.cri.daemon.pid().unwrap();
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        let processes = proc::contained(self.cri.daemon.namespace());
        (descriptors, processes.iter().map(|process| process.pid).collect())
    }
}

/// Bytes of which no two pieces are the same.
fn piece(number: u64) -> Vec<u8> {
    (0..8192_u64)
        .flat_map(|i| (number * 8192 + i).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .collect()
}

#[test]
fn an_exec_carries_every_byte_both_ways_and_ends_with_a_code() {
    const PIECES: u64 = 1024;
    let Some(kubelet) = Kubelet::start("sleep 1000") else { return };
    let mut client = kubelet.exec("cat; echo said >&2; exit 7", false);
    let mut speaker = client.speaker();
    let sends = thread::spawn(move || {
        (0..PIECES).for_each(|number| speaker.say(0, &piece(number)));
        speaker.finish(0);
    });
    let (mut number, mut rest) = (0, Vec::new());
    client.each(|bytes| {
        rest.extend_from_slice(bytes);
        while rest.len() >= 65_536 {
            let whole: Vec<u8> = rest.drain(..65_536).collect();
            assert!(whole == piece(number), "piece {number}");
            number += 1;
        }
    });
    sends.join().unwrap();
    assert_eq!((number, rest.len()), (PIECES, 0));
    assert_eq!(client.heard(2), b"said\n");
    let status = String::from_utf8_lossy(client.heard(3)).into_owned();
    assert!(status.contains(r#""causes":[{"reason":"ExitCode","message":"7"}]"#), "{status}");
}

#[test]
fn a_terminal_has_a_size_and_is_hung_up_when_its_client_goes() {
    let Some(kubelet) = Kubelet::start("sleep 1000") else { return };
    let mut client = kubelet.exec("echo $TERM; read go; stty size; read x; echo got $x", true);
    client.until(1, "xterm");
    client.say(4, br#"{"Width":123,"Height":45}"#);
    client.say(0, b"go\n");
    client.until(1, "45 123");
    client.say(0, b"it\n");
    client.end();
    assert!(String::from_utf8_lossy(client.heard(1)).contains("got it"));
    assert_eq!(client.heard(3), br#"{"status":"Success"}"#);

    let before = kubelet.held().1;
    let mut client = kubelet.exec("echo here; sleep 1001", true);
    client.until(1, "here");
    assert_ne!(kubelet.held().1, before);
    drop(client);
    eventually("its processes end", || kubelet.held().1 == before);
}

#[test]
fn what_cannot_be_executed_is_told() {
    let Some(kubelet) = Kubelet::start("sleep 1000") else { return };
    let request = wire::ExecRequest {
        container_id: kubelet.container.clone(),
        cmd: vec!["/no/such/program".to_owned()],
        stdout: true,
        ..Default::default()
    };
    let url = kubelet.cri.call(kubelet.cri.client().exec(request.clone())).unwrap().url;
    let mut client = WebSocket::open(&url, V5);
    client.end();
    let status = String::from_utf8_lossy(client.heard(3)).into_owned();
    let words = [
        "Internal error occurred: error executing command in container: failed to exec in container: failed to start exec",
        "/no/such/program",
    ];
    assert!(words.iter().all(|word| status.contains(word)), "{status}");

    let refused = |request| kubelet.cri.call(kubelet.cri.client().exec(request)).unwrap_err();
    let missing = refused(wire::ExecRequest { container_id: "nobody".to_owned(), ..request.clone() });
    assert_eq!(missing.code(), Code::NotFound);
    let both = refused(wire::ExecRequest { tty: true, stderr: true, ..request.clone() });
    assert_eq!((both.code(), both.message()), (Code::InvalidArgument, "tty and stderr cannot both be true"));
    let none = refused(wire::ExecRequest { stdout: false, ..request.clone() });
    assert_eq!(none.message(), "one of stdin, stdout, or stderr must be set");
    let stop = wire::StopContainerRequest { container_id: kubelet.container.clone(), timeout: 0 };
    kubelet.cri.call(kubelet.cri.client().stop_container(stop)).unwrap();
    let over = refused(request);
    assert!(over.message().contains("container is in CONTAINER_EXITED state"), "{over}");
}

#[test]
fn exec_sync_keeps_what_is_said_and_waits_for_nobody_else() {
    let Some(kubelet) = Kubelet::start("sleep 1000") else { return };
    let answer = kubelet.sync("echo out; echo err >&2; exit 3", 0).unwrap();
    assert_eq!((&answer.stdout[..], &answer.stderr[..], answer.exit_code), (&b"out\n"[..], &b"err\n"[..], 3));

    let start = Instant::now();
    let late = kubelet.sync("sleep 1002", 1).unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    let text = "failed to exec in container: timeout 1s exceeded: context deadline exceeded";
    assert_eq!(late.message(), text);
    assert!(start.elapsed() < Duration::from_secs(5));

    // Whoever is left in the background has the output open.
    let start = Instant::now();
    let answer = kubelet.sync("sleep 1003 & echo done; exit 5", 0).unwrap();
    assert_eq!((&answer.stdout[..], answer.exit_code), (&b"done\n"[..], 5));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());

    let answer = kubelet.sync("head -c 20000000 /dev/zero; echo end >&2", 0).unwrap();
    // As much as fits into an answer that a kubelet takes.
    assert_eq!((answer.stdout.len(), &answer.stderr[..]), ((16 << 20) - 1024 - 4, &b"end\n"[..]));
}

#[test]
fn who_attaches_hears_what_is_said_from_then_on_and_can_answer() {
    let change = |config: &mut wire::ContainerConfig| config.stdin = true;
    let script =
        "(while :; do echo here; sleep 0.1; done) & while read line; do echo said $line; done; sleep 1000";
    let Some(kubelet) = Kubelet::with(script, change) else { return };
    let (mut one, mut other) = (kubelet.attach(false), kubelet.attach(false));
    one.until(1, "here");
    other.until(1, "here");
    one.say(0, b"first\n");
    one.until(1, "said first");
    other.until(1, "said first");
    // One goes, with a word or without; the other stays.
    one.speaker().finish(0);
    one.end();
    assert_eq!(one.heard(3), br#"{"status":"Success"}"#);
    drop(kubelet.attach(false));
    other.say(0, b"second\n");
    other.until(1, "said second");
    let stop = wire::StopContainerRequest { container_id: kubelet.container.clone(), timeout: 0 };
    kubelet.cri.call(kubelet.cri.client().stop_container(stop)).unwrap();
    other.end();
    assert_eq!(other.heard(3), br#"{"status":"Success"}"#);
}

#[test]
fn stdin_that_is_there_once_ends_with_the_client_that_has_it() {
    let change = |config: &mut wire::ContainerConfig| (config.stdin, config.stdin_once) = (true, true);
    let Some(kubelet) = Kubelet::with("cat; echo the end", change) else { return };
    let mut client = kubelet.attach(false);
    client.say(0, b"hello\n");
    client.until(1, "hello");
    client.speaker().finish(0);
    client.until(1, "the end");
    client.end();
    assert_eq!(client.heard(3), br#"{"status":"Success"}"#);
}

#[test]
fn a_port_of_a_pod_is_connected_to_from_inside() {
    let script = "nc -l -p 8080 -e sh -c 'read line; echo heard $line; cat'; sleep 1000";
    let Some(kubelet) = Kubelet::start(script) else { return };
    let url = |port: Vec<i32>| {
        let request = wire::PortForwardRequest { pod_sandbox_id: kubelet.pod.clone(), port };
        kubelet.cri.call(kubelet.cri.client().port_forward(request)).unwrap().url
    };
    eventually("the port is listened to", || {
        kubelet.sync("netstat -ltn | grep :8080", 0).unwrap().exit_code == 0
    });
    let mut client = WebSocket::open(&url(vec![8080, 81]), "v4.channel.k8s.io");
    client.say(0, b"me\n");
    client.until(0, "heard me");
    client.until(3, "failed to connect to localhost:81 inside namespace");
    drop(client);
    let missing = wire::PortForwardRequest { pod_sandbox_id: "nobody".to_owned(), port: vec![80] };
    let missing = kubelet.cri.call(kubelet.cri.client().port_forward(missing)).unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
}

#[test]
fn clients_that_go_away_leave_nothing() {
    let change = |config: &mut wire::ContainerConfig| config.stdin = true;
    let Some(kubelet) = Kubelet::with("nc -lk -p 8080 -e cat & sleep 1000", change) else { return };
    let abort = |number: usize| {
        let client = match number % 5 {
            0 => kubelet.exec("cat", false),
            1 => kubelet.exec("sleep 1004", true),
            2 => kubelet.attach(false),
            3 => kubelet.exec("yes | head -c 1000000", false),
            _ => {
                let request =
                    wire::PortForwardRequest { pod_sandbox_id: kubelet.pod.clone(), port: vec![8080] };
                let url = kubelet.cri.call(kubelet.cri.client().port_forward(request)).unwrap().url;
                WebSocket::open(&url, "v4.channel.k8s.io")
            }
        };
        client.say(0, b"something\n");
        if number.is_multiple_of(2) {
            client.speaker().hang_up()
        }
    };
    (0..10).for_each(abort);
    let settled = || {
        // Gone are those of whom nobody knows any more.
        let mut held = kubelet.held();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            thread::sleep(Duration::from_millis(100));
            let now = kubelet.held();
            held = (held.0.min(now.0), if now.1.len() < held.1.len() { now.1 } else { held.1 });
        }
        (held.0, held.1.len())
    };
    let before = settled();
    (0..50).for_each(abort);
    eventually("nothing is left", || settled() <= before);
}

#[test]
fn who_attaches_to_a_container_of_a_shim_of_another_kind_hears_and_is_heard() {
    let Some(kubelet) = kubelet::Kubelet::with_upstreams_shim() else { return };
    let with_input = |name: &str, script: &str, once: bool, tty: bool| {
        let mut config = kubelet.config(name, script);
        (config.stdin, config.stdin_once, config.tty) = (true, once, tty);
        kubelet.run_config(config)
    };
    let script = "(while :; do echo here; echo there >&2; sleep 0.1; done) & while read line; do echo said $line; done; sleep 1000";
    let id = with_input("talks", script, false, false);
    let (mut one, mut other) = (kubelet.attach(&id, false), kubelet.attach(&id, false));
    for client in [&mut one, &mut other] {
        client.until(1, "here");
        client.until(2, "there");
    }
    one.say(0, b"first\n");
    other.until(1, "said first");
    // One goes, with a word or without; the other stays, and so does the input.
    one.speaker().finish(0);
    one.end();
    assert_eq!(one.heard(3), br#"{"status":"Success"}"#);
    drop(kubelet.attach(&id, false));
    other.say(0, b"second\n");
    other.until(1, "said second");
    eventually("it is logged, too", || kubelet.log("talks").contains(" stdout F said second\n"));
    // So it is after a restart of the daemon, which ends the connections.
    kubelet.restart();
    let mut after = kubelet.attach(&id, false);
    after.say(0, b"third\n");
    after.until(1, "said third");
    kubelet.stop(&id, 0).unwrap();
    after.end();
    assert_eq!(after.heard(3), br#"{"status":"Success"}"#);

    let id = with_input("once", "cat; echo the end", true, false);
    let mut client = kubelet.attach(&id, false);
    client.say(0, b"hello\n");
    client.until(1, "hello");
    client.speaker().finish(0);
    client.until(1, "the end");
    client.end();
    assert_eq!(kubelet.exits(&id).exit_code, 0);

    let script = "until [ \"$(stty size)\" = '45 123' ]; do sleep 0.05; done; echo it fits; read x; echo got $x; exec sleep 1000";
    let id = with_input("terminal", script, false, true);
    let mut client = kubelet.attach(&id, true);
    client.say(4, br#"{"Width":123,"Height":45}"#);
    client.until(1, "it fits");
    client.say(0, b"it\n");
    client.until(1, "got it");
}
