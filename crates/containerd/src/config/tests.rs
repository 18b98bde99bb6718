use std::time::Duration;

use super::*;

/// What `config dump` prints of a file.
fn printed(text: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    print(&Flags { config: Some(file.path().to_owned()), ..Flags::default() }).unwrap().0
}

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
    let first = printed(text);
    assert_eq!(printed(&first), first);
    let again = understood(&first).unwrap();
    assert_eq!(again.grpc, Listener { address: "/a".into(), uid: 5, gid: 0 });
    assert_eq!(again.ttrpc.uid, 5);
    assert_eq!(again.shims.load, Duration::from_secs(7));
    assert!(first.contains("z = 1") && first.contains("bolt.open"));
}

#[test]
fn an_import_that_is_not_there_ends_what_is_printed_and_a_plugin_that_has_no_uri_is_a_mistake() {
    assert!(printed("version = 4\nroot='/r'\nimports=['nope.toml']").contains("root = '/r'\n"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "version = 4\nrequired_plugins=['a']").unwrap();
    let error = print(&Flags { config: Some(file.path().to_owned()), ..Flags::default() }).unwrap_err();
    assert!(
        error.to_string().contains("invalid required plugin URI \"a\" expect io.containerd.x.vx"),
        "{error}"
    );
}

#[test]
fn all_mistakes_are_reported_together() {
    let text = "version=4\nroot='r'\ndisabled_plugins=['cri']\noom_score='x'\n[debug]\nlevel='loud'\n\
                [timeouts]\n'io.containerd.timeout.task.state'='soon'";
    let error = understood(text).unwrap_err().to_string();
    for part in [
        "root must be an absolute path",
        "invalid disabled plugin URI \"cri\" expect io.containerd.x.vx",
        "oom_score must be of type integer, not string",
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
        "version=4\nrot='/x'\n[plugins.'io.containerd.server.v1.grpc']\nadress='/x'\n[plugins.'a.b']\nk=1\n[plugins.'io.containerd.snapshotter.v1.blockfile']\n\
         root_path='/x'\n[plugins.'io.containerd.cri.v1.runtime']\nenable_selinux=true",
    )
    .unwrap();
    for part in [
        "key in TOML: rot",
        "plugins.'io.containerd.server.v1.grpc'.adress",
        "not there: a.b, io.containerd.snapshotter.v1.blockfile",
    ] {
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

#[test]
fn an_empty_value_is_one_that_is_not_written() {
    let config = understood("version=4\nroot=''\nstate=''").unwrap();
    assert_eq!(config.root, Path::new("/var/lib/containerd"));
}

#[test]
fn what_the_program_assumes_is_what_the_default_file_says() {
    // Sections of disabled plugins are not completed, so this reads every section without its defaults.
    let uris: Vec<String> = tree::complete(Written::nothing().unwrap(), &host()).unwrap().table["plugins"]
        .as_table()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    let bare = Config {
        disabled: Vec::new(),
        ..understood(&format!("version=4\ndisabled_plugins={uris:?}")).unwrap()
    };
    assert_eq!(format!("{bare:?}"), format!("{:?}", default().unwrap()));
}

#[test]
fn proxies_are_read_and_processors_are_not_there_yet() {
    let config = understood(
        "version=2\n[proxy_plugins.stargz]\ntype='snapshot'\naddress='/run/s'\ncapabilities=['remote']\n\
         [proxy_plugins.stargz.exports]\nroot='/x'\n[proxy_plugins.odd]\ntype='smtp'\naddress='/y'\n\
         [proxy_plugins.vm]\ntype='sandbox'\naddress='unix:///z'\n[stream_processors.x]\naccepts=['a']\nreturns='b'\npath='p'",
    )
    .unwrap();
    let [stargz, vm] = &config.proxies[..] else { panic!("{:?}", config.proxies) };
    assert_eq!((vm.kind, vm.address.as_path()), (ProxyKind::Sandboxer, Path::new("/z")));
    assert_eq!(stargz.exports["address"], "/run/s");
    assert_eq!(stargz.exports["root"], "/x");
    assert!(config.warnings.iter().any(|warning| warning.contains("type \"smtp\"")), "{:?}", config.warnings);
    assert!(
        config.warnings.iter().any(|warning| warning.contains("stream processor x")),
        "{:?}",
        config.warnings
    );
    assert!(understood("version=4\n[proxy_plugins.x]\ntype='diff'").is_err());
    let taken = understood("version=4\n[proxy_plugins.shim]\ntype='sandbox'\naddress='/z'").unwrap_err();
    assert!(taken.to_string().contains("the name of a sandboxer of the daemon's own"), "{taken}");
}

#[test]
fn a_daemon_could_be_started_with_every_generated_file() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let config = load(&Flags { config: Some(path.clone()), ..Flags::default() }).unwrap();
        let chosen = crate::plugins::Plugins::choose(&config).map(drop).map_err(|error| error.to_string());
        assert_eq!(chosen, Ok(()), "{}", path.display());
        let ignored = config.warnings.iter().filter(|warning| warning.contains("plugins that are not there"));
        assert!(ignored.count() <= 1, "{:?}", config.warnings);
    }
}

#[test]
fn transfers_are_as_upstreams_by_default_and_may_be_told_where_to_unpack() {
    let config = default().unwrap();
    let Transfer { downloads, layer_buffer, uploads, unpacks, .. } = config.transfer;
    assert_eq!((downloads, layer_buffer, uploads, unpacks), (3, 0, 3, 1));
    assert_eq!((config.transfer.unpack, config.transfer.max_unpacked_layer), (None, 0));
    assert_eq!(config.verifier.directory, Path::new("/opt/containerd/image-verifier/bin"));
    assert_eq!((config.verifier.most, config.verifier.limit), (10, Duration::from_secs(10)));
    let text = "version=4\n[plugins.'io.containerd.transfer.v1.local']\nmax_concurrent_downloads=0\n\
                max_unpacked_layer=1000\nconfig_path='/a:/b'\n\
                [[plugins.'io.containerd.transfer.v1.local'.unpack_config]]\nplatform='linux/arm'\nsnapshotter='native'\n\
                [plugins.'io.containerd.image-verifier.v1.bindir']\nmax_verifiers=-1\nper_verifier_timeout='1m'";
    let config = understood(text).unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!((config.transfer.downloads, config.transfer.max_unpacked_layer), (usize::MAX, 1000));
    assert_eq!(config.transfer.hosts, "/a:/b");
    let unpack = &config.transfer.unpack.unwrap()[0];
    assert_eq!((unpack.platform.to_string(), unpack.snapshotter.as_str()), ("linux/arm/v7".into(), "native"));
    assert_eq!((config.verifier.most, config.verifier.limit), (-1, Duration::from_secs(60)));
    let wrong = "version=4\n[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]\nplatform='a//b'";
    assert!(understood(wrong).unwrap_err().to_string().contains("platform configuration a//b invalid"));
    let wrong = "version=4\n[plugins.'io.containerd.transfer.v1.local']\nmax_manifest_size=8388609\nmax_index_depth=5";
    let error = understood(wrong).unwrap_err().to_string();
    for words in ["max_manifest_size 8388609 is more than 8388608", "max_index_depth 5 is more than 4"] {
        assert!(error.contains(words), "{error}");
    }
}
