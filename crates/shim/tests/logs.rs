//! Logs of Kubernetes that the shim writes itself: their form, the kubelet's rotation, who is attached, disks that are full.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use api::containerd::task::v3 as wire;
use api::containerdrs::shim::v1 as ours;
use support::{Rig, SHIM, can_run, eventually};
use types::output::{LogFile, parse_lost_mark};
use types::{Class, Result};

/// A container that runs `script` and logs to `path`.
fn logged(rig: &Rig, script: &str, path: &Path) -> u32 {
    rig.bundle("c1", &["sh", "-c", script]);
    rig.run_as(request(rig, path))
}

fn request(rig: &Rig, path: &Path) -> wire::CreateTaskRequest {
    let uri = LogFile::cri_uri(path, 16384);
    wire::CreateTaskRequest { stdout: uri.clone(), stderr: uri, ..rig.create_request("c1") }
}

fn reopen(rig: &Rig) -> Result<()> {
    let request = ours::ReopenRequest { id: "c1".into(), exec_id: String::new() };
    rig.client().call_of::<ours::ReopenResponse>(api::ttrpc::OUTPUT, "Reopen", &request).map(drop)
}

/// Attaches to standard output; what is read from there.
fn attach(rig: &Rig) -> Result<File> {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let stdout = format!("/proc/{}/fd/{}", std::process::id(), writer.as_raw_fd());
    let request = ours::AttachRequest { id: "c1".into(), stdout, ..Default::default() };
    rig.client().call_of::<ours::AttachResponse>(api::ttrpc::OUTPUT, "Attach", &request)?;
    Ok(reader.into())
}

/// Stream, tag and text of each line.
fn words(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "a line is torn: {text}");
    let words = |line: &str| {
        let (time, words) = line.split_once(' ').unwrap();
        assert!(types::time::parse_rfc3339(time).is_some(), "{line}");
        words.to_owned()
    };
    text.lines().map(words).collect()
}

fn go(rig: &Rig, name: &str) {
    std::fs::write(rig.path("image/tmp").join(name), "").unwrap();
}

/// A piece of a script that waits for [`go`].
fn await_go(name: &str) -> String {
    format!("while [ ! -e /tmp/{name} ]; do sleep 0.02; done")
}

fn finish(rig: &Rig) {
    rig.delete("c1", "").unwrap();
    rig.shut_down();
    assert!(rig.mounts().is_empty());
}

#[test]
fn both_streams_are_in_one_file_of_the_kubelets_form() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let path = rig.path("0.log");
    let long = "seq -s x 1 6000";
    logged(&rig, &format!("echo one; sleep 0.3; echo two >&2; sleep 0.3; {long}; printf end"), &path);
    assert_eq!(rig.wait("c1", ""), 0);
    finish(&rig);
    let mode = path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let lines = words(&path);
    assert_eq!((lines[0].as_str(), lines[1].as_str()), ("stdout F one", "stderr F two"));
    assert_eq!((lines[2].len(), lines[4].as_str()), ("stdout P ".len() + 16384, "stdout P end"));
    assert!(lines[2].starts_with("stdout P 1x2x") && lines[3].starts_with("stdout F "), "{lines:?}");
}

#[test]
fn a_log_without_a_directory_is_an_error_and_leaves_nothing() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    rig.bundle("c1", &["true"]);
    let path = rig.path("pod/0.log");
    let create = || rig.client().call::<wire::CreateTaskResponse>("Create", &request(&rig, &path));
    let error = create().unwrap_err();
    assert!(error.to_string().contains(&format!("open log file {}", path.display())), "{error}");
    // Not that of something that is missing: it would be taken for the container.
    assert_eq!(error.class(), Class::Unknown, "{error}");
    assert!(!rig.path("pod").exists() && rig.mounts().is_empty());
    std::fs::create_dir(rig.path("pod")).unwrap();
    create().unwrap();
    finish(&rig);
}

#[test]
fn reopening_under_load_loses_and_tears_no_line() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let path = rig.path("0.log");
    let script = "(for n in 1 2 3 4 5 6 7 8 9; do seq ${n}00001 ${n}20000; sleep 0.05; done) &
        seq 1 20000 >&2; wait";
    logged(&rig, script, &path);
    let mut old: Vec<(PathBuf, u64)> = Vec::new();
    while rig.state("c1", "").unwrap().status != 3 {
        let renamed = rig.path(&format!("0.log.{}", old.len()));
        std::fs::rename(&path, &renamed).unwrap();
        reopen(&rig).unwrap();
        assert!(path.exists(), "the new file is there");
        let length = renamed.metadata().unwrap().len();
        old.push((renamed, length));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(rig.wait("c1", ""), 0);
    finish(&rig);
    let mut said: Vec<u32> = Vec::new();
    for (file, length) in &old {
        assert_eq!(file.metadata().unwrap().len(), *length, "nothing was written to a file that was left");
    }
    for file in old.iter().map(|(file, _)| file).chain([&path]) {
        for line in words(file) {
            let number: u32 = line.split(' ').nth(2).unwrap().parse().unwrap();
            assert!(line.starts_with(if number <= 20000 { "stderr F" } else { "stdout F" }), "{line}");
            said.push(number);
        }
    }
    let per_stream = |stream: bool| said.iter().copied().filter(move |n| (*n <= 20000) == stream);
    assert!(per_stream(true).eq(1..=20000), "standard error, in order");
    let wanted = (1..=9).flat_map(|n| n * 100_000 + 1..=n * 100_000 + 20000);
    assert!(per_stream(false).eq(wanted), "standard output, in order");
    assert!(old.len() > 3, "{} files", old.len());
}

#[test]
fn a_line_that_has_begun_goes_on_in_the_new_file() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let path = rig.path("0.log");
    logged(&rig, &format!("echo one; printf beg; {}; echo un", await_go("go")), &path);
    eventually("the first line", || words(&path).len() == 1);
    std::thread::sleep(Duration::from_millis(100));
    std::fs::rename(&path, rig.path("old")).unwrap();
    reopen(&rig).unwrap();
    assert_eq!(words(&path), [""; 0]);
    go(&rig, "go");
    assert_eq!(rig.wait("c1", ""), 0);
    finish(&rig);
    assert_eq!(
        (words(&rig.path("old")), words(&path)),
        (vec!["stdout F one".into()], vec!["stdout F begun".into()])
    );
}

#[test]
fn what_has_no_log_cannot_be_reopened_and_a_directory_that_is_gone_is_told_of() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    assert_eq!(reopen(&rig).unwrap_err().class(), Class::NotFound);
    rig.run("c1", &["sleep", "1000"]);
    assert_eq!(reopen(&rig).unwrap_err().class(), Class::FailedPrecondition);
    rig.kill("c1", "", 9).unwrap();
    rig.wait("c1", "");
    rig.delete("c1", "").unwrap();
    std::fs::create_dir(rig.path("pod")).unwrap();
    let path = rig.path("pod/0.log");
    let script = format!("echo one; {}; echo two; {}; echo three", await_go("a"), await_go("b"));
    logged(&rig, &script, &path);
    eventually("the first line", || words(&path).len() == 1);
    std::fs::rename(rig.path("pod"), rig.path("gone")).unwrap();
    let error = reopen(&rig).unwrap_err();
    assert_eq!(error.class(), Class::NotFound, "{error}");
    go(&rig, "a");
    std::thread::sleep(Duration::from_millis(300));
    std::fs::create_dir(rig.path("pod")).unwrap();
    go(&rig, "b");
    assert_eq!(rig.wait("c1", ""), 0);
    finish(&rig);
    let lines = words(&path);
    let mark = parse_lost_mark(lines[0].strip_prefix("stdout F ").unwrap());
    assert_eq!((mark, lines[1].as_str()), (Some(4), "stdout F three"), "{lines:?}");
}

#[test]
fn a_full_disk_holds_nobody_back_and_is_told_of_with_its_bytes() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let small = rig.path("small");
    std::fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(&small).status();
    assert!(mounted.unwrap().success());
    let path = small.join("0.log");
    let script = format!("seq 100001 150000; {}; echo after", await_go("go"));
    logged(&rig, &script, &path);
    // 350 kB in lines of 45 bytes: seven times more than there is room for. It comes to its end all the same.
    eventually("the disk is full", || path.metadata().is_ok_and(|m| m.len() > 250 << 10));
    std::thread::sleep(Duration::from_millis(300));
    let first = rig.path("first");
    std::fs::copy(&path, &first).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    go(&rig, "go");
    assert_eq!(rig.wait("c1", ""), 0);
    rig.delete("c1", "").unwrap();
    rig.shut_down();
    let text = std::fs::read_to_string(&path).unwrap();
    let mut whole = std::fs::read_to_string(&first).unwrap();
    whole.truncate(whole.rfind('\n').unwrap() + 1);
    let written = whole.lines().count() as u64;
    let lines: Vec<&str> =
        text.lines().filter(|l| !l.is_empty()).map(|l| l.split_once(' ').unwrap().1).collect();
    let lost = parse_lost_mark(lines[0].strip_prefix("stdout F ").unwrap()).unwrap();
    assert_eq!((lost, lines[1]), ((50_000 - written) * 7, "stdout F after"), "{text}");
    assert!(Command::new("umount").arg(&small).status().unwrap().success());
}

#[test]
fn who_is_attached_gets_a_copy_and_holds_nobody_back() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let path = rig.path("0.log");
    let script = format!("echo before; {}; echo live; {}; seq 1 100000", await_go("a"), await_go("b"));
    logged(&rig, &script, &path);
    eventually("the first line", || words(&path).len() == 1);
    let (mut first, mut second, slow) = (attach(&rig).unwrap(), attach(&rig).unwrap(), attach(&rig).unwrap());
    go(&rig, "a");
    let mut buffer = [0; 64];
    for client in [&mut first, &mut second] {
        let read = client.read(&mut buffer).unwrap();
        assert_eq!(&buffer[..read], b"live\n");
    }
    drop(first);
    let begun = Instant::now();
    go(&rig, "b");
    assert_eq!(rig.wait("c1", ""), 0);
    assert!(begun.elapsed() < Duration::from_secs(10));
    // Bytes may be missing in a copy, and its end is told.
    for mut client in [second, slow] {
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        assert!(said.contains("1\n2\n3\n"));
    }
    finish(&rig);
    assert_eq!(words(&path).len(), 100_002);
}

#[test]
fn a_terminal_can_be_attached_to_and_what_cannot_be_is_refused() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let path = rig.path("0.log");
    let bundle = rig.bundle("c1", &["sh", "-c", "read line; echo got $line"]);
    let config = std::fs::read_to_string(bundle.join("config.json")).unwrap();
    std::fs::write(
        bundle.join("config.json"),
        config.replace(r#""process":{"#, r#""process":{"terminal":true,"#),
    )
    .unwrap();
    let stdin = rig.path("in");
    sys::fifo::make(&stdin, 0o600).unwrap();
    let stdin = stdin.to_str().unwrap().to_owned();
    rig.run_as(wire::CreateTaskRequest { stdin: stdin.clone(), terminal: true, ..request(&rig, &path) });
    let plain = ours::AttachRequest { id: "c1".into(), ..Default::default() };
    let call = |request: &ours::AttachRequest| {
        rig.client().call_of::<ours::AttachResponse>(api::ttrpc::OUTPUT, "Attach", request)
    };
    let answer = call(&plain).unwrap();
    assert_eq!((answer.stdin.as_str(), answer.terminal), (stdin.as_str(), true));
    let regular = path.to_str().unwrap().to_owned();
    let unread = rig.path("unread");
    sys::fifo::make(&unread, 0o600).unwrap();
    for bad in [regular, unread.to_str().unwrap().to_owned(), "/does/not/exist".into()] {
        assert!(call(&ours::AttachRequest { stdout: bad.clone(), ..plain.clone() }).is_err(), "{bad}");
    }
    let mut client = attach(&rig).unwrap();
    File::options().write(true).open(&answer.stdin).unwrap().write_all(b"hello\n").unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    assert_eq!(said, "hello\r\ngot hello\r\n");
    assert_eq!(rig.wait("c1", ""), 0);
    finish(&rig);
    assert_eq!(words(&path), ["stdout F hello", "stdout F got hello"]);
}

#[test]
fn logs_and_who_is_attached_go_on_as_another_program() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let path = rig.path("0.log");
    let newer = rig.path("newer");
    std::fs::copy(SHIM, &newer).unwrap();
    logged(&rig, &format!("echo one; printf beg; {}; echo un; {}", await_go("a"), await_go("b")), &path);
    eventually("the first line", || words(&path).len() == 1);
    let mut client = attach(&rig).unwrap();
    let upgrade = ours::UpgradeRequest { binary: newer.to_str().unwrap().into() };
    rig.client().call_of::<ours::UpgradeResponse>(api::ttrpc::SHIM, "Upgrade", &upgrade).unwrap();
    assert_eq!(std::fs::read_link(format!("/proc/{}/exe", rig.pid)).unwrap(), newer);
    go(&rig, "a");
    let mut buffer = [0; 64];
    let read = client.read(&mut buffer).unwrap();
    assert_eq!(&buffer[..read], b"un\n");
    std::fs::rename(&path, rig.path("old")).unwrap();
    reopen(&rig).unwrap();
    go(&rig, "b");
    assert_eq!(rig.wait("c1", ""), 0);
    assert_eq!(client.read(&mut buffer).unwrap(), 0);
    finish(&rig);
    assert_eq!(words(&rig.path("old")), ["stdout F one", "stdout F begun"]);
}
