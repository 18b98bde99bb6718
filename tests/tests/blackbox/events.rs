//! Events tell what happened, in the order in which it happened.

use containerd_tests::binaries::shim_is_ours;
use containerd_tests::command::Running;
use containerd_tests::{Daemon, eventually};

/// The topics of the events that mention `id`, in order.
fn topics(output: &str, id: &str) -> Vec<String> {
    output
        .lines()
        .filter(|line| line.contains(id))
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn in_order(topics: &[String], wanted: &[&str]) {
    let mut rest = topics.iter();
    for want in wanted {
        assert!(rest.any(|topic| topic == want), "{want} is missing or out of order in {topics:?}");
    }
}

/// Waits until all is told of a container. Upstream's shim may end before it has told of the task's deletion.
fn await_end(listener: &Running, id: &str) {
    let told = |topic: &str| topics(&listener.output(), id).iter().any(|told| told == topic);
    eventually("the container's end is told", || told("/containers/delete"));
    if shim_is_ours() {
        eventually("the task's end is told", || told("/tasks/delete"));
    }
}

/// What a life ends with, as far as it is sure to be told.
fn last_topics() -> &'static [&'static str] {
    if shim_is_ours() { &["/tasks/delete"] } else { &[] }
}

#[test]
fn the_life_of_a_container_is_told_in_order() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("events"));
    let listener = daemon.ctr(&["events"]).start();
    // The subscription is there once an event arrives.
    eventually("the listener hears", || {
        daemon.ctr(&["namespaces", "label", daemon.namespace(), "heard=yes"]).ok();
        listener.output().contains("/namespaces/update")
    });
    daemon.ctr(&["run", "--rm", image, &id, "sh", "-c", "exit 8"]).run();
    // Upstream's 2.x may tell of the task's end after its container's.
    await_end(&listener, &id);
    listener.signal(rustix::process::Signal::KILL);
    let output = listener.finish().stdout;
    let topics = topics(&output, &id);
    let life = ["/snapshot/prepare", "/containers/create", "/tasks/create", "/tasks/start", "/tasks/exit"];
    in_order(&topics, &[life.as_slice(), last_topics()].concat());
    in_order(&topics, &[life.as_slice(), &["/containers/delete"]].concat());
    let exit = output.lines().find(|line| line.contains("/tasks/exit") && line.contains(&id)).unwrap();
    assert!(exit.contains("\"exit_status\":8"), "{exit}");
    assert!(exit.contains(daemon.namespace()), "{exit}");
}

#[test]
fn a_second_process_is_told_of_and_ends_before_its_container() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("exec-events"));
    let filter = format!("namespace=={}", daemon.namespace());
    let listener = daemon.ctr(&["events", &filter]).start();
    eventually("the listener hears", || {
        daemon.ctr(&["namespaces", "label", daemon.namespace(), "heard=yes"]).ok();
        listener.output().contains("/namespaces/update")
    });
    daemon.ctr(&["run", "-d", image, &id, "sleep", "1000"]).ok();
    daemon.ctr(&["tasks", "exec", "--exec-id", "second", &id, "true"]).ok();
    daemon.ctr(&["tasks", "delete", "--force", &id]).run();
    daemon.ctr(&["containers", "delete", &id]).ok();
    await_end(&listener, &id);
    listener.signal(rustix::process::Signal::KILL);
    let topics = topics(&listener.finish().stdout, &id);
    let life = ["/tasks/start", "/tasks/exec-added", "/tasks/exec-started", "/tasks/exit", "/tasks/exit"];
    in_order(&topics, &[life.as_slice(), last_topics()].concat());
}
