//! Events tell what happened, in the order in which it happened.

use containerd_tests::Daemon;

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

#[test]
fn the_life_of_a_container_is_told_in_order() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("events"));
    let listener = daemon.ctr(&["events"]).start();
    // The subscription is there once an event arrives.
    containerd_tests::eventually("the listener hears", || {
        daemon.ctr(&["namespaces", "label", daemon.namespace(), "heard=yes"]).ok();
        listener.output().contains("/namespaces/update")
    });
    daemon.ctr(&["run", "--rm", image, &id, "sh", "-c", "exit 8"]).run();
    // Upstream's 2.x may tell of the task's end after its container's.
    let told = |topic: &str| topics(&listener.output(), &id).iter().any(|told| told == topic);
    containerd_tests::eventually("all is told", || told("/containers/delete") && told("/tasks/delete"));
    listener.signal(rustix::process::Signal::KILL);
    let output = listener.finish().stdout;
    let topics = topics(&output, &id);
    let life = ["/snapshot/prepare", "/containers/create", "/tasks/create", "/tasks/start", "/tasks/exit"];
    in_order(&topics, &[life.as_slice(), &["/tasks/delete"]].concat());
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
    containerd_tests::eventually("the listener hears", || {
        daemon.ctr(&["namespaces", "label", daemon.namespace(), "heard=yes"]).ok();
        listener.output().contains("/namespaces/update")
    });
    daemon.ctr(&["run", "-d", image, &id, "sleep", "1000"]).ok();
    daemon.ctr(&["tasks", "exec", "--exec-id", "second", &id, "true"]).ok();
    daemon.ctr(&["tasks", "delete", "--force", &id]).run();
    daemon.ctr(&["containers", "delete", &id]).ok();
    let told = |topic: &str| topics(&listener.output(), &id).iter().any(|told| told == topic);
    containerd_tests::eventually("all is told", || told("/containers/delete") && told("/tasks/delete"));
    listener.signal(rustix::process::Signal::KILL);
    let topics = topics(&listener.finish().stdout, &id);
    in_order(
        &topics,
        &[
            "/tasks/start",
            "/tasks/exec-added",
            "/tasks/exec-started",
            "/tasks/exit",
            "/tasks/exit",
            "/tasks/delete",
        ],
    );
}
