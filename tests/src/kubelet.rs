//! A kubelet with one pod: what it asks for of containers, and what it sees of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use api::cri as wire;
use tonic::{Code, Status};
use wire::ContainerState::ContainerExited;

use crate::archive::Image;
use crate::cri::{IMAGES, NAMESPACE, RUNTIME};
use crate::{Cri, WebSocket, binaries, eventually};

/// A kubelet with one pod.
pub struct Kubelet {
    /// The daemon.
    pub cri: Arc<Cri>,
    /// The pod's id.
    pub pod: String,
    /// What was asked for of it.
    pub pod_config: wire::PodSandboxConfig,
}

impl Kubelet {
    /// A kubelet of a daemon of its own, if there can be one; see [`Cri::start`].
    pub fn start() -> Option<Self> {
        Some(Self::with(Cri::start()?))
    }

    /// A kubelet of a daemon that runs, with the image of the suite.
    pub fn with(cri: Cri) -> Self {
        let image = cri.image();
        let (pod_config, pod) = (cri.pod_config("web"), cri.pod("web"));
        let kubelet = Self { cri: Arc::new(cri), pod, pod_config };
        kubelet.knows(image);
        kubelet
    }

    /// A kubelet whose pods are run by upstream's shim under the daemon under test; `None`, said aloud, where it is not at hand.
    ///
    /// # Panics
    /// If the daemon does not serve.
    pub fn with_upstreams_shim() -> Option<Self> {
        const PAUSE: &str = "docker.io/test/pause:1";
        let shim = binaries::reference()?.shim_dir.join("containerd-shim-runc-v2");
        let cri = Cri::prepare("")?;
        cri.set(&format!("{IMAGES}.pinned_images"), &format!("sandbox = {PAUSE:?}"));
        cri.set(&format!("{RUNTIME}.containerd"), "default_runtime_name = 'other'");
        let keys = format!("runtime_type = 'io.containerd.runc.v2'\nruntime_path = {shim:?}");
        cri.set(&format!("{RUNTIME}.containerd.runtimes.other"), &keys);
        cri.launch();
        cri.pause_image(PAUSE);
        Some(Self::with(cri))
    }

    /// The same kubelet with another pod.
    ///
    /// # Errors
    /// What the daemon answers.
    #[track_caller]
    pub fn pod(&self, config: wire::PodSandboxConfig, handler: &str) -> Result<Self, Status> {
        let request =
            wire::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.to_owned() };
        let pod = self.cri.call(self.cri.client().run_pod_sandbox(request))?.pod_sandbox_id;
        Ok(Self { cri: Arc::clone(&self.cri), pod, pod_config: config })
    }

    /// Waits until an image that was imported is known.
    #[track_caller]
    pub fn knows(&self, image: &str) {
        self.cri.knows(image);
    }

    /// Imports an image.
    #[track_caller]
    pub fn import(&self, name: &str, image: &Image) {
        let archive = self.cri.daemon.archive("image.tar", &image.oci());
        self.cri.daemon.ctr(&["-n", NAMESPACE, "images", "import", &archive]).ok();
        self.knows(name);
    }

    /// A container that runs a script.
    pub fn config(&self, name: &str, script: &str) -> wire::ContainerConfig {
        wire::ContainerConfig {
            metadata: Some(wire::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(wire::ImageSpec { image: crate::archive::IMAGE.to_owned(), ..Default::default() }),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: format!("{name}.log"),
            labels: BTreeMap::from([("name".to_owned(), name.to_owned())]),
            linux: Some(wire::LinuxContainerConfig::default()),
            ..Default::default()
        }
    }

    /// CreateContainer.
    ///
    /// # Errors
    /// What the daemon answers.
    #[track_caller]
    pub fn try_create(&self, config: wire::ContainerConfig) -> Result<String, Status> {
        let request = wire::CreateContainerRequest {
            pod_sandbox_id: self.pod.clone(),
            config: Some(config),
            sandbox_config: Some(self.pod_config.clone()),
        };
        self.cri.call(self.cri.client().create_container(request)).map(|answer| answer.container_id)
    }

    /// A container that is not started.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    pub fn create(&self, name: &str, script: &str) -> String {
        self.try_create(self.config(name, script)).unwrap_or_else(|status| panic!("create {name}: {status}"))
    }

    /// StartContainer.
    ///
    /// # Errors
    /// What the daemon answers.
    #[track_caller]
    pub fn try_start(&self, id: &str) -> Result<(), Status> {
        let request = wire::StartContainerRequest { container_id: id.to_owned() };
        self.cri.call(self.cri.client().start_container(request)).map(drop)
    }

    /// A container that runs.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn run(&self, name: &str, script: &str) -> String {
        self.run_config(self.config(name, script))
    }

    /// The same, made as `config` says.
    ///
    /// # Panics
    /// As that.
    #[track_caller]
    pub fn run_config(&self, config: wire::ContainerConfig) -> String {
        let name = config.metadata.clone().unwrap_or_default().name;
        let id = self.try_create(config).unwrap_or_else(|status| panic!("create {name}: {status}"));
        self.try_start(&id).unwrap_or_else(|status| panic!("start {name}: {status}"));
        id
    }

    /// Runs a container to its end; gives the lines that it has said.
    ///
    /// # Panics
    /// If it ends with another code than 0.
    #[track_caller]
    pub fn says(&self, config: wire::ContainerConfig) -> Vec<String> {
        let name = config.metadata.clone().unwrap_or_default().name;
        let id = self.run_config(config);
        let (code, log) = (self.exits(&id).exit_code, self.log(&name));
        assert_eq!(code, 0, "{name}: {log}");
        log.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned()).collect()
    }

    /// StopContainer.
    ///
    /// # Errors
    /// What the daemon answers.
    #[track_caller]
    pub fn stop(&self, id: &str, timeout: i64) -> Result<(), Status> {
        let request = wire::StopContainerRequest { container_id: id.to_owned(), timeout };
        self.cri.call(self.cri.client().stop_container(request)).map(drop)
    }

    /// RemoveContainer.
    ///
    /// # Errors
    /// What the daemon answers.
    #[track_caller]
    pub fn remove(&self, id: &str) -> Result<(), Status> {
        let request = wire::RemoveContainerRequest { container_id: id.to_owned() };
        self.cri.call(self.cri.client().remove_container(request)).map(drop)
    }

    /// ListContainers.
    ///
    /// # Panics
    /// If there is no answer.
    #[track_caller]
    pub fn list(&self, filter: Option<wire::ContainerFilter>) -> Vec<wire::Container> {
        let request = wire::ListContainersRequest { filter };
        self.cri.call(self.cri.client().list_containers(request)).expect("a list").containers
    }

    /// ContainerStatus, verbose.
    ///
    /// # Errors
    /// What the daemon answers.
    ///
    /// # Panics
    /// If what it says of the container is no JSON.
    #[track_caller]
    pub fn verbose(&self, id: &str) -> Result<(wire::ContainerStatus, serde_json::Value), Status> {
        let request = wire::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        let answer = self.cri.call(self.cri.client().container_status(request))?;
        let info = answer.info.get("info").map(|info| serde_json::from_str(info).expect("info is JSON"));
        let status = answer.status.ok_or_else(|| Status::new(Code::Internal, "no status"))?;
        Ok((status, info.unwrap_or_default()))
    }

    /// ContainerStatus.
    ///
    /// # Panics
    /// If there is no such container.
    #[track_caller]
    pub fn status(&self, id: &str) -> wire::ContainerStatus {
        self.verbose(id).expect("a status").0
    }

    /// The OCI spec of a container.
    ///
    /// # Panics
    /// If there is no such container.
    #[track_caller]
    pub fn spec(&self, id: &str) -> serde_json::Value {
        self.verbose(id).expect("a status").1["runtimeSpec"].clone()
    }

    /// The pid of a container that runs.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn pid(&self, id: &str) -> i32 {
        let pid = self.verbose(id).expect("a status").1["pid"].as_i64();
        pid.and_then(|pid| i32::try_from(pid).ok()).expect("a pid")
    }

    /// Waits for the end of a container.
    #[track_caller]
    pub fn exits(&self, id: &str) -> wire::ContainerStatus {
        eventually("the container ends", || self.status(id).state() == ContainerExited);
        self.status(id)
    }

    /// What a container has said, as its log has it.
    pub fn log(&self, name: &str) -> String {
        let path = PathBuf::from(&self.pod_config.log_directory).join(format!("{name}.log"));
        fs::read_to_string(path).unwrap_or_default()
    }

    /// ExecSync of a script.
    ///
    /// # Errors
    /// What the daemon answers.
    #[track_caller]
    pub fn sync(&self, id: &str, script: &str, timeout: i64) -> Result<wire::ExecSyncResponse, Status> {
        let cmd = ["sh", "-c", script].map(str::to_owned).to_vec();
        let request = wire::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout };
        let mut client = self.cri.client().max_decoding_message_size(64 << 20);
        self.cri.call(client.exec_sync(request))
    }

    /// Attaches to a container.
    ///
    /// # Panics
    /// If that is not to be had.
    #[track_caller]
    pub fn attach(&self, id: &str, tty: bool) -> WebSocket {
        let (container_id, stderr) = (id.to_owned(), !tty);
        let request = wire::AttachRequest { container_id, stdin: true, stdout: true, stderr, tty };
        let url = self.cri.call(self.cri.client().attach(request)).expect("a place to attach to").url;
        WebSocket::open(&url, "v5.channel.k8s.io")
    }

    /// UpdateContainerResources.
    ///
    /// # Errors
    /// What the daemon answers.
    #[track_caller]
    pub fn update(&self, id: &str, linux: wire::LinuxContainerResources) -> Result<(), Status> {
        let request = wire::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(linux),
            ..Default::default()
        };
        self.cri.call(self.cri.client().update_container_resources(request)).map(drop)
    }

    /// Kills the daemon, and starts another one.
    #[track_caller]
    pub fn restart(&self) {
        self.cri.daemon.kill();
        self.cri.launch();
    }
}
