//! What a kubelet waits for: pods and containers, made and ended through CRI.
//!
//! ```text
//!  life       each call of a life of a pod with a container, 1, 4 and 16 at a time
//!  own        the same beside what the runtime and the network plugins take by themselves; ours with its built-in network
//!  thousand   lists and statuses of a thousand pods, memory of a pod, a start over a hundred, processors for the usage of a thousand
//!             containers
//! ```

pub mod life;
pub mod own;
pub mod thousand;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use api::cri as wire;
use containerd_tests::archive::{self, Image, Packing};
use containerd_tests::{Cri, eventually};
use serde_json::json;
use tonic::Status;

use crate::sides::{Programs, binaries};
use crate::statistics::{Figures, Samples};

/// The pause image of the peer; ours has its own pause.
const PAUSE: &str = "docker.io/library/bench-pause:latest";
/// A container of one process that ends at once when it is asked to: as in critest, it shares the pod's process namespace, of which it
/// is not the first.
const COMMAND: [&str; 2] = ["sleep", "1000000"];
/// How long a container may take to end by itself, in seconds.
const GRACE: i64 = 30;

/// A daemon with a kubelet's connection and an image.
pub struct Node {
    /// The daemon.
    pub cri: Cri,
}

/// The pods' network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// As the daemon has it.
    Own,
    /// The machine's.
    Host,
}

/// Both sides.
pub struct Nodes {
    /// This project's.
    pub ours: Node,
    /// The other.
    pub peer: Node,
}

impl Nodes {
    /// Prepares both, with what `section` says of their configurations, lets `change` look at each, and starts them. None,
    /// said aloud, where there are no plugins, or where the peer is no containerd 2.
    pub fn start(
        programs: &Programs,
        section: impl Fn(&Path) -> Result<String>,
        change: impl Fn(&Cri) -> Result<()>,
    ) -> Result<Option<Self>> {
        if !is_second(&programs.peer)? {
            eprintln!("NOT RUN: rows of CRI: {} is no containerd 2", programs.peer.display());
            return Ok(None);
        }
        let pinned = format!("[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = {PAUSE:?}\n");
        let start = |dir: &Path, more: &str| -> Result<Option<Node>> {
            let section = section(dir)? + more;
            let Some(cri) = Cri::prepare_programs(binaries(dir), &section) else { return Ok(None) };
            change(&cri)?;
            Ok(Some(Node::of(cri)))
        };
        let Some(ours) = start(&programs.ours, "")? else {
            return Ok(None);
        };
        Ok(start(&programs.peer, &pinned)?.map(|peer| Self { ours, peer }))
    }

    /// As they are.
    pub fn plain(programs: &Programs) -> Result<Option<Self>> {
        Self::start(programs, |_| Ok(String::new()), |_| Ok(()))
    }

    /// Both, ours first.
    pub fn both(&self) -> [&Node; 2] {
        [&self.ours, &self.peer]
    }

    /// Where a row keeps the figures of one of them.
    pub fn side<'a>(&self, row: &'a mut Figures, node: &Node) -> &'a mut Samples {
        if std::ptr::eq(node, &raw const self.ours) { &mut row.ours } else { &mut row.peer }
    }
}

fn is_second(peer: &Path) -> Result<bool> {
    let said =
        Command::new(peer.join("containerd")).arg("--version").output().context("the peer's version")?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    Ok(said.split_whitespace().any(|word| word.trim_start_matches('v').starts_with("2.")))
}

impl Node {
    fn of(cri: Cri) -> Self {
        cri.launch();
        let image = cri.image();
        let pause = Image::named(PAUSE).layer(&archive::base_layer(), Packing::Gzip);
        let pause = pause.config("Cmd", json!(COMMAND)).oci();
        let pause = cri.daemon.archive("pause.tar", &pause);
        cri.daemon.ctr(&["-n", containerd_tests::cri::NAMESPACE, "images", "import", &pause]).ok();
        for image in [image, PAUSE] {
            let image = wire::ImageSpec { image: image.to_owned(), ..Default::default() };
            let request = wire::ImageStatusRequest { image: Some(image), verbose: false };
            eventually("the image is known", || {
                let answer = cri.call(cri.images().image_status(request.clone()));
                answer.is_ok_and(|answer| answer.image.is_some())
            });
        }
        Self { cri }
    }

    /// RunPodSandbox.
    pub fn run_pod(&self, name: &str, net: Net) -> Result<String> {
        let mut config = self.cri.pod_config(name);
        if net == Net::Host {
            // It has the machine's name, too.
            config.hostname.clear();
            let options =
                wire::NamespaceOption { network: wire::NamespaceMode::Node.into(), ..Default::default() };
            if let Some(security) = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut()) {
                security.namespace_options = Some(options);
            }
        }
        self.cri.run_pod(config).map_err(refused("run a pod"))
    }

    /// CreateContainer, in the pod `pod` called `name`.
    pub fn create(&self, (pod, name): (&str, &str), container: &str) -> Result<String> {
        let config = wire::ContainerConfig {
            metadata: Some(wire::ContainerMetadata { name: container.to_owned(), attempt: 0 }),
            image: Some(wire::ImageSpec { image: archive::IMAGE.to_owned(), ..Default::default() }),
            command: COMMAND.map(str::to_owned).to_vec(),
            log_path: format!("{container}.log"),
            linux: Some(wire::LinuxContainerConfig::default()),
            ..Default::default()
        };
        let request = wire::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config),
            sandbox_config: Some(self.cri.pod_config(name)),
        };
        let answer = self.cri.call(self.cri.client().create_container(request));
        Ok(answer.map_err(refused("create a container"))?.container_id)
    }

    /// StartContainer.
    pub fn start(&self, id: &str) -> Result<()> {
        let request = wire::StartContainerRequest { container_id: id.to_owned() };
        self.cri
            .call(self.cri.client().start_container(request))
            .map_err(refused("start a container"))
            .map(drop)
    }

    /// StopContainer.
    pub fn stop(&self, id: &str) -> Result<()> {
        let request = wire::StopContainerRequest { container_id: id.to_owned(), timeout: GRACE };
        self.cri
            .call(self.cri.client().stop_container(request))
            .map_err(refused("stop a container"))
            .map(drop)
    }

    /// RemoveContainer.
    pub fn remove(&self, id: &str) -> Result<()> {
        let request = wire::RemoveContainerRequest { container_id: id.to_owned() };
        let answer = self.cri.call(self.cri.client().remove_container(request));
        answer.map_err(refused("remove a container")).map(drop)
    }

    /// StopPodSandbox.
    pub fn stop_pod(&self, id: &str) -> Result<()> {
        self.cri.stop_pod(id).map_err(refused("stop a pod"))
    }

    /// RemovePodSandbox.
    pub fn remove_pod(&self, id: &str) -> Result<()> {
        self.cri.remove_pod(id).map_err(refused("remove a pod"))
    }
}

/// How an answer that is an error is told.
pub fn refused(what: &'static str) -> impl Fn(Status) -> anyhow::Error {
    move |status| anyhow!("{what}: {status}")
}

/// Does something, and says how long it took.
pub fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let started = Instant::now();
    let done = work()?;
    Ok((done, started.elapsed()))
}
