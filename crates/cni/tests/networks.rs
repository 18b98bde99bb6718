//! A container in all networks of a directory, with shell scripts for plugins.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod scripts;

use std::fs;

use cni::{Loopback, Networks, Options, Order, Settings};

use crate::scripts::Node;

/// Tells network and interface; fails where `$DIR/fail-NETWORK-COMMAND` is.
const TELLS: &str = r#"net=$(sed 's/.*"name":"\([a-z-]*\)".*/\1/')
echo "$CNI_COMMAND $net $CNI_IFNAME" >>"$DIR/log"
if [ -e "$DIR/fail-$net-$CNI_COMMAND" ]; then cat "$DIR/fail-$net-$CNI_COMMAND" >&2; exit 1; fi
[ "$CNI_COMMAND" = DEL ] || echo '{"interfaces":[{"name":"'$CNI_IFNAME'","sandbox":"'$CNI_NETNS'"}],
"ips":[{"interface":0,"address":"10.0.0.'${CNI_IFNAME#eth}'/8"}],"dns":{"domain":"'$net'"}}'"#;

async fn node() -> Node {
    let node = Node::new(&[
        ("a", TELLS),
        ("loopback", "[ $CNI_COMMAND = DEL ] || echo '{\"cniVersion\":\"0.3.1\"}'"),
    ])
    .await;
    fs::create_dir(node.dir().join("net.d")).unwrap();
    for (file, name) in [("10", "first"), ("20", "second"), ("30", "third")] {
        conf(&node, file, name);
    }
    node
}

fn conf(node: &Node, file: &str, name: &str) {
    let text = format!(r#"{{"name":"{name}","cniVersion":"1.0.0","plugins":[{{"type":"a"}}]}}"#);
    fs::write(node.dir().join(format!("net.d/{file}.conflist")), text).unwrap();
}

fn settings(node: &Node, order: Order) -> Settings {
    Settings {
        plugin_dirs: vec![node.bin()],
        conf_dir: node.dir().join("net.d"),
        cache: node.dir().join("cache"),
        most: 0,
        loopback: Loopback::Plugin,
        order,
        ..Settings::default()
    }
}

fn log(node: &Node) -> Vec<String> {
    let mut lines: Vec<String> = node.read("log").lines().map(str::to_owned).collect();
    lines.sort();
    fs::remove_file(node.dir().join("log")).unwrap();
    lines
}

const ADDED: [&str; 3] = ["ADD first eth0", "ADD second eth1", "ADD third eth2"];
const DELETED: [&str; 3] = ["DEL first eth0", "DEL second eth1", "DEL third eth2"];

#[tokio::test]
async fn a_container_is_set_up_in_all_networks_and_taken_out_of_all() {
    let node = node().await;
    for order in [Order::Parallel, Order::Serial] {
        let networks = Networks::new(settings(&node, order));
        let merged = networks.setup("c1", "/proc/self/ns/net", &Options::default()).await.unwrap();
        assert_eq!(merged.interfaces.keys().collect::<Vec<_>>(), ["eth0", "eth1", "eth2"]);
        assert_eq!(merged.interfaces["eth2"].ip_configs[0].ip.to_string(), "10.0.0.2");
        assert_eq!(merged.interfaces["eth1"].sandbox, "/proc/self/ns/net");
        let domains: Vec<_> = merged.dns.iter().map(|dns| dns.domain.as_str()).collect();
        assert_eq!(domains, ["", "first", "second", "third"]);
        assert_eq!((log(&node).as_slice(), node.entries()), (&ADDED.map(str::to_owned)[..], 4));
        networks.remove("c1", "", &Options::default()).await.unwrap();
        assert_eq!(log(&node), DELETED);
        node.leaves_nothing();
    }
}

#[tokio::test]
async fn a_network_that_fails_takes_the_others_along() {
    let node = node().await;
    fs::write(node.dir().join("fail-second-ADD"), "no room").unwrap();
    let networks = Networks::new(settings(&node, Order::Parallel));
    let error = networks.setup("c1", "/proc/self/ns/net", &Options::default()).await.unwrap_err().to_string();
    assert_eq!(error, r#"plugin type="a" failed (add): netplugin failed: "no room""#);
    assert_eq!(log(&node), [ADDED, DELETED].concat());
    node.leaves_nothing();
    let networks = Networks::new(settings(&node, Order::Serial));
    networks.setup("c1", "/proc/self/ns/net", &Options::default()).await.unwrap_err();
    assert_eq!(log(&node), [&ADDED[..2], &DELETED[..2]].concat());
    node.leaves_nothing();
}

#[tokio::test]
async fn a_removal_goes_on_after_an_error_and_tells_of_all() {
    let node = node().await;
    let networks = Networks::new(settings(&node, Order::Parallel));
    networks.setup("c1", "/proc/self/ns/net", &Options::default()).await.unwrap();
    log(&node);
    fs::write(node.dir().join("fail-first-DEL"), "busy").unwrap();
    fs::write(node.dir().join("fail-third-DEL"), "chain not found").unwrap();
    let error = networks.remove("c1", "", &Options::default()).await.unwrap_err().to_string();
    assert!(error.contains("busy") && !error.contains("not found"), "{error}");
    assert_eq!(log(&node), DELETED);
    for file in ["fail-first-DEL", "fail-third-DEL"] {
        fs::remove_file(node.dir().join(file)).unwrap();
    }
    networks.remove("c1", "", &Options::default()).await.unwrap();
    node.leaves_nothing();
}

#[tokio::test]
async fn a_container_is_taken_out_of_all_networks_at_once_unless_it_was_put_there_one_after_another() {
    let node = node().await;
    // Ends when the others have begun, too.
    let waits = r#"if [ $CNI_COMMAND = DEL ]; then touch "$DIR/begun-$CNI_IFNAME"; n=0
until [ -e "$DIR/begun-eth0" ] && [ -e "$DIR/begun-eth1" ] && [ -e "$DIR/begun-eth2" ]; do
[ $n -lt 3000 ] || exit 1; n=$((n + 1)); sleep 0.01; done; fi"#;
    node.plugin("a", &format!("{waits}\n{TELLS}"));
    let networks = Networks::new(settings(&node, Order::Parallel));
    networks.setup("c1", "/proc/self/ns/net", &Options::default()).await.unwrap();
    networks.remove("c1", "", &Options::default()).await.unwrap();
    log(&node);
    node.plugin("a", TELLS);
    let networks = Networks::new(settings(&node, Order::Serial));
    networks.setup("c1", "/proc/self/ns/net", &Options::default()).await.unwrap();
    networks.remove("c1", "", &Options::default()).await.unwrap();
    let lines: Vec<String> = node.read("log").lines().map(str::to_owned).collect();
    assert_eq!(lines, [ADDED, DELETED].concat());
    node.leaves_nothing();
}

#[tokio::test]
async fn networks_that_are_gone_from_the_directory_are_known_from_the_cache() {
    let node = node().await;
    let first = Networks::new(settings(&node, Order::Parallel));
    first.setup("c1", "/proc/self/ns/net", &Options::default()).await.unwrap();
    log(&node);
    // Another program later on: one file is gone, one is garbage, and nothing can be read.
    fs::remove_file(node.dir().join("net.d/10.conflist")).unwrap();
    fs::write(node.dir().join("net.d/20.conflist"), "garbage").unwrap();
    let second = Networks::new(settings(&node, Order::Parallel));
    assert!(second.setup("c2", "/proc/self/ns/net", &Options::default()).await.is_err());
    second.remove("c1", "", &Options::default()).await.unwrap();
    assert_eq!(log(&node), DELETED);
    node.leaves_nothing();
    second.remove("c1", "", &Options::default()).await.unwrap();
    assert!(!node.has("log"));
}

#[tokio::test]
async fn a_network_whose_interface_has_another_number_now_is_removed_by_the_old_one() {
    let node = node().await;
    let networks = Networks::new(settings(&node, Order::Parallel));
    networks.setup("c1", "/proc/self/ns/net", &Options::default()).await.unwrap();
    log(&node);
    fs::remove_file(node.dir().join("net.d/10.conflist")).unwrap();
    networks.remove("c1", "", &Options::default()).await.unwrap();
    let lines = log(&node);
    for wanted in DELETED {
        assert!(lines.iter().any(|line| line == wanted), "{wanted} is not in {lines:?}");
    }
    node.leaves_nothing();
}

#[tokio::test]
async fn a_container_is_checked_in_all_networks() {
    let node = node().await;
    let networks = Networks::new(Settings { loopback: Loopback::Absent, ..settings(&node, Order::Parallel) });
    networks.setup("c1", "/proc/self/ns/net", &Options::default()).await.unwrap();
    log(&node);
    networks.check("c1", "/proc/self/ns/net", &Options::default()).await.unwrap();
    assert_eq!(log(&node), ["CHECK first eth0", "CHECK second eth1", "CHECK third eth2"]);
    fs::write(node.dir().join("fail-third-CHECK"), "it is gone").unwrap();
    let error = networks.check("c1", "/proc/self/ns/net", &Options::default()).await.unwrap_err().to_string();
    assert!(error.contains("failed (check)") && error.contains("it is gone"), "{error}");
}
