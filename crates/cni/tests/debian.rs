//! Debian's plugins and containernetworking's own client against this library: what a container gets works, and what one
//! has added the other removes. Needs root, `CNI_DIR` and for the last `REFERENCE_CNI_DIR`; what is missing is said aloud.
//!
//! Each test runs again inside of a network and a mount namespace of its own, in which it is alone with its host's network:
//! nothing can be left on the machine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host;

use std::path::{Path, PathBuf};
use std::process::Command;

use cni::{Attachment, Builtin, Loopback, Networks, Options, Settings};
use serde_json::{Value, json};
use types::Class;

use crate::host::{Container, becomes, busybox, fetch, inside, plugins, run, state, text};

/// A program's directory, if it is at hand.
fn reference() -> Option<PathBuf> {
    let dir = std::env::var_os("REFERENCE_CNI_DIR").map(PathBuf::from);
    if dir.is_none() {
        eprintln!("skipped: REFERENCE_CNI_DIR does not name what `cargo xtask reference cni` builds");
    }
    dir
}

/// A network over a bridge, with ports of the host and a firewall, and addresses of both versions.
fn conf(dir: &Path, version: &str) -> PathBuf {
    let conf = dir.join("net.d");
    std::fs::create_dir(&conf).unwrap();
    let ipam = json!({"type": "host-local", "dataDir": dir.join("addresses"),
        "ranges": [[{"subnet": "10.98.7.0/24"}], [{"subnet": "fd98:7::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]});
    let list = json!({"cniVersion": version, "name": "bridged", "plugins": [
        {"type": "bridge", "bridge": "test0", "isGateway": true, "ipMasq": true, "capabilities": {"ips": true}, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": true}},
        {"type": "firewall"},
        {"type": "tuning", "capabilities": {"mac": true}},
    ]});
    std::fs::write(conf.join("10-bridged.conflist"), list.to_string()).unwrap();
    conf
}

fn networks(dir: &Path, plugins: PathBuf, version: &str, cache: &Path) -> Networks {
    Networks::new(Settings {
        plugin_dirs: vec![plugins],
        conf_dir: conf(dir, version),
        cache: cache.into(),
        loopback: Loopback::Plugin,
        builtin: Builtin::Never,
        ..Settings::default()
    })
}

fn capabilities() -> Value {
    json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}], "mac": "02:00:00:00:00:07"})
}

fn options() -> Options {
    Options { capabilities: capabilities().as_object().unwrap().clone(), ..Options::default() }
}

#[tokio::test]
async fn a_container_has_addresses_routes_ports_and_loses_them() {
    if !inside("a_container_has_addresses_routes_ports_and_loses_them") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    run(Command::new(busybox()).args(["ip", "link", "set", "lo", "up"]));
    for version in ["0.4.0", "1.0.0"] {
        let dir = dir.path().join(version);
        std::fs::create_dir(&dir).unwrap();
        let networks = networks(&dir, plugins(), version, &dir.join("cache"));
        networks.status().await.unwrap();
        // What the first container makes for all stays.
        let first = Container::new();
        networks.setup("first", &first.netns(), &options()).await.unwrap();
        networks.remove("first", &first.netns(), &options()).await.unwrap();
        let before = state();
        let mut container = Container::new();
        let netns = container.netns();
        let merged = networks.setup("c1", &netns, &options()).await.unwrap();
        let eth0 = &merged.interfaces["eth0"];
        assert_eq!((eth0.mac.as_str(), eth0.sandbox.as_str()), ("02:00:00:00:00:07", netns.as_str()));
        let addresses: Vec<String> = eth0.ip_configs.iter().map(|config| config.ip.to_string()).collect();
        let wanted = ["10.98.7.", "fd98:7::"];
        assert!(
            wanted.iter().zip(&addresses).all(|(start, found)| found.starts_with(start)),
            "{addresses:?}"
        );
        assert_eq!((addresses.len(), merged.routes.len()), (wanted.len(), wanted.len()));
        let seen = text(&mut container.command(&["ip", "-o", "addr"]));
        assert!(addresses.iter().all(|address| seen.contains(address.as_str())), "{seen}");
        assert!(text(&mut container.command(&["ip", "link", "show", "lo"])).contains("LOOPBACK,UP"));
        container.reaches("10.98.7.1");
        let www = dir.join("www");
        std::fs::create_dir(&www).unwrap();
        container.serve(&www, version);
        assert_eq!(fetch(&format!("http://{}/", addresses[0])), version);
        // Through the host's port.
        assert_eq!(fetch("http://10.98.7.1:8080/"), version);
        // Another program that knows nothing but the id: ports and hardware address are in the cache.
        let settings = Settings {
            plugin_dirs: vec![plugins()],
            conf_dir: dir.join("none"),
            cache: dir.join("cache"),
            ..Settings::default()
        };
        Networks::new(settings).remove("c1", &netns, &Options::default()).await.unwrap();
        becomes(&before);
        let left = std::fs::read_dir(dir.join("addresses/bridged")).unwrap().flatten();
        let left: Vec<_> = left
            .map(|entry| entry.file_name())
            .filter(|name| name.to_string_lossy().contains("98"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_no_second_containers() {
    if !inside("an_address_that_is_taken_is_no_second_containers") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let networks = networks(dir.path(), plugins(), "1.0.0", &dir.path().join("cache"));
    let (first, second) = (Container::new(), Container::new());
    let asking = Options {
        capabilities: json!({"ips": ["10.98.7.77/24"]}).as_object().unwrap().clone(),
        ..Options::default()
    };
    let merged = networks.setup("c1", &first.netns(), &asking).await.unwrap();
    assert_eq!(merged.interfaces["eth0"].ip_configs[0].ip.to_string(), "10.98.7.77");
    let during = state();
    let error = networks.setup("c2", &second.netns(), &asking).await.unwrap_err();
    assert_eq!(error.class(), Class::Unknown);
    assert!(error.to_string().contains("requested IP address 10.98.7.77 is not available"), "{error}");
    becomes(&during);
    networks.remove("c1", &first.netns(), &asking).await.unwrap();
    networks.setup("c2", &second.netns(), &asking).await.unwrap();
}

#[tokio::test]
async fn what_libcni_adds_we_remove_and_the_other_way_round() {
    if !inside("what_libcni_adds_we_remove_and_the_other_way_round") {
        return;
    }
    let Some(programs) = reference().filter(|dir| dir.join("cnitool").exists()) else { return };
    let dir = tempfile::tempdir().unwrap();
    // libcni's own place, which is empty in here.
    let cache = Path::new("/var/lib/cni");
    let networks = networks(dir.path(), programs.clone(), "1.1.0", cache);
    networks.status().await.unwrap();
    let network = networks.list().into_iter().find(|(interface, _)| interface == "eth0").unwrap().1;
    let container = Container::new();
    let netns = container.netns();
    let cnitool = |verb: &str| {
        let mut command = Command::new(programs.join("cnitool"));
        command.args([verb, "bridged", &netns]).env("CNI_PATH", &programs);
        command.env("NETCONFPATH", dir.path().join("net.d")).env("CAP_ARGS", capabilities().to_string());
        run(&mut command);
    };
    let entries = || std::fs::read_dir(cache.join("results")).map_or(0, Iterator::count);
    cnitool("add");
    let name = std::fs::read_dir(cache.join("results")).unwrap().next().unwrap().unwrap().file_name();
    let name = name.into_string().unwrap();
    let id = name.strip_prefix("bridged-").and_then(|rest| rest.strip_suffix("-eth0")).unwrap();
    let theirs: Value =
        serde_json::from_slice(&std::fs::read(cache.join("results").join(&name)).unwrap()).unwrap();
    cnitool("del");
    let before = state();

    cnitool("add");
    let at = Attachment {
        container: id.into(),
        netns: netns.clone(),
        interface: "eth0".into(),
        ..Attachment::default()
    };
    networks.cni().check(&network, &at).await.unwrap();
    run(&mut container.command(&["ip", "route", "del", "default"]));
    let error = networks.cni().check(&network, &at).await.unwrap_err().to_string();
    assert!(error.starts_with("plugin type=\"bridge\" failed (check): "), "{error}");
    networks.cni().del(&network, &at).await.unwrap();
    becomes(&before);
    assert_eq!(entries(), 0);

    let ours = Attachment { capabilities: capabilities().as_object().unwrap().clone(), ..at };
    networks.cni().add(&network, &ours).await.unwrap();
    let mut kept: Value =
        serde_json::from_slice(&std::fs::read(cache.join("results").join(&name)).unwrap()).unwrap();
    // Addresses and hardware addresses of the host's end differ with each time.
    let plain = |entry: &mut Value| {
        for ip in entry["result"]["ips"].as_array_mut().unwrap() {
            ip["address"] = Value::Null;
        }
        for interface in entry["result"]["interfaces"].as_array_mut().unwrap() {
            for key in ["mac", "name"] {
                interface[key] = Value::Null;
            }
        }
    };
    let mut theirs = theirs;
    // Who did it, which theirs does not say.
    assert_eq!(kept.as_object_mut().unwrap().remove("builtin"), Some(json!([])));
    plain(&mut theirs);
    plain(&mut kept);
    assert_eq!(kept, theirs);
    cnitool("check");
    cnitool("del");
    becomes(&before);
    assert_eq!(entries(), 0);

    // Collection: theirs finds ours, and ours finds theirs.
    networks.cni().add(&network, &ours).await.unwrap();
    cnitool("gc");
    becomes(&before);
    assert_eq!(entries(), 0);
    cnitool("add");
    networks.cni().gc(&network, &[(id.into(), "eth0".into())]).await.unwrap();
    assert_eq!(entries(), 1);
    networks.cni().gc(&network, &[]).await.unwrap();
    becomes(&before);
    assert_eq!(entries(), 0);
    assert_eq!(networks.cni().versions("bridge").await.unwrap().last().map(String::as_str), Some("1.1.0"));
    assert_eq!(networks.cni().validate(&network).await.unwrap(), ["ips", "mac", "portMappings"]);
}
