//! Plugins that are built in, on a host of the test's own: what a container gets works, DEL leaves what was before, and Go's
//! plugins (`CNI_DIR`) take over from them and the other way round. Needs root; what is missing is said aloud.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use cni::{Attachment, Builtin, Cni, Limits, Network};
use serde_json::{Map, Value, json};
use types::Class;

use crate::host::{Container, becomes, busybox, fetch, inside, plugins, run, state, text};

/// A node: a cache, a directory of addresses, and networks over a bridge.
struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        run(Command::new(busybox()).args(["ip", "link", "set", "lo", "up"]));
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn cni(&self, builtin: Builtin) -> Cni {
        let dirs = vec![if builtin == Builtin::Always { self.path("no-programs") } else { plugins() }];
        Cni::new(dirs, &self.path("cache"), Limits::default()).with_builtin(builtin)
    }

    fn ipam(&self) -> Value {
        json!({"type": "host-local", "dataDir": self.path("addresses"),
            "ranges": [[{"subnet": "10.98.7.0/24"}], [{"subnet": "fd98:7::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]})
    }

    fn bridge(&self) -> Value {
        json!({"type": "bridge", "bridge": "cdrs-br0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
            "capabilities": {"ips": true, "mac": true}, "ipam": self.ipam()})
    }

    /// What a node has.
    fn usual(&self) -> Network {
        list(
            "1.0.0",
            &[
                self.bridge(),
                json!({"type": "portmap", "capabilities": {"portMappings": true}}),
                json!({"type": "firewall"}),
                json!({"type": "tuning", "dataDir": self.path("tuning"), "sysctl": {"net.core.somaxconn": "500"},
                    "mtu": 1400, "allmulti": true}),
            ],
        )
    }

    /// The addresses that are taken.
    fn taken(&self) -> Vec<String> {
        let Ok(found) = std::fs::read_dir(self.path("addresses/net")) else { return Vec::new() };
        let names = found.flatten().map(|entry| entry.file_name().into_string().unwrap());
        let mut taken: Vec<String> = names.filter(|name| name.contains("98")).collect();
        taken.sort();
        taken
    }

    fn entries(&self) -> usize {
        std::fs::read_dir(self.path("cache/results")).map_or(0, Iterator::count)
    }
}

fn list(version: &str, plugins: &[Value]) -> Network {
    Network::parse(json!({"cniVersion": version, "name": "net", "plugins": plugins}).to_string().as_bytes())
        .unwrap()
}

fn at(id: &str, container: &Container) -> Attachment {
    Attachment {
        container: id.into(),
        netns: container.netns(),
        interface: "eth0".into(),
        ..Attachment::default()
    }
}

fn with(at: Attachment, capabilities: Value) -> Attachment {
    let Value::Object(capabilities) = capabilities else { panic!("{capabilities} is no object") };
    Attachment { capabilities, ..at }
}

fn ports() -> Value {
    json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]})
}

fn address(result: &cni::AddResult, index: usize) -> String {
    result.current().ips[index].address.address.to_string()
}

#[tokio::test]
async fn a_container_has_addresses_routes_ports_and_loses_them() {
    if !inside("a_container_has_addresses_routes_ports_and_loses_them") {
        return;
    }
    let (node, mut first, second) = (Node::new(), Container::new(), Container::new());
    let (cni, network) = (node.cni(Builtin::Always), node.usual());
    cni.status(&network).await.unwrap();
    // What the first container makes for all stays.
    cni.add(&network, &with(at("c0", &second), ports())).await.unwrap();
    cni.del(&network, &with(at("c0", &second), ports())).await.unwrap();
    assert_eq!(node.taken(), [""; 0]);
    let before = state();
    // What others flush is mended by the next one.
    run(Command::new("nft").args(["flush", "chain", "inet", "containerd_cni", "prerouting"]));

    let mac = json!({"mac": "02:00:00:00:00:07", "portMappings": ports()["portMappings"]});
    let first_at = with(at("c1", &first), mac);
    let result = cni.add(&network, &first_at).await.unwrap();
    let other = cni.add(&network, &at("c2", &second)).await.unwrap();
    let current = result.current();
    let names: Vec<&str> = current.interfaces.iter().map(|of| of.name.as_str()).collect();
    assert_eq!(
        (names[0], names[2], current.interfaces[2].mac.as_str()),
        ("cdrs-br0", "eth0", "02:00:00:00:00:07")
    );
    assert!(current.ips.iter().all(|ip| ip.interface == Some(2)) && current.routes.len() == 2);
    assert_eq!(node.taken().len(), 4);
    cni.check(&network, &first_at).await.unwrap();
    let seen = text(&mut first.command(&["ip", "-o", "addr"]));
    assert!(current.ips.iter().all(|ip| seen.contains(&ip.address.to_string())), "{seen}");
    let link = text(&mut first.command(&["ip", "-o", "link", "show", "eth0"]));
    // Busybox has a number for what takes everything that is for groups.
    assert!(link.contains("mtu 1400") && link.contains("LOWER_UP200"), "{link}");
    assert_eq!(text(&mut first.command(&["cat", "/proc/sys/net/core/somaxconn"])).trim(), "500");
    let accept = format!("/proc/sys/net/ipv6/conf/{}/accept_ra", names[1]);
    assert_eq!(std::fs::read_to_string(accept).unwrap().trim(), "0");

    // What is listed can be loaded.
    std::fs::write(node.path("rules"), text(Command::new("nft").args(["list", "ruleset"]))).unwrap();
    run(Command::new("nft").args(["-c", "-f"]).arg(node.path("rules")));

    // The other container, the gateway, and the container's port: directly, from the host, from itself, from its neighbour.
    for to in [address(&other, 0), address(&other, 1), "10.98.7.1".into(), "fd98:7::1".into()] {
        first.reaches(&to);
    }
    let www = node.path("www");
    std::fs::create_dir(&www).unwrap();
    first.serve(&www, "hello");
    let ip = address(&result, 0);
    for url in [format!("http://{ip}/"), "http://10.98.7.1:8080/".into(), "http://127.0.0.1:8080/".into()] {
        assert_eq!(fetch(&url), "hello", "{url}");
    }
    for container in [&first, &second] {
        for url in ["http://10.98.7.1:8080/", "http://[fd98:7::1]:8080/"] {
            let got = text(&mut container.command(&["wget", "-q", "-O", "-", url]));
            assert_eq!(got, "hello", "{url}");
        }
    }

    cni.del(&network, &at("c2", &second)).await.unwrap();
    // Another program that knows nothing but the id; then once more, and with a namespace that is gone.
    let bare = Attachment { netns: String::new(), capabilities: Map::new(), ..first_at.clone() };
    cni.del(&network, &bare).await.unwrap();
    becomes(&before);
    assert_eq!((node.taken().len(), node.entries()), (0, 0));
    cni.del(&network, &first_at).await.unwrap();
    cni.del(&network, &Attachment { netns: "/no/such/netns".into(), ..first_at }).await.unwrap();
    assert_eq!(state(), before);
}

#[tokio::test]
async fn a_container_without_a_bridge_is_routed_and_masqueraded() {
    if !inside("a_container_without_a_bridge_is_routed_and_masqueraded") {
        return;
    }
    let (node, first, second) = (Node::new(), Container::new(), Container::new());
    let ptp = json!({"type": "ptp", "ipMasq": true, "mtu": 1300, "ipam": node.ipam(), "dns": {"nameservers": ["1.1.1.1"]}});
    let (cni, network) = (node.cni(Builtin::Always), list("1.1.0", &[ptp, json!({"type": "firewall"})]));
    cni.status(&network).await.unwrap();
    cni.add(&network, &at("c0", &first)).await.unwrap();
    cni.del(&network, &at("c0", &first)).await.unwrap();
    becomes_without_links();
    let before = state();
    let result = cni.add(&network, &at("c1", &first)).await.unwrap();
    let other = cni.add(&network, &at("c2", &second)).await.unwrap();
    let current = result.current();
    assert!(current.ips.iter().all(|ip| ip.interface == Some(1)) && current.dns.nameservers == ["1.1.1.1"]);
    assert_eq!(current.interfaces.len(), 2);
    for container in ["c1", "c2"].into_iter().zip([&first, &second]).map(|(id, container)| at(id, container))
    {
        cni.check(&network, &container).await.unwrap();
    }
    for to in [address(&other, 0), address(&other, 1), "10.98.7.1".into(), "fd98:7::1".into()] {
        first.reaches(&to);
    }
    let rules = text(Command::new("nft").args(["list", "chain", "inet", "containerd_cni", "masqueraded"]));
    let wanted = format!(
        "ip saddr {} ip daddr != 10.98.7.0/24 masquerade comment \"net/c1/eth0\"",
        address(&result, 0)
    );
    assert!(rules.contains(&wanted), "{rules}");
    run(&mut first.command(&["ip", "route", "del", "default"]));
    let error = cni.check(&network, &at("c1", &first)).await.unwrap_err();
    assert!(error.to_string().contains("expected route 0.0.0.0/0 not found"), "{error}");
    cni.gc(&network, &[("c1".into(), "eth0".into())]).await.unwrap();
    assert_eq!(node.taken().len(), 2);
    cni.del(&network, &at("c1", &first)).await.unwrap();
    becomes(&before);
    assert_eq!((node.taken().len(), node.entries()), (0, 0));
}

/// What a program of iproute2 says, if it is at hand.
fn iproute2(program: &str, words: &[&str]) -> Option<String> {
    if Command::new(program).arg("-V").output().is_err() {
        eprintln!("not looked at: there is no {program}");
        return None;
    }
    Some(text(Command::new(program).args(words)))
}

/// Links go a little after the answer.
#[track_caller]
fn becomes_without_links() {
    let begun = Instant::now();
    while state().iter().any(|line| line.starts_with("veth") || line.starts_with("bwp")) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", state());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn a_bridge_is_as_its_configuration_says() {
    if !inside("a_bridge_is_as_its_configuration_says") {
        return;
    }
    let (node, first, second) = (Node::new(), Container::new(), Container::new());
    let cni = node.cni(Builtin::Always);
    let resolv = node.path("resolv.conf");
    std::fs::write(&resolv, "nameserver 10.0.0.53\nsearch a.example\n").unwrap();
    let ipam = |subnet: &str| json!({"type": "host-local", "dataDir": node.path("addresses"), "ranges": [[{"subnet": subnet}]], "resolvConf": resolv});
    let of = |more: Value| {
        let mut bridge = json!({"type": "bridge", "bridge": "cdrs-br2", "isDefaultGateway": true, "enabledad": true,
            "promiscMode": true, "portIsolation": true, "mtu": 1450, "capabilities": {"ips": true, "ipRanges": true}});
        bridge.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        list("1.0.0", &[bridge])
    };
    let network = of(json!({"ipam": ipam("10.98.3.0/24")}));
    let asking =
        with(at("c1", &first), json!({"ips": ["10.98.3.77"], "ipRanges": [[{"subnet": "fd98:3::/64"}]]}));
    let result = cni.add(&network, &asking).await.unwrap().current();
    let addresses: Vec<String> = result.ips.iter().map(|ip| ip.address.to_string()).collect();
    assert_eq!((addresses[0].as_str(), addresses[1].as_str()), ("fd98:3::2/64", "10.98.3.77/24"));
    let routes: Vec<String> =
        result.routes.iter().map(|route| format!("{} {}", route.dst, route.gw.unwrap())).collect();
    assert_eq!(routes, ["::/0 fd98:3::1", "0.0.0.0/0 10.98.3.1"]);
    assert_eq!((result.dns.nameservers.len(), result.dns.search.len()), (1, 1));
    cni.check(&network, &asking).await.unwrap();
    let host = &result.interfaces[1].name;
    if let Some(port) = iproute2("bridge", &["-d", "link", "show", "dev", host]) {
        let is = ["isolated on", "hairpin off", "state forwarding"].iter().all(|word| port.contains(word));
        assert!(is, "{port}");
    }
    let link = text(Command::new(busybox()).args(["ip", "-o", "link", "show", "cdrs-br2"]));
    assert!(link.contains("LOWER_UP100") && link.contains("mtu 1450"), "{link}");
    // Its hardware address does not change with its ports; another's address is taken only by force.
    let mac = result.interfaces[0].mac.clone();
    let other = of(json!({"ipam": ipam("10.98.4.0/24")}));
    let error = cni.add(&other, &at("c2", &second)).await.unwrap_err().to_string();
    assert!(error.contains("\"cdrs-br2\" already has an IP address different from 10.98.4.1/24"), "{error}");
    let forced = of(json!({"ipam": ipam("10.98.4.0/24"), "forceAddress": true}));
    let result = cni.add(&forced, &at("c2", &second)).await.unwrap().current();
    assert_eq!(result.interfaces[0].mac, mac);
    second.reaches("10.98.4.1");
    cni.del(&forced, &at("c2", &second)).await.unwrap();
    cni.del(&network, &asking).await.unwrap();
    // A network without addresses is a link that is up.
    let bare = of(json!({"isDefaultGateway": false}));
    let result = cni.add(&bare, &at("c1", &first)).await.unwrap().current();
    assert!(result.ips.is_empty() && result.interfaces.len() == 3);
    assert!(text(&mut first.command(&["ip", "link", "show", "eth0"])).contains("LOWER_UP"));
    cni.del(&bare, &at("c1", &first)).await.unwrap();
    becomes_without_links();
    assert_eq!(node.taken(), [""; 0]);
}

#[tokio::test]
async fn a_containers_link_is_limited_both_ways() {
    if !inside("a_containers_link_is_limited_both_ways") {
        return;
    }
    let (node, container) = (Node::new(), Container::new());
    let limits = json!({"type": "bandwidth", "capabilities": {"bandwidth": true}});
    let (cni, network) = (node.cni(Builtin::Always), list("1.0.0", &[node.bridge(), limits]));
    let rates = json!({"bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 800_000,
        "egressRate": 16_000_000, "egressBurst": 800_000}});
    let at = with(at("c1", &container), rates);
    let result = cni.add(&network, &at).await.unwrap().current();
    let (host, device) = (&result.interfaces[1].name, &result.interfaces[3].name);
    if let Some(queues) = iproute2("tc", &["qdisc", "show"]) {
        for (link, rate) in [(host, "8Mbit"), (device, "16Mbit")] {
            let is = |line: &str| {
                line.contains("tbf")
                    && line.contains(&format!("dev {link} "))
                    && line.contains(&format!("rate {rate} "))
            };
            assert!(queues.lines().any(is), "{link} {rate}: {queues}");
        }
    }
    cni.check(&network, &at).await.unwrap();
    // What leaves goes through the device, and comes back.
    container.reaches("10.98.7.1");
    if let Some(counted) = iproute2("tc", &["-s", "qdisc", "show", "dev", device]) {
        assert!(!counted.contains("Sent 0 bytes"), "{counted}");
        iproute2("tc", &["qdisc", "del", "dev", host, "root"]);
        let error = cni.check(&network, &at).await.unwrap_err().to_string();
        assert!(error.contains("has no limit"), "{error}");
    }
    cni.del(&network, &at).await.unwrap();
    becomes_without_links();
}

#[tokio::test]
async fn what_fails_leaves_nothing() {
    if !inside("what_fails_leaves_nothing") {
        return;
    }
    let (node, container) = (Node::new(), Container::new());
    let cni = node.cni(Builtin::Always);
    cni.add(&node.usual(), &at("c0", &container)).await.unwrap();
    cni.del(&node.usual(), &at("c0", &container)).await.unwrap();
    becomes_without_links();
    let before = state();
    let also = |more: Value| list("1.0.0", &[node.bridge(), more]);
    let bridge = |key: &str, value: Value| {
        let mut bridge = node.bridge();
        bridge[key] = value;
        list("1.0.0", &[bridge])
    };
    let mut no_way = node.ipam();
    no_way["routes"] = json!([{"dst": "9.9.9.0/24", "gw": "8.8.8.8"}]);
    let mut small = node.ipam();
    small["ranges"] = json!([[{"subnet": "10.98.7.0/24"}], [{"subnet": "fd98:7::/64", "rangeStart": "fd98:7::1", "rangeEnd": "fd98:7::1"}]]);
    for (network, reason) in [
        (
            also(json!({"type": "tuning", "dataDir": node.path("t"), "sysctl": {"net.core.none": "1"}})),
            "set /proc/sys/net/core/none",
        ),
        (
            also(json!({"type": "tuning", "dataDir": node.path("t"), "sysctl": {"kernel.panic": "1"}})),
            "invalid net sysctl key",
        ),
        (also(json!({"type": "tuning", "dataDir": node.path("t"), "mtu": 10})), "change link"),
        (also(json!({"type": "firewall", "ingressPolicy": "x"})), "unknown ingress policy: \"x\""),
        (
            also(json!({"type": "firewall", "backend": "firewalld"})),
            "firewalld of plugin firewall is not built in",
        ),
        (
            also(json!({"type": "portmap", "conditionsV4": ["-s", "1.1.1.1"]})),
            "conditionsV6 of plugin portmap is not built in",
        ),
        (
            also(json!({"type": "portmap", "runtimeConfig": {"portMappings": [{"hostPort": 0}]}})),
            "unknown protocol",
        ),
        (also(json!({"type": "bandwidth", "ingressRate": 7})), "burst must also be set"),
        (bridge("vlan", json!(7)), "vlan of plugin bridge is not built in"),
        (bridge("mtu", json!("x")), "failed to load netconf"),
        (bridge("bridge", json!("lo")), "already exists but is not a bridge"),
        (bridge("bridge", json!("../../x")), "interface name contains"),
        (bridge("args", json!({"cni": {"mac": "x"}})), "invalid hardware address \"x\""),
        (bridge("promiscMode", json!(true)), "at the same time"),
        (bridge("ipam", no_way), "add route to 9.9.9.0/24"),
        (bridge("ipam", small), "no IP addresses available in range set: fd98:7::1-fd98:7::1"),
        (bridge("ipam", json!({"type": "no-such-ipam"})), "failed to find plugin \"no-such-ipam\""),
        (bridge("ipam", json!({"type": "host-local"})), "no IP ranges specified"),
    ] {
        let error = cni.add(&network, &at("c1", &container)).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{error:?} does not say {reason:?}");
        becomes_without_links();
        assert_eq!(node.taken(), [""; 0], "{reason}");
        // What could not even be read has no DEL either, and its intent stays for who mends it.
        let _ = std::fs::remove_dir_all(node.path("cache"));
    }
    becomes(&before);
    let gone = Attachment { netns: "/proc/self/status".into(), ..at("c1", &container) };
    let error = cni.add(&node.usual(), &gone).await.unwrap_err();
    assert_eq!(error.class(), Class::InvalidArgument, "{error}");
    assert!(error.to_string().contains("this is no network namespace"), "{error}");
    assert_eq!((node.taken().len(), node.entries()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_at_once_have_twenty_addresses() {
    if !inside("twenty_at_once_have_twenty_addresses") {
        return;
    }
    let node = Node::new();
    let (cni, network) = (node.cni(Builtin::Always), node.usual());
    let containers: Vec<Container> = (0..20).map(|_| Container::new()).collect();
    let at = |index: usize| {
        let port =
            json!({"portMappings": [{"hostPort": 9000 + index, "containerPort": 80, "protocol": "udp"}]});
        with(at(&format!("c{index}"), &containers[index]), port)
    };
    let adding = (0..20).map(|index| {
        let (cni, network, at) = (cni.clone(), network.clone(), at(index));
        tokio::spawn(async move { cni.add(&network, &at).await })
    });
    let mut addresses = Vec::new();
    for added in adding.collect::<Vec<_>>() {
        addresses.push(address(&added.await.unwrap().unwrap(), 0));
    }
    addresses.sort();
    addresses.dedup();
    assert_eq!((addresses.len(), node.taken().len()), (20, 40));
    let claimed: Vec<(String, String)> = (0..3).map(|index| (format!("c{index}"), "eth0".into())).collect();
    // Seventeen are nobody's: those of which nothing is written down go as well.
    for index in 10..20 {
        std::fs::remove_file(node.path(&format!("cache/results/net-c{index}-eth0"))).unwrap();
    }
    let newer = list(
        "1.1.0",
        &network.plugins().iter().map(|plugin| config(&network, plugin.kind())).collect::<Vec<_>>(),
    );
    cni.gc(&newer, &claimed).await.unwrap();
    assert_eq!(node.taken().len(), 6);
    let rules = text(Command::new("nft").args(["list", "table", "inet", "containerd_cni"]));
    assert!((0..20).all(|index| rules.contains(&format!("net/c{index}/eth0")) == (index < 3)), "{rules}");
    let removing = (0..3).map(|index| {
        let (cni, network, at) = (cni.clone(), network.clone(), at(index));
        tokio::spawn(async move { cni.del(&network, &at).await })
    });
    for removed in removing.collect::<Vec<_>>() {
        removed.await.unwrap().unwrap();
    }
    becomes_without_links();
    let rules = text(Command::new("nft").args(["list", "table", "inet", "containerd_cni"]));
    assert!(!rules.contains("comment \"net/"), "{rules}");
}

/// A plugin's configuration, as it stands in its network's.
fn config(network: &Network, kind: &str) -> Value {
    let list: Value = serde_json::from_slice(network.source()).unwrap();
    list["plugins"].as_array().unwrap().iter().find(|plugin| plugin["type"] == kind).unwrap().clone()
}

#[tokio::test]
async fn who_added_removes_and_addresses_are_both_ones() {
    if !inside("who_added_removes_and_addresses_are_both_ones") {
        return;
    }
    let (node, first, second) = (Node::new(), Container::new(), Container::new());
    let (programs, ours) = (node.cni(Builtin::Auto), node.cni(Builtin::Always));
    let network = list("1.0.0", &[node.bridge(), json!({"type": "firewall"})]);
    // What each makes for all stays.
    for cni in [&programs, &ours] {
        cni.add(&network, &at("c0", &first)).await.unwrap();
        cni.del(&network, &at("c0", &first)).await.unwrap();
    }
    becomes_without_links();
    let before = state();
    // Theirs is added by programs, which are there; ours sees its address as taken.
    let theirs = programs.add(&network, &at("c1", &first)).await.unwrap();
    let own = ours.add(&network, &at("c2", &second)).await.unwrap();
    assert_ne!(address(&theirs, 0), address(&own, 0));
    first.reaches(&address(&own, 0));
    let rules = text(Command::new("nft").args(["list", "ruleset"]));
    assert!(rules.contains("CNI-FORWARD") && rules.contains("net/c2/eth0"), "{rules}");
    // Each is removed by the other, which finds who it was: iptables' rules by programs, ours by ours.
    programs.check(&network, &at("c2", &second)).await.unwrap();
    programs.del(&network, &at("c2", &second)).await.unwrap();
    let with_programs =
        Cni::new(vec![plugins()], &node.path("cache"), Limits::default()).with_builtin(Builtin::Always);
    with_programs.del(&network, &at("c1", &first)).await.unwrap();
    becomes(&before);
    assert_eq!((node.taken().len(), node.entries()), (0, 0));
    // Where nothing says who it was, the rule of ADD says who it is; the link and the addresses go, whoever made them.
    programs.add(&network, &at("c1", &first)).await.unwrap();
    std::fs::remove_dir_all(node.path("cache")).unwrap();
    ours.del(&network, &at("c1", &first)).await.unwrap();
    becomes_without_links();
    assert_eq!(node.taken().len(), 0);
}

#[tokio::test]
async fn a_port_takes_nothing_that_is_for_another_host() {
    if !inside("a_port_takes_nothing_that_is_for_another_host") {
        return;
    }
    let (node, mut pod, mut remote) = (Node::new(), Container::new(), Container::new());
    let (cni, network) = (node.cni(Builtin::Always), node.usual());
    let remote_network = Network::parse(
        json!({"cniVersion": "1.0.0", "name": "remote", "plugins": [{"type": "bridge", "bridge": "cdrs-br1",
            "isGateway": true, "ipam": {"type": "host-local", "dataDir": node.path("addresses"),
            "ranges": [[{"subnet": "10.99.7.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]})
        .to_string()
        .as_bytes(),
    );
    let far = address(&cni.add(&remote_network.unwrap(), &at("r1", &remote)).await.unwrap(), 0);
    cni.add(&network, &with(at("c1", &pod), ports())).await.unwrap();
    for (container, words) in [(&mut pod, "pod"), (&mut remote, "remote")] {
        let www = node.path(words);
        std::fs::create_dir(&www).unwrap();
        container.serve(&www, words);
    }
    let listens =
        remote.command(&["httpd", "-f", "-p", "8080", "-h", &node.path("remote").to_string_lossy()]).spawn();
    remote.0.push(listens.unwrap());
    assert_eq!(fetch("http://10.98.7.1:8080/"), "pod");
    assert_eq!(fetch(&format!("http://{far}:8080/")), "remote");
    let from_pod = text(&mut pod.command(&["wget", "-q", "-O", "-", &format!("http://{far}:8080/")]));
    assert_eq!(from_pod, "remote");
    // From outside to this host's address it leads to the pod, and a loopback address from outside to nowhere.
    let from_outside = text(&mut remote.command(&["wget", "-q", "-O", "-", "http://10.99.7.1:8080/"]));
    assert_eq!(from_outside, "pod");
}

#[tokio::test]
async fn pods_are_let_through_where_iptables_drops_the_rest_and_bridges_are_kept_apart() {
    if !inside("pods_are_let_through_where_iptables_drops_the_rest_and_bridges_are_kept_apart") {
        return;
    }
    let (node, first, second) = (Node::new(), Container::new(), Container::new());
    let cni = node.cni(Builtin::Always);
    let of = |name: &str, subnet: &str, policy: &str| {
        let list = json!({"cniVersion": "1.0.0", "name": name, "plugins": [
            {"type": "bridge", "bridge": format!("cdrs-{name}"), "isGateway": true, "ipam": {"type": "host-local",
            "dataDir": node.path("addresses"), "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "firewall", "ingressPolicy": policy}]});
        Network::parse(list.to_string().as_bytes()).unwrap()
    };
    let ping =
        |to: &str| first.command(&["ping", "-c", "1", "-w", "2", to]).output().unwrap().status.success();
    run(Command::new("iptables").args(["-P", "FORWARD", "DROP"]));
    for (policy, together) in [("open", true), ("same-bridge", false)] {
        let (a, b) = (of("a", "10.98.1.0/24", policy), of("b", "10.98.2.0/24", policy));
        let before = text(Command::new("iptables").args(["-S", "FORWARD"]));
        cni.add(&a, &at("c1", &first)).await.unwrap();
        let there = address(&cni.add(&b, &at("c2", &second)).await.unwrap(), 0);
        // iptables can still tell its own.
        let rules = text(Command::new("iptables").args(["-S", "FORWARD"]));
        assert!(
            rules.contains("-A FORWARD -s 10.98.1.2/32 ") || rules.contains("-A FORWARD -s 10.98.1.3/32 "),
            "{rules}"
        );
        assert!(
            rules.contains("--ctstate RELATED,ESTABLISHED") && !rules.contains("incompatible"),
            "{rules}"
        );
        assert_eq!(ping(&there), together, "{policy}: {rules}");
        assert!(ping("10.98.1.1"));
        cni.check(&a, &at("c1", &first)).await.unwrap();
        cni.del(&a, &at("c1", &first)).await.unwrap();
        cni.del(&b, &at("c2", &second)).await.unwrap();
        assert_eq!(text(Command::new("iptables").args(["-S", "FORWARD"])), before);
    }
}

#[tokio::test]
async fn an_addition_that_nobody_waits_for_is_found_by_its_removal() {
    if !inside("an_addition_that_nobody_waits_for_is_found_by_its_removal") {
        return;
    }
    let (node, container) = (Node::new(), Container::new());
    let (cni, network) = (node.cni(Builtin::Always), node.usual());
    for micros in (0..40).map(|turn| turn * 100) {
        let adding = tokio::time::timeout(Duration::from_micros(micros), async {
            cni.add(&network, &at("c1", &container)).await.map(drop)
        });
        drop(adding.await);
        cni.del(&network, &at("c1", &container)).await.unwrap();
        assert_eq!((node.taken().len(), node.entries()), (0, 0));
    }
    becomes_without_links();
    let rules = text(Command::new("nft").args(["list", "ruleset"]));
    assert!(!rules.contains("net/c1"), "{rules}");
}

/// How long Go's plugins take and how long ours, in one run: `cargo test ... -- --ignored --nocapture figures`.
#[tokio::test]
#[ignore = "measures; it proves nothing"]
async fn figures() {
    if !inside("figures") {
        return;
    }
    let node = Node::new();
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    let networks = [
        ("loopback", list("1.0.0", &[json!({"type": "loopback"})])),
        ("bridge", list("1.0.0", &[node.bridge()])),
        ("bridge, portmap", list("1.0.0", &[node.bridge(), portmap.clone()])),
        ("bridge, portmap, firewall", list("1.0.0", &[node.bridge(), portmap, json!({"type": "firewall"})])),
    ];
    for (name, builtin) in [("Go", Builtin::Never), ("ours", Builtin::Always)] {
        for (what, network) in &networks {
            let cni = node.cni(builtin);
            let (mut adds, mut dels) = (Vec::new(), Vec::new());
            for turn in 0..25 {
                let container = Container::new();
                let at = with(at(&format!("c{turn}"), &container), ports());
                let begun = Instant::now();
                cni.add(network, &at).await.unwrap();
                adds.push(begun.elapsed());
                let begun = Instant::now();
                cni.del(network, &at).await.unwrap();
                dels.push(begun.elapsed());
                // What goes on after the answer is not the next one's time.
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
            let least_and_median = |times: &mut Vec<Duration>| {
                times.sort();
                (times[0], times[times.len() / 2])
            };
            let (adds, dels) = (least_and_median(&mut adds), least_and_median(&mut dels));
            println!("{name:5} {what:26} least and median: ADD {adds:.1?} DEL {dels:.1?}");
        }
    }
}
