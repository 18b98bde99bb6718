//! Pods: made, seen, ended and found again, with a network of their own; whatever fails, nothing is left.

use std::fs;

use api::cri as wire;
use containerd_tests::{Cri, eventually, proc};
use tonic::Code;

#[test]
fn a_pod_has_a_network_is_listed_stopped_and_removed_and_nothing_is_left() {
    let Some(cri) = Cri::start() else { return };
    let before = cri.ledger();
    let id = cri.pod("web");
    assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    let (status, info) = cri.pod_status(&id).unwrap();
    assert_eq!(status.state(), wire::PodSandboxState::SandboxReady);
    let ip = status.network.unwrap().ip;
    assert!(ip.starts_with("10."), "{ip}");
    assert_eq!(info["cniResult"]["Interfaces"]["eth0"]["IPConfigs"][0]["IP"], ip.as_str());
    assert_eq!(info["processStatus"], "running");
    assert_eq!(info["runtimeType"], "io.containerd.runc.v2");
    assert_eq!(info["sandboxMetadata"]["Metadata"]["IP"], ip.as_str());
    let listed = cri.pods().unwrap();
    assert_eq!((listed.len(), listed[0].id.as_str()), (1, id.as_str()));
    assert!(proc::alive(cri.pod_pid(&id)));

    cri.stop_pod(&id).unwrap();
    let (status, info) = cri.pod_status(&id[..12]).unwrap();
    assert_eq!(status.state(), wire::PodSandboxState::SandboxNotready);
    assert_eq!(status.network.unwrap().ip, "", "its namespace is gone");
    assert_eq!(info["netNamespaceClosed"], true);
    cri.stop_pod(&id).unwrap();
    cri.remove_pod(&id).unwrap();
    cri.remove_pod(&id).unwrap();
    cri.stop_pod(&id).unwrap();
    assert_eq!(cri.pod_status(&id).unwrap_err().code(), Code::NotFound);
    assert_eq!(cri.pods().unwrap(), []);
    cri.check_ledger(&before);
}

#[test]
fn what_runs_is_ended_when_it_is_removed() {
    let Some(cri) = Cri::start() else { return };
    let before = cri.ledger();
    let id = cri.pod("web");
    let pid = cri.pod_pid(&id);
    cri.remove_pod(&id).unwrap();
    assert!(!proc::alive(pid));
    cri.check_ledger(&before);
}

#[test]
fn a_name_is_reserved_until_its_pod_is_removed() {
    let Some(cri) = Cri::start() else { return };
    let id = cri.pod("web");
    let again = cri.run_pod(cri.pod_config("web")).unwrap_err();
    assert!(again.message().contains("failed to reserve sandbox name"), "{again}");
    cri.remove_pod(&id).unwrap();
    cri.pod("web");
}

#[test]
fn names_that_are_the_same_once_joined_are_told_apart_from_names_that_are_taken() {
    let Some(cri) = Cri::start() else { return };
    let named = |name: &str, namespace: &str| {
        let mut config = cri.pod_config("web");
        let metadata = config.metadata.as_mut().unwrap();
        (metadata.name, metadata.namespace) = (name.to_owned(), namespace.to_owned());
        config
    };
    cri.run_pod(named("a_b", "c")).unwrap();
    let error = cri.run_pod(named("a", "b_c")).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().starts_with("metadata.name"), "{error}");
    assert_eq!(cri.pods().unwrap().len(), 1);
}

#[test]
fn a_pod_that_ends_by_itself_is_not_ready_and_its_address_is_freed_when_it_is_stopped() {
    let Some(cri) = Cri::start() else { return };
    let before = cri.ledger();
    let id = cri.pod("web");
    proc::kill(cri.pod_pid(&id));
    eventually("the pod is not ready", || {
        cri.pod_status(&id).unwrap().0.state() == wire::PodSandboxState::SandboxNotready
    });
    cri.stop_pod(&id).unwrap();
    cri.remove_pod(&id).unwrap();
    cri.check_ledger(&before);
}

#[test]
fn files_of_a_pod_say_what_was_asked_for() {
    let Some(cri) = Cri::start() else { return };
    let mut config = cri.pod_config("web");
    config.hostname = "host-of-web".into();
    config.dns_config = Some(wire::DnsConfig {
        servers: vec!["10.10.10.10".into()],
        searches: vec!["google.com".into()],
        options: vec!["ndots:8".into()],
    });
    let id = cri.run_pod(config).unwrap();
    let file = |name: &str| fs::read_to_string(cri.root().join("sandboxes").join(&id).join(name)).unwrap();
    assert_eq!(file("hostname"), "host-of-web\n");
    assert_eq!(file("resolv.conf"), "search google.com\nnameserver 10.10.10.10\noptions ndots:8\n");
    assert_eq!(file("hosts"), fs::read_to_string("/etc/hosts").unwrap_or_default());
    let shm = cri.state().join("sandboxes").join(&id).join("shm");
    assert!(proc::mounts_below(cri.daemon.dir()).contains(&shm));
}
