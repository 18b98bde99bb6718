//! What a pod needs of its shim: `CONTAINERD_SHIM_BIN=/path/to/containerd-shim-runc-v2 cargo test -p containerd-runtime`.
//!
//! Promised: containers share the shim of their sandbox without its being executed again, and each has its own life; logs are
//! the shim's to write, and go on while the daemon is away; several can be attached; a sandbox needs no image.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod house;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use house::{Daemon, House, eventually, namespace, process};
use runtime::{Attach, CreateSandbox, Input, Pause, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use types::any::{RUNTIME_PROCESS, RUNTIME_SPEC};
use types::output::LogFile;
use types::task::{Create, Exec, Status, Stdio};
use types::{Any, Class};

const ALL: Attach = Attach { stdin: Input::None, stdout: true, stderr: true };

fn of_pod(house: &House, script: &str) -> Create {
    Create { shim_of: Some("pod".into()), ..house.create(script) }
}

fn logged(house: &House, create: Create, name: &str) -> (Create, PathBuf) {
    let path = house.dir.path().join(name);
    let uri = LogFile::cri_uri(&path, 16384);
    let stdio = Stdio { stdout: uri.clone(), stderr: uri, ..create.stdio };
    (Create { stdio, ..create }, path)
}

async fn run(daemon: &Daemon, id: &str, create: Create) -> u32 {
    daemon.runtime.create(&namespace(), id, create).await.unwrap();
    daemon.runtime.start(&namespace(), id, "").await.unwrap()
}

async fn end(daemon: &Daemon, id: &str) {
    let (runtime, ns) = (&daemon.runtime, namespace());
    let _ = runtime.kill(&ns, id, "", Signal { number: 9, all: false }).await;
    runtime.wait(&ns, id, "").await.unwrap();
    runtime.delete(&ns, id).await.unwrap();
}

async fn shim(daemon: &Daemon, id: &str) -> u32 {
    daemon.runtime.connect(&namespace(), id).await.unwrap().shim_pid
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_a_pod_share_its_shim_and_each_has_its_own_life() {
    let Some(house) = House::build() else { return };
    let mut daemon = house.daemon().await;
    let ns = namespace();
    run(&daemon, "pod", house.create("sleep 1000")).await;
    for id in ["a", "b"] {
        run(&daemon, id, of_pod(&house, "sleep 1000")).await;
        assert_eq!(shim(&daemon, id).await, shim(&daemon, "pod").await);
    }
    let bootstrap = |id: &str| {
        let dir = house.dir.path().join("state/io.containerd.runtime.v2.task").join(ns.as_str());
        std::fs::read_to_string(dir.join(id).join("bootstrap.json")).unwrap()
    };
    assert_eq!(bootstrap("a"), bootstrap("pod"));
    // One goes, the others stay; also the one that the shim was started for.
    end(&daemon, "a").await;
    assert_eq!(daemon.runtime.state(&ns, "b", "").await.unwrap().status, Status::Running);
    drop(daemon);
    daemon = house.daemon().await;
    assert_eq!(daemon.runtime.state(&ns, "b", "").await.unwrap().status, Status::Running);
    run(&daemon, "c", of_pod(&house, "exit 4")).await;
    assert_eq!(daemon.runtime.wait(&ns, "c", "").await.unwrap().status, 4);
    daemon.runtime.delete(&ns, "c").await.unwrap();
    end(&daemon, "pod").await;
    assert_eq!(daemon.runtime.state(&ns, "b", "").await.unwrap().status, Status::Running);
    end(&daemon, "b").await;
    house.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_shim_that_is_killed_ends_all_its_tasks_whether_or_not_the_daemon_is_there() {
    let Some(house) = House::build() else { return };
    for daemon_is_up in [true, false] {
        let mut daemon = house.daemon().await;
        let ns = namespace();
        let mut pids = vec![run(&daemon, "pod", house.create("sleep 1000")).await];
        for id in ["a", "b"] {
            pids.push(run(&daemon, id, of_pod(&house, "sleep 1000")).await);
        }
        let shim = rustix::process::Pid::from_raw(shim(&daemon, "pod").await.cast_signed()).unwrap();
        if !daemon_is_up {
            drop(daemon);
            rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
            daemon = house.daemon().await;
        } else {
            rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
            assert_eq!(daemon.runtime.wait(&ns, "b", "").await.unwrap().status, 137);
        }
        let runtime = daemon.runtime.clone();
        eventually("no task is left", || runtime.list(&ns).is_empty()).await;
        for pid in pids {
            eventually("init is gone", || !Path::new(&format!("/proc/{pid}")).exists()).await;
        }
        house.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_whose_pod_is_not_there_or_whose_making_fails_leaves_nothing() {
    let Some(house) = House::build() else { return };
    let daemon = house.daemon().await;
    let ns = namespace();
    let error = daemon.runtime.create(&ns, "a", of_pod(&house, "true")).await.unwrap_err();
    assert_eq!(error.class(), Class::NotFound, "{error}");
    assert!(error.to_string().contains("shim of pod"), "{error}");
    run(&daemon, "pod", house.create("sleep 1000")).await;
    let mut create = of_pod(&house, "true");
    let text = String::from_utf8(create.spec.unwrap().value).unwrap().replace("/bin/sh", "/no/such/program");
    create.spec = Some(Any::new(RUNTIME_SPEC, text));
    let error = daemon.runtime.create(&ns, "a", create).await.unwrap_err().to_string();
    assert!(error.contains("/no/such/program"), "{error}");
    let (create, _) = logged(&house, of_pod(&house, "true"), "no/such/directory/log");
    let error = daemon.runtime.create(&ns, "a", create).await.unwrap_err().to_string();
    assert!(error.contains("open log file"), "{error}");
    assert_eq!(daemon.runtime.list(&ns), ["pod"]);
    assert_eq!(daemon.runtime.state(&ns, "pod", "").await.unwrap().status, Status::Running);
    run(&daemon, "a", of_pod(&house, "sleep 1000")).await;
    end(&daemon, "a").await;
    end(&daemon, "pod").await;
    house.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_goes_on_while_the_daemon_is_away_and_is_reopened_after() {
    let Some(house) = House::build() else { return };
    let daemon = house.daemon().await;
    let ns = namespace();
    let (create, path) =
        logged(&house, house.create("n=0; while :; do n=$((n+1)); echo $n; sleep 0.01; done"), "log");
    run(&daemon, "pod", create).await;
    assert!(daemon.runtime.has_output_service(&ns, "pod").await.unwrap());
    let lines = |path: &Path| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    eventually("lines", || lines(&path) > 3).await;
    drop(daemon);
    let before = lines(&path);
    eventually("more lines", || lines(&path) > before + 3).await;
    let daemon = house.daemon().await;
    assert!(daemon.runtime.has_output_service(&ns, "pod").await.unwrap());
    let old = house.dir.path().join("log.1");
    std::fs::rename(&path, &old).unwrap();
    daemon.runtime.reopen_log(&ns, "pod").await.unwrap();
    assert!(path.exists());
    eventually("lines in the new file", || lines(&path) > 3).await;
    end(&daemon, "pod").await;
    let text = [old, path].map(|path| std::fs::read_to_string(path).unwrap()).concat();
    let numbers: Vec<usize> = text.lines().map(|l| l.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len()), "{numbers:?}");
    run(&daemon, "plain", house.create("sleep 1000")).await;
    let error = daemon.runtime.reopen_log(&ns, "plain").await.unwrap_err();
    assert_eq!(error.class(), Class::FailedPrecondition, "{error}");
    end(&daemon, "plain").await;
    assert!(daemon.runtime.reopen_log(&ns, "plain").await.unwrap_err().is_not_found());
    house.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_attach_one_after_another_and_the_first_that_goes_ends_the_input_if_that_is_wanted() {
    let Some(house) = House::build() else { return };
    let daemon = house.daemon().await;
    let (runtime, ns) = (daemon.runtime.clone(), namespace());
    for wanted in [Input::Open, Input::Once] {
        let (mut create, path) =
            logged(&house, house.create("while read line; do echo got $line; done; echo end >&2"), "log");
        let fifo = house.dir.path().join("stdin");
        let _ = std::fs::remove_file(&fifo);
        sys::fifo::make(&fifo, 0o600).unwrap();
        create.stdio.stdin = fifo.to_str().unwrap().to_owned();
        run(&daemon, "pod", create).await;
        let mut watcher = runtime.attach(&ns, "pod", "", ALL).await.unwrap();
        assert!(watcher.stdin.is_none() && !watcher.terminal);
        let clients: &[&str] = if wanted == Input::Open { &["one", "two"] } else { &["one"] };
        for word in clients {
            let want = Attach { stdin: wanted, ..ALL };
            let mut client = runtime.attach(&ns, "pod", "", want).await.unwrap();
            let mut input = client.stdin.take().unwrap();
            input.write_all(format!("{word}\n").as_bytes()).await.unwrap();
            let mut said = vec![0; "got ".len() + word.len() + 1];
            client.stdout.as_mut().unwrap().read_exact(&mut said).await.unwrap();
            assert_eq!(String::from_utf8(said).unwrap(), format!("got {word}\n"));
        }
        if wanted == Input::Open {
            assert_eq!(runtime.state(&ns, "pod", "").await.unwrap().status, Status::Running);
            runtime.close_io(&ns, "pod", "").await.unwrap();
        }
        assert_eq!(runtime.wait(&ns, "pod", "").await.unwrap().status, 0);
        let (mut out, mut err) = (String::new(), String::new());
        watcher.stdout.as_mut().unwrap().read_to_string(&mut out).await.unwrap();
        watcher.stderr.as_mut().unwrap().read_to_string(&mut err).await.unwrap();
        let all: String = clients.iter().map(|word| format!("got {word}\n")).collect();
        assert_eq!((out, err.as_str()), (all, "end\n"));
        let late = runtime.attach(&ns, "pod", "", Attach { stdin: wanted, ..ALL }).await.unwrap();
        assert!(late.stdin.is_none(), "there is nobody to write to");
        runtime.delete(&ns, "pod").await.unwrap();
        std::fs::remove_file(path).unwrap();
    }
    house.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_no_log_can_be_attached_to() {
    let Some(house) = House::build() else { return };
    let daemon = house.daemon().await;
    let ns = namespace();
    let mut create = house.create("while [ ! -e /tmp/go ]; do sleep 0.02; done; echo live");
    create.stdio.stdout = types::output::UNKEPT.to_owned();
    run(&daemon, "pod", create).await;
    let mut client = daemon.runtime.attach(&ns, "pod", "", ALL).await.unwrap();
    std::fs::write(house.dir.path().join("image/tmp/go"), "").unwrap();
    let mut said = String::new();
    client.stdout.as_mut().unwrap().read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "live\n");
    end(&daemon, "pod").await;
    house.assert_nothing_left().await;
}

/// The specification of a sandbox, as `Pause` recommends it; with a busybox beside the program, for a look around.
fn sandbox(house: &House, pause: &Pause) -> Create {
    let mount = pause.mount();
    let create = house.create("");
    let mut spec: serde_json::Value = serde_json::from_slice(&create.spec.unwrap().value).unwrap();
    spec["root"] = serde_json::json!({"path": pause.rootfs, "readonly": true});
    spec["process"]["args"] = Pause::args().into();
    spec["process"]["noNewPrivileges"] = true.into();
    let mounts = spec["mounts"].as_array_mut().unwrap();
    mounts.push(serde_json::json!({"destination": mount.target, "type": mount.kind, "source": mount.source,
        "options": mount.options}));
    mounts.push(serde_json::json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}));
    mounts.push(serde_json::json!({"destination": "/dev/image", "type": "bind", "options": ["rbind"],
        "source": house.dir.path().join("image")}));
    Create { rootfs: Vec::new(), spec: Some(Any::new(RUNTIME_SPEC, spec.to_string())), ..create }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_needs_no_image_and_cannot_write_its_program() {
    let Some(house) = House::build() else { return };
    // A daemon looks beside itself first.
    let beside = house.dir.path().join("bin");
    std::fs::create_dir(&beside).unwrap();
    std::fs::copy(&house.shim, beside.join("containerd-shim-runc-v2")).unwrap();
    let daemon = house.daemon_at(&beside.join("containerd")).await;
    let (runtime, ns) = (daemon.runtime.clone(), namespace());
    let pause = match runtime.builtin_pause().await {
        Ok(pause) => pause,
        Err(error) if error.to_string().contains("dynamically") => return eprintln!("SKIPPED: {error}"),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(runtime.builtin_pause().await.unwrap(), pause);
    assert_eq!(pause.program.parent().unwrap(), beside.canonicalize().unwrap());
    let before = std::fs::read(&pause.program).unwrap();
    let init = run(&daemon, "pod", sandbox(&house, &pause)).await;
    let exec = |script: &str| {
        let mut process = process(script);
        process["args"][0] = "/dev/image/bin/sh".into();
        let stdio = Stdio {
            stdout: format!("file://{}", house.dir.path().join("said").display()),
            ..Stdio::default()
        };
        Exec { id: "e".into(), stdio, process: Some(Any::new(RUNTIME_PROCESS, process.to_string())) }
    };
    assert_eq!(runtime.state(&ns, "pod", "").await.unwrap().status, Status::Running);
    for attempt in ["echo x >> /pause", "echo x >> /proc/1/exe", "echo x > /proc/1/exe"] {
        runtime.exec(&ns, "pod", exec(attempt)).await.unwrap();
        runtime.start(&ns, "pod", "e").await.unwrap();
        assert_ne!(runtime.wait(&ns, "pod", "e").await.unwrap().status, 0, "{attempt}");
        runtime.delete_process(&ns, "pod", "e").await.unwrap();
    }
    assert!(std::fs::read(&pause.program).unwrap() == before);
    // Whoever has lost its parent is collected.
    runtime.exec(&ns, "pod", exec("(/dev/image/bin/busybox sleep 0.1 &)")).await.unwrap();
    runtime.start(&ns, "pod", "e").await.unwrap();
    runtime.wait(&ns, "pod", "e").await.unwrap();
    runtime.delete_process(&ns, "pod", "e").await.unwrap();
    let children = format!("/proc/{init}/task/{init}/children");
    eventually("orphans are collected", || std::fs::read_to_string(&children).unwrap().is_empty()).await;
    assert_eq!(std::fs::read_dir(format!("/proc/{init}/task")).unwrap().count(), 1);
    let begun = Instant::now();
    runtime.kill(&ns, "pod", "", Signal { number: 15, all: false }).await.unwrap();
    assert_eq!(runtime.wait(&ns, "pod", "").await.unwrap().status, 0);
    assert!(begun.elapsed() < Duration::from_secs(5));
    runtime.delete(&ns, "pod").await.unwrap();
    let _ = std::fs::remove_file(house.dir.path().join("said"));
    house.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_makes_a_sandbox_that_a_restart_finds_and_no_list_of_tasks_shows() {
    let Some(house) = House::build() else { return };
    let daemon = house.daemon().await;
    let ns = namespace();
    let from = house.create("trap 'exit 3' TERM; while :; do sleep 0.05; done");
    let create = || CreateSandbox {
        spec: from.spec.clone(),
        runtime: from.runtime.clone(),
        rootfs: from.rootfs.clone(),
        ..CreateSandbox::default()
    };
    let nothing = CreateSandbox { spec: Some(Any::new(RUNTIME_SPEC, "{}")), ..create() };
    assert!(daemon.runtime.create_sandbox(&ns, "pod", nothing).await.is_err());
    assert!(daemon.runtime.ping_sandbox(&ns, "pod").await.unwrap_err().is_not_found());
    daemon.runtime.create_sandbox(&ns, "pod", create()).await.unwrap();
    let again = daemon.runtime.create_sandbox(&ns, "pod", create()).await.unwrap_err();
    assert_eq!(again.class(), Class::AlreadyExists, "{again}");
    let started = daemon.runtime.start_sandbox(&ns, "pod").await.unwrap();
    assert!(started.endpoint.address.starts_with("ttrpc+unix://") && started.pid > 0);
    run(&daemon, "a", of_pod(&house, "sleep 1000")).await;
    assert_eq!(daemon.runtime.list(&ns), ["a"]);
    drop(daemon);
    let daemon = house.daemon().await;
    let runtime = daemon.runtime.clone();
    let status = runtime.sandbox_status(&ns, "pod", true).await.unwrap();
    assert_eq!((status.state.as_str(), status.pid), ("SANDBOX_READY", started.pid));
    assert_eq!(status.endpoint, started.endpoint);
    assert_eq!(runtime.list(&ns), ["a"]);
    assert_eq!(runtime.sandbox_platform(&ns, "pod").await.unwrap().os, "linux");
    runtime.ping_sandbox(&ns, "pod").await.unwrap();
    assert!(runtime.sandbox_metrics(&ns, "pod").await.unwrap().data.is_some());
    assert!(runtime.ping_sandbox(&ns, "a").await.unwrap_err().is_not_found(), "a task is no sandbox");
    end(&daemon, "a").await;
    runtime.stop_sandbox(&ns, "pod", Some(Duration::from_secs(20))).await.unwrap();
    assert_eq!(runtime.wait_sandbox(&ns, "pod").await.unwrap().status, 3);
    assert_eq!(runtime.sandbox_status(&ns, "pod", false).await.unwrap().state, "SANDBOX_NOTREADY");
    runtime.shutdown_sandbox(&ns, "pod").await.unwrap();
    runtime.stop_sandbox(&ns, "pod", None).await.unwrap();
    house.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_whose_shim_is_killed_has_ended_and_leaves_nothing() {
    let Some(house) = House::build() else { return };
    let daemon = house.daemon().await;
    let (runtime, ns) = (daemon.runtime.clone(), namespace());
    let from = house.create("sleep 1000");
    let create =
        CreateSandbox { spec: from.spec, runtime: from.runtime, rootfs: from.rootfs, ..Default::default() };
    runtime.create_sandbox(&ns, "pod", create).await.unwrap();
    let started = runtime.start_sandbox(&ns, "pod").await.unwrap();
    let waiting = {
        let (runtime, ns) = (runtime.clone(), ns.clone());
        tokio::spawn(async move { runtime.wait_sandbox(&ns, "pod").await })
    };
    let shim = rustix::process::Pid::from_raw(shim(&daemon, "pod").await.cast_signed()).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().status, 137);
    eventually("init is gone", || !Path::new(&format!("/proc/{}", started.pid)).exists()).await;
    house.assert_nothing_left().await;
}

/// What it saves not to execute the shim: `cargo test -p containerd-runtime --test pods -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn how_long_a_container_of_a_pod_takes() {
    let Some(house) = House::build() else { return };
    let daemon = house.daemon().await;
    let ns = namespace();
    run(&daemon, "pod", house.create("sleep 1000")).await;
    let mut took = [Vec::new(), Vec::new()];
    for n in 0..40 {
        for shared in [0, 1] {
            let mut create = house.create("sleep 1000");
            if shared == 1 {
                create.shim_of = Some("pod".into());
            } else {
                let mut spec: serde_json::Value =
                    serde_json::from_slice(&create.spec.unwrap().value).unwrap();
                spec["annotations"] = serde_json::json!({"io.kubernetes.cri.sandbox-id": "pod"});
                create.spec = Some(Any::new(RUNTIME_SPEC, spec.to_string()));
            }
            let (id, begun) = (format!("c{n}-{shared}"), Instant::now());
            daemon.runtime.create(&ns, &id, create).await.unwrap();
            took[shared].push(begun.elapsed());
            assert_eq!(shim(&daemon, &id).await, shim(&daemon, "pod").await);
            daemon.runtime.delete(&ns, &id).await.unwrap();
        }
    }
    for (name, times) in ["by start", "by shim_of"].iter().zip(&mut took) {
        times.sort();
        eprintln!("{name}: median {:?}, least {:?}", times[times.len() / 2], times[0]);
    }
    end(&daemon, "pod").await;
}
