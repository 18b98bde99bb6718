//! `ctr why`: how a container died, as it was at that moment, also when the task is gone.

use std::time::{Duration, Instant};

use containerd_tests::binaries::beyond_upstream;
use containerd_tests::{Daemon, Ledger, eventually, proc};
use serde_json::Value;

fn why(daemon: &Daemon, id: &str) -> Value {
    let text = daemon.ctr(&["why", "--json", id]).ok();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// What happened, in order.
fn happened(record: &Value) -> Vec<&str> {
    record["timeline"].as_array().unwrap().iter().map(|moment| moment["what"].as_str().unwrap()).collect()
}

#[test]
fn an_exit_is_told_with_its_code_and_what_happened_before_and_after_the_deletion() {
    if beyond_upstream("why") {
        return;
    }
    let daemon = Daemon::start();
    let (image, before) = (daemon.image(), Ledger::take(&daemon));
    let (id, log) = (daemon.id("exits"), daemon.dir().join("out.log"));
    let uri = format!("file://{}", log.display());
    let script = "echo said; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo last >&2; exit 41";
    daemon.ctr(&["run", "-d", "--log-uri", &uri, image, &id, "sh", "-c", script]).ok();
    daemon.ctr(&["why", &id]).fails().says("no record of a death");
    daemon.ctr(&["tasks", "exec", "--exec-id", "e", &id, "touch", "/tmp/go"]).ok();
    daemon.await_status(&id, "STOPPED");
    eventually("the record is written", || daemon.ctr(&["why", &id]).run().code == 0);
    let record = why(&daemon, &id);
    assert_eq!((&record["exit_status"], &record["oom_killed"]), (&41.into(), &false.into()), "{record:#}");
    assert_eq!(record["reason"], "exited with code 41");
    assert!(record.get("signal").is_none());
    assert_eq!(happened(&record), ["created", "started", "exec-added", "exec-started", "exit", "exit"]);
    assert!(record["death"]["usage"].is_object() && record["death"]["limits"].is_object(), "{record:#}");
    let output = record["output"].as_array().unwrap();
    let text =
        |of: &str| output.iter().find(|o| o["from"] == of).map(|o| o["text"].as_str().unwrap().to_owned());
    assert!(
        text("stdout").unwrap().contains("said\n") && text("stderr").unwrap().contains("last\n"),
        "{record:#}"
    );
    daemon.ctr(&["tasks", "delete", &id]).run();
    assert_eq!(why(&daemon, &id), record, "the deletion changes nothing");
    let told = daemon.ctr(&["why", &id]).ok();
    assert!(told.contains("exited with code 41") && told.contains("  | said"), "{told}");
    daemon.kill();
    daemon.launch();
    assert_eq!(why(&daemon, &id), record, "nor does a restart of the daemon");
    daemon.ctr(&["containers", "delete", &id]).ok();
    Ledger::check(&before, &daemon);
}

#[test]
fn a_signal_and_memory_that_ran_out_are_told_apart_from_a_code() {
    if beyond_upstream("why") {
        return;
    }
    let daemon = Daemon::start();
    let (code, signal, memory) = (daemon.id("code"), daemon.id("signal"), daemon.id("memory"));
    let run = daemon.ctr(&["run", daemon.image(), &code, "sh", "-c", "exit 137"]).run();
    assert_eq!(run.code, 137, "{run}");
    daemon.ctr(&["run", "-d", daemon.image(), &signal, "sleep", "1000"]).ok();
    daemon.ctr(&["tasks", "kill", "--signal", "SIGKILL", &signal]).ok();
    daemon.await_status(&signal, "STOPPED");
    // A line that never ends is kept in memory.
    let fill = [
        "run",
        "--memory-limit",
        "20000000",
        daemon.image(),
        &memory,
        "sh",
        "-c",
        "sleep 100 & tail /dev/zero; sleep 2; exit 5",
    ];
    let fill = daemon.ctr(&fill).run();
    assert_ne!(fill.code, 0, "{fill}");
    for id in [&code, &signal, &memory] {
        daemon.ctr(&["tasks", "delete", id]).run();
    }
    assert_eq!(why(&daemon, &code)["reason"], "exited with code 137");
    let record = why(&daemon, &signal);
    assert_eq!(
        (&record["reason"], &record["signal"]),
        (&"killed by signal 9".into(), &9.into()),
        "{record:#}"
    );
    let record = why(&daemon, &memory);
    assert_eq!(record["oom_killed"], true, "{record:#}");
    assert!(record["reason"].as_str().unwrap().ends_with("after memory ran out"), "{record:#}");
    assert!(happened(&record).contains(&"oom"), "{record:#}");
    let scene = &record["oom"];
    let limits = scene["limits"].as_object().unwrap();
    let limit = limits.get("memory.limit_in_bytes").or(limits.get("memory.max")).unwrap();
    assert!(limit.as_str().unwrap().starts_with("1999") || limit == "20000000", "{limit}");
    assert!(scene["usage"]["memory.stat"].as_str().unwrap().contains('\n'), "{scene:#}");
    assert!(scene["processes"].as_array().unwrap().iter().any(|p| p["rss_kb"].is_u64()), "{scene:#}");
}

#[test]
fn records_are_written_beside_the_exit_and_their_number_is_bounded() {
    if beyond_upstream("why") {
        return;
    }
    let daemon = Daemon::start();
    let dir = daemon.root().join("io.containerd.runtime.v2.task/.deaths").join(daemon.namespace());
    let begun = Instant::now();
    for _ in 0..5 {
        daemon.ctr(&["run", "--rm", daemon.image(), &daemon.id("short"), "true"]).ok();
    }
    assert!(begun.elapsed() < Duration::from_secs(30));
    let records: Vec<_> = std::fs::read_dir(&dir).unwrap().flatten().collect();
    assert_eq!(records.len(), 5);
    for n in 0..300 {
        std::fs::write(dir.join(format!("older{n}.json")), "{}").unwrap();
    }
    daemon.ctr(&["run", "--rm", daemon.image(), &daemon.id("one-more"), "true"]).ok();
    assert!(std::fs::read_dir(&dir).unwrap().count() <= 256);
    daemon.ctr(&["why", "../older1"]).fails();
}

#[test]
fn the_death_of_a_container_whose_shim_was_killed_is_told_as_far_as_it_is_known() {
    if beyond_upstream("why") {
        return;
    }
    let daemon = Daemon::start();
    let (image, before) = (daemon.image(), Ledger::take(&daemon));
    for daemon_is_there in [true, false] {
        let id = daemon.id(if daemon_is_there { "orphan" } else { "forgotten" });
        let fifo = daemon.dir().join(&id);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .unwrap();
        // Nobody reads it: what is said waits on disk.
        let uri = format!("fifo://{}", fifo.display());
        let script = "echo said last; while :; do sleep 1; done";
        daemon.ctr(&["run", "-d", "--log-uri", &uri, image, &id, "sh", "-c", script]).ok();
        let pid = daemon.task_pid(&id);
        let shim = proc::shim(daemon.namespace(), &id).unwrap();
        let spool = daemon.root().join("io.containerd.runtime.v2.task").join(daemon.namespace()).join(&id);
        let said = || std::fs::read(spool.join("spool/init.stdout")).is_ok_and(|bytes| !bytes.is_empty());
        eventually("it waits on disk", said);
        if !daemon_is_there {
            daemon.kill();
        }
        proc::kill(shim.pid);
        eventually("the shim is gone", || !proc::alive(shim.pid));
        if !daemon_is_there {
            daemon.launch();
        }
        eventually("the task is gone", || daemon.task(&id).is_none() && !proc::alive(pid));
        eventually("the record is written", || daemon.ctr(&["why", &id]).run().code == 0);
        let record = why(&daemon, &id);
        assert_eq!((&record["exit_status"], &record["pid"]), (&137.into(), &pid.into()), "{record:#}");
        assert!(record["reason"].as_str().unwrap().ends_with("its shim was gone"), "{record:#}");
        assert!(["kernel", "estimate"].contains(&record["status_from"].as_str().unwrap()), "{record:#}");
        assert_eq!(record["output"][0]["text"], "said last\n", "{record:#}");
        let told = daemon.ctr(&["why", &id]).ok();
        assert!(told.contains("timeline:    unknown") && told.contains("  | said last"), "{told}");
        daemon.ctr(&["containers", "delete", &id]).ok();
        std::fs::remove_file(fifo).unwrap();
    }
    Ledger::check(&before, &daemon);
}
