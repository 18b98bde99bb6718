//! What dockerd asks of a container as a whole: figures, limits, pauses, memory that runs out; and the flags of `run` that
//! the runtime sees.

use containerd_tests::eventually;

use super::docker::{Docker, IMAGE};
use super::{COUNT, logged, run};

#[test]
fn a_container_is_measured_paused_and_limited() {
    let Some(docker) = Docker::with_our_containerd() else { return };
    run(&docker, &["--detach", "--name", "one", "--memory", "64m"], &["sh", "-c", COUNT]).ok();
    eventually("it counts", || logged(&docker, "one") > 1);
    let stats = docker.docker(&["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "one"]).ok();
    assert!(stats.contains("/ 64MiB") && !stats.starts_with("0B"), "{stats}");
    let top = docker.docker(&["top", "one", "-eo", "pid,args"]).ok();
    assert!(top.lines().count() >= 2 && top.contains("sh -c"), "{top}");
    docker.docker(&["pause", "one"]).ok();
    assert_eq!(docker.inspect("one", "{{.State.Status}} {{.State.Paused}}"), "paused true");
    let before = logged(&docker, "one");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(logged(&docker, "one"), before);
    docker.docker(&["unpause", "one"]).ok();
    eventually("it counts on", || logged(&docker, "one") > before);
    docker.docker(&["update", "--memory", "48m", "--memory-swap", "48m", "--pids-limit", "50", "one"]).ok();
    let stats = docker.docker(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "one"]).ok();
    assert!(stats.contains("/ 48MiB"), "{stats}");
    // One that is paused is removed by force as well.
    docker.docker(&["pause", "one"]).ok();
    docker.docker(&["rm", "--force", "one"]).ok();
    assert_eq!(docker.docker(&["ps", "--all", "--quiet"]).ok(), "");
}

#[test]
fn memory_that_ran_out_is_known() {
    let Some(docker) = Docker::with_our_containerd() else { return };
    let greedy = "exec dd if=/dev/zero of=/dev/null bs=64M count=1";
    for round in 0..3 {
        let name = format!("greedy{round}");
        let flags = ["--name", &name, "--memory", "16m", "--memory-swap", "16m"];
        assert_eq!(run(&docker, &flags, &["sh", "-c", greedy]).run().code, 137);
        let state = "{{.State.OOMKilled}} {{.State.Status}} {{.State.ExitCode}}";
        assert_eq!(docker.inspect(&name, state), "true exited 137");
    }
    run(&docker, &["--name", "modest", "--memory", "64m"], &["true"]).ok();
    assert_eq!(docker.inspect("modest", "{{.State.OOMKilled}}"), "false");
}

#[test]
fn flags_reach_the_runtime() {
    let Some(docker) = Docker::with_our_containerd() else { return };
    let shown = |flags: &[&str], script: &str| -> String {
        run(&docker, &[&["--rm"], flags].concat(), &["sh", "-c", script]).ok().trim().to_owned()
    };
    assert_eq!(shown(&["--read-only"], "echo x 2>/dev/null >/file || echo refused"), "refused");
    let size = shown(&["--tmpfs", "/scratch:size=1m"], "grep ' /scratch ' /proc/mounts");
    assert!(size.contains("tmpfs") && size.contains("size=1024k"), "{size}");
    let host = tempfile::tempdir().unwrap();
    let volume = format!("{}:/data", host.path().display());
    shown(&["--volume", &volume], "echo kept >/data/file");
    assert_eq!(std::fs::read_to_string(host.path().join("file")).unwrap(), "kept\n");
    let status = "grep CapEff /proc/self/status";
    let effective =
        |flags: &[&str]| shown(flags, status).split_whitespace().last().map(str::to_owned).unwrap();
    assert_eq!(effective(&["--cap-drop", "ALL"]), "0000000000000000");
    assert_eq!(effective(&["--cap-drop", "ALL", "--cap-add", "CHOWN"]), "0000000000000001");
    assert_eq!(shown(&["--device", "/dev/full"], "test -c /dev/full && echo there"), "there");
    let own = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    assert_eq!(shown(&["--pid", "host"], "readlink /proc/self/ns/pid"), own("pid"));
    assert_eq!(shown(&["--ipc", "host"], "readlink /proc/self/ns/ipc"), own("ipc"));
    let network = docker
        .docker(&["run", "--rm", "--net", "host", IMAGE, "sh", "-c", "readlink /proc/self/ns/net"])
        .ok();
    assert_eq!(network.trim(), own("net"));
    if docker.has_init() {
        assert_eq!(shown(&["--init"], "cat /proc/1/comm"), "docker-init");
    }
}

#[test]
fn a_signal_reaches_a_container_and_its_code_counts() {
    let Some(docker) = Docker::with_our_containerd() else { return };
    let script = "trap 'exit 6' USR1; echo ready; while :; do sleep 0.05; done";
    run(&docker, &["--detach", "--name", "one"], &["sh", "-c", script]).ok();
    eventually("its trap is set", || docker.docker(&["logs", "one"]).ok().contains("ready"));
    docker.docker(&["kill", "--signal", "USR1", "one"]).ok();
    assert_eq!(docker.docker(&["wait", "one"]).ok().trim(), "6");
    assert_eq!(docker.inspect("one", "{{.State.ExitCode}} {{.State.OOMKilled}}"), "6 false");
}

#[test]
fn a_container_is_written_to_disk_and_goes_on() {
    if std::env::var_os("CRIU_DIR").is_none() {
        eprintln!("skipped: CRIU_DIR does not name a directory with criu");
        return;
    }
    let Some(docker) = Docker::with_our_containerd() else { return };
    run(&docker, &["--detach", "--name", "one"], &["sh", "-c", COUNT]).ok();
    eventually("it counts", || logged(&docker, "one") > 3);
    docker.docker(&["checkpoint", "create", "one", "first"]).ok();
    eventually("it has ended", || docker.inspect("one", "{{.State.Status}}") == "exited");
    assert!(docker.docker(&["checkpoint", "ls", "one"]).ok().contains("first"));
    let before = logged(&docker, "one");
    // dockerd uploads what containerd has written before, to the byte, and takes it for an error that it is there already: until
    // the blob of the checkpoint, which it has deleted, is collected.
    eventually("what was deleted is collected", || {
        let started = docker.docker(&["start", "--checkpoint", "first", "one"]).run();
        assert!(started.code == 0 || started.stderr.contains("already exists"), "{}", started.stderr);
        started.code == 0
    });
    eventually("it goes on counting", || logged(&docker, "one") > before + 2);
    docker.docker(&["rm", "--force", "one"]).ok();
}
