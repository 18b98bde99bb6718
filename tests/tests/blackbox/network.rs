//! `ctr run --cni`: a container is in the networks of its host while it runs, and nowhere afterwards, whoever ends it and how.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use containerd_tests::network::GATEWAY;
use containerd_tests::{Daemon, HostNetwork, binaries, eventually};

/// Serves a page.
const SERVER: &str =
    "mkdir /www; echo from the container >/www/index.html; exec busybox httpd -f -p 80 -h /www";

/// A daemon, a host's network that has seen a container, and what is there then. `None` where there are no plugins.
fn prepared(masquerade: bool, more: &[&str]) -> Option<(Daemon, HostNetwork, Vec<String>)> {
    let network = HostNetwork::new()?;
    network.bridge(masquerade, more);
    let daemon = Daemon::start();
    let (image, id) = (daemon.image(), daemon.id("first"));
    network.ctr(&daemon, &["run", "--rm", "--cni", image, &id, "true"]).ok();
    let state = network.state();
    assert!(!state.iter().any(|line| line.contains("/var/lib/cni/")), "{state:#?}");
    Some((daemon, network, state))
}

#[track_caller]
fn nothing_is_left(network: &HostNetwork, before: &[String]) {
    // The kernel takes a link down behind the end of its namespace.
    eventually(&format!("{:#?} is again {before:#?}", network.state()), || network.state() == before);
}

/// Ends a container's task whose networks are somebody else's business.
#[track_caller]
fn delete(network: &HostNetwork, daemon: &Daemon, id: &str) {
    daemon.await_status(id, "STOPPED");
    network.ctr(daemon, &["tasks", "delete", id]).run();
    network.ctr(daemon, &["containers", "delete", id]).ok();
}

#[test]
fn host_and_container_reach_each_other() {
    let Some((daemon, network, before)) = prepared(false, &["portmap", "firewall"]) else { return };
    let (image, id) = (daemon.image(), daemon.id("server"));
    network.ctr(&daemon, &["run", "-d", "--cni", image, &id, "sh", "-c", SERVER]).ok();
    let address = network.address_of(&daemon, &id);
    let url = format!("http://{address}/");
    eventually("the container serves", || network.busybox(&["wget", "-q", "-O", "-", &url]).run().code == 0);
    assert_eq!(network.busybox(&["wget", "-q", "-O", "-", &url]).ok(), "from the container\n");
    network.busybox(&["ping", "-c", "1", "-w", "10", &address]).ok();
    let exec = |command: &[&str]| {
        let exec = daemon.id("exec");
        let arguments = [&["tasks", "exec", "--exec-id", &exec, &id], command].concat();
        network.ctr(&daemon, &arguments).ok()
    };
    exec(&["busybox", "ping", "-c", "1", "-w", "10", GATEWAY]);
    let routes = exec(&["busybox", "ip", "route"]);
    assert!(routes.contains(&format!("default via {GATEWAY} dev eth0")), "{routes}");
    network.ctr(&daemon, &["tasks", "kill", "-s", "KILL", &id]).ok();
    delete(&network, &daemon, &id);
    if !binaries::beyond_upstream("the ctr of 1.6 never takes out a detached container") {
        nothing_is_left(&network, &before);
    }
}

#[test]
fn an_attached_container_leaves_nothing_and_its_code_is_told() {
    let Some((daemon, network, before)) = prepared(false, &[]) else { return };
    let (image, id) = (daemon.image(), daemon.id("attached"));
    let script = "busybox ip -o -4 addr show eth0; exit 7";
    let done =
        network.ctr(&daemon, &["run", "--rm", "--cni", image, &id, "sh", "-c", script]).run().expect_code(7);
    assert!(done.stdout.contains("inet 10.99.7."), "{done}");
    nothing_is_left(&network, &before);
}

#[test]
fn without_the_flag_there_is_no_network() {
    let Some((daemon, network, before)) = prepared(false, &[]) else { return };
    let (image, id) = (daemon.image(), daemon.id("alone"));
    let links = network.ctr(&daemon, &["run", "--rm", image, &id, "busybox", "ip", "-o", "link"]).ok();
    assert!(!links.contains("eth0"), "{links}");
    nothing_is_left(&network, &before);
}

#[test]
fn rules_and_addresses_go_with_an_attached_container() {
    if binaries::beyond_upstream("upstream's ctr comes too late: the masquerading chain stays") {
        return;
    }
    let Some((daemon, network, before)) = prepared(true, &["portmap", "firewall"]) else { return };
    let (image, id) = (daemon.image(), daemon.id("attached"));
    let running =
        network.ctr(&daemon, &["run", "--rm", "--cni", image, &id, "sh", "-c", "echo on; sleep 100"]).start();
    running.await_output("on\n");
    let during = network.state();
    assert!(during.len() > before.len() + 4, "{during:#?}");
    running.signal(rustix::process::Signal::KILL);
    running.finish();
    assert_eq!(network.state(), during, "a killed client removes nothing");
    network.ctr(&daemon, &["tasks", "delete", "--force", &id]).run();
    nothing_is_left(&network, &before);
    network.ctr(&daemon, &["containers", "delete", &id]).ok();
    for command in [&["sh", "-c", "exit 3"][..], &["no-such-program"]] {
        let arguments = [&["run", "--rm", "--cni", image, &id], command].concat();
        network.ctr(&daemon, &arguments).fails();
        nothing_is_left(&network, &before);
    }
}

#[test]
fn a_detached_container_is_taken_out_by_whatever_ends_it() {
    if binaries::beyond_upstream("upstream's ctr takes it out with tasks kill alone, and not wholly") {
        return;
    }
    let Some((daemon, network, before)) = prepared(true, &["portmap", "firewall"]) else { return };
    let image = daemon.image();
    let start = |id: &str| {
        network
            .ctr(
                &daemon,
                &["run", "-d", "--cni", image, id, "sh", "-c", "trap 'exit 0' TERM; sleep 100 & wait"],
            )
            .ok();
        assert_ne!(network.state(), before);
    };
    let id = daemon.id("killed");
    start(&id);
    network.ctr(&daemon, &["tasks", "kill", "-s", "USR2", "--exec-id", "none", &id]).fails();
    network.ctr(&daemon, &["tasks", "kill", "-s", "CONT", &id]).ok();
    network.busybox(&["ping", "-c", "1", "-w", "10", &network.address_of(&daemon, &id)]).ok();
    network.ctr(&daemon, &["tasks", "kill", &id]).ok();
    nothing_is_left(&network, &before);
    delete(&network, &daemon, &id);
    let id = daemon.id("deleted");
    start(&id);
    network.ctr(&daemon, &["tasks", "delete", "--force", &id]).run();
    nothing_is_left(&network, &before);
    network.ctr(&daemon, &["containers", "delete", &id]).ok();
}

#[test]
fn an_address_of_a_container_that_ended_by_itself_is_given_back_with_its_record() {
    if binaries::beyond_upstream("upstream's ctr never gives it back") {
        return;
    }
    let Some((daemon, network, before)) = prepared(false, &[]) else { return };
    let (image, id) = (daemon.image(), daemon.id("ended"));
    network.ctr(&daemon, &["run", "-d", "--cni", image, &id, "true"]).ok();
    daemon.await_status(&id, "STOPPED");
    network.without_networks();
    network.ctr(&daemon, &["containers", "delete", &id]).ok();
    nothing_is_left(&network, &before);
}

#[test]
fn a_network_that_fails_leaves_no_task_and_no_address() {
    let Some((daemon, network, before)) = prepared(false, &[]) else { return };
    network.bridge(false, &["no-such-plugin"]);
    let (image, id) = (daemon.image(), daemon.id("failing"));
    network
        .ctr(&daemon, &["run", "--rm", "--cni", image, &id, "true"])
        .fails()
        .says("failed to find plugin \"no-such-plugin\" in path [/opt/cni/bin");
    if binaries::beyond_upstream(
        "the ctr of 1.6 leaves the task, and removes nothing where a plugin is missing",
    ) {
        return;
    }
    assert!(!daemon.ctr(&["tasks", "list", "-q"]).ok().contains(&id));
    assert!(!daemon.ctr(&["containers", "list", "-q"]).ok().contains(&id));
    nothing_is_left(&network, &before);
}

#[test]
fn a_plugin_that_refuses_is_quoted_and_what_went_before_is_taken_back() {
    let Some((daemon, network, before)) = prepared(false, &[]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("refuses");
    let text = "#!/bin/sh\n[ $CNI_COMMAND = DEL ] && exit 0\necho '{\"code\": 100, \"msg\": \"not today\"}'; exit 1\n";
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    for plugin in ["bridge", "host-local"] {
        fs::copy(network.place(&format!("/opt/cni/bin/{plugin}")), dir.path().join(plugin)).unwrap();
    }
    let mut mount = std::process::Command::new("mount");
    mount.args(["--bind", &dir.path().to_string_lossy(), "/opt/cni/bin"]);
    network.inside(&mount).ok();
    network.bridge(false, &["refuses"]);
    let (image, id) = (daemon.image(), daemon.id("refused"));
    let done = network.ctr(&daemon, &["run", "--rm", "--cni", image, &id, "true"]).fails();
    done.says("plugin type=\"refuses\" failed (add): not today");
    if binaries::beyond_upstream("the ctr of 1.6 leaves the task") {
        return;
    }
    assert!(!daemon.ctr(&["tasks", "list", "-q"]).ok().contains(&id));
    nothing_is_left(&network, &before);
}

#[test]
fn without_programs_the_usual_plugins_are_there() {
    if binaries::beyond_upstream("plugins that are built in are ours alone") {
        return;
    }
    let Some((daemon, network, _)) = prepared(false, &[]) else { return };
    let mut unmount = std::process::Command::new("umount");
    unmount.arg("/opt/cni/bin");
    network.inside(&unmount).ok();
    network.bridge(true, &["portmap", "firewall", "tuning", "bandwidth"]);
    let (image, id) = (daemon.image(), daemon.id("built-in"));
    // What the first one makes for all stays.
    network.ctr(&daemon, &["run", "--rm", "--cni", image, &id, "true"]).ok();
    eventually("its link is gone", || !network.state().iter().any(|line| line.contains("veth")));
    let before = network.state();
    network.ctr(&daemon, &["run", "-d", "--cni", image, &id, "sh", "-c", SERVER]).ok();
    let url = format!("http://{}/", network.address_of(&daemon, &id));
    eventually("the container serves", || network.busybox(&["wget", "-q", "-O", "-", &url]).run().code == 0);
    network.ctr(&daemon, &["tasks", "kill", "-s", "KILL", &id]).ok();
    delete(&network, &daemon, &id);
    nothing_is_left(&network, &before);
}

#[test]
fn without_networks_nothing_is_run() {
    let Some(network) = HostNetwork::new() else { return };
    let daemon = Daemon::start();
    let (image, id) = (daemon.image(), daemon.id("none"));
    network
        .ctr(&daemon, &["run", "--rm", "--cni", image, &id, "true"])
        .fails()
        .says("no network config found in /etc/cni/net.d: cni plugin not initialized");
    assert!(!daemon.ctr(&["containers", "list", "-q"]).ok().contains(&id));
}

#[test]
fn the_hosts_own_network_is_not_reconfigured() {
    if binaries::beyond_upstream("upstream gives the host an eth0 and a default route") {
        return;
    }
    let Some(network) = HostNetwork::new() else { return };
    network.bridge(false, &[]);
    let (daemon, before) = (Daemon::start(), network.state());
    let (image, id) = (daemon.image(), daemon.id("host"));
    let holder = network.place("/").to_string_lossy().replace("/root/", "/ns/net");
    let namespace = format!("network:{holder}");
    network
        .ctr(&daemon, &["run", "--rm", "--cni", "--with-ns", &namespace, image, &id, "true"])
        .fails()
        .says("is in the host's network, which --cni would reconfigure");
    assert_eq!(network.state(), before);
}

#[test]
fn what_upstreams_client_attached_is_detached_by_ours_and_the_other_way_round() {
    if binaries::beyond_upstream("two clients") {
        return;
    }
    let Some((daemon, network, before)) = prepared(false, &["portmap", "firewall"]) else { return };
    let image = daemon.image();
    // That of 1.6 does not write down that a container has networks, and takes none out.
    let Some(other) = binaries::reference() else { return };
    let id = daemon.id("theirs");
    network.ctr_of(&daemon, &other, &["run", "-d", "--cni", image, &id, "sleep", "100"]).ok();
    network.busybox(&["ping", "-c", "1", "-w", "10", &network.address_of(&daemon, &id)]).ok();
    network.ctr(&daemon, &["tasks", "kill", "-s", "KILL", &id]).ok();
    nothing_is_left(&network, &before);
    delete(&network, &daemon, &id);
    let id = daemon.id("ours");
    network.ctr(&daemon, &["run", "-d", "--cni", image, &id, "sleep", "100"]).ok();
    network.busybox(&["ping", "-c", "1", "-w", "10", &network.address_of(&daemon, &id)]).ok();
    network.ctr_of(&daemon, &other, &["tasks", "kill", "-s", "KILL", &id]).ok();
    daemon.await_status(&id, "STOPPED");
    nothing_is_left(&network, &before);
    delete(&network, &daemon, &id);
}
