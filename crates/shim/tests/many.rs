//! Many processes that end at once: every exit arrives once and as it was, in answers and in events.
//!
//! The long versions are for `cargo test -- --ignored`; their numbers wrap around the machine's process ids several times.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use api::containerd::events::TaskExit;
use api::containerd::task::v3 as wire;
use prost::Message;
use support::{Rig, V3, can_run, eventually};

/// Signals that end a process which does nothing about them.
const SIGNALS: [u32; 6] = [1, 2, 6, 9, 10, 15];

/// How process number `n` ends: the script, and the status that it must have.
fn ending(n: u32) -> (String, u32) {
    match n % 4 {
        3 => {
            let signal = SIGNALS[(n / 4) as usize % SIGNALS.len()];
            (format!("kill -{signal} $$; sleep 10"), 128 + signal)
        }
        _ => (format!("exit {}", n % 256), n % 256),
    }
}

/// Starts the processes with these numbers, `width` at a time, in the container `c1`, and deletes them.
fn run_execs(rig: &Rig, numbers: std::ops::Range<u32>, width: u32) {
    let next = AtomicU32::new(numbers.start);
    std::thread::scope(|scope| {
        for _ in 0..width {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= numbers.end {
                        return;
                    }
                    let (script, status) = ending(n);
                    let exec = format!("e{n}");
                    rig.exec("c1", &exec, &["sh", "-c", &script]).unwrap();
                    assert_eq!(rig.wait("c1", &exec), status, "{script}");
                    assert_eq!(rig.delete("c1", &exec).unwrap().exit_status, status, "{script}");
                }
            });
        }
    });
}

/// Starts `count` processes, `width` at a time, in one container.
fn short_processes(count: u32, width: u32) {
    let rig = Rig::new("c1");
    rig.run("c1", &["sleep", "100000"]);
    run_execs(&rig, 0..count, width);
    rig.wait_for_topic("/tasks/exit", count as usize);
    let mut told = BTreeMap::new();
    for (_, payload) in rig.events.lock().unwrap().iter().filter(|(topic, _)| topic == "/tasks/exit") {
        let exit = TaskExit::decode(payload.as_slice()).unwrap();
        assert_eq!(told.insert(exit.id, exit.exit_status), None, "told twice");
    }
    for n in 0..count {
        assert_eq!(told.get(&format!("e{n}")), Some(&ending(n).1));
    }
    rig.end("c1");
}

#[test]
fn exit_codes_and_signals_of_short_processes_arrive() {
    if can_run() {
        short_processes(120, 10);
    }
}

#[test]
#[ignore = "takes half an hour"]
fn exit_codes_and_signals_of_twenty_thousand_processes_arrive() {
    if can_run() {
        short_processes(20_000, 40);
    }
}

#[test]
#[ignore = "takes minutes"]
fn a_thousand_execs_in_batches_arrive() {
    if can_run() {
        short_processes(1_000, 50);
    }
}

/// Runs `count` containers that end at once, with a Wait that was there before the start.
fn early_exits(count: u32) {
    let rig = Rig::new("keeper");
    rig.run("keeper", &["sleep", "100000"]);
    for n in 0..count {
        let id = format!("c{n}");
        // Init is spared the signals that it does not handle, so only codes here.
        let status = n % 256;
        let script = format!("exit {status}");
        rig.bundle(&id, &["sh", "-c", &script]);
        let mut client = rig.client();
        client.call::<wire::CreateTaskResponse>("Create", &rig.create_request(&id)).unwrap();
        let wait = wire::WaitRequest { id: id.clone(), ..Default::default() };
        client.send(V3, "Wait", &wait, Duration::ZERO);
        let start = wire::StartRequest { id: id.clone(), ..Default::default() };
        client.send(V3, "Start", &start, Duration::ZERO);
        client.receive().1.unwrap();
        let waited = wire::WaitResponse::decode(client.receive().1.unwrap().as_slice()).unwrap();
        assert_eq!(
            (waited.exit_status, rig.delete(&id, "").unwrap().exit_status),
            (status, status),
            "{script}"
        );
    }
    eventually("all is told", || {
        rig.topics().iter().filter(|t| *t == "/tasks/delete").count() >= count as usize
    });
    let topics: Vec<String> = rig.topics().into_iter().skip(2).collect();
    let life = ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"];
    assert!(topics.chunks(4).all(|told| told == life), "{topics:?}");
    rig.end("keeper");
}

#[test]
fn containers_that_end_at_once_are_told_in_order() {
    if can_run() {
        early_exits(20);
    }
}

/// What the shim alone has in memory, in kilobytes, when it has given back what it can.
fn memory(rig: &Rig) -> u64 {
    let read = || {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", rig.pid)).unwrap();
        let dirty = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
        dirty.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let (mut before, mut same) = (read(), 0);
    eventually("its memory stays as it is", || {
        std::thread::sleep(Duration::from_millis(100));
        let now = read();
        same = if now == before { same + 1 } else { 0 };
        before = now;
        same >= 10
    });
    before
}

/// Runs `count` execs after some that the shim may grow with.
fn execs_leave_no_memory_behind(count: u32) {
    let rig = Rig::new("c1");
    rig.run("c1", &["sleep", "100000"]);
    run_execs(&rig, 0..200, 10);
    let before = memory(&rig);
    run_execs(&rig, 200..200 + count, 10);
    let after = memory(&rig);
    println!("{before} kB before {count} execs, {after} kB after");
    assert!(after <= before + 64, "{before} kB, then {after} kB");
    rig.end("c1");
}

#[test]
fn execs_leave_nothing_in_memory() {
    if can_run() {
        execs_leave_no_memory_behind(300);
    }
}

#[test]
#[ignore = "takes minutes"]
fn ten_thousand_execs_leave_nothing_in_memory() {
    if can_run() {
        execs_leave_no_memory_behind(10_000);
    }
}
