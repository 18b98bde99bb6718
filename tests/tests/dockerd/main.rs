//! Debian's dockerd 20.10 over our containerd, which we start or which it spawns with a configuration of its own.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod control;
mod docker;

use containerd_tests::terminal::Terminal;
use containerd_tests::{eventually, proc};
use docker::{Containerd, Docker, IMAGE};

const NONE: [&str; 2] = ["--network", "none"];
const COUNT: &str = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.1; done";

fn run(docker: &Docker, flags: &[&str], command: &[&str]) -> containerd_tests::command::Invocation {
    docker.docker(&[&["run"], &NONE[..], flags, &[IMAGE], command].concat())
}

/// The numbers that a counting container has logged, none missing.
fn logged(docker: &Docker, name: &str) -> u64 {
    let log = docker.docker(&["logs", name]).ok();
    let numbers: Vec<u64> = log.lines().filter_map(|line| line.parse().ok()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{name}: {numbers:?}");
    numbers.last().copied().unwrap_or(0)
}

#[test]
fn containers_run_and_their_exit_codes_arrive() {
    let Some(docker) = Docker::with_our_containerd() else { return };
    assert_eq!(run(&docker, &["--rm"], &["echo", "hello"]).ok(), "hello\n");
    assert_eq!(run(&docker, &["--rm", "-i"], &["cat"]).input("to the end").ok(), "to the end");
    assert_eq!(run(&docker, &["--rm"], &["sh", "-c", "exit 42"]).run().code, 42);
    let missing = run(&docker, &["--rm"], &["no-such-program"]).run().expect_code(127);
    missing.says("executable file not found in $PATH");
    let flags = ["--rm", "--user", "1000:1000", "--env", "A=b", "--hostname", "host", "--memory", "64m"];
    let out = run(&docker, &flags, &["sh", "-c", "id -u; echo $A; hostname"]).ok();
    assert_eq!(out, "1000\nb\nhost\n");
    assert_eq!(docker.docker(&["ps", "--all", "--quiet"]).ok(), "");
}

#[test]
fn a_container_is_entered_logged_stopped_and_started_again() {
    let Some(docker) = Docker::with_our_containerd() else { return };
    run(&docker, &["--detach", "--name", "counting"], &["sh", "-c", COUNT]).ok();
    eventually("it has counted", || logged(&docker, "counting") > 2);
    assert_eq!(docker.docker(&["exec", "counting", "cat", "/proc/1/comm"]).ok(), "sh\n");
    assert_eq!(docker.docker(&["exec", "counting", "sh", "-c", "exit 7"]).run().code, 7);
    assert!(docker.docker(&["top", "counting"]).ok().contains("sleep 0.1"));
    docker.docker(&["stop", "--time", "1", "counting"]).ok();
    assert_eq!(docker.inspect("counting", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    docker.docker(&["start", "counting"]).ok();
    docker.docker(&["restart", "--time", "0", "counting"]).ok();
    docker.docker(&["kill", "--signal", "KILL", "counting"]).ok();
    docker.docker(&["rm", "counting"]).ok();
}

#[test]
fn a_shell_on_a_terminal_answers() {
    let Some(docker) = Docker::with_our_containerd() else { return };
    let flags = [&["run", "--rm", "-it"], &NONE[..], &[IMAGE, "sh"]].concat();
    let mut terminal = Terminal::start(docker.client(&flags), 80, 24);
    terminal.send("test -t 0 && echo on a te'r'minal; exit 5\n");
    terminal.expect("on a terminal");
    assert_eq!(terminal.finish(), 5);
}

#[test]
fn the_restart_policy_starts_a_failed_container_again() {
    let Some(docker) = Docker::with_our_containerd() else { return };
    run(
        &docker,
        &["--detach", "--name", "failing", "--restart", "on-failure:2"],
        &["sh", "-c", "echo ran; exit 3"],
    )
    .ok();
    let state = "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}";
    eventually("it was started twice more", || docker.inspect("failing", state) == "2 exited 3");
    assert_eq!(docker.docker(&["logs", "failing"]).ok(), "ran\n".repeat(3));
}

#[test]
fn events_tell_of_a_containers_life() {
    let Some(docker) = Docker::with_our_containerd() else { return };
    let events = docker.docker(&["events", "--format", "{{.Action}} {{.Actor.Attributes.name}}"]).start();
    eventually("the listener hears", || {
        run(&docker, &["--rm", "--name", "heard"], &["true"]).ok();
        events.output().contains("destroy heard")
    });
    assert_eq!(run(&docker, &["--name", "told"], &["sh", "-c", "exit 3"]).run().code, 3);
    docker.docker(&["rm", "told"]).ok();
    for action in ["create", "start", "die", "destroy"] {
        events.await_output(&format!("{action} told"));
    }
    events.signal(rustix::process::Signal::KILL);
    events.finish();
}

fn live_restore(docker: &Docker) {
    run(docker, &["--detach", "--name", "live"], &["sh", "-c", COUNT]).ok();
    let ends = "while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 9";
    run(docker, &["--detach", "--name", "ends"], &["sh", "-c", ends]).ok();
    let pid = |name: &str| -> i32 { docker.inspect(name, "{{.State.Pid}}").parse().expect("a process id") };
    let (live, ending) = (pid("live"), pid("ends"));
    docker.kill_containerd(|| {
        std::fs::write(format!("/proc/{ending}/root/tmp/go"), "").expect("the container's file");
        eventually("it ends without a containerd", || !proc::alive(ending));
    });
    eventually("dockerd hears of what ended meanwhile", || {
        docker.inspect("ends", "{{.State.Status}} {{.State.ExitCode}}") == "exited 9"
    });
    let before = logged(docker, "live");
    eventually("it goes on counting", || logged(docker, "live") > before + 2);
    assert_eq!(pid("live"), live);
    assert_eq!(docker.docker(&["exec", "live", "cat", "/proc/1/comm"]).ok(), "sh\n");
    assert_eq!(run(docker, &["--rm"], &["echo", "new"]).ok(), "new\n");
}

#[test]
fn containers_outlive_a_killed_containerd() {
    let Some(docker) = Docker::with_our_containerd() else { return };
    live_restore(&docker);
}

#[test]
fn containers_outlive_dockerd_and_are_found_again() {
    let Some(docker) = Docker::with_our_containerd() else { return };
    run(&docker, &["--detach", "--name", "kept"], &["sh", "-c", COUNT]).ok();
    let pid = docker.inspect("kept", "{{.State.Pid}}");
    docker.stop();
    docker.launch();
    assert_eq!(docker.inspect("kept", "{{.State.Pid}} {{.State.Status}}"), format!("{pid} running"));
    docker.docker(&["rm", "--force", "kept"]).ok();
}

#[test]
fn dockerd_spawns_our_containerd_with_its_own_configuration() {
    let Some(docker) = Docker::that_spawns_containerd() else { return };
    assert!(matches!(docker.containerd, Containerd::Spawned(_)) && docker.spawned().is_some());
    assert_eq!(run(&docker, &["--rm"], &["echo", "hello"]).ok(), "hello\n");
    live_restore(&docker);
}

/// An image that our containerd exports is loaded by dockerd, and one that dockerd saves is imported.
#[test]
fn images_go_from_containerd_to_docker_and_back() {
    let Some(docker) = Docker::with_our_containerd() else { return };
    let Containerd::External(daemon) = &docker.containerd else { unreachable!("it was started so") };
    let file = |name: &str| daemon.dir().join(name).to_string_lossy().into_owned();
    let (out, back) = (file("exported.tar"), file("saved.tar"));
    daemon.ctr(&["images", "export", &out, daemon.image()]).ok();
    let loaded = docker.docker(&["load", "--input", &out]).ok();
    let name =
        loaded.lines().find_map(|line| line.strip_prefix("Loaded image: ")).expect("a name").to_owned();
    assert!(daemon.image().ends_with(&name), "{name} is the short form of {}", daemon.image());
    let run =
        |image: &str| docker.docker(&[&["run", "--rm"], &NONE[..], &[image, "echo", "loaded"]].concat()).ok();
    assert_eq!(run(&name), "loaded\n");
    docker.docker(&["tag", &name, "saved.example/by:docker"]).ok();
    docker.docker(&["save", "--output", &back, "saved.example/by:docker"]).ok();
    let imported = daemon.ctr(&["images", "import", &back]).ok();
    assert!(imported.contains("saved.example/by:docker"), "{imported}");
    let id = daemon.id("saved");
    let again = daemon.ctr(&["run", "--rm", "saved.example/by:docker", &id, "echo", "imported"]).ok();
    assert_eq!(again, "imported\n");
}
