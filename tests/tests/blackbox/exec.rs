//! Further processes in a running container, and what can be done to a task: exec, kill, list, wait, delete.

use containerd_tests::{Daemon, Finished, eventually};

/// A container that sleeps; deleted on drop.
struct Sleeper<'a> {
    daemon: &'a Daemon,
    id: String,
}

impl<'a> Sleeper<'a> {
    fn start(daemon: &'a Daemon) -> Self {
        let (image, id) = (daemon.image(), daemon.id("sleeper"));
        // As pid 1 a shell with a trap ends at SIGTERM, where a plain sleep would ignore it.
        let script = "trap 'exit 9' TERM; while :; do sleep 0.05; done";
        daemon.ctr(&["run", "-d", image, &id, "sh", "-c", script]).ok();
        Self { daemon, id }
    }

    fn exec(&self, flags: &[&str], command: &[&str]) -> Finished {
        let exec = self.daemon.id("exec");
        let mut arguments = vec!["tasks", "exec", "--exec-id", &exec];
        arguments.extend(flags);
        arguments.push(&self.id);
        arguments.extend(command);
        self.daemon.ctr(&arguments).run()
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.daemon.ctr(&["tasks", "delete", "--force", &self.id]).run();
        self.daemon.ctr(&["containers", "delete", &self.id]).run();
    }
}

#[test]
fn a_second_process_has_its_own_output_and_exit_code() {
    let daemon = Daemon::shared();
    let sleeper = Sleeper::start(&daemon);
    let done = sleeper.exec(&[], &["sh", "-c", "echo out; echo err >&2; exit 6"]);
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (6, "out\n", "err\n"), "{done}");
}

#[test]
fn a_second_process_shares_the_containers_view() {
    let daemon = Daemon::shared();
    let sleeper = Sleeper::start(&daemon);
    sleeper.exec(&[], &["sh", "-c", "echo kept >/tmp/file"]).expect_code(0).says("");
    let done = sleeper.exec(&[], &["cat", "/tmp/file", "/proc/1/comm"]).expect_code(0);
    assert_eq!(done.stdout, "kept\nsh\n");
}

#[test]
fn a_second_process_reads_standard_input_to_its_end() {
    let daemon = Daemon::shared();
    let sleeper = Sleeper::start(&daemon);
    let exec = daemon.id("exec");
    let input = "0123456789\n".repeat(20_000);
    let out = daemon.ctr(&["tasks", "exec", "--exec-id", &exec, &sleeper.id, "wc", "-c"]).input(input).ok();
    assert_eq!(out.trim(), "220000");
}

#[test]
fn user_and_directory_of_a_second_process_can_be_chosen() {
    let daemon = Daemon::shared();
    let sleeper = Sleeper::start(&daemon);
    let done = sleeper.exec(&["--user", "1000:1000", "--cwd", "/home/alice"], &["sh", "-c", "id -u; pwd"]);
    assert_eq!(done.expect_code(0).stdout, "1000\n/home/alice\n");
}

#[test]
fn a_program_that_is_missing_in_the_container_is_named() {
    let daemon = Daemon::shared();
    let sleeper = Sleeper::start(&daemon);
    let done = sleeper.exec(&[], &["no-such-program"]);
    assert_ne!(done.code, 0);
    // runc and crun put it differently.
    done.says("no-such-program");
    done.says("not found in $PATH");
    // The container is as well as before.
    sleeper.exec(&[], &["true"]).expect_code(0).says("");
}

#[test]
fn exec_in_a_container_that_does_not_run_is_an_error() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("never-started"));
    daemon.ctr(&["containers", "create", image, &id, "true"]).ok();
    daemon.ctr(&["tasks", "exec", "--exec-id", "e", &id, "true"]).fails().says("not found");
    daemon.ctr(&["containers", "delete", &id]).ok();
}

#[test]
fn many_second_processes_run_side_by_side() {
    let daemon = Daemon::shared();
    let sleeper = Sleeper::start(&daemon);
    let clients: Vec<_> = (0..10)
        .map(|n| {
            let exec = daemon.id("exec");
            let script = format!("echo {n}; exit {n}");
            let arguments = ["tasks", "exec", "--exec-id", &exec, &sleeper.id, "sh", "-c", &script];
            (n, daemon.ctr(&arguments).start())
        })
        .collect();
    for (n, client) in clients {
        let done = client.finish();
        assert_eq!((done.code, done.stdout.trim()), (n, n.to_string().as_str()), "{done}");
    }
}

#[test]
fn a_second_process_alone_can_be_killed() {
    let daemon = Daemon::shared();
    let sleeper = Sleeper::start(&daemon);
    let exec = daemon.id("exec");
    let client = daemon.ctr(&["tasks", "exec", "--exec-id", &exec, &sleeper.id, "sleep", "100"]).start();
    eventually("the second process can be killed", || {
        daemon.ctr(&["tasks", "kill", "--exec-id", &exec, "--signal", "SIGKILL", &sleeper.id]).run().code == 0
    });
    assert_eq!(client.finish().code, 137);
    assert_eq!(daemon.task(&sleeper.id).map(|(_, status)| status).as_deref(), Some("RUNNING"));
}

#[test]
fn a_signal_by_name_reaches_the_first_process() {
    let daemon = Daemon::shared();
    let sleeper = Sleeper::start(&daemon);
    // Its trap is set once it can be seen to loop.
    eventually("the shell loops", || sleeper.exec(&[], &["ps"]).stdout.contains("sleep 0.05"));
    daemon.ctr(&["tasks", "kill", "--signal", "SIGTERM", &sleeper.id]).ok();
    assert_eq!(daemon.api().wait(&sleeper.id), Ok(9));
    daemon.await_status(&sleeper.id, "STOPPED");
    daemon.ctr(&["tasks", "kill", &sleeper.id]).fails();
}

#[test]
fn the_processes_of_a_task_are_listed() {
    let daemon = Daemon::shared();
    let sleeper = Sleeper::start(&daemon);
    let pid = daemon.task_pid(&sleeper.id).to_string();
    let list = daemon.ctr(&["tasks", "ps", &sleeper.id]).ok();
    assert!(list.lines().skip(1).any(|line| line.split_whitespace().next() == Some(&pid)), "{list}");
}

#[test]
fn a_container_is_created_first_and_started_later() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("later"));
    daemon.ctr(&["containers", "create", image, &id, "cat", "/etc/greeting", "/absent"]).ok();
    assert!(daemon.task(&id).is_none());
    let done = daemon.ctr(&["tasks", "start", &id]).run();
    assert_eq!((done.code, done.stdout.as_str()), (1, "from the second layer\n"), "{done}");
    daemon.ctr(&["containers", "delete", &id]).ok();
}

#[test]
fn a_waiting_client_learns_of_the_end() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("waited"));
    daemon.ctr(&["run", "-d", image, &id, "sh", "-c", "sleep 0.5; exit 11"]).ok();
    assert_eq!(daemon.api().wait(&id), Ok(11));
    assert_eq!(daemon.api().wait(&id), Ok(11), "an end that was told once can be asked for again");
    assert_eq!(daemon.api().delete(&id), Ok(11));
    assert_eq!(daemon.api().delete(&id), Err(tonic::Code::NotFound));
    daemon.ctr(&["containers", "delete", &id]).ok();
}
