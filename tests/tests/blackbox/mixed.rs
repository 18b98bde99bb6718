//! Programs of both projects work together: upstream's client with our daemon, our client with upstream's daemon, each
//! shim with the other's daemon.

use std::time::Duration;

use containerd_tests::archive::{IMAGE, Image};
use containerd_tests::binaries::{self, Binaries, Suite, beyond_upstream};
use containerd_tests::terminal::Terminal;
use containerd_tests::{Daemon, Invocation, Ledger, Records, eventually, proc};
use registry::fake::{Fake, Fault, When};

/// How often clients meet at one image.
const ROUNDS: usize = 4;

/// Our daemon and upstream's client; `None` where upstream itself is tested or is not at hand.
fn go_client() -> Option<(Daemon, Binaries)> {
    if beyond_upstream("upstream's client drives our daemon") {
        return None;
    }
    let peer = binaries::peer()?;
    Some((Daemon::start(), peer))
}

fn import(daemon: &Daemon, with: &Binaries) {
    let archive = daemon.archive("image.tar", &Image::standard().oci());
    daemon.ctr_of(with, &["images", "import", &archive]).ok();
}

#[test]
fn upstreams_client_imports_and_runs() {
    let Some((daemon, go)) = go_client() else { return };
    import(&daemon, &go);
    let before = Ledger::take(&daemon);
    let (id, script) = (daemon.id("go-run"), "echo out; echo err >&2; wc -c; exit 5");
    let run = ["run", "--rm", IMAGE, &id, "sh", "-c", script];
    // More than a pipe holds: 1.6's client forgets to close an input that ends before the process starts.
    let done = daemon.ctr_of(&go, &run).input("in\n".repeat(50_000)).run();
    assert_eq!(
        (done.code, done.stdout.as_str(), done.stderr.as_str()),
        (5, "out\n150000\n", "err\n"),
        "{done}"
    );
    Ledger::check(&before, &daemon);
}

#[test]
fn upstreams_client_imports_what_docker_saved() {
    let Some((daemon, go)) = go_client() else { return };
    let archive = daemon.archive("saved.tar", &Image::standard().docker());
    daemon.ctr_of(&go, &["images", "import", &archive]).ok();
    let id = daemon.id("go-saved");
    assert_eq!(daemon.ctr_of(&go, &["run", "--rm", IMAGE, &id, "echo", "saved"]).ok(), "saved\n");
}

#[test]
fn upstreams_client_manages_a_detached_container() {
    let Some((daemon, go)) = go_client() else { return };
    import(&daemon, &go);
    let before = Ledger::take(&daemon);
    let id = daemon.id("go-detached");
    let ctr = |arguments: &[&str]| -> Invocation { daemon.ctr_of(&go, arguments) };
    ctr(&["run", "-d", IMAGE, &id, "sleep", "1000"]).ok();
    let list = ctr(&["tasks", "list"]).ok();
    assert!(list.lines().any(|line| line.starts_with(&id) && line.contains("RUNNING")), "{list}");
    let done = ctr(&["tasks", "exec", "--exec-id", "e", &id, "sh", "-c", "echo second; exit 3"]).run();
    assert_eq!((done.code, done.stdout.as_str()), (3, "second\n"), "{done}");
    assert!(ctr(&["containers", "info", &id]).ok().contains(IMAGE));
    ctr(&["tasks", "ps", &id]).ok();
    ctr(&["tasks", "kill", "--signal", "SIGKILL", &id]).ok();
    eventually("the task has stopped", || {
        ctr(&["tasks", "list"]).ok().lines().any(|line| line.starts_with(&id) && line.contains("STOPPED"))
    });
    ctr(&["tasks", "rm", &id]).run();
    ctr(&["containers", "rm", &id]).ok();
    Ledger::check(&before, &daemon);
}

#[test]
fn upstreams_client_reads_the_stores() {
    let Some((daemon, go)) = go_client() else { return };
    import(&daemon, &go);
    let ctr = |arguments: &[&str]| daemon.ctr_of(&go, arguments).ok();
    assert!(ctr(&["images", "ls"]).contains(IMAGE));
    assert!(ctr(&["images", "check"]).contains("complete"));
    // Clients that import through the content store leave the index to the collector.
    daemon.collect_garbage();
    let digests = ctr(&["content", "ls", "-q"]);
    let blobs = digests.lines().count();
    assert!((5..=6).contains(&blobs), "manifest, config, three layers and perhaps the index, but {digests}");
    for digest in digests.lines() {
        let path =
            daemon.root().join("io.containerd.content.v1.content/blobs").join(digest.replace(':', "/"));
        let stored = std::fs::read(path).unwrap();
        assert_eq!(ctr(&["content", "get", digest]), String::from_utf8_lossy(&stored));
    }
    assert!(ctr(&["snapshots", "ls"]).contains(&Image::standard().chain_id()));
    assert!(ctr(&["snapshots", "tree"]).contains(&Image::standard().chain_id()));
    assert!(ctr(&["namespaces", "ls"]).contains(daemon.namespace()));
    assert!(ctr(&["plugins", "ls"]).contains("overlayfs"));
    assert!(ctr(&["version"]).contains("rs."));
}

#[test]
fn upstreams_client_hears_our_events() {
    let Some((daemon, go)) = go_client() else { return };
    import(&daemon, &go);
    let listener = daemon.ctr_of(&go, &["events"]).start();
    eventually("the listener hears", || {
        daemon.ctr_of(&go, &["namespaces", "label", daemon.namespace(), "heard=yes"]).ok();
        listener.output().contains("/namespaces/update")
    });
    daemon.ctr_of(&go, &["run", "--rm", IMAGE, &daemon.id("go-events"), "true"]).ok();
    for topic in ["/containers/create", "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"] {
        listener.await_output(topic);
    }
    listener.signal(rustix::process::Signal::KILL);
    listener.finish();
}

#[test]
fn upstreams_client_has_a_terminal() {
    let Some((daemon, go)) = go_client() else { return };
    import(&daemon, &go);
    let id = daemon.id("go-tty");
    let mut terminal =
        Terminal::start(daemon.client(&go.ctr, &["run", "--rm", "-t", IMAGE, &id, "sh"]), 80, 24);
    terminal.send("echo sum $((40+2))\n");
    terminal.expect("sum 42");
    terminal.send("exit 3\n");
    assert_eq!(terminal.finish(), 3);
}

#[test]
fn our_client_drives_upstreams_daemon() {
    if beyond_upstream("our client drives upstream's daemon") {
        return;
    }
    let Some(peer) = binaries::peer() else { return };
    let daemon = Daemon::start_of(peer, Suite::Upstream);
    let ours = binaries::tested();
    import(&daemon, &ours);
    let id = daemon.id("our-ctr");
    let done = daemon.ctr_of(&ours, &["run", "--rm", IMAGE, &id, "sh", "-c", "echo mixed; exit 4"]).run();
    assert_eq!((done.code, done.stdout.as_str()), (4, "mixed\n"), "{done}");
}

/// Runs and executes with one side's daemon and the other side's shim.
#[track_caller]
fn shim_works(daemon: &Daemon, client: &Binaries, shim: &Binaries) {
    import(daemon, client);
    let before = Ledger::take(daemon);
    let id = daemon.id("shim");
    daemon.ctr_of(client, &["run", "-d", IMAGE, &id, "sleep", "1000"]).ok();
    let running = proc::shims(daemon.namespace())[0].pid;
    let program = std::fs::read_link(format!("/proc/{running}/exe")).unwrap();
    assert_eq!(program, shim.shim_dir.join("containerd-shim-runc-v2").canonicalize().unwrap());
    let exec = ["tasks", "exec", "--exec-id", "e", &id, "sh", "-c", "echo second; exit 3"];
    let done = daemon.ctr_of(client, &exec).run();
    assert_eq!((done.code, done.stdout.as_str()), (3, "second\n"), "{done}");
    daemon.kill();
    daemon.launch();
    assert_eq!(daemon.task(&id).map(|(_, status)| status).as_deref(), Some("RUNNING"));
    daemon.ctr_of(client, &["tasks", "delete", "--force", &id]).run();
    daemon.ctr_of(client, &["containers", "delete", &id]).ok();
    Ledger::check(&before, daemon);
}

#[test]
fn our_shim_works_for_upstreams_daemon() {
    if beyond_upstream("our shim works for upstream's daemon") {
        return;
    }
    let Some(peer) = binaries::peer() else { return };
    let ours = binaries::tested();
    let daemon =
        Daemon::start_of(Binaries { shim_dir: ours.shim_dir.clone(), ..peer.clone() }, Suite::Upstream);
    shim_works(&daemon, &peer, &ours);
}

#[test]
fn upstreams_shim_works_for_our_daemon() {
    if beyond_upstream("upstream's shim works for our daemon") {
        return;
    }
    let Some(peer) = binaries::peer() else { return };
    let ours = binaries::tested();
    let daemon = Daemon::start_of(Binaries { shim_dir: peer.shim_dir.clone(), ..ours.clone() }, Suite::Ours);
    shim_works(&daemon, &ours, &peer);
}

/// Upstream's clients that are at hand, with the flags by which each of their ways to a registry is taken.
fn go_ways(peer: Binaries) -> Vec<(Binaries, &'static [&'static str])> {
    let new = binaries::reference();
    let ways: [&[&str]; 2] = [&["--plain-http", "--local"], &["--plain-http"]];
    let new = new.into_iter().flat_map(|new| ways.map(|way| (new.clone(), way)));
    std::iter::once((peer, &["--plain-http"][..])).chain(new).collect()
}

#[test]
fn upstreams_client_pulls_and_pushes_by_itself_and_through_our_daemon() {
    let Some((daemon, peer)) = go_client() else { return };
    for (go, flags) in go_ways(peer) {
        let registry = Fake::start();
        let name = Image::standard().publish(&registry, "library/x", "1");
        let before = Ledger::take(&daemon);
        let go_ctr =
            |words: &[&str], names: &[&str]| daemon.ctr_of(&go, &[words, flags, names].concat()).ok();
        go_ctr(&["images", "pull"], &[&name]);
        let id = daemon.id("go-pulled");
        let run = ["run", "--rm", &name, &id, "cat", "/etc/greeting"];
        assert_eq!(daemon.ctr_of(&go, &run).ok(), "from the second layer\n", "{flags:?}");
        let other = registry.reference("team/y", "2");
        go_ctr(&["images", "push"], &[&other, &name]);
        // What it pushed is what our client pulls, and the other way round.
        daemon.ctr(&["images", "pull", &other]).ok();
        let third = registry.reference("team/z", "3");
        daemon.ctr(&["images", "push", &third, &other]).ok();
        go_ctr(&["images", "pull"], &[&third]);
        assert_eq!(registry.manifest("library/x", "1"), registry.manifest("team/z", "3"));
        daemon.ctr(&["images", "rm", "--sync", &name, &other, &third]).ok();
        Ledger::check(&before, &daemon);
    }
}

#[test]
fn clients_that_pull_the_same_at_once_all_end_well_and_fetch_it_once() {
    let Some((daemon, peer)) = go_client() else { return };
    let registry = Fake::start();
    let name = Image::standard().publish(&registry, "library/x", "1");
    // Long enough for all of them to be there.
    registry.fault(When::path("/blobs/").method("GET"), Fault::Slow(16 << 10, Duration::from_millis(8)));
    let before = Ledger::take(&daemon);
    let mut wanted = None;
    for round in 0..ROUNDS {
        for (go, flags) in go_ways(peer.clone()) {
            registry.forget_requests();
            let theirs = [&["images", "pull"], flags, &[&name]].concat();
            let mut running = vec![
                daemon.ctr_of(&go, &theirs).start(),
                daemon.ctr(&["images", "pull", &name]).start(),
                daemon.ctr(&["images", "pull", "--local", &name]).start(),
            ];
            if round % 2 == 1 {
                running.push(daemon.ctr_of(&go, &theirs).start());
            }
            for running in running {
                let done = running.finish();
                assert_eq!(done.code, 0, "round {round}, {flags:?}: {done}");
            }
            let layers = registry.count("GET", "/blobs/");
            assert_eq!(layers, 4, "round {round}, {flags:?}: {:#?}", registry.requests());
            // Who was first to unpack a layer labels it, or does not.
            let there = Records::take(&daemon).without("snapshot", "label containerd.io/snapshot");
            let wanted = wanted.get_or_insert_with(|| there.clone());
            assert!(there == *wanted, "round {round}, {flags:?}:\n{}", there.differences(wanted));
            let id = daemon.id("both");
            assert_eq!(daemon.ctr(&["run", "--rm", &name, &id, "echo", "both"]).ok(), "both\n");
            daemon.ctr(&["images", "rm", "--sync", &name]).ok();
            Ledger::check(&before, &daemon);
        }
    }
}
