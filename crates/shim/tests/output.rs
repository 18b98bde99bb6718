//! Output that goes to a disk: log files and their rotation, programs that take it, and what waits for a reader.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod support;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::containerd::task::v3 as wire;
use support::{LIMIT, Rig, can_run, eventually};
use types::output::parse_lost_mark;

fn fifo(rig: &Rig, name: &str) -> (PathBuf, String) {
    let path = rig.path(name);
    sys::fifo::make(&path, 0o600).unwrap();
    let text = path.to_str().unwrap().to_owned();
    (path, text)
}

fn program(rig: &Rig, name: &str, script: &str) -> PathBuf {
    let path = rig.path(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Runs a container whose output goes to `uri`, and waits for its end.
fn run(rig: &Rig, args: &[&str], uri: &str) -> u32 {
    rig.bundle("c1", args);
    let (stdout, stderr) = (uri.to_owned(), uri.to_owned());
    rig.run_as(wire::CreateTaskRequest { stdout, stderr, ..rig.create_request("c1") });
    rig.wait("c1", "")
}

fn finish(rig: &Rig) {
    rig.delete("c1", "").unwrap();
    rig.shut_down();
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The processes that carry output of this test's shim.
fn carriers(rig: &Rig) -> usize {
    let children =
        std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", rig.pid)).unwrap_or_default();
    let name = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    children.split_whitespace().filter(|pid| name(pid).starts_with("containerd-output")).count()
}

#[test]
fn rotation_under_load_loses_no_line() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let path = rig.path("logs/c1.log");
    std::fs::create_dir(rig.path("logs")).unwrap();
    let uri = format!("file://{}?max-size=64k&max-file=1000&format=cri", path.display());
    let script = "seq 1 30000 & seq 30001 60000 >&2; wait";
    assert_eq!(run(&rig, &["sh", "-c", script], &uri), 0);
    finish(&rig);
    let mut said: Vec<u32> = Vec::new();
    let mut files = 0;
    for n in 0.. {
        let name = if n == 0 { path.clone() } else { path.with_file_name(format!("c1.log.{n}")) };
        if !name.exists() {
            break;
        }
        assert!(name.metadata().unwrap().len() <= 64 << 10);
        files = n;
        for line in lines(&name) {
            let words: Vec<&str> = line.split(' ').collect();
            let number: u32 = words[3].parse().unwrap();
            assert_eq!(
                (words[1], words[2]),
                (if number <= 30_000 { "stdout" } else { "stderr" }, "F"),
                "{line}"
            );
            said.push(number);
        }
    }
    said.sort_unstable();
    assert!(files > 20 && said == (1..=60_000).collect::<Vec<_>>(), "{} lines in {files} files", said.len());
}

#[test]
fn a_terminal_writes_to_a_log_file_as_well() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let path = rig.path("log");
    let bundle = rig.bundle("c1", &["sh", "-c", "tty; seq 1 2000"]);
    let config = std::fs::read_to_string(bundle.join("config.json")).unwrap();
    let config = config.replace(r#""process":{"#, r#""process":{"terminal":true,"#);
    std::fs::write(bundle.join("config.json"), config).unwrap();
    let stdout = format!("file://{}", path.display());
    rig.run_as(wire::CreateTaskRequest { stdout, terminal: true, ..rig.create_request("c1") });
    assert_eq!(rig.wait("c1", ""), 0);
    finish(&rig);
    let lines = lines(&path);
    assert!(lines[0].starts_with("/dev/pts/"), "{}", lines[0]);
    assert_eq!((lines.len(), lines[2000].as_str()), (2001, "2000"));
}

#[test]
fn a_program_takes_both_outputs_and_knows_whose_they_are() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let script = "env | grep -c . > $2; echo $1 $CONTAINER_NAMESPACE/$CONTAINER_ID >> $2\n\
        exec 5>&-\ncat <&3 >> $2\ncat <&4 >> $2; echo end >> $2";
    let (logger, out) = (program(&rig, "logger", script), rig.path("logged"));
    let uri = format!("binary://{}?key={}", logger.display(), out.display());
    assert_eq!(run(&rig, &["sh", "-c", "seq 1 20000; echo error >&2"], &uri), 0);
    finish(&rig);
    let lines = lines(&out);
    assert_eq!(lines[1], "key test/c1");
    assert_eq!(lines[2..20_002], (1..=20_000).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(lines[20_002..], ["error", "end"]);
}

#[test]
fn a_program_must_say_that_it_is_ready_where_the_client_asks_for_that() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let create = |script: &str, scheme: &str| {
        rig.bundle("c1", &["true"]);
        let logger = program(&rig, "logger", script);
        let stdout = format!("{scheme}://{}", logger.display());
        let request = wire::CreateTaskRequest { stdout, ..rig.create_request("c1") };
        rig.client().call::<wire::CreateTaskResponse>("Create", &request)
    };
    let error = create("exit 1", "binary-v2").unwrap_err().to_string();
    assert!(error.contains("did not call ready"), "{error}");
    create("sleep 0.2; echo >&5; exec 5>&-; cat <&3", "binary-v2").unwrap();
    rig.delete("c1", "").unwrap();
    create("exec 5>&-; cat <&3", "binary").unwrap();
    rig.delete("c1", "").unwrap();
    let missing = rig.create_request("c1");
    let missing = wire::CreateTaskRequest { stdout: "binary:///does/not/exist".into(), ..missing };
    let error = rig.client().call::<wire::CreateTaskResponse>("Create", &missing).unwrap_err().to_string();
    assert!(error.contains("no such file"), "{error}");
    assert!(rig.mounts().is_empty());
    rig.shut_down();
}

#[test]
fn a_program_that_dies_hurts_nobody_and_the_next_one_misses_nothing() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let out = rig.path("logged");
    // The first takes a little, the next ones all.
    let script = format!(
        "exec 5>&-\nif mkdir {0}.once; then head -c 10 <&3 >> {0}; exit 1; fi\ncat <&3 >> {0}",
        out.display()
    );
    let logger = program(&rig, "logger", &script);
    let uri = format!("binary://{}", logger.display());
    let begun = Instant::now();
    // More than all pipes hold.
    assert_eq!(run(&rig, &["sh", "-c", "seq 100000 199999"], &uri), 0);
    assert!(begun.elapsed() < LIMIT / 3, "it was held back");
    eventually("all is logged", || std::fs::metadata(&out).is_ok_and(|m| m.len() >= 690_000));
    finish(&rig);
    let text = std::fs::read(&out).unwrap();
    let wanted: String = (100_000..200_000).map(|n| format!("{n}\n")).collect();
    // What the first one had read and not logged went with it.
    assert!(text.starts_with(b"100000\n100") && wanted.as_bytes().ends_with(&text[text.len() - 600_000..]));
}

#[test]
fn nobody_is_held_back_without_a_reader_and_each_that_comes_gets_what_is_next() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let (out, stdout) = fifo(&rig, "out");
    let script = "seq 1 200000; touch /tmp/one; while [ ! -e /tmp/go ]; do sleep 0.01; done
        seq 200001 400000; touch /tmp/two; while [ ! -e /tmp/end ]; do sleep 0.01; done; exit 4";
    rig.bundle("c1", &["sh", "-c", script]);
    let temporary = rig.path("image/tmp");
    std::os::unix::fs::symlink("busybox", rig.path("image/bin/touch")).unwrap();
    rig.run_as(wire::CreateTaskRequest { stdout, ..rig.create_request("c1") });
    eventually("the first half is said", || temporary.join("one").exists());
    let mut seen = String::new();
    let mut buffer = vec![0; 100_000];
    {
        let mut first = File::open(&out).unwrap();
        while seen.len() < 500_000 {
            let read = first.read(&mut buffer).unwrap();
            seen.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
    }
    std::fs::write(temporary.join("go"), "").unwrap();
    eventually("the second half is said", || temporary.join("two").exists());
    let mut second = File::open(&out).unwrap();
    std::fs::write(temporary.join("end"), "").unwrap();
    second.read_to_string(&mut seen).unwrap();
    let wanted: String = (1..=400_000).map(|n| format!("{n}\n")).collect();
    assert!(seen == wanted, "{} of {} bytes", seen.len(), wanted.len());
    assert_eq!(rig.wait("c1", ""), 4);
    assert_eq!(std::fs::read_dir(rig.path("root/test/c1/spool")).unwrap().count(), 0);
    finish(&rig);
}

#[test]
fn what_finds_no_room_is_told_of_in_its_place() {
    if !can_run() {
        return;
    }
    let rig = Rig::with_environment("c1", &[("CONTAINERD_SHIM_SPOOL_LIMIT", "100k")]);
    let (out, stdout) = fifo(&rig, "out");
    rig.bundle("c1", &["sh", "-c", "seq 1 100000; exit 3"]);
    rig.run_as(wire::CreateTaskRequest { stdout, ..rig.create_request("c1") });
    assert_eq!(rig.wait("c1", ""), 3);
    let mut text = String::new();
    File::open(&out).unwrap().read_to_string(&mut text).unwrap();
    let marks: Vec<(&str, u64)> = text.lines().filter_map(|l| Some((l, parse_lost_mark(l)?))).collect();
    let whole: usize = (1..=100_000).map(|n: u32| n.to_string().len() + 1).sum();
    let lost: u64 = marks.iter().map(|(_, lost)| lost).sum();
    let said: usize = text.len() - marks.iter().map(|(line, _)| line.len() + 1).sum::<usize>();
    // A line that was cut is ended before the mark.
    assert!(
        !marks.is_empty() && (whole..=whole + marks.len()).contains(&(said + lost as usize)),
        "{marks:?} {said}"
    );
    assert!(text.starts_with("1\n2\n3\n"));
    finish(&rig);
}

#[test]
fn without_a_spool_the_container_waits_for_its_reader() {
    if !can_run() {
        return;
    }
    let rig = Rig::with_environment("c1", &[("CONTAINERD_SHIM_SPOOL_LIMIT", "0")]);
    let (out, stdout) = fifo(&rig, "out");
    rig.bundle("c1", &["sh", "-c", "seq 1 100000"]);
    rig.run_as(wire::CreateTaskRequest { stdout, ..rig.create_request("c1") });
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(rig.state("c1", "").unwrap().status, 2);
    let mut text = String::new();
    File::open(&out).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((text.lines().count(), rig.wait("c1", "")), (100_000, 0));
    finish(&rig);
}

#[test]
fn output_that_nobody_reads_leaves_no_file_and_no_process_behind() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    rig.run("c1", &["sleep", "1000"]);
    let (_, stdout) = fifo(&rig, "out");
    rig.add("c1", "e", &["seq", "1", "50000"], wire::ExecProcessRequest { stdout, ..Default::default() })
        .unwrap();
    let start = wire::StartRequest { id: "c1".into(), exec_id: "e".into() };
    rig.client().call::<wire::StartResponse>("Start", &start).unwrap();
    assert_eq!(rig.wait("c1", "e"), 0);
    eventually("it is kept", || rig.path("root/test/c1/spool/exec-e.stdout").exists());
    let begun = Instant::now();
    rig.delete("c1", "e").unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    eventually("no file is left", || std::fs::read_dir(rig.path("root/test/c1/spool")).unwrap().count() == 0);
    eventually("no process is left", || carriers(&rig) == 0);
    rig.kill("c1", "", 9).unwrap();
    rig.wait("c1", "");
    finish(&rig);
}

#[test]
fn a_carrier_that_is_killed_is_replaced() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let (out, stdout) = fifo(&rig, "out");
    rig.bundle("c1", &["sh", "-c", "for n in 1 2 3 4 5; do seq 1 20000; sleep 0.4; done"]);
    rig.run_as(wire::CreateTaskRequest { stdout, ..rig.create_request("c1") });
    eventually("a carrier is at work", || carriers(&rig) == 1);
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", rig.pid)).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    for pid in children.split_whitespace() {
        if std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().starts_with("containerd-output") {
            std::process::Command::new("kill").args(["-9", pid]).status().unwrap();
        }
    }
    assert_eq!(rig.wait("c1", ""), 0);
    let mut text = String::new();
    File::open(&out).unwrap().read_to_string(&mut text).unwrap();
    let wanted: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
    assert!(text == wanted.repeat(5), "{} of {} bytes", text.len(), 5 * wanted.len());
    finish(&rig);
}
