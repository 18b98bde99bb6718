use super::*;

fn config(disabled: &[&str], required: &[&str]) -> Config {
    let owned = |uris: &[&str]| uris.iter().map(|uri| (*uri).to_owned()).collect();
    Config { disabled: owned(disabled), required: owned(required), ..crate::config::default().unwrap() }
}

#[test]
fn a_disabled_part_is_not_listed_and_not_wanted() {
    let config = config(&["io.containerd.snapshotter.v1.native", "io.containerd.grpc.v1.cri"], &[]);
    let (plugins, remarks) = Plugins::choose(&config).unwrap();
    assert!(!plugins.wants(Kind::Snapshotter, "native") && plugins.wants(Kind::Snapshotter, "overlayfs"));
    assert!(!plugins.to_wire(&config).iter().any(|plugin| plugin.id == "native"));
    assert!(remarks.is_empty());
}

#[test]
fn what_the_daemon_cannot_do_without_stays() {
    let config = config(&["io.containerd.metadata.v1.bolt"], &[]);
    let (plugins, remarks) = Plugins::choose(&config).unwrap();
    assert_eq!(remarks, ["plugin io.containerd.metadata.v1.bolt cannot be disabled"]);
    assert!(plugins.to_wire(&config).iter().any(|plugin| plugin.id == "bolt"));
}

#[test]
fn a_required_part_that_is_not_there_is_fatal() {
    let error = Plugins::choose(&config(&[], &["io.containerd.grpc.v1.none"])).unwrap_err();
    assert_eq!(error.to_string(), "required plugin io.containerd.grpc.v1.none not included");
    let config = config(&[], &["io.containerd.snapshotter.v1.overlayfs"]);
    let (mut plugins, _) = Plugins::choose(&config).unwrap();
    assert!(plugins.failed(&config, "overlayfs", &Error::unknown("no overlayfs")).is_err());
}

fn failures(plugins: &Plugins, config: &Config) -> Vec<(String, String)> {
    let listed = plugins.to_wire(config).into_iter();
    listed
        .filter_map(|plugin| Some((format!("{}.{}", plugin.r#type, plugin.id), plugin.init_err?.message)))
        .collect()
}

#[test]
fn what_stands_on_a_disabled_part_is_listed_with_the_reason_and_not_served() {
    let config = config(&["io.containerd.differ.v1.walking", "io.containerd.lease.v1.manager"], &[]);
    let (plugins, remarks) = Plugins::choose(&config).unwrap();
    for id in ["diff", "leases", "transfer"] {
        assert!(!plugins.wants(Kind::Service, id), "{id}");
    }
    assert!(plugins.wants(Kind::Service, "images"));
    let why = "no plugins registered for io.containerd.differ.v1: plugin: not found".to_owned();
    assert!(failures(&plugins, &config).contains(&("io.containerd.grpc.v1.diff".into(), why)));
    assert_eq!(remarks.len(), failures(&plugins, &config).len());
    let required = Config { required: vec!["io.containerd.grpc.v1.diff".into()], ..config };
    let error = Plugins::choose(&required).unwrap_err().to_string();
    assert!(
        error.starts_with("load required plugin io.containerd.grpc.v1.diff: no plugins registered"),
        "{error}"
    );
}

#[test]
fn a_proxy_can_be_required_and_disabled() {
    let text = "io.containerd.snapshotter.v1.far";
    let proxy = Proxy {
        name: "far".into(),
        kind: ProxyKind::Snapshotter,
        address: "/far".into(),
        platform: Platform::host(),
        exports: BTreeMap::new(),
        capabilities: Vec::new(),
    };
    let required = Config { proxies: vec![proxy], ..config(&[], &[text]) };
    assert_eq!(Plugins::choose(&required).unwrap().0.proxies(ProxyKind::Snapshotter).len(), 1);
    let disabled = Config { disabled: vec![text.into()], ..required };
    assert!(Plugins::choose(&disabled).is_err());
}
