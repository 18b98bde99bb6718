//! `ctr run`: what a process finds in its container is what the command line and the image say.

use containerd_tests::archive::{IMAGE, Image};
use containerd_tests::{Daemon, Finished};

/// Runs `command` in a new container with these flags; the container is gone afterwards.
#[track_caller]
fn run(daemon: &Daemon, flags: &[&str], command: &[&str]) -> Finished {
    let id = daemon.id("run");
    let mut arguments = vec!["run", "--rm"];
    arguments.extend(flags);
    arguments.extend([daemon.image(), &id]);
    arguments.extend(command);
    daemon.ctr(&arguments).run()
}

#[track_caller]
fn output(daemon: &Daemon, flags: &[&str], script: &str) -> String {
    run(daemon, flags, &["sh", "-c", script]).expect_code(0).stdout
}

#[test]
fn output_and_errors_arrive_on_their_streams() {
    let daemon = Daemon::shared();
    let done = run(&daemon, &[], &["sh", "-c", "echo to-stdout; echo to-stderr >&2"]).expect_code(0);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("to-stdout\n", "to-stderr\n"));
}

#[test]
fn large_output_arrives_complete_and_in_order() {
    let daemon = Daemon::shared();
    let out = output(&daemon, &[], "seq 1 200000");
    assert_eq!(out.lines().count(), 200_000);
    assert!(out.lines().enumerate().all(|(n, line)| line.parse() == Ok(n + 1)), "a line is missing or torn");
}

#[test]
fn the_process_reads_the_callers_standard_input_to_its_end() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("stdin"));
    let input = "line\n".repeat(50_000);
    let out = daemon.ctr(&["run", "--rm", image, &id, "wc", "-c"]).input(input).ok();
    assert_eq!(out.trim(), "250000");
}

#[test]
fn without_arguments_the_image_says_what_runs() {
    let daemon = Daemon::shared();
    let name = "docker.io/library/entrypoint:1";
    let image = Image::named(name)
        .layer(&containerd_tests::archive::base_layer(), containerd_tests::archive::Packing::Gzip)
        .config("Entrypoint", serde_json::json!(["echo", "entry"]))
        .config("Cmd", serde_json::json!(["and", "command"]));
    let archive = daemon.archive("entrypoint.tar", &image.oci());
    daemon.ctr(&["images", "import", &archive]).ok();
    let id = daemon.id("entry");
    assert_eq!(daemon.ctr(&["run", "--rm", name, &id]).ok(), "entry and command\n");
}

#[test]
fn environment_comes_from_the_image_and_the_flags() {
    let daemon = Daemon::shared();
    let out = output(&daemon, &["--env", "EXTRA=one two", "--env", "FLAVOUR=lemon"], "env");
    assert!(out.contains("PATH=/usr/sbin:/usr/bin:/sbin:/bin\n"), "{out}");
    assert!(out.contains("EXTRA=one two\n"), "{out}");
    assert!(out.contains("FLAVOUR=lemon\n") && !out.contains("FLAVOUR=vanilla"), "{out}");
}

#[test]
fn the_working_directory_can_be_chosen() {
    let daemon = Daemon::shared();
    assert_eq!(output(&daemon, &["--cwd", "/home/alice"], "pwd"), "/home/alice\n");
    assert_eq!(output(&daemon, &[], "pwd"), "/\n");
}

#[test]
fn a_user_can_be_a_number_or_a_name_of_the_image() {
    let daemon = Daemon::shared();
    if daemon.lacks_flag(&["run"], "--user") {
        return;
    }
    assert_eq!(output(&daemon, &["--user", "1234:5678"], "id -u; id -g"), "1234\n5678\n");
    assert_eq!(output(&daemon, &["--user", "alice"], "id -u; id -g"), "1000\n1000\n");
    assert_eq!(output(&daemon, &[], "id -u"), "0\n");
}

#[test]
fn an_unknown_user_is_an_error_and_leaves_no_container() {
    let daemon = Daemon::shared();
    if daemon.lacks_flag(&["run"], "--user") {
        return;
    }
    let (image, id) = (daemon.image(), daemon.id("nouser"));
    daemon.ctr(&["run", "--rm", "--user", "nobody-knows", image, &id, "true"]).fails();
    assert!(!daemon.ctr(&["containers", "list", "-q"]).ok().contains(&id));
}

#[test]
fn a_host_directory_can_be_mounted_read_only_and_writable() {
    let daemon = Daemon::shared();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "from the host").unwrap();
    let mount = |mode: &str| format!("type=bind,src={},dst=/mnt,options=rbind:{mode}", dir.path().display());
    assert_eq!(output(&daemon, &["--mount", &mount("ro")], "cat /mnt/file"), "from the host");
    let refused = run(&daemon, &["--mount", &mount("ro")], &["touch", "/mnt/new"]);
    assert!(refused.code != 0 && refused.stderr.contains("Read-only file system"), "{refused}");
    output(&daemon, &["--mount", &mount("rw")], "echo back >/mnt/answer");
    assert_eq!(std::fs::read_to_string(dir.path().join("answer")).unwrap(), "back\n");
}

#[test]
fn a_read_only_root_cannot_be_written() {
    let daemon = Daemon::shared();
    let refused = run(&daemon, &["--read-only"], &["touch", "/new"]);
    assert!(refused.code != 0 && refused.stderr.contains("Read-only file system"), "{refused}");
}

#[test]
fn the_host_name_is_the_containers_own() {
    let daemon = Daemon::shared();
    if daemon.lacks_flag(&["run"], "--hostname") {
        return;
    }
    assert_eq!(output(&daemon, &["--hostname", "ada"], "hostname"), "ada\n");
}

#[test]
fn processes_outside_are_not_visible() {
    let daemon = Daemon::shared();
    let out = output(&daemon, &[], "ls /proc | grep -c '^[0-9][0-9]*$' || true; echo pid $$");
    assert!(out.contains("pid 1\n"), "{out}");
}

#[test]
fn layers_are_stacked_with_their_removals() {
    let daemon = Daemon::shared();
    let out = output(&daemon, &[], "cat /etc/greeting; ls /etc /opaque; stat -c %s /data/payload");
    assert_eq!(out, "from the second layer\n/etc:\ngreeting\ngroup\npasswd\n\n/opaque:\nnew\n65536\n");
}

#[test]
fn what_one_container_writes_no_other_sees() {
    let daemon = Daemon::shared();
    assert_eq!(output(&daemon, &[], "echo mine >/data/payload; cat /data/payload"), "mine\n");
    assert_eq!(output(&daemon, &[], "stat -c %s /data/payload"), "65536\n");
}

#[test]
fn the_native_snapshotter_runs_the_same_image() {
    let daemon = Daemon::shared();
    let archive = daemon.archive("native.tar", &Image::standard().oci());
    // Unpacked by the run: the import of 2.x unpacks only for the snapshotters of its configuration.
    daemon.ctr(&["images", "import", "--no-unpack", &archive]).ok();
    let id = daemon.id("native");
    let out =
        daemon.ctr(&["run", "--rm", "--snapshotter", "native", IMAGE, &id, "cat", "/etc/greeting"]).ok();
    assert_eq!(out, "from the second layer\n");
}

#[test]
fn the_host_network_can_be_shared() {
    if !std::path::Path::new("/etc/hosts").exists() {
        eprintln!(
            "skipped: this machine has no /etc/hosts, which a container on the host's network gets to see"
        );
        return;
    }
    let daemon = Daemon::shared();
    let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
    let shared = output(&daemon, &["--net-host"], "ls -l /proc/self/ns/net");
    assert!(shared.trim().ends_with(&*ours.to_string_lossy()), "{shared}");
    let own = output(&daemon, &[], "ls -l /proc/self/ns/net");
    assert!(!own.trim().ends_with(&*ours.to_string_lossy()), "{own}");
}

#[test]
fn a_label_is_kept_with_the_container() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("label"));
    daemon.ctr(&["containers", "create", "--label", "tier=web", image, &id, "true"]).ok();
    let info = daemon.ctr(&["containers", "info", &id]).ok();
    assert!(info.contains("\"tier\": \"web\""), "{info}");
    daemon.ctr(&["containers", "delete", &id]).ok();
}

#[test]
fn a_pid_file_names_the_process() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("pidfile"));
    let file = daemon.dir().join(daemon.id("pid"));
    daemon.ctr(&["run", "-d", "--pid-file", &file.to_string_lossy(), image, &id, "sleep", "100"]).ok();
    let pid = std::fs::read_to_string(&file).unwrap();
    assert_eq!(pid.trim().parse(), Ok(daemon.task_pid(&id)));
    daemon.ctr(&["tasks", "delete", "--force", &id]).ok();
    daemon.ctr(&["containers", "delete", &id]).ok();
}

#[test]
fn two_containers_cannot_have_one_name() {
    let daemon = Daemon::shared();
    let (image, id) = (daemon.image(), daemon.id("twice"));
    daemon.ctr(&["containers", "create", image, &id, "true"]).ok();
    daemon.ctr(&["containers", "create", image, &id, "true"]).fails().says("already exists");
    daemon.ctr(&["containers", "delete", &id]).ok();
}
