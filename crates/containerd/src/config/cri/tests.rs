use super::super::{Flags, PathBuf, load};
use super::*;
use ::cri::config::IpPreference;

fn read(text: &str) -> (Cri, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    let config = load(&Flags { config: Some(path), ..Flags::default() }).unwrap();
    (config.cri, config.warnings)
}

fn wrong(text: &str) -> Vec<(&'static str, String)> {
    read(&format!("version = 4\n{text}")).0.invalid
}

#[test]
fn without_a_word_the_defaults_of_the_cri_hold() {
    let (cri, warnings) = read("version = 4\n");
    assert_eq!(format!("{:?}", cri.settings), format!("{:?}", Config::default()));
    assert!(warnings.is_empty() && cri.invalid.is_empty() && cri.deprecated.is_empty());
}

#[test]
fn what_version_2_says_arrives() {
    let (cri, warnings) = read(
        r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "r.io/pause:1"
enable_selinux = true
max_container_log_line_size = -1
stream_server_port = "10010"
stream_idle_timeout = "1h"
max_concurrent_downloads = 7
[plugins."io.containerd.grpc.v1.cri".registry.headers]
X-Meta = ["a", "b"]
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/cni/bin"
conf_dir = "/cni/conf"
ip_pref = "ipv6"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
default_runtime_name = "kata"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]
runtime_type = "io.containerd.kata.v2"
sandbox_mode = "shim"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata.options]
ConfigPath = "/kata.toml"
"#,
    );
    assert!(cri.invalid.is_empty(), "{:?}", cri.invalid);
    let Config { images, runtime, streaming } = &cri.settings;
    assert_eq!(images.pause_image(), Some("r.io/pause:1"));
    assert_eq!((images.snapshotter.as_str(), images.max_concurrent_downloads), ("native", 7));
    assert_eq!(images.headers["X-Meta"], ["a", "b"]);
    assert!(runtime.enable_selinux && runtime.max_log_line.is_none());
    assert_eq!(runtime.cni.bin_dirs, [PathBuf::from("/cni/bin")]);
    assert_eq!((runtime.cni.conf_dir.to_str(), runtime.cni.ip_pref), (Some("/cni/conf"), IpPreference::Ipv6));
    let kata = &runtime.runtimes["kata"];
    assert_eq!((kata.runtime_type.as_str(), kata.sandboxer.as_str()), ("io.containerd.kata.v2", "shim"));
    assert_eq!(kata.options["ConfigPath"], "/kata.toml");
    assert_eq!(runtime.default_runtime, "kata");
    assert_eq!((streaming.port.as_str(), streaming.idle), ("10010", Duration::from_secs(3600)));
    assert!(!warnings.iter().any(|warning| warning.contains("cri")), "{warnings:?}");
}

#[test]
fn old_ways_to_name_registries_are_understood_and_told_of() {
    let (cri, _) = read(
        r#"version = 4
[plugins."io.containerd.cri.v1.images".registry.mirrors."docker.io"]
endpoint = ["https://mirror:5000", "https://other"]
[plugins."io.containerd.cri.v1.images".registry.configs."r.io".auth]
username = "u"
password = "S3CRET"
[plugins."io.containerd.cri.v1.images".registry.auths."https://x.io/v2"]
auth = "dTpw"
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dir = "/old"
"#,
    );
    assert!(cri.invalid.is_empty(), "{:?}", cri.invalid);
    assert_eq!(
        cri.mirrors,
        [("docker.io".to_owned(), vec!["https://mirror:5000".into(), "https://other".into()])]
    );
    assert_eq!(cri.settings.images.hosts, "");
    assert_eq!(cri.settings.images.auths["r.io"].login("r.io").unwrap().unwrap().secret, "S3CRET");
    assert_eq!(cri.settings.images.auths["x.io"].login("x.io").unwrap().unwrap().user.as_deref(), Some("u"));
    assert_eq!(cri.settings.runtime.cni.bin_dirs, [PathBuf::from("/old")]);
    use Deprecation::{CriCniBinDir, CriRegistryAuths, CriRegistryConfigs, CriRegistryMirrors};
    assert_eq!(cri.deprecated, [CriRegistryMirrors, CriRegistryConfigs, CriRegistryAuths, CriCniBinDir]);
    assert!(!format!("{cri:?}").contains("S3CRET"));
}

#[test]
fn what_cannot_be_meant_so_is_told_in_upstreams_words() {
    let runtime = "[plugins.'io.containerd.cri.v1.runtime'";
    for (text, uri, words) in [
        (format!("{runtime}]\nstats_collect_period = 'x'\n"), RUNTIME, "invalid `stats_collect_period`: time: invalid duration \"x\""),
        (format!("{runtime}.containerd]\ndefault_runtime_name = ''\n"), RUNTIME, "`default_runtime_name` is empty"),
        (format!("{runtime}.containerd]\ndefault_runtime_name = 'x'\n"), RUNTIME, "no corresponding runtime configured"),
        (format!("{runtime}.cni]\nbin_dir = '/a'\nbin_dirs = ['/b']\n"), RUNTIME, "cannot be set at the same time"),
        (format!("{runtime}.containerd.runtimes.runc]\nio_type = 'x'\n"), RUNTIME, "`io_type` can only be"),
        (
            format!("{runtime}.containerd.runtimes.runc]\nprivileged_without_host_devices_all_devices_allowed = true\n"),
            RUNTIME,
            "requires `privileged_without_host_devices`",
        ),
        (
            "[plugins.'io.containerd.cri.v1.images']\nimage_pull_progress_timeout = 'x'\n".to_owned(),
            IMAGES,
            "invalid cri image config: invalid image pull progress timeout: time: invalid duration \"x\"",
        ),
        (
            "[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/x'\nmirrors = { a = { endpoint = ['b'] } }\n".to_owned(),
            IMAGES,
            "`mirrors` cannot be set when `config_path` is provided",
        ),
        (
            "[plugins.'io.containerd.grpc.v1.cri'.x509_key_pair_streaming]\ntls_cert_file = '/x'\n".to_owned(),
            SERVER,
            "TLSCertFile is set but EnableTLSStreaming is not set",
        ),
    ] {
        let wrong = wrong(&text);
        assert!(matches!(&wrong[..], [(where_, why)] if *where_ == uri && why.contains(words)), "{text}: {wrong:?}");
    }
}

#[test]
fn what_is_disabled_needs_no_sense() {
    let (cri, _) = read(
        "version = 4\ndisabled_plugins = ['io.containerd.cri.v1.runtime']\n[plugins.'io.containerd.cri.v1.runtime']\n",
    );
    assert_eq!(cri.settings.runtime.default_runtime, "runc");
}
