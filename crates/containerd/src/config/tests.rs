use super::*;

fn understood(text: &str) -> Result<Config> {
    understood_with(text, &Flags::default())
}

fn understood_with(text: &str, flags: &Flags) -> Result<Config> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    load(&Flags { config: Some(file.path().to_owned()), ..flags.clone() })
}

#[test]
fn the_default_is_upstreams() {
    let config = default().unwrap();
    assert_eq!(config.root, Path::new("/var/lib/containerd"));
    assert_eq!(config.state, Path::new("/run/containerd"));
    assert_eq!(config.ttrpc.address, Path::new("/run/containerd/containerd.sock.ttrpc"));
    assert_eq!(config.message_size, MessageSize { receive: 16 << 20, send: 16 << 20 });
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn what_is_printed_means_the_same_again() {
    let text = "version = 3\nroot='/r'\n[grpc]\naddress='/a'\nuid=5\n[plugins.'io.containerd.snapshotter.v1.overlayfs']\n\
                mount_options=['index=off']\n[plugins.'x.y']\nz=1\n[timeouts]\n'io.containerd.timeout.shim.load'='7s'\n\
                'io.containerd.timeout.bolt.open'='0s'";
    let printed = print(&understood(text).unwrap()).unwrap();
    let again = understood(&printed).unwrap();
    assert_eq!(print(&again).unwrap(), printed);
    assert_eq!(again.grpc, Listener { address: "/a".into(), uid: 5, gid: again.grpc.gid });
    assert_eq!(again.ttrpc.uid, 5);
    assert_eq!(again.shims.load, Duration::from_secs(7));
    assert!(printed.contains("z = 1") && printed.contains("bolt.open"));
}

#[test]
fn all_mistakes_are_reported_together() {
    let text = "version=4\nroot='r'\nstate=''\ndisabled_plugins=['cri']\noom_score='x'\n[debug]\nlevel='loud'\n\
                [timeouts]\n'io.containerd.timeout.task.state'='soon'";
    let error = understood(text).unwrap_err().to_string();
    for part in [
        "root must be an absolute path",
        "state must be specified",
        "invalid disabled plugin URI \"cri\" expect io.containerd.x.vx",
        "oom_score must be an integer",
        "not a valid log level: \"loud\"",
        "\"soon\" is no duration",
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
}

#[test]
fn root_and_state_must_differ() {
    let error = understood("version=4\nroot='/a'\nstate='/a/'").unwrap_err().to_string();
    assert!(error.contains("root and state must be different paths"), "{error}");
}

#[test]
fn unknown_keys_are_warnings() {
    let config = understood(
        "version=4\nrot='/x'\n[plugins.'io.containerd.server.v1.grpc']\nadress='/x'\n[plugins.'a.b']",
    )
    .unwrap();
    for part in ["key in TOML: rot", "plugins.'io.containerd.server.v1.grpc'.adress", "not there: a.b"] {
        assert!(
            config.warnings.iter().any(|warning| warning.contains(part)),
            "{part}: {:?}",
            config.warnings
        );
    }
}

#[test]
fn flags_override_the_file_and_move_the_ttrpc_socket_along() {
    let flags = Flags { address: Some("/b".into()), root: Some("rel".into()), ..Flags::default() };
    let config =
        understood_with("version=4\n[plugins.'io.containerd.server.v1.grpc']\naddress='/a'", &flags).unwrap();
    assert_eq!(config.ttrpc.address, Path::new("/b.ttrpc"));
    assert!(config.root.is_absolute() && config.root.ends_with("rel"));
}

#[test]
fn only_the_default_file_may_be_missing() {
    assert!(
        load(&Flags { config: Some("/nonexistent/x.toml".into()), ..Flags::default() })
            .unwrap_err()
            .is_not_found()
    );
}
