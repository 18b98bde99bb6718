//! The debug socket of a shim that logs more: what is going on is told to whoever asks, and nobody waits for him.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::{Rig, can_run, eventually, is_gone};

/// Where upstream's shim would listen, too.
fn socket(rig: &Rig) -> PathBuf {
    let place = format!("{}/test/c1/debug", rig.path("d.sock").display());
    Path::new("/run/containerd/s").join(types::Digest::of(place.as_bytes()).hex())
}

/// Status line and body.
fn get(socket: &Path, page: &str) -> (String, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(stream, "GET {page} HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn page(rig: &Rig, page: &str) -> String {
    let (status, body) = get(&socket(rig), page);
    assert_eq!(status, "HTTP/1.0 200 OK", "{page}: {body}");
    body
}

#[test]
fn all_that_is_going_on_is_told() {
    if !can_run() {
        return;
    }
    let rig = Rig::with("c1", &[], &["-debug"]);
    let log = rig.path("c1.out");
    rig.bundle("c1", &["sleep", "1000"]);
    let stdout = format!("file://{}", log.display());
    let pid = rig.run_as(api::containerd::task::v3::CreateTaskRequest { stdout, ..rig.create_request("c1") });
    let mut waiting = rig.client();
    let wait = api::containerd::task::v3::WaitRequest { id: "c1".into(), ..Default::default() };
    waiting.send(support::V3, "Wait", &wait, Duration::from_secs(3600));
    eventually("the wait is parked", || page(&rig, "/debug/pprof/goroutine?debug=2").contains(": Wait(Call"));
    let dump = page(&rig, "/debug/pprof/goroutine?debug=2");
    let stream = format!("c1 init to {}", log.display());
    for part in ["of test/c1", "phase: Running", &format!("process {pid}, init of c1"), &stream] {
        assert!(dump.contains(part), "no {part:?} in {dump}");
    }
    let vars: serde_json::Value = serde_json::from_str(&page(&rig, "/debug/vars")).unwrap();
    assert_eq!((&vars["containers"], &vars["processes"]), (&1.into(), &1.into()), "{vars:#}");
    assert!(vars["memory"]["Rss"].as_u64().unwrap() > 4096, "{vars:#}");
    assert!(page(&rig, "/debug/pprof/heap").contains("Pss:"));
    assert!(page(&rig, "/debug/pprof/cmdline").contains("-id\0c1\0"));
    assert_eq!(get(&socket(&rig), "/debug/pprof/profile").0, "HTTP/1.0 501 Not Implemented");
    assert_eq!(get(&socket(&rig), "/other").0, "HTTP/1.0 404 Not Found");
    // Who asks for nothing holds nobody up.
    let silent = UnixStream::connect(socket(&rig)).unwrap();
    let begun = Instant::now();
    rig.state("c1", "").unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(silent);
    rig.end("c1");
    assert!(!socket(&rig).exists());
}

#[test]
fn there_is_none_unless_it_is_wanted_and_none_is_left_of_a_shim_that_was_killed() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    assert!(!socket(&rig).exists());
    rig.shut_down();
    let rig = Rig::with("c1", &[], &["-debug"]);
    assert!(socket(&rig).exists());
    kill_process(Pid::from_raw(rig.pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    eventually("the shim's end", || is_gone(rig.pid));
    assert!(socket(&rig).exists());
    let output = rig.command("c1", "delete").output().unwrap();
    assert!(output.status.success());
    assert!(!socket(&rig).exists());
}

#[test]
fn a_signal_has_the_same_logged() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let fifo = rig.path("c1/log");
    sys::fifo::make(&fifo, 0o600).unwrap();
    let (reader, _keeper) = sys::fifo::open_reader(&fifo).unwrap();
    kill_process(Pid::from_raw(rig.pid.cast_signed()).unwrap(), Signal::USR1).unwrap();
    let mut said = Vec::new();
    eventually("the dump is logged", || {
        let mut piece = [0; 4096];
        if let Ok(read) = rustix::io::read(&reader, &mut piece) {
            said.extend_from_slice(&piece[..read]);
        }
        String::from_utf8_lossy(&said).contains("deadlines:")
    });
    let text = String::from_utf8(said).unwrap();
    assert!(text.contains("level=info msg=\"shim v"), "{text}");
    rig.shut_down();
}
