//! `ctr shims upgrade`: a shim goes on as another program while its containers run, and nothing is lost by it; a program
//! that cannot go on leaves the old one serving.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use containerd_tests::binaries::{self, Suite, beyond_upstream};
use containerd_tests::terminal::Terminal;
use containerd_tests::{Daemon, Finished, Ledger, eventually, proc};

/// The shim's program under another name: whoever goes on as it is known by it.
fn newer(daemon: &Daemon, name: &str) -> PathBuf {
    let path = daemon.dir().join(name);
    fs::copy(binaries::tested().shim_dir.join("containerd-shim-runc-v2"), &path).unwrap();
    path
}

/// A program that is none of ours.
fn script(daemon: &Daemon, name: &str, text: &str) -> PathBuf {
    let path = daemon.dir().join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn upgrade(daemon: &Daemon, which: &str, binary: &Path) -> Finished {
    daemon.ctr(&["shims", "upgrade", "--binary", binary.to_str().unwrap(), which]).run()
}

fn program(pid: i32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

/// The rows of `ctr shims ls`.
fn shims(daemon: &Daemon) -> Vec<serde_json::Value> {
    let text = daemon.ctr(&["shims", "ls", "--json"]).ok();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn shims_are_listed_with_version_memory_containers_and_liveness() {
    if beyond_upstream("shims ls") {
        return;
    }
    let daemon = Daemon::start();
    assert!(shims(&daemon).is_empty());
    let id = daemon.id("listed");
    daemon.ctr(&["run", "-d", daemon.image(), &id, "sleep", "1000"]).ok();
    let rows = shims(&daemon);
    let shim = proc::shim(daemon.namespace(), &id).unwrap();
    assert_eq!(rows.len(), 1, "{rows:#?}");
    assert_eq!((&rows[0]["id"], &rows[0]["pid"]), (&id.as_str().into(), &shim.pid.into()));
    assert_eq!((&rows[0]["liveness"], &rows[0]["containers"][0]), (&"answers".into(), &id.as_str().into()));
    assert!(rows[0]["version"].as_str().unwrap().starts_with('v') && rows[0]["pss"].as_u64().unwrap() > 0);
    let text = daemon.ctr(&["shims", "ls"]).ok();
    assert!(text.lines().nth(1).unwrap().contains("answers"), "{text}");
    let stop = rustix::process::Pid::from_raw(shim.pid).unwrap();
    rustix::process::kill_process(stop, rustix::process::Signal::STOP).unwrap();
    assert_eq!(shims(&daemon)[0]["liveness"], "silent");
    rustix::process::kill_process(stop, rustix::process::Signal::CONT).unwrap();
    daemon.ctr(&["tasks", "delete", "--force", &id]).run();
}

#[test]
fn containers_execs_terminals_and_waiters_go_on_as_another_program() {
    if beyond_upstream("shims upgrade") {
        return;
    }
    let daemon = Daemon::start();
    let (image, before) = (daemon.image(), Ledger::take(&daemon));
    let id = daemon.id("goes-on");
    let script = "echo begin; while read line; do echo got $line; done; echo end; exit 23";
    let input = "x\n".repeat(3);
    daemon.ctr(&["run", "-d", image, &id, "sleep", "1000"]).ok();
    let attached = daemon.id("attached");
    let waits = "echo begin; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo end; exit 23";
    let run = daemon.ctr(&["run", image, &attached, "sh", "-c", waits]).start();
    run.await_output("begin");
    let mut shell = Terminal::start(
        daemon.client(daemon.ctr_binary(), &["tasks", "exec", "-t", "--exec-id", "tty", &id, "sh"]),
        80,
        24,
    );
    shell.send("stty size\r");
    shell.expect("24 80");
    let piped = daemon
        .ctr(&["tasks", "exec", "--exec-id", "piped", &id, "sh", "-c", script])
        .input(input.clone())
        .start();
    let pids: Vec<i32> = [&id, &attached].map(|id| proc::shim(daemon.namespace(), id).unwrap().pid).into();
    let waiter = {
        let (api, id) = (daemon.api(), id.clone());
        std::thread::spawn(move || api.wait(&id))
    };
    for round in 0..3 {
        let binary = newer(&daemon, &format!("newer{round}"));
        let done = upgrade(&daemon, "--all", &binary).expect_code(0);
        assert!(done.stdout.contains("2 of 2 replaced"), "{done}");
        for pid in &pids {
            assert_eq!(program(*pid), binary, "the process is the same, and another program");
        }
        shell.send(&format!("echo round-$((100 + {round}))\r"));
        shell.expect(&format!("round-{}", 100 + round));
    }
    let piped = piped.finish().expect_code(23);
    assert_eq!(piped.stdout, "begin\ngot x\ngot x\ngot x\nend\n");
    fs::write(format!("/proc/{}/root/tmp/go", daemon.task_pid(&attached)), "").unwrap();
    assert_eq!(run.finish().expect_code(23).stdout, "begin\nend\n");
    shell.send("exit 7\r");
    assert_eq!(shell.finish(), 7);
    let done =
        daemon.ctr(&["tasks", "exec", "--exec-id", "after", &id, "sh", "-c", "echo more; exit 3"]).run();
    assert_eq!((done.code, done.stdout.as_str()), (3, "more\n"), "{done}");
    daemon.ctr(&["tasks", "kill", "--signal", "SIGKILL", &id]).ok();
    assert_eq!(waiter.join().unwrap(), Ok(137));
    for id in [&id, &attached] {
        daemon.ctr(&["tasks", "delete", id]).run();
        daemon.ctr(&["containers", "delete", id]).ok();
    }
    Ledger::check(&before, &daemon);
}

#[test]
fn the_debug_socket_is_served_by_whoever_goes_on_and_goes_with_the_shim() {
    if beyond_upstream("shims upgrade") {
        return;
    }
    let daemon = Daemon::prepare(binaries::tested(), Suite::Ours).with_log_level("debug");
    daemon.launch();
    let (image, before) = (daemon.image(), Ledger::take(&daemon));
    let id = daemon.id("debugged");
    daemon.ctr(&["run", "-d", image, &id, "sleep", "1000"]).ok();
    let shim = proc::shim(daemon.namespace(), &id).unwrap().pid;
    let shows = |of: &str| {
        let page = daemon.ctr(&["shim", "--id", &id, "pprof", "goroutines"]).ok();
        assert!(page.contains("container State") && page.contains(&format!("init of {id}")), "{page}");
        println!("{of}: {} bytes", page.len());
    };
    shows("before");
    for round in 0..2 {
        let binary = newer(&daemon, &format!("newer{round}"));
        assert_eq!(upgrade(&daemon, &id, &binary).code, 0);
        assert_eq!(program(shim), binary);
        shows("after");
    }
    assert_eq!(upgrade(&daemon, &id, &script(&daemon, "fails", "exit 3")).code, 1);
    shows("after one that failed");
    daemon.ctr(&["tasks", "delete", "--force", &id]).run();
    daemon.ctr(&["containers", "delete", &id]).ok();
    Ledger::check(&before, &daemon);
}

#[test]
fn a_program_that_cannot_go_on_leaves_the_old_one_serving() {
    if beyond_upstream("shims upgrade") {
        return;
    }
    let daemon = Daemon::start();
    let id = daemon.id("stays");
    daemon.ctr(&["run", "-d", daemon.image(), &id, "sleep", "1000"]).ok();
    let shim = proc::shim(daemon.namespace(), &id).unwrap().pid;
    let old = program(shim);
    let mut bad = vec![
        (daemon.dir().join("nothing"), "not found"),
        (script(&daemon, "fails", "echo no such state >&2; exit 3"), "no such state"),
        (script(&daemon, "silent", "exit 0"), "cannot go on"),
        (script(&daemon, "crashes", "kill -SEGV $$"), "cannot go on"),
        (script(&daemon, "hangs", "exec sleep 1000"), "did not read"),
    ];
    let broken = daemon.dir().join("broken");
    fs::write(&broken, "neither").unwrap();
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).unwrap();
    bad.push((broken, "execute"));
    if let Some(peer) = binaries::peer() {
        bad.push((peer.shim_dir.join("containerd-shim-runc-v2"), "cannot go on"));
    }
    for (binary, why) in bad {
        let done = upgrade(&daemon, &id, &binary).expect_code(1);
        done.says(why);
        assert_eq!(program(shim), old);
        let out = daemon.ctr(&["tasks", "exec", "--exec-id", "still", &id, "echo", "here"]).ok();
        assert_eq!(out, "here\n");
    }
    upgrade(&daemon, "nobody", &old).expect_code(1).says("no shim of");
    daemon.ctr(&["tasks", "delete", "--force", &id]).run();
}

#[test]
fn under_upstreams_daemon_a_shim_goes_on_too_and_upstreams_are_left_alone() {
    let Some(peer) = binaries::peer() else { return };
    if beyond_upstream("shims upgrade") {
        return;
    }
    let ours = binaries::tested();
    let mixed =
        binaries::Binaries { daemon: peer.daemon.clone(), shim_dir: ours.shim_dir.clone(), ..ours.clone() };
    let daemon = Daemon::start_of(mixed, Suite::Upstream);
    let id = daemon.id("mixed");
    daemon
        .ctr(&[
            "run",
            "-d",
            daemon.image(),
            &id,
            "sh",
            "-c",
            "while [ ! -e /tmp/go ]; do sleep 0.1; done; exit 9",
        ])
        .ok();
    let shim = proc::shim(daemon.namespace(), &id).unwrap().pid;
    let binary = newer(&daemon, "newer");
    assert_eq!(upgrade(&daemon, &id, &binary).code, 0);
    assert_eq!(program(shim), binary);
    fs::write(format!("/proc/{}/root/tmp/go", daemon.task_pid(&id)), "").unwrap();
    daemon.await_status(&id, "STOPPED");
    assert_eq!(daemon.api().wait(&id), Ok(9));
    daemon.ctr(&["tasks", "delete", &id]).run();
    drop(daemon);

    let daemon = Daemon::start_of(binaries::Binaries { ctr: ours.ctr, ..peer }, Suite::Upstream);
    let id = daemon.id("theirs");
    daemon.ctr(&["run", "-d", daemon.image(), &id, "sleep", "1000"]).ok();
    let rows = shims(&daemon);
    assert_eq!((rows.len(), &rows[0]["liveness"]), (1, &"other".into()), "{rows:#?}");
    let done = daemon.ctr(&["shims", "upgrade", "--all"]).run().expect_code(0);
    done.says("left alone");
    assert!(done.stdout.contains("0 of 1 replaced"), "{done}");
    daemon.ctr(&["tasks", "delete", "--force", &id]).run();
}

/// Counts lines to its end under replacements; each must be there once, and the codes and exit events as well.
fn under_load(containers: usize, rounds: usize) {
    let daemon = Daemon::start();
    let image = daemon.image();
    let events = daemon.ctr(&["events"]).start();
    let code = |n: usize| i32::try_from(n % 100 + 10).unwrap();
    let runs: Vec<_> = (0..containers)
        .map(|n| {
            let id = daemon.id("load");
            let script =
                format!("i=0; while [ ! -e /tmp/go ]; do i=$((i+1)); echo line $i; sleep 0.01; done; echo last $i; exit {}", code(n));
            let run = daemon.ctr(&["run", image, &id, "sh", "-c", &script]).start();
            (id, run)
        })
        .collect();
    for (_, run) in &runs {
        run.await_output("line 1\n");
    }
    for round in 0..rounds {
        let binary = newer(&daemon, &format!("newer{round}"));
        let begun = std::time::Instant::now();
        let done = upgrade(&daemon, "--all", &binary).expect_code(0);
        println!("{containers} replaced in {:?}", begun.elapsed());
        assert!(done.stdout.contains(&format!("{containers} of {containers} replaced")), "{done}");
        assert!(begun.elapsed().as_secs() < 5, "{done}");
    }
    for (id, _) in &runs {
        fs::write(format!("/proc/{}/root/tmp/go", daemon.task_pid(id)), "").unwrap();
    }
    for (n, (id, run)) in runs.into_iter().enumerate() {
        let done = run.finish().expect_code(code(n));
        let lines: Vec<&str> = done.stdout.lines().collect();
        let (last, counted) = lines.split_last().unwrap();
        assert_eq!(*last, format!("last {}", counted.len()), "{id} lost a line, or said one twice");
        assert!(counted.iter().enumerate().all(|(i, line)| *line == format!("line {}", i + 1)), "{id}");
        eventually("the exit is told", || {
            events.output().lines().any(|l| l.contains("/tasks/exit") && l.contains(id.as_str()))
        });
        daemon.ctr(&["containers", "delete", &id]).run();
    }
    let told = events.output().lines().filter(|line| line.contains("/tasks/exit")).count();
    assert_eq!(told, containers, "each exit is told once");
    events.signal(rustix::process::Signal::KILL);
    events.finish();
}

#[test]
fn nothing_is_lost_under_load() {
    if beyond_upstream("shims upgrade") {
        return;
    }
    under_load(8, 3);
}

#[test]
#[ignore = "takes minutes: cargo test -p containerd-tests --release --test blackbox -- --ignored shims_upgrade"]
fn nothing_is_lost_with_a_hundred_containers() {
    under_load(100, 3);
}
