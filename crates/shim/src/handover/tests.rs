//! A state of each version that was ever written, and what it has to mean for as long as shims of that version may run.
//!
//! `state-N.bin` is written once, when version N is new (`WRITE_STATE=1 cargo test -p containerd-shim-runc-v2 state_of_version`),
//! and never again.

use super::*;

const FIRST: &[u8] = include_bytes!("state-1.bin");

/// A call of the sample's.
fn call(client: u64, stream: u32) -> wire::Call {
    wire::Call { client, stream }
}

fn owner(exec: &str) -> wire::Owner {
    wire::Owner { container: "c1".into(), exec: exec.into() }
}

fn connection(fd: i32) -> wire::Wire {
    wire::Wire { fd, input: b"half".to_vec(), skip: 3, output: b"rest".to_vec() }
}

fn processes() -> Vec<wire::Process> {
    let init = wire::Process {
        phase: 1,
        pid: 100,
        waits: vec![call(1, 5), call(2, 1)],
        stdin: "/f/in".into(),
        stdout: "/f/out".into(),
        terminal: true,
        console: Some(20),
        child: 4,
        ..Default::default()
    };
    let exec = wire::Process {
        exec: "e1".into(),
        phase: 2,
        pid: 101,
        deletes: vec![call(1, 7)],
        drained: true,
        exit: Some(wire::Exit { status: 9, seconds: 1_700_000_000, nanos: 5 }),
        stderr: "file:///log".into(),
        stdin_closed: true,
        ..Default::default()
    };
    vec![init, exec]
}

fn container() -> wire::Container {
    wire::Container {
        id: "c1".into(),
        bundle: "/run/b".into(),
        options: api::containerd::runc::v1::Options { binary_name: "crun".into(), ..Default::default() }
            .encode_to_vec(),
        rootfs: Some("/run/b/rootfs".into()),
        mounts: vec![wire::Mount {
            r#type: "overlay".into(),
            source: "overlay".into(),
            target: String::new(),
            options: vec!["lowerdir=/l".into()],
        }],
        uid: 1000,
        gid: 1001,
        processes: processes(),
        eager_removal: true,
        unmount_error: Some(wire::Failure { code: 5, message: "busy".into() }),
        timeline: vec![wire::Moment {
            seconds: 9,
            nanos: 8,
            what: "created".into(),
            pid: 100,
            ..Default::default()
        }],
        groups: "0::/ns/c1\n".into(),
        timeline_omitted: 2,
        ..Default::default()
    }
}

/// A terminal whose reader is away.
fn terminal() -> wire::Stream {
    wire::Stream {
        serial: 2,
        owner: Some(owner("")),
        method: 1,
        source: 9,
        sink: Some(wire::Sink { kind: 1, fd: Some(10), path: "/f/out".into(), ..Default::default() }),
        keeper: Some(11),
        spool: Some("/root/spool/init".into()),
        pending: b"bytes".to_vec(),
        quiet: true,
        waiting: Some(wire::Spool { path: "/root/spool/init".into(), memo: 17 }),
        ring: Some(wire::Ring { fd: 21, written: 70_000, owner: None }),
        ..Default::default()
    }
}

/// A log file that a fork writes.
fn log() -> wire::Stream {
    wire::Stream {
        serial: 3,
        owner: Some(owner("e1")),
        source: 18,
        sink: Some(wire::Sink {
            kind: 3,
            path: "/log".into(),
            error: true,
            format: 2,
            max_size: 1000,
            max_files: 3,
            ..Default::default()
        }),
        ended: true,
        carrier: 7,
        ..Default::default()
    }
}

/// What a shim was started with.
fn settings() -> wire::Settings {
    wire::Settings {
        namespace: "ns".into(),
        id: "c1".into(),
        grpc_address: "/run/c.sock".into(),
        ttrpc_address: "/run/c.sock.ttrpc".into(),
        debug: true,
        bundle: "/run/b".into(),
        publish_binary: "/bin/containerd".into(),
    }
}

/// A logger that is started again in a second.
fn logger() -> wire::Logger {
    wire::Logger {
        owner: Some(owner("e1")),
        path: "/bin/logger".into(),
        args: vec!["a".into()],
        says_ready: true,
        namespace: "ns".into(),
        container: "c1".into(),
        directory: "/run/b".into(),
        child: 8,
        delay_ms: 1000,
        number: 8,
    }
}

/// Events on their way, one of them not written.
fn publisher() -> wire::Publisher {
    wire::Publisher {
        journals: vec![wire::Journal {
            path: "/run/b/journal".into(),
            fd: Some(19),
            head: 16,
            tail: 90,
            unwritten: vec![b"record".to_vec()],
        }],
        count: 5,
        wire: Some(connection(12)),
        in_flight: Some(4),
        stream: 7,
        attempts: 1,
        delay_ms: 50,
        complained: true,
        complaints: vec!["c".into()],
    }
}

/// The state that `state-1.bin` holds.
fn first() -> wire::State {
    wire::State {
        version: 1,
        writer: "v2.3.4+rs.0.1.0".into(),
        settings: Some(settings()),
        socket: Some(wire::Place { path: "/run/s/x".into(), device: 1, inode: 2, seconds: 3, nanos: 4 }),
        listener: 5,
        clients: vec![wire::Client { id: 1, wire: Some(connection(6)) }],
        next_client: 3,
        children: vec![
            wire::Child { serial: 4, fd: 7, pid: 100, purpose: 1, owner: Some(owner("")) },
            wire::Child { serial: 6, fd: 8, pid: 102, ..Default::default() },
            wire::Child { serial: 7, fd: 15, pid: 103, purpose: 2, ..Default::default() },
            wire::Child { serial: 8, fd: 16, pid: 104, purpose: 3, owner: Some(owner("e1")) },
        ],
        next_child: 9,
        streams: vec![terminal(), log()],
        next_stream: 4,
        rings: vec![wire::Ring { fd: 22, written: 10, owner: Some(owner("gone")) }],
        loggers: vec![logger()],
        publisher: Some(publisher()),
        timers: vec![
            wire::Timer { milliseconds: 100, about: Some(wire::timer::About::Wait(call(1, 5))) },
            wire::Timer { milliseconds: 7, about: Some(wire::timer::About::Drain(owner("e1"))) },
        ],
        containers: vec![container()],
        console_prefix: "/run/s/p1.".into(),
        consoles: 3,
        parked: vec![wire::Parked {
            call: Some(call(1, 9)),
            service: "containerd.task.v3.Task".into(),
            method: "State".into(),
            payload: b"p".to_vec(),
            timeout_nano: 1,
            metadata: vec![wire::Pair { key: "k".into(), value: "v".into() }],
        }],
        upgrade: Some(call(2, 3)),
        begun: 77,
        watches: vec![wire::Watch {
            container: "c1".into(),
            notice: Some(13),
            counters: 14,
            killed: 1,
            told: true,
        }],
        // Added later: not there.
        debug_listener: None,
        debug_socket: None,
        copies: Vec::new(),
        next_copy: 0,
        ends_when_empty: false,
    }
}

#[test]
fn a_state_of_version_1_means_what_it_meant() {
    if std::env::var_os("WRITE_STATE").is_some() {
        std::fs::write(
            concat!(env!("CARGO_MANIFEST_DIR"), "/src/handover/state-1.bin"),
            first().encode_to_vec(),
        )
        .unwrap();
        return;
    }
    let state = decode(FIRST).unwrap();
    assert_eq!(state, first());
    check(&state).unwrap();
}

#[test]
fn a_state_of_another_version_is_refused_by_name() {
    let of = |version| wire::State { version, ..Default::default() }.encode_to_vec();
    assert!(decode(&of(VERSION)).is_ok());
    for other in [0, VERSION + 1] {
        assert!(decode(&of(other)).unwrap_err().to_string().contains(&other.to_string()));
    }
    assert!(decode(b"\xff\xff").is_err());
    assert!(check(&wire::State::default()).is_err());
}

#[test]
fn what_means_nothing_to_us_is_refused_before_anything_has_happened() {
    let mut state = first();
    state.children[0].purpose = 77;
    assert!(check(&state).unwrap_err().to_string().contains("77"));
    let mut state = first();
    state.containers[0].processes[0].phase = 99;
    assert!(check(&state).unwrap_err().to_string().contains("99"));
}
