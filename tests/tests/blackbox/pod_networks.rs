//! Networks of pods beyond the usual one: a handler's own, both families, plugins that are built in, limits; and where namespaces are.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use api::cri as wire;
use containerd_tests::cri::RUNTIME;
use containerd_tests::{Cri, Kubelet, binaries, eventually};
use serde_json::json;

/// The name of the only bridge of a daemon's network.
fn bridge(cri: &Cri) -> String {
    cri.read_network()[0]["bridge"].as_str().unwrap().to_owned()
}

/// A bridge with addresses from these subnets.
fn network(cri: &Cri, subnets: &[&str]) -> serde_json::Value {
    let ranges: Vec<_> = subnets.iter().map(|subnet| json!([{"subnet": subnet}])).collect();
    json!({
        "type": "bridge", "bridge": bridge(cri), "isGateway": true, "ipMasq": false,
        "ipam": {"type": "host-local", "ranges": ranges, "dataDir": cri.cni().join("ipam")},
    })
}

/// A bridge that is gone in the end.
struct Bridge(String);

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = Command::new(binaries::busybox()).args(["ip", "link", "delete", &self.0]).output();
    }
}

fn answers(address: &str) -> bool {
    let ping = if address.contains(':') { &["ping", "-6"][..] } else { &["ping"] };
    let done = Command::new(binaries::busybox()).args(ping).args(["-c", "1", "-W", "5", address]).output();
    done.unwrap().status.success()
}

fn addresses(cri: &Cri, pod: &str) -> Vec<String> {
    let network = cri.pod_status(pod).unwrap().0.network.unwrap();
    std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|more| more.ip)).collect()
}

#[test]
fn a_handler_may_have_networks_of_its_own_and_how_many_of_them_count() {
    let Some(cri) = Cri::prepare("") else { return };
    let dir = cri.daemon.dir().join("own-networks");
    fs::create_dir(&dir).unwrap();
    let bridges = ["a", "b"].map(|more| Bridge(format!("{}{more}", bridge(&cri))));
    for (name, subnet, bridge) in
        [("10-a", "10.62.1.0/24", &bridges[0]), ("20-b", "10.62.2.0/24", &bridges[1])]
    {
        let mut plugin = network(&cri, &[subnet]);
        plugin["bridge"] = bridge.0.clone().into();
        let list = json!({"cniVersion": "1.0.0", "name": name, "plugins": [plugin]});
        fs::write(dir.join(format!("{name}.conflist")), list.to_string()).unwrap();
    }
    let handler = |name: &str, keys: &str| {
        let keys = format!("runtime_type = 'io.containerd.runc.v2'\n{keys}");
        cri.set(&format!("{RUNTIME}.containerd.runtimes.{name}"), &keys);
    };
    handler("runc", "");
    handler("one", &format!("cni_conf_dir = {dir:?}\ncni_max_conf_num = 1"));
    handler("all", &format!("cni_conf_dir = {dir:?}"));
    cri.launch();
    cri.image();
    let before = cri.ledger();
    let kubelet = Kubelet::with(cri);
    let cri = &kubelet.cri;
    let usual = addresses(cri, &kubelet.pod)[0].clone();
    let one = kubelet.pod(cri.pod_config("one"), "one").unwrap().pod;
    assert!(addresses(cri, &one)[0].starts_with("10.62.1.") && !usual.starts_with("10.62."), "{usual}");
    let interfaces = |pod: &str| {
        let (_, info) = cri.pod_status(pod).unwrap();
        let interfaces = info["cniResult"]["Interfaces"].as_object().unwrap().clone();
        let names = interfaces.iter().filter(|(_, about)| about["Sandbox"] != "");
        names.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(interfaces(&one), ["eth0", "lo"]);
    let all = kubelet.pod(cri.pod_config("all"), "all").unwrap().pod;
    assert_eq!(interfaces(&all), ["eth0", "eth1", "lo"]);
    for pod in [&one, &all, &kubelet.pod] {
        cri.remove_pod(pod).unwrap();
    }
    cri.check_ledger(&before);
}

#[test]
fn a_pod_has_addresses_of_both_families_from_plugins_that_are_built_in_and_the_preferred_one_is_first() {
    if binaries::beyond_upstream("plugins are built in") {
        return;
    }
    for (preference, first) in [("ipv4", "10.63."), ("ipv6", "fd63:")] {
        let Some(cri) = Cri::prepare("") else { return };
        fs::remove_dir_all(cri.cni().join("bin")).unwrap();
        cri.set(&format!("{RUNTIME}.cni"), &format!("ip_pref = {preference:?}"));
        let mut both = network(&cri, &["fd63:1::/64", "10.63.1.0/24"]);
        both["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
        cri.write_network(
            &json!([both, {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.proxy_arp": "1"}}]),
        );
        cri.launch();
        let before = cri.ledger();
        let pod = cri.pod("web");
        let all = addresses(&cri, &pod);
        assert!(all.len() == 2 && all[0].starts_with(first), "{all:?}");
        for address in &all {
            eventually(&format!("{address} answers"), || answers(address));
        }
        cri.remove_pod(&pod).unwrap();
        cri.check_ledger(&before);
    }
}

#[test]
fn the_bandwidth_of_a_pod_is_limited_as_its_annotations_say() {
    if Command::new("tc").arg("-V").output().is_err() {
        eprintln!("skipped: there is no tc to look with");
        return;
    }
    let Some(cri) = Cri::start() else { return };
    let mut plugins = cri.read_network();
    plugins.as_array_mut().unwrap().push(json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}));
    cri.write_network(&plugins);
    let queues = || {
        let shown = Command::new("tc").args(["qdisc", "show"]).output().unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        shown.lines().filter(|line| line.contains(" tbf ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = queues();
    let mut config = cri.pod_config("web");
    for (direction, rate) in [("ingress", "8M"), ("egress", "16M")] {
        config.annotations.insert(format!("kubernetes.io/{direction}-bandwidth"), rate.to_owned());
    }
    let id = cri.run_pod(config).unwrap();
    let new: Vec<_> = queues().into_iter().filter(|line| !before.contains(line)).collect();
    for rate in ["rate 8Mbit", "rate 16Mbit"] {
        assert_eq!(new.iter().filter(|line| line.contains(rate)).count(), 1, "{rate}: {new:?}");
    }
    cri.remove_pod(&id).unwrap();
    eventually("the limits are gone", || queues().iter().all(|line| !new.contains(line)));
}

#[test]
fn namespaces_of_networks_are_where_everybody_looks_unless_the_settings_say_otherwise() {
    let Some(cri) = Cri::prepare("") else { return };
    cri.set(RUNTIME, "netns_mounts_under_state_dir = false");
    // What is there belongs to others: it gets a /run of its own.
    cri.daemon.set_own_mounts(r#"mount -t tmpfs tmpfs /run && exec "$0" "$@""#, &[]);
    cri.launch();
    let before = cri.ledger();
    let run = format!("/proc/{}/root/run/netns", cri.daemon.pid().unwrap());
    let namespaces = || {
        let entries = fs::read_dir(&run).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(namespaces(), [""; 0]);
    let id = cri.pod("web");
    let [name] = &namespaces()[..] else { panic!("{:?}", namespaces()) };
    assert!(name.starts_with("cni-"), "{name}");
    let own = fs::metadata(format!("/proc/{}/ns/net", cri.pod_pid(&id))).unwrap().ino();
    assert_eq!(fs::metadata(Path::new(&run).join(name)).unwrap().ino(), own);
    assert_eq!(
        cri.pod_status(&id).unwrap().1["runtimeSpec"]["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .find(|namespace| namespace["type"] == "network")
            .unwrap()["path"],
        format!("/var/run/netns/{name}")
    );
    cri.remove_pod(&id).unwrap();
    assert_eq!(namespaces(), [""; 0]);
    cri.check_ledger(&before);
}

#[test]
fn a_port_that_listens_to_one_family_is_forwarded_to() {
    use containerd_tests::WebSocket;
    let Some(kubelet) = Kubelet::start() else { return };
    if fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6").is_ok_and(|off| off.trim() == "1") {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let id = kubelet.run("c", "echo hello > /index.html; busybox httpd -f -h / -p '[::1]:8080'");
    eventually("the port is listened to", || {
        kubelet.sync(&id, "netstat -ltn | grep '::1:8080'", 0).unwrap().exit_code == 0
    });
    let request = wire::PortForwardRequest { pod_sandbox_id: kubelet.pod.clone(), port: vec![8080] };
    let url = kubelet.cri.call(kubelet.cri.client().port_forward(request)).unwrap().url;
    let mut client = WebSocket::open(&url, "v4.channel.k8s.io");
    client.say(0, b"GET /index.html HTTP/1.0\r\n\r\n");
    client.until(0, "hello\n");
}
