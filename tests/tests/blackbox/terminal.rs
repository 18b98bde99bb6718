//! `-t`: a terminal in the container that behaves like the caller's.

use containerd_tests::Daemon;
use containerd_tests::binaries::{beyond_upstream, crun};
use containerd_tests::terminal::Terminal;

fn on_terminal(daemon: &Daemon, arguments: &[&str]) -> Terminal {
    Terminal::start(daemon.client(daemon.ctr_binary(), arguments), 100, 30)
}

#[test]
fn a_shell_on_a_terminal_answers_and_its_exit_code_counts() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("tty"));
    let mut terminal = on_terminal(&daemon, &["run", "--rm", "-t", image, &id, "sh"]);
    terminal.send("tty; echo sum $((40+2))\n");
    terminal.expect("/dev/pts/0");
    terminal.expect("sum 42");
    terminal.send("exit 3\n");
    assert_eq!(terminal.finish(), 3);
}

#[test]
fn the_terminal_has_the_callers_size_and_follows_it() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("size"));
    let mut terminal = on_terminal(&daemon, &["run", "--rm", "-t", image, &id, "sh"]);
    // The first size may be set a moment after the start.
    terminal.send("until stty size | grep 100; do sleep 0.1; done\n");
    terminal.expect("30 100");
    terminal.resize(90, 20);
    terminal.send("until stty size | grep 90; do sleep 0.1; done\n");
    terminal.expect("20 90");
    terminal.send("exit 0\n");
    assert_eq!(terminal.finish(), 0);
}

#[test]
fn no_process_sees_its_terminal_without_a_size() {
    if beyond_upstream("the size is there from the beginning") {
        return;
    }
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("first-size"));
    let terminal = on_terminal(&daemon, &["run", "--rm", "-t", image, &id, "stty", "size"]);
    terminal.expect("30 100");
    assert_eq!(terminal.finish(), 0);
    if crun().is_some() {
        eprintln!("skipped: crun sets the size of an exec's terminal while the exec is running already");
        return;
    }
    daemon.ctr(&["run", "-d", image, &id, "sleep", "1000"]).ok();
    let exec = daemon.id("exec");
    let terminal = on_terminal(&daemon, &["tasks", "exec", "-t", "--exec-id", &exec, &id, "stty", "size"]);
    terminal.expect("30 100");
    assert_eq!(terminal.finish(), 0);
    daemon.ctr(&["tasks", "rm", "-f", &id]).ok();
    daemon.ctr(&["containers", "rm", &id]).ok();
}

#[test]
fn control_c_interrupts_the_program_in_the_container() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("interrupt"));
    let mut terminal = on_terminal(&daemon, &["run", "--rm", "-t", image, &id, "sh"]);
    terminal.send("echo be''gin; sleep 1000; echo status $?\n");
    terminal.expect("begin");
    // The shell hands the terminal to sleep a moment after it said so.
    std::thread::sleep(std::time::Duration::from_millis(300));
    terminal.send("\x03");
    terminal.send("echo still he''re\n");
    terminal.expect("still here");
    terminal.send("exit 0\n");
    assert_eq!(terminal.finish(), 0);
}

#[test]
fn a_second_process_can_have_a_terminal_too() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("exec-tty"));
    daemon.ctr(&["run", "-d", image, &id, "sleep", "1000"]).ok();
    let exec = daemon.id("exec");
    let mut terminal = on_terminal(&daemon, &["tasks", "exec", "-t", "--exec-id", &exec, &id, "sh"]);
    terminal.send("echo pid one is $(cat /proc/1/comm)\n");
    terminal.expect("pid one is sleep");
    terminal.send("exit 12\n");
    assert_eq!(terminal.finish(), 12);
    daemon.ctr(&["tasks", "delete", "--force", &id]).run();
    daemon.ctr(&["containers", "delete", &id]).ok();
}
