//! Pipes around the client: whoever reads it may go away, and a process may leave its own streams to others.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use containerd_tests::binaries::beyond_upstream;
use containerd_tests::{Daemon, Ledger, eventually};

#[test]
fn a_run_whose_output_nobody_reads_leaves_nothing() {
    if beyond_upstream("a run that writes into a broken pipe ends and leaves nothing") {
        return;
    }
    let daemon = Daemon::start();
    let (image, id) = (daemon.image(), daemon.id("head"));
    let before = Ledger::take(&daemon);
    let talks = "while :; do echo line; done";
    let mut command = daemon.client(daemon.ctr_binary(), &["run", "--rm", image, &id, "sh", "-c", talks]);
    let mut client = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = client.stdout.take().unwrap();
    output.read_exact(&mut [0; 5]).unwrap();
    drop(output);
    let mut ended = None;
    eventually("the client ends", || {
        ended = client.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.and_then(|status| status.code()), Some(141));
    Ledger::check(&before, &daemon);
}

#[test]
fn what_nobody_reads_ends_the_client_by_sigpipe_without_a_word() {
    let daemon = Daemon::shared();
    daemon.image();
    for arguments in [&["images", "list"][..], &["plugins", "list"], &["run", "--help"], &["--version"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = daemon.client(daemon.ctr_binary(), arguments);
        let done = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let done = done.wait_with_output().unwrap();
        assert_eq!(done.status.signal(), Some(13), "{arguments:?}: {}", done.status);
        assert_eq!(String::from_utf8_lossy(&done.stderr), "", "{arguments:?}");
    }
}

#[test]
fn an_exec_does_not_wait_for_ever_for_a_child_that_holds_its_output() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("background"));
    daemon.ctr(&["run", "-d", image, &id, "sleep", "1000"]).ok();
    let begun = Instant::now();
    let exec = daemon.id("leaves");
    let script = "sleep 600 & echo said; exit 6";
    let done = daemon.ctr(&["tasks", "exec", "--exec-id", &exec, &id, "sh", "-c", script]).run();
    assert_eq!((done.code, done.stdout.as_str()), (6, "said\n"), "{done}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert!(!daemon.ctr(&["tasks", "ps", &id]).ok().contains(&exec), "the exec is still known");
    daemon.ctr(&["tasks", "delete", "--force", &id]).run();
    daemon.ctr(&["containers", "delete", &id]).ok();
}
