//! Terminals: one descriptor of the master each, whatever goes through it and whoever holds it up.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod support;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::containerd::task::v3 as wire;
use api::containerdrs::shim::v1 as ours;
use support::{Rig, SHIM, can_run, eventually};

/// How many descriptors of a terminal's master the shim has open.
fn masters(rig: &Rig) -> usize {
    let links = std::fs::read_dir(format!("/proc/{}/fd", rig.pid)).unwrap().flatten();
    links.filter(|link| std::fs::read_link(link.path()).is_ok_and(|to| to.ends_with("ptmx"))).count()
}

/// Waits until it has as many. What a process had goes when its deletion has been answered already.
fn await_masters(rig: &Rig, wanted: usize) {
    eventually("so many masters", || masters(rig) == wanted);
}

/// FIFOs for input and output of a process, by its name.
fn fifos(rig: &Rig, name: &str) -> [PathBuf; 2] {
    ["in", "out"].map(|end| {
        let path = rig.path(&format!("{name}.{end}"));
        sys::fifo::make(&path, 0o600).unwrap();
        path
    })
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
}

/// Makes a container with a terminal, with input or without; its input and output.
fn run(rig: &Rig, script: &str, with_input: bool) -> [PathBuf; 2] {
    let bundle = rig.bundle("c1", &["sh", "-c", script]).join("config.json");
    let config = std::fs::read_to_string(&bundle).unwrap();
    std::fs::write(&bundle, config.replace(r#""process":{"#, r#""process":{"terminal":true,"#)).unwrap();
    let [input, output] = fifos(rig, "init");
    let stdin = if with_input { text(&input) } else { String::new() };
    let request = rig.create_request("c1");
    rig.run_as(wire::CreateTaskRequest { stdin, stdout: text(&output), terminal: true, ..request });
    [input, output]
}

/// Adds a process with a terminal, input and output.
fn exec(rig: &Rig, script: &str) -> [PathBuf; 2] {
    let [input, output] = fifos(rig, "exec");
    let (stdin, stdout) = (text(&input), text(&output));
    let with = wire::ExecProcessRequest { stdin, stdout, terminal: true, ..Default::default() };
    rig.add("c1", "e", &["sh", "-c", script], with).unwrap();
    let start = wire::StartRequest { id: "c1".into(), exec_id: "e".into() };
    rig.client().call::<wire::StartResponse>("Start", &start).unwrap();
    [input, output]
}

fn end_exec(rig: &Rig) {
    rig.wait("c1", "e");
    rig.delete("c1", "e").unwrap();
    for end in ["in", "out"] {
        std::fs::remove_file(rig.path(&format!("exec.{end}"))).unwrap();
    }
}

fn upgrade(rig: &Rig) {
    let newer = rig.path("newer");
    if !newer.exists() {
        std::fs::copy(SHIM, &newer).unwrap();
    }
    let upgrade = ours::UpgradeRequest { binary: text(&newer) };
    rig.client().call_of::<ours::UpgradeResponse>(api::ttrpc::SHIM, "Upgrade", &upgrade).unwrap();
    assert_eq!(std::fs::read_link(format!("/proc/{}/exe", rig.pid)).unwrap(), newer);
}

/// Reads until `wanted` has come.
fn expect(from: &mut File, wanted: &str) {
    let mut said = Vec::new();
    eventually(wanted, || {
        let mut buffer = [0; 4096];
        let read = from.read(&mut buffer).unwrap_or(0);
        said.extend_from_slice(&buffer[..read]);
        String::from_utf8_lossy(&said).contains(wanted)
    });
}

/// Writes as much as is taken, until nothing is for a while; how much.
fn fill(into: &Path) -> (File, usize) {
    let mut input = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(into).unwrap();
    let (mut taken, mut refused) = (0, 0);
    while refused < 20 {
        match input.write(&[b'x'; 4096]) {
            Ok(n) => (taken, refused) = (taken + n, 0),
            Err(_) => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    (input, taken)
}

/// How often the shim has waited, and what it has used of a processor, in hundredths of a second.
fn turns(rig: &Rig) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", rig.pid)).unwrap();
    let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", rig.pid)).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let used = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    (waits.trim().parse().unwrap(), used)
}

/// Nothing wakes the shim but what it does by itself after a while. A loop of which a descriptor is ready for ever does not wait
/// at all, and uses all of a processor that it gets.
fn assert_idle(rig: &Rig) {
    let before = turns(rig);
    std::thread::sleep(Duration::from_millis(500));
    let after = turns(rig);
    assert!(after.0 - before.0 < 20 && after.1 - before.1 < 5, "{before:?}, {after:?}");
}

fn resize(rig: &Rig, exec_id: &str) {
    let (id, exec_id) = ("c1".into(), exec_id.into());
    let request = wire::ResizePtyRequest { id, exec_id, width: 132, height: 43 };
    rig.client().call::<()>("ResizePty", &request).unwrap();
}

#[test]
fn a_terminal_has_one_descriptor_in_the_shim_for_as_long_as_its_process_is_known() {
    if !can_run() {
        return;
    }
    for with_input in [false, true] {
        let rig = Rig::new("c1");
        let [input, output] = run(&rig, "echo begin; read line; stty size; read line; exit 6", with_input);
        let mut said = open(&output);
        expect(&mut said, "begin");
        assert_eq!(masters(&rig), 1);
        let [to_exec, of_exec] = exec(&rig, "read line; stty size");
        let mut said_by_exec = open(&of_exec);
        assert_eq!(masters(&rig), 2);
        upgrade(&rig);
        assert_eq!(masters(&rig), 2);
        resize(&rig, "e");
        OpenOptions::new().write(true).open(&to_exec).unwrap().write_all(b"go\n").unwrap();
        expect(&mut said_by_exec, "43 132\r\n");
        end_exec(&rig);
        await_masters(&rig, 1);
        if with_input {
            resize(&rig, "");
            let mut input = OpenOptions::new().write(true).open(&input).unwrap();
            input.write_all(b"one\n").unwrap();
            expect(&mut said, "43 132\r\n");
            upgrade(&rig);
            assert_eq!(masters(&rig), 1);
            input.write_all(b"two\n").unwrap();
            assert_eq!(rig.wait("c1", ""), 6);
        } else {
            rig.kill("c1", "", 9).unwrap();
            rig.wait("c1", "");
        }
        rig.delete("c1", "").unwrap();
        await_masters(&rig, 0);
        rig.shut_down();
    }
}

#[test]
fn input_that_a_terminal_does_not_take_waits_and_holds_nothing_else_up() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let await_file = |name| format!("until [ -e /tmp/{name} ]; do sleep 0.05; done");
    let count = "/bin/busybox head -c $(cat /tmp/go) | /bin/busybox wc -c";
    let script = [
        "stty raw min 1 -echo; echo begin",
        &await_file("say"),
        "seq 1 5",
        &await_file("go"),
        count,
        "exec sleep 1000",
    ];
    let script = script.join("; ");
    let [input, output] = run(&rig, &script, true);
    let mut said = open(&output);
    expect(&mut said, "begin");
    let (full, taken) = fill(&input);
    assert_idle(&rig);
    // Output goes on beside it, also from another program, which waits for the same.
    std::fs::write(rig.path("image/tmp/say"), "").unwrap();
    expect(&mut said, "5\n");
    upgrade(&rig);
    assert_idle(&rig);
    // All that was taken arrives, and then the end.
    drop(full);
    let close = wire::CloseIoRequest { id: "c1".into(), exec_id: String::new(), stdin: true };
    rig.client().call::<()>("CloseIO", &close).unwrap();
    std::fs::write(rig.path("image/tmp/number"), taken.to_string()).unwrap();
    std::fs::rename(rig.path("image/tmp/number"), rig.path("image/tmp/go")).unwrap();
    expect(&mut said, &format!("{taken}\n"));
    eventually("the input is taken", || sys::fifo::open_writer_if_read(&input).unwrap().is_none());
    assert!(taken > 64 << 10, "{taken}");
    assert_eq!(masters(&rig), 1);
    rig.end("c1");
}

#[test]
fn a_terminal_whose_input_is_full_and_whose_output_nobody_takes_ends_and_leaves_nothing() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    rig.run("c1", &["sleep", "1000"]);
    let stays = "exec sleep 1000";
    let hangs_up = "until [ -e /tmp/go ]; do sleep 0.05; done; exec sleep 1000 </dev/null >/dev/null 2>&1";
    // Nobody reads: a carrier keeps what it says. Somebody reads and takes nothing: it waits.
    for (is_read, lines, end) in
        [(false, 100_000, stays), (true, 100_000, stays), (false, 100_000, hangs_up), (true, 10, hangs_up)]
    {
        let [input, output] = exec(&rig, &format!("stty raw min 1 -echo; seq 1 {lines}; {end}"));
        let reader = is_read.then(|| open(&output));
        let (full, _) = fill(&input);
        assert_idle(&rig);
        if end == hangs_up {
            let go = rig.path("image/tmp/go");
            std::fs::write(&go, "").unwrap();
            eventually("the end of input", || sys::fifo::open_writer_if_read(&input).unwrap().is_none());
            std::fs::remove_file(go).unwrap();
            assert_eq!(masters(&rig), 1);
            assert_idle(&rig);
        }
        rig.kill("c1", "e", 9).unwrap();
        rig.wait("c1", "e");
        assert_idle(&rig);
        drop((reader, full));
        end_exec(&rig);
        await_masters(&rig, 0);
        assert_idle(&rig);
    }
    rig.end("c1");
}

#[test]
fn the_end_of_input_leaves_the_terminal_its_output_and_its_size() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    let [input, output] = run(&rig, "echo begin; until [ -e /tmp/go ]; do sleep 0.05; done; stty size", true);
    let mut said = open(&output);
    expect(&mut said, "begin");
    let close = wire::CloseIoRequest { id: "c1".into(), exec_id: String::new(), stdin: true };
    rig.client().call::<()>("CloseIO", &close).unwrap();
    eventually("the end of input", || sys::fifo::open_writer_if_read(&input).unwrap().is_none());
    assert_eq!(masters(&rig), 1);
    assert_idle(&rig);
    resize(&rig, "");
    std::fs::write(rig.path("image/tmp/go"), "").unwrap();
    expect(&mut said, "43 132\r\n");
    assert_eq!(rig.wait("c1", ""), 0);
    rig.delete("c1", "").unwrap();
    await_masters(&rig, 0);
    rig.shut_down();
}
