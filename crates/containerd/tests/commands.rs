//! What the binary does besides serving: version, configuration, and refusing to start with one clear line.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod daemon;

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use daemon::{Home, containerd, run};

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// It failed, and said why in one line.
fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("time=")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(lines[0].starts_with("containerd: "), "{text}");
    lines[0].to_owned()
}

#[test]
fn the_version_line_has_upstreams_form() {
    for flag in ["-v", "--version", "-version"] {
        let output = run(&[flag]);
        let fields: Vec<_> = stdout(&output).split_whitespace().collect();
        assert_eq!(
            fields[..3],
            ["containerd", "github.com/containerd/containerd/v2", types::version::VERSION]
        );
        assert_eq!(fields.len(), 4);
    }
}

#[test]
fn help_is_printed_on_stdout() {
    let output = run(&["-h"]);
    assert!(output.status.success());
    assert!(stdout(&output).contains("--log-level"));
}

#[test]
fn the_default_configuration_round_trips() {
    let default = run(&["config", "default"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &default.stdout).unwrap();
    let dumped = run(&["-c", file.path().to_str().unwrap(), "config", "dump"]);
    assert_eq!(stdout(&dumped), stdout(&default));
    assert!(dumped.stderr.is_empty(), "{dumped:?}");
    assert!(stdout(&default).starts_with("version = 4\n"));
}

#[test]
fn a_dump_shows_what_flags_and_file_mean_together() {
    let home = Home::new();
    let output = home.command().args(["-address=/x/y.sock", "config", "dump"]).output().unwrap();
    let dump: toml::Table = stdout(&output).parse().unwrap();
    assert_eq!(dump["root"].as_str(), home.path("root").to_str());
    assert_eq!(dump["plugins"]["io.containerd.server.v1.ttrpc"]["address"].as_str(), Some("/x/y.sock.ttrpc"));
}

#[test]
fn bad_flags_and_bad_configurations_are_one_line_each() {
    let home = Home::new();
    assert!(refused(&run(&["-nosuch"])).contains("--nosuch"));
    assert!(refused(&run(&["-c", "/nonexistent/config.toml"])).contains("/nonexistent/config.toml"));
    assert!(
        refused(&home.command().args(["-l", "loud"]).output().unwrap()).contains("not a valid log level")
    );
    for (text, why) in [
        ("version = 5", "equal to or less than `4`, got `5`"),
        ("version = 4\nroot = 1", "root must be of type string, not integer"),
        ("version = 4\nroot = '/tmp/a'\nstate = '/tmp/a'", "root and state must be different paths"),
        (
            "version = 4\nrequired_plugins = ['io.containerd.grpc.v1.nosuch']",
            "io.containerd.grpc.v1.nosuch not included",
        ),
        ("version = = 4", "row 1 column"),
    ] {
        std::fs::write(home.path("config.toml"), text).unwrap();
        let line = refused(&home.command().output().unwrap());
        assert!(line.contains(why), "{line}");
    }
}

#[test]
fn a_root_that_cannot_be_written_is_named() {
    let home = Home::new();
    std::fs::write(home.path("file"), "").unwrap();
    let root = home.path("file/root");
    let output = home.command().arg("--root").arg(&root).output().unwrap();
    assert!(refused(&output).contains(root.to_str().unwrap()));
    if rustix::process::geteuid().is_root() {
        return;
    }
    let closed = home.path("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o500)).unwrap();
    refused(&home.command().arg("--root").arg(closed.join("root")).output().unwrap());
}

#[test]
fn publishing_without_a_daemon_fails_and_says_where() {
    let home = Home::new();
    let address = home.path("s");
    let mut publish = containerd();
    publish.arg("--address").arg(&address).args(["publish", "--namespace", "test", "--topic", "/x"]);
    assert!(refused(&publish.output().unwrap()).contains("dial unix"));
    let output = run(&["publish", "--namespace", "test"]);
    assert!(refused(&output).contains("topic required to publish event"));
}

#[test]
fn a_hook_becomes_the_program_with_the_container_filled_in() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), r#"{"root":{"path":"rootfs"}}"#).unwrap();
    let state = dir.path().join("state");
    let bundle = dir.path().display();
    std::fs::write(&state, format!(r#"{{"id":"c1","pid":7,"bundle":"{bundle}","annotations":{{"k":"v"}}}}"#))
        .unwrap();
    let mut hook = containerd();
    hook.args([
        "oci-hook",
        "--",
        "/bin/sh",
        "-c",
        "echo $0 $1 $HOOK; exit 3",
        "{{id}}:{{rootfs}}",
        "{{annotation \"k\"}}",
    ]);
    let output = hook.env("HOOK", "pid {{pid}}").stdin(std::fs::File::open(state).unwrap()).output().unwrap();
    assert_eq!(stdout(&output), format!("c1:{bundle}/rootfs v pid 7\n"));
    assert_eq!(output.status.code(), Some(3));
}

/// A daemon whose shims' socket is not beside the main one.
#[tokio::test]
async fn an_event_is_published_at_the_main_socket_if_there_is_no_other_beside_it() {
    let home = Home::new();
    home.configure(&format!(
        "[plugins.'io.containerd.server.v1.ttrpc']\naddress = {:?}",
        home.path("elsewhere")
    ));
    let daemon = home.start().await;
    assert!(home.path("elsewhere").exists() && !home.path("s.ttrpc").exists());
    let mut publish = containerd();
    publish.arg("-a").arg(daemon.address()).args(["publish", "--namespace", "test", "--topic", "/x"]);
    let output = publish.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    publish = containerd();
    publish.arg("-a").arg(daemon.address()).args(["publish", "--namespace", "test", "--topic", "x"]);
    assert!(refused(&publish.output().unwrap()).contains("must start with"));
}
