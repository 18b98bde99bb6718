//! Standard streams: nothing is lost, whoever is slow, late or gone; ends are seen; terminals have a size.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod support;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::containerd::task::v3 as wire;
use support::{Rig, can_run, eventually};

/// What the shim waits for readers after an exit; a Delete does not.
const DRAIN: Duration = Duration::from_secs(10);

fn fifo(rig: &Rig, name: &str) -> (PathBuf, String) {
    let path = rig.path(name);
    sys::fifo::make(&path, 0o600).unwrap();
    let text = path.to_str().unwrap().to_owned();
    (path, text)
}

/// Reads a FIFO to its end, as a client does that opens it before there is a writer.
fn reader(path: &Path) -> std::thread::JoinHandle<Vec<u8>> {
    let path = path.to_owned();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    })
}

#[test]
fn a_hundred_mebibytes_arrive_whole_and_then_the_end() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let ((out, out_name), (err, err_name)) = (fifo(&rig, "out"), fifo(&rig, "err"));
    rig.bundle("c1", &["sh", "-c", "dd if=/dev/zero bs=1M count=100 2>/dev/null; echo end >&2"]);
    let (out, err) = (reader(&out), reader(&err));
    rig.run_as(wire::CreateTaskRequest { stdout: out_name, stderr: err_name, ..rig.create_request("c1") });
    assert_eq!(rig.wait("c1", ""), 0);
    assert_eq!(out.join().unwrap().len(), 100 << 20);
    assert_eq!(err.join().unwrap(), b"end\n");
    rig.delete("c1", "").unwrap();
    rig.shut_down();
}

#[test]
fn both_outputs_are_added_to_a_log_file() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let path = rig.path("new/log");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "before\n").unwrap();
    let uri = format!("file://{}", path.display());
    rig.bundle("c1", &["sh", "-c", "echo out; echo err >&2"]);
    rig.run_as(wire::CreateTaskRequest { stdout: uri.clone(), stderr: uri, ..rig.create_request("c1") });
    assert_eq!(rig.wait("c1", ""), 0);
    rig.delete("c1", "").unwrap();
    let mut lines: Vec<_> = std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
    lines[1..].sort_unstable();
    assert_eq!(lines, ["before", "err", "out"]);
    rig.shut_down();
}

#[test]
fn output_waits_for_a_reader_that_comes_after_the_exit() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let (out, out_name) = fifo(&rig, "out");
    rig.bundle("c1", &["sh", "-c", "seq 1 1000"]);
    rig.run_as(wire::CreateTaskRequest { stdout: out_name, ..rig.create_request("c1") });
    assert_eq!(rig.wait("c1", ""), 0);
    let text = reader(&out).join().unwrap();
    assert_eq!(text.iter().filter(|b| **b == b'\n').count(), 1000);
    rig.delete("c1", "").unwrap();
    rig.shut_down();
}

#[test]
fn a_reader_that_leaves_misses_nothing_when_another_comes() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let (out, out_name) = fifo(&rig, "out");
    rig.bundle("c1", &["sh", "-c", "seq 1 200000; exit 4"]);
    let mut first = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&out).unwrap();
    rig.run_as(wire::CreateTaskRequest { stdout: out_name, ..rig.create_request("c1") });
    let mut seen = Vec::new();
    eventually("first output", || {
        let mut buffer = [0; 1000];
        seen.extend(first.read(&mut buffer).map(|n| buffer[..n].to_vec()).unwrap_or_default());
        !seen.is_empty()
    });
    drop(first);
    std::thread::sleep(Duration::from_millis(50));
    seen.extend(reader(&out).join().unwrap());
    let wanted: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert!(seen == wanted.as_bytes(), "{} bytes of {}", seen.len(), wanted.len());
    assert_eq!(rig.wait("c1", ""), 4);
    rig.delete("c1", "").unwrap();
    rig.shut_down();
}

#[test]
fn output_that_nobody_ever_reads_does_not_keep_a_container_from_being_deleted() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let (_, out_name) = fifo(&rig, "out");
    rig.bundle("c1", &["echo", "x"]);
    rig.run_as(wire::CreateTaskRequest { stdout: out_name, ..rig.create_request("c1") });
    assert_eq!(rig.wait("c1", ""), 0);
    let begun = std::time::Instant::now();
    rig.delete("c1", "").unwrap();
    assert!(begun.elapsed() < DRAIN);
    rig.shut_down();
}

/// Its output ends only while it is being deleted.
#[test]
fn a_container_that_never_ran_is_deleted_at_once_though_nobody_reads_it() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let (_, out_name) = fifo(&rig, "out");
    let request = wire::CreateTaskRequest { stdout: out_name, ..rig.create_request("c1") };
    rig.client().call::<wire::CreateTaskResponse>("Create", &request).unwrap();
    let begun = std::time::Instant::now();
    rig.delete("c1", "").unwrap();
    assert!(begun.elapsed() < DRAIN, "{:?}", begun.elapsed());
    rig.shut_down();
}

#[test]
fn input_arrives_and_its_end_only_when_the_client_asks_for_it() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let ((input, input_name), (out, out_name)) = (fifo(&rig, "in"), fifo(&rig, "out"));
    rig.bundle("c1", &["cat"]);
    let out = reader(&out);
    let request = wire::CreateTaskRequest { stdin: input_name, stdout: out_name, ..rig.create_request("c1") };
    rig.run_as(request);
    for part in ["one ", "two "] {
        // A client that leaves without CloseIO is only detached.
        OpenOptions::new().write(true).open(&input).unwrap().write_all(part.as_bytes()).unwrap();
    }
    let close = wire::CloseIoRequest { id: "c1".into(), exec_id: String::new(), stdin: true };
    rig.client().call::<()>("CloseIO", &close).unwrap();
    assert_eq!(rig.wait("c1", ""), 0);
    assert_eq!(out.join().unwrap(), b"one two ");
    rig.delete("c1", "").unwrap();
    rig.shut_down();
}

#[test]
fn an_exec_whose_input_is_closed_before_it_starts_sees_the_end() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    rig.run("c1", &["sleep", "1000"]);
    let (input, stdin) = fifo(&rig, "in");
    rig.add("c1", "e", &["cat"], wire::ExecProcessRequest { stdin, ..Default::default() }).unwrap();
    let close = wire::CloseIoRequest { id: "c1".into(), exec_id: "e".into(), stdin: true };
    rig.client().call::<()>("CloseIO", &close).unwrap();
    let start = wire::StartRequest { id: "c1".into(), exec_id: "e".into() };
    rig.client().call::<wire::StartResponse>("Start", &start).unwrap();
    assert_eq!(rig.wait("c1", "e"), 0);
    assert!(sys::fifo::open_writer_if_read(&input).unwrap().is_none());
    rig.end("c1");
}

#[test]
fn a_terminal_has_a_name_a_size_and_all_of_its_output() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let ((input, stdin), (out, stdout)) = (fifo(&rig, "in"), fifo(&rig, "out"));
    let config = std::fs::read_to_string(
        rig.bundle("c1", &["sh", "-c", "tty; cat >/dev/null; stty size; seq 1 3000; exit 6"])
            .join("config.json"),
    );
    let config = config.unwrap().replace("\"process\":{", "\"process\":{\"terminal\":true,");
    std::fs::write(rig.path("c1/config.json"), config).unwrap();
    let out = reader(&out);
    rig.run_as(wire::CreateTaskRequest { stdin, stdout, terminal: true, ..rig.create_request("c1") });
    let resize = wire::ResizePtyRequest { id: "c1".into(), exec_id: String::new(), width: 132, height: 43 };
    rig.client().call::<()>("ResizePty", &resize).unwrap();
    // The end of input, as a terminal has it.
    OpenOptions::new().write(true).open(&input).unwrap().write_all(b"\x04").unwrap();
    assert_eq!(rig.wait("c1", ""), 6);
    let text = String::from_utf8(out.join().unwrap()).unwrap();
    assert!(text.starts_with("/dev/pts/"), "{text}");
    assert!(text.contains("43 132\r\n") && text.ends_with("\r\n3000\r\n"), "{text}");
    rig.delete("c1", "").unwrap();
    assert!(
        !std::fs::read_dir(Path::new(&rig.address["unix://".len()..]).parent().unwrap())
            .unwrap()
            .flatten()
            .any(|e| e.file_name().to_string_lossy().starts_with(&format!("p{}.", rig.pid)))
    );
    rig.shut_down();
}
