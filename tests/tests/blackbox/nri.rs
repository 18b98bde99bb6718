//! NRI plugins: told of pods and containers in the order of what happens, asked what is to be adjusted, and in nobody's way when
//! they hang or go.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::cri as wire;
use api::nri::{
    ContainerAdjustment, ContainerUpdate, CreateContainerRequest, CreateContainerResponse, Event, KeyValue,
    LinuxContainerUpdate, LinuxCpu, LinuxResources, Mount, OptionalUInt64, SynchronizeRequest,
    UpdateContainerRequest, UpdateContainerResponse, UpdateContainersRequest, UpdateContainersResponse,
    UpdatePodSandboxRequest,
};
use containerd_tests::nri::{Answer, Plugin};
use containerd_tests::{Cri, command, eventually};
use prost::Message;
use wire::ContainerState::ContainerExited;

/// A kubelet, and where plugins connect.
struct Node {
    cri: Cri,
    dir: tempfile::TempDir,
}

impl Node {
    fn start(more: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| format!("{:?}", dir.path().join(name));
        let section = format!(
            "[plugins.'io.containerd.nri.v1.nri']\nsocket_path = {}\nplugin_path = {}\nplugin_config_path = {}\n{more}",
            place("nri.sock"),
            place("plugins"),
            place("conf.d"),
        );
        let cri = Cri::configured(&section)?;
        cri.image();
        let spec = wire::ImageSpec { image: IMAGE.to_owned(), ..Default::default() };
        eventually("the image is known", || {
            let request = wire::ImageStatusRequest { image: Some(spec.clone()), verbose: false };
            cri.call(cri.images().image_status(request)).unwrap().image.is_some()
        });
        Some(Self { cri, dir })
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("nri.sock")
    }

    fn plugin(&self, name: &str, events: &[Event], answer: Box<Answer>) -> Plugin {
        let plugin = Plugin::connect(&self.socket(), name, events, answer);
        eventually("the plugin is synchronized", || plugin.has_heard("Synchronize"));
        plugin
    }

    fn create(&self, pod: &str, name: &str, script: &str) -> Result<String, tonic::Status> {
        let config = wire::ContainerConfig {
            metadata: Some(wire::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(wire::ImageSpec { image: IMAGE.to_owned(), ..Default::default() }),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: format!("{name}.log"),
            labels: BTreeMap::from([("name".to_owned(), name.to_owned())]),
            linux: Some(wire::LinuxContainerConfig::default()),
            ..Default::default()
        };
        let request = wire::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config),
            sandbox_config: Some(self.cri.pod_config("web")),
        };
        self.cri.call(self.cri.client().create_container(request)).map(|answer| answer.container_id)
    }

    fn run(&self, pod: &str, name: &str, script: &str) -> String {
        let id = self.create(pod, name, script).unwrap();
        let request = wire::StartContainerRequest { container_id: id.clone() };
        self.cri.call(self.cri.client().start_container(request)).unwrap();
        id
    }

    fn status(&self, id: &str) -> wire::ContainerStatus {
        let request = wire::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        self.cri.call(self.cri.client().container_status(request)).unwrap().status.unwrap()
    }

    fn log(&self, name: &str) -> String {
        let dir = PathBuf::from(self.cri.pod_config("web").log_directory);
        fs::read_to_string(dir.join(format!("{name}.log"))).unwrap_or_default()
    }
}

const IMAGE: &str = "docker.io/library/blackbox:latest";

fn silent() -> Box<Answer> {
    Box::new(|_, _| None)
}

fn adjusting(source: &Path) -> Box<Answer> {
    let mount = Mount {
        destination: "/of-plugin".to_owned(),
        r#type: "bind".to_owned(),
        source: source.display().to_string(),
        options: ["rbind", "ro"].map(str::to_owned).to_vec(),
    };
    Box::new(move |method, payload| {
        let asked =
            (method == "CreateContainer").then(|| CreateContainerRequest::decode(payload).unwrap())?;
        let (pod, container) = (asked.pod.unwrap(), asked.container.unwrap());
        let seen = format!("{} {} {}", pod.name, container.name, container.labels["name"]);
        let env = vec![KeyValue { key: "OF_PLUGIN".to_owned(), value: seen }];
        let adjust = ContainerAdjustment { env, mounts: vec![mount.clone()], ..Default::default() };
        Some(CreateContainerResponse { adjust: Some(adjust), ..Default::default() }.encode_to_vec())
    })
}

#[test]
fn a_container_is_made_as_a_plugin_wants_it_and_every_step_is_told_in_order() {
    let Some(node) = Node::start("") else { return };
    let before = node.cri.ledger();
    let source = node.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content of a plugin\n").unwrap();
    let plugin = node.plugin("10-adjuster", &[], adjusting(&source));
    let pod = node.cri.pod("web");
    let id = node.run(
        &pod,
        "main",
        "echo env=$OF_PLUGIN; cat /of-plugin/file; touch /of-plugin/x || echo read-only",
    );
    eventually("the container ends", || node.status(&id).state() == ContainerExited);
    eventually("the end is told", || plugin.has_heard("StopContainer"));
    let log = node.log("main");
    for line in ["env=web main main", "content of a plugin", "read-only"] {
        assert!(log.contains(line), "{line}: {log}");
    }
    node.cri.remove_pod(&pod).unwrap();
    let heard: Vec<_> =
        plugin.heard().into_iter().filter(|method| method != "ValidateContainerAdjustment").collect();
    let expected = [
        "Configure",
        "Synchronize",
        "RunPodSandbox",
        "CreateContainer",
        "PostCreateContainer",
        "StartContainer",
        "PostStartContainer",
        "StopContainer",
    ];
    assert_eq!(heard[..8], expected);
    let mut rest = heard[8..].to_vec();
    rest.sort();
    assert_eq!(rest, ["RemoveContainer", "RemovePodSandbox", "StopPodSandbox"]);
    node.cri.check_ledger(&before);
}

#[test]
fn a_plugin_that_comes_late_is_told_what_is_there_and_may_change_it_of_its_own_accord() {
    let Some(node) = Node::start("") else { return };
    let pod = node.cri.pod("web");
    let id = node.run(&pod, "main", "sleep 1000");
    let (sender, told) = std::sync::mpsc::channel();
    let plugin = node.plugin(
        "10-late",
        &[Event::StopContainer],
        Box::new(move |method, payload| {
            if method == "Synchronize" {
                sender.send(SynchronizeRequest::decode(payload).unwrap()).unwrap();
            }
            None
        }),
    );
    let all = told.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(all.pods.iter().map(|pod| pod.id.as_str()).collect::<Vec<_>>(), [pod.as_str()]);
    assert_eq!((all.pods[0].name.as_str(), all.pods[0].uid.as_str()), ("web", "uid-web"));
    let container = &all.containers[0];
    assert_eq!((container.id.as_str(), container.pod_sandbox_id.as_str()), (id.as_str(), pod.as_str()));
    assert!(container.pid > 0 && container.args == ["sh", "-c", "sleep 1000"]);
    let update = |id: &str| ContainerUpdate {
        container_id: id.to_owned(),
        linux: Some(LinuxContainerUpdate {
            resources: Some(LinuxResources {
                cpu: Some(LinuxCpu { shares: Some(OptionalUInt64 { value: 512 }), ..Default::default() }),
                ..Default::default()
            }),
        }),
        ignore_failure: false,
    };
    let request = UpdateContainersRequest { update: vec![update(&id), update("nobody")], evict: Vec::new() };
    let answer = plugin.call("UpdateContainers", &request).unwrap();
    assert!(UpdateContainersResponse::decode(answer.as_slice()).unwrap().failed.is_empty());
    let linux = node.status(&id).resources.unwrap().linux.unwrap();
    assert_eq!(linux.cpu_shares, 512);
    node.cri.remove_pod(&pod).unwrap();
    eventually("the end is told", || plugin.has_heard("StopContainer"));
}

#[test]
fn a_plugin_that_hangs_or_goes_is_in_nobodys_way() {
    let Some(node) = Node::start("plugin_request_timeout = '1s'\n") else { return };
    let hung = node.plugin(
        "10-hung",
        &[Event::CreateContainer],
        Box::new(|method, _| {
            if method == "CreateContainer" {
                std::thread::sleep(Duration::from_secs(3600));
            }
            None
        }),
    );
    let gone = node.plugin("20-gone", &[], silent());
    let pod = node.cri.pod("web");
    assert!(gone.has_heard("RunPodSandbox"));
    let start = Instant::now();
    node.create(&pod, "one", "true").unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(gone.has_heard("CreateContainer") && !hung.has_heard("CreateContainer"));
    drop(gone);
    let start = Instant::now();
    node.create(&pod, "two", "true").unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn the_default_validator_refuses_what_it_is_told_to_and_leaves_nothing() {
    let Some(node) = Node::start(
        "[plugins.'io.containerd.nri.v1.nri'.default_validator]\nenable = true\nrequired_plugins = ['needed']\n",
    ) else {
        return;
    };
    let pod = node.cri.pod("web");
    let before = node.cri.ledger();
    let error = node.create(&pod, "main", "true").unwrap_err();
    assert!(error.message().contains(r#"required plugin "needed" not present"#), "{error}");
    node.cri.check_ledger(&before);
    let _needed = node.plugin("10-needed", &[Event::CreateContainer], silent());
    eventually("the container may be made", || node.create(&pod, "main", "true").is_ok());
}

#[test]
fn limits_that_a_kubelet_changes_are_a_plugins_to_change_and_what_it_was_asked_is_counted() {
    let metrics = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let Some(node) = Node::start(&format!("[metrics]\naddress = '{metrics}'\n")) else { return };
    let pod = node.cri.pod("web");
    let id = node.run(&pod, "main", "sleep 1000");
    let other = node.run(&pod, "other", "sleep 1000");
    let (target, third) = (id.clone(), other.clone());
    let shares = |id: &str, value| ContainerUpdate {
        container_id: id.to_owned(),
        linux: Some(LinuxContainerUpdate {
            resources: Some(LinuxResources {
                cpu: Some(LinuxCpu { shares: Some(OptionalUInt64 { value }), ..Default::default() }),
                ..Default::default()
            }),
        }),
        ignore_failure: false,
    };
    let plugin = node.plugin(
        "10-changes",
        &[
            Event::UpdateContainer,
            Event::PostUpdateContainer,
            Event::UpdatePodSandbox,
            Event::PostUpdatePodSandbox,
        ],
        Box::new(move |method, payload| match method {
            "UpdateContainer" => {
                let asked = UpdateContainerRequest::decode(payload).unwrap();
                let cpu = asked.linux_resources.unwrap().cpu.unwrap();
                assert_eq!((asked.container.unwrap().id, cpu.shares.unwrap().value), (target.clone(), 200));
                let update = vec![shares(&target, 300), shares(&third, 400)];
                Some(UpdateContainerResponse { update, evict: Vec::new() }.encode_to_vec())
            }
            "UpdatePodSandbox" => {
                let asked = UpdatePodSandboxRequest::decode(payload).unwrap();
                let cpu = asked.linux_resources.unwrap().cpu.unwrap();
                assert_eq!((asked.pod.unwrap().name.as_str(), cpu.shares.unwrap().value), ("web", 500));
                None
            }
            _ => None,
        }),
    );
    let page = || {
        let mut wget = std::process::Command::new(containerd_tests::binaries::busybox());
        wget.args(["wget", "-q", "-O", "-", &format!("http://{metrics}/v1/metrics")]);
        command::Invocation::new(wget).ok()
    };
    eventually("the plugin is one of those that are asked", || {
        page().contains("\ncontainerd_nri_active_plugins_total 1\n")
    });
    let linux = |shares| Some(wire::LinuxContainerResources { cpu_shares: shares, ..Default::default() });
    let request = wire::UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: linux(200),
        ..Default::default()
    };
    node.cri.call(node.cri.client().update_container_resources(request)).unwrap();
    let now = |id: &str| node.status(id).resources.unwrap().linux.unwrap().cpu_shares;
    assert_eq!((now(&id), now(&other)), (300, 400));
    let request = wire::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: pod,
        overhead: linux(100),
        resources: linux(500),
    };
    node.cri.call(node.cri.client().update_pod_sandbox_resources(request)).unwrap();
    let heard = plugin.heard().split_off(2);
    assert_eq!(heard, ["UpdateContainer", "PostUpdateContainer", "UpdatePodSandbox", "PostUpdatePodSandbox"]);
    let page = page();
    for line in [
        "containerd_nri_active_plugins_total 1",
        r#"containerd_nri_plugin_invocations_total{error="",operation="UpdateContainer",plugin="10-changes",status="success"} 1"#,
        r#"containerd_nri_plugin_adjustments_total{operation="UpdateContainer",plugin="10-changes",type="update"} 2"#,
        r#"containerd_nri_plugin_latency_seconds_count{operation="UpdatePodSandbox",plugin="10-changes"} 1"#,
        "containerd_cri_container_events_dropped_total 0",
    ] {
        assert!(page.lines().any(|shown| shown == line), "{line}: {page}");
    }
}
