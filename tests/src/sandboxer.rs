//! A sandboxer in another process, as containerd's proxy plugins of the type `sandbox` are: it makes sandboxes with a shim each, and says
//! that tasks of their containers are made there. What it knows is in files, so that it can be killed and started again; what it is
//! asked is written down; what it does wrong a file says.
//!
//! ```text
//!  <daemon>/sandboxer/socket       where it listens            asked     a line for each call: the method, the id, and more
//!                     left/<id>/   a sandbox: its bundle       fault     a line for each fault: the method, and [`Sandboxer::fault`]
//! ```
//!
//! The process is the test program itself, which executes one test by name: [`serve`].

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use api::containerd::runtime::bootstrap::v1::{BootstrapParams, BootstrapResult, LogLevel};
use api::containerd::runtime::sandbox::v1 as shim;
use api::containerd::services::sandbox::v1 as wire;
use api::ttrpc::{HEADER, Header, KeyValue, Kind};
use grpc::sandbox::controller_server::{Controller, ControllerServer};
use prost::Message;
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::cri::{Cri, NAMESPACE, RUNTIME};
use crate::{binaries, deadline};

/// The name of the plugin, and of the runtime handler that uses it.
pub const NAME: &str = "vm";
/// What a runtime is called for which nobody has a program.
pub const RUNTIME_TYPE: &str = "io.containerd.nobody-has-this.v1";

/// The test's side of it.
pub struct Sandboxer {
    dir: PathBuf,
    variables: Vec<(&'static str, PathBuf)>,
    child: Mutex<Option<Child>>,
}

/// Sets how long the daemon, which was not started yet, waits for an answer of sandboxers.
///
/// # Panics
/// If the configuration cannot be written.
pub fn set_patience(cri: &Cri, patience: &str) {
    cri.set("timeouts", &format!("'io.containerd.timeout.sandboxer.call' = '{patience}'"));
}

impl Sandboxer {
    /// Writes it into the configuration of a daemon that was not started yet; it is the default handler's. It does not run yet.
    ///
    /// # Panics
    /// If something cannot be written.
    pub fn of(cri: &Cri) -> Self {
        let dir = cri.daemon.dir().join("sandboxer");
        fs::create_dir_all(dir.join("left")).expect("a directory");
        let address = dir.join("socket");
        cri.set(&format!("proxy_plugins.{NAME}"), &format!("type = 'sandbox'\naddress = {address:?}"));
        cri.set(&format!("{RUNTIME}.containerd"), &format!("default_runtime_name = '{NAME}'"));
        let keys = format!("runtime_type = '{RUNTIME_TYPE}'\nsandboxer = '{NAME}'");
        cri.set(&format!("{RUNTIME}.containerd.runtimes.{NAME}"), &keys);
        set_patience(cri, "60s");
        let variables = vec![
            ("SANDBOXER_DIR", dir.clone()),
            ("SANDBOXER_DAEMON", cri.daemon.address()),
            ("SANDBOXER_SHIM", binaries::tested().shim_dir.join("containerd-shim-runc-v2")),
            ("SANDBOXER_SOCKETS", cri.daemon.sockets().to_owned()),
        ];
        Self { dir, variables, child: Mutex::new(None) }
    }

    /// Starts it, by executing the test of this name, which is to call [`serve`]; returns when it listens.
    ///
    /// # Panics
    /// If it does not come to that.
    pub fn start(&self, test: &str) {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args([test, "--exact", "--nocapture"]).envs(self.variables.iter().cloned());
        let path = binaries::search_path(&binaries::tested().shim_dir);
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log")).expect("a log");
        command.env("PATH", path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("start the sandboxer");
        *self.child.lock().expect("a child") = Some(child);
        deadline::eventually("the sandboxer listens", || UnixStream::connect(self.address()).is_ok());
    }

    /// Ends it by SIGKILL. What it has made goes on.
    ///
    /// # Panics
    /// If it cannot be waited for.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().expect("a child").take() {
            child.kill().expect("kill the sandboxer");
            child.wait().expect("wait for the sandboxer");
        }
        let _ = fs::remove_file(self.address());
    }

    /// Where it listens.
    pub fn address(&self) -> PathBuf {
        self.dir.join("socket")
    }

    /// What it does wrong from now on, each a method (`Create`) and one of
    ///
    /// ```text
    ///  fail       an error of no class              late       the same, when it has been done
    ///  hang       no answer                         missing    NotFound
    ///  unknown    Unimplemented                     say TEXT   an address, for Start and Status; a state, for Status
    /// ```
    ///
    /// # Panics
    /// If that cannot be written.
    pub fn fault(&self, faults: &[&str]) {
        fs::write(self.dir.join("fault"), faults.join("\n")).expect("write the fault");
    }

    /// What it was asked, in order.
    pub fn asked(&self) -> Vec<String> {
        let asked = fs::read_to_string(self.dir.join("asked")).unwrap_or_default();
        asked.lines().map(str::to_owned).collect()
    }

    /// How often it was asked for a method.
    pub fn count(&self, method: &str) -> usize {
        self.asked().iter().filter(|line| line.split(' ').next() == Some(method)).count()
    }

    /// The ids of its sandboxes.
    ///
    /// # Panics
    /// If they cannot be read.
    pub fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.join("left")).expect("a directory").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// The pid of the process that holds a sandbox's namespaces.
    ///
    /// # Panics
    /// If there is none.
    pub fn pid(&self, id: &str) -> i32 {
        let pid = fs::read_to_string(self.dir.join("left").join(id).join("init.pid")).expect("a pid");
        pid.trim().parse().expect("a number")
    }
}

impl Drop for Sandboxer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            eprintln!("--- the sandboxer was asked\n{}\n--- its log\n{log}---", self.asked().join("\n"));
        }
        self.kill();
    }
}

/// Is the sandboxer, until it is killed, if this process was started to be one.
///
/// # Panics
/// If it cannot serve.
pub fn serve() {
    let Some(dir) = std::env::var_os("SANDBOXER_DIR").map(PathBuf::from) else { return };
    let variable = |name: &str| PathBuf::from(std::env::var_os(name).expect("a variable"));
    let house = House {
        socket: dir.join("socket"),
        daemon: variable("SANDBOXER_DAEMON"),
        shim: variable("SANDBOXER_SHIM"),
        sockets: variable("SANDBOXER_SOCKETS"),
        dir,
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async move {
        let listener = tokio::net::UnixListener::bind(&house.socket).expect("listen");
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        let service = ControllerServer::new(house);
        let server = tonic::transport::Server::builder().add_service(service);
        server.serve_with_incoming(incoming).await.expect("serve");
    });
}

/// The process's side of it.
struct House {
    dir: PathBuf,
    socket: PathBuf,
    daemon: PathBuf,
    shim: PathBuf,
    sockets: PathBuf,
}

type Answer<T> = Result<Response<T>, Status>;

fn io<T>(done: std::io::Result<T>) -> Result<T, Status> {
    done.map_err(|error| Status::internal(error.to_string()))
}

impl House {
    /// Writes down what is asked, and does wrong what it is to do wrong. What is to be said instead of what is true, if anything.
    async fn asked(&self, method: &str, about: &str) -> Result<Option<String>, Status> {
        let asked = fs::File::options().create(true).append(true).open(self.dir.join("asked"));
        io(io(asked)?.write_all(format!("{method} {about}\n").as_bytes()))?;
        match self.fault(method) {
            Some(("hang", _)) => std::future::pending().await,
            Some(("fail", _)) => Err(Status::internal("out of luck")),
            Some(("missing", _)) => Err(Status::not_found("never heard of it")),
            Some(("unknown", _)) => Err(Status::unimplemented("what is that")),
            Some(("say", text)) => Ok(Some(text)),
            _ => Ok(None),
        }
    }

    /// What was done is not told.
    fn late<T>(&self, method: &str, answer: T) -> Answer<T> {
        match self.fault(method) {
            Some(("late", _)) => Err(Status::internal("out of luck, late")),
            _ => Ok(Response::new(answer)),
        }
    }

    fn fault(&self, method: &str) -> Option<(&'static str, String)> {
        const KINDS: [&str; 6] = ["hang", "fail", "missing", "unknown", "say", "late"];
        let faults = fs::read_to_string(self.dir.join("fault")).unwrap_or_default();
        let fault = faults
            .lines()
            .find_map(|line| line.strip_prefix(method)?.strip_prefix(' ').map(str::to_owned))?;
        let (kind, text) = fault.split_once(' ').unwrap_or((&fault, ""));
        let kind = KINDS.into_iter().find(|known| *known == kind)?;
        Some((kind, text.to_owned()))
    }

    fn place(&self, id: &str) -> PathBuf {
        self.dir.join("left").join(id)
    }

    /// Where the shim of a sandbox listens.
    fn address(&self, id: &str) -> Result<String, Status> {
        fs::read_to_string(self.place(id).join("shim"))
            .map_err(|_| Status::not_found(format!("sandbox {id}")))
    }

    /// Writes the bundle of a sandbox: a process that does nothing, in the network that it is given.
    fn bundle(&self, request: &wire::ControllerCreateRequest) -> Result<(), Status> {
        let config = request.options.clone().unwrap_or_default();
        let config = api::cri::PodSandboxConfig::decode(config.value.as_slice());
        let config = config.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let group = config.linux.map(|linux| linux.cgroup_parent).unwrap_or_default();
        // Clients of containerd's own API give a spec.
        let given = request.sandbox.clone().unwrap_or_default().spec.unwrap_or_default();
        let given: serde_json::Value = serde_json::from_slice(&given.value).unwrap_or_default();
        let group = match given["linux"]["cgroupsPath"].as_str() {
            Some(path) => path.to_owned(),
            None => format!("{group}/{}", request.sandbox_id),
        };
        let place = self.place(&request.sandbox_id);
        io(fs::create_dir_all(place.join("root/proc")))?;
        for dir in ["rootfs", "work"] {
            io(fs::create_dir_all(place.join(dir)))?;
        }
        io(fs::copy(binaries::busybox(), place.join("root/busybox")))?;
        let mut namespaces: Vec<_> =
            ["pid", "mount", "ipc", "uts"].iter().map(|kind| json!({"type": kind})).collect();
        if !request.netns_path.is_empty() {
            namespaces.push(json!({"type": "network", "path": request.netns_path}));
        }
        let script = "trap 'exit 0' TERM; /busybox sleep 1000 & wait";
        let spec = json!({
            "ociVersion": "1.2.0",
            "root": {"path": place.join("root")},
            "process": {
                "args": ["/busybox", "sh", "-c", script], "cwd": "/", "user": {"uid": 0, "gid": 0}, "capabilities": {}
            },
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"namespaces": namespaces, "cgroupsPath": group},
        });
        io(fs::write(place.join("config.json"), spec.to_string()))
    }

    /// Starts the shim of a sandbox; where it listens.
    fn launch(&self, id: &str) -> Result<String, Status> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let params = BootstrapParams {
            instance_id: id.to_owned(),
            namespace: NAMESPACE.to_owned(),
            log_level: LogLevel::Info.into(),
            containerd_ttrpc_address: format!("{}.ttrpc", self.daemon.display()),
            containerd_grpc_address: text(&self.daemon),
            socket_dir: Some(text(&self.sockets)),
            ..Default::default()
        };
        let mut command = Command::new(&self.shim);
        command.args(["-namespace", NAMESPACE, "-address", &text(&self.daemon), "-id", id, "start"]);
        command.current_dir(self.place(id)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = io(command.spawn())?;
        let stdin = child.stdin.take();
        io(stdin.map_or(Ok(()), |mut stdin| stdin.write_all(&params.encode_to_vec())))?;
        let mut said = Vec::new();
        let told = child.stdout.take().map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut said));
        io(told)?;
        io(child.wait())?;
        let result = BootstrapResult::decode(said.as_slice()).map_err(|e| Status::internal(e.to_string()))?;
        io(fs::write(self.place(id).join("shim"), &result.address))?;
        Ok(result.address)
    }

    /// One call of the shim of a sandbox.
    async fn shim<R: Message + Default + 'static>(
        &self,
        id: &str,
        method: &'static str,
        request: impl Message,
    ) -> Result<R, Status> {
        let (address, payload) = (self.address(id)?, request.encode_to_vec());
        let asked = tokio::task::spawn_blocking(move || call(&address, method, payload));
        let answer = asked.await.map_err(|error| Status::internal(error.to_string()))??;
        R::decode(answer.as_slice()).map_err(|error| Status::internal(error.to_string()))
    }

    fn endpoint(&self, id: &str, said: Option<String>) -> Result<(String, u32), Status> {
        match said.as_deref() {
            None => Ok((format!("ttrpc+{}", self.address(id)?), 3)),
            Some("nothing") => Ok((String::new(), 0)),
            Some("old") => Ok((format!("ttrpc+{}", self.address(id)?), 1)),
            Some(text) => Ok((text.to_owned(), 3)),
        }
    }
}

/// One call over a connection of its own.
fn call(address: &str, method: &str, payload: Vec<u8>) -> Result<Vec<u8>, Status> {
    let away = |error: std::io::Error| Status::not_found(format!("the shim is gone: {error}"));
    let path = address.strip_prefix("unix://").unwrap_or(address);
    let mut stream = UnixStream::connect(path).map_err(away)?;
    let request = api::ttrpc::Request {
        service: "containerd.runtime.sandbox.v1.Sandbox".to_owned(),
        method: method.to_owned(),
        payload,
        metadata: vec![KeyValue { key: api::ttrpc::NAMESPACE.to_owned(), value: NAMESPACE.to_owned() }],
        ..Default::default()
    };
    let frame = api::ttrpc::frame(Kind::Request, 1, &request).map_err(|e| Status::internal(e.to_string()))?;
    stream.write_all(&frame).map_err(away)?;
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).map_err(away)?;
    let mut body = vec![0; Header::decode(&header).length];
    stream.read_exact(&mut body).map_err(away)?;
    let answer =
        api::ttrpc::Response::decode(body.as_slice()).map_err(|e| Status::internal(e.to_string()))?;
    match answer.status {
        Some(status) if status.code != 0 => Err(Status::new(status.code.into(), status.message)),
        _ => Ok(answer.payload),
    }
}

#[tonic::async_trait]
impl Controller for House {
    async fn create(
        &self,
        request: Request<wire::ControllerCreateRequest>,
    ) -> Answer<wire::ControllerCreateResponse> {
        let namespace = request.metadata().get("containerd-namespace").cloned();
        let request = request.into_inner();
        let sandbox = request.sandbox.clone().unwrap_or_default();
        let about = format!(
            "{} {} {} {:?} {:?}",
            request.sandbox_id,
            request.sandboxer,
            sandbox.runtime.unwrap_or_default().name,
            namespace.as_ref().and_then(|namespace| namespace.to_str().ok()).unwrap_or_default(),
            sandbox.extensions.keys().collect::<Vec<_>>(),
        );
        self.asked("Create", &about).await?;
        self.bundle(&request)?;
        let id = request.sandbox_id;
        self.launch(&id)?;
        let bundle_path = self.place(&id).to_string_lossy().into_owned();
        let create = shim::CreateSandboxRequest { sandbox_id: id.clone(), bundle_path, ..Default::default() };
        self.shim::<shim::CreateSandboxResponse>(&id, "CreateSandbox", create).await?;
        self.late("Create", wire::ControllerCreateResponse { sandbox_id: id })
    }

    async fn start(
        &self,
        request: Request<wire::ControllerStartRequest>,
    ) -> Answer<wire::ControllerStartResponse> {
        let id = request.into_inner().sandbox_id;
        let said = self.asked("Start", &id).await?;
        let start = shim::StartSandboxRequest { sandbox_id: id.clone() };
        let started: shim::StartSandboxResponse = self.shim(&id, "StartSandbox", start).await?;
        let label = said.as_deref().and_then(|said| said.strip_prefix("label "));
        let mut labels = std::collections::BTreeMap::from([("of".to_owned(), "the sandboxer".to_owned())]);
        labels.extend(label.map(|label| (label.to_owned(), "x".repeat(5000))));
        let (address, version) = self.endpoint(&id, said.filter(|said| !said.starts_with("label ")))?;
        let (pid, created_at) = (started.pid, started.created_at);
        let answer = wire::ControllerStartResponse {
            sandbox_id: id,
            pid,
            created_at,
            labels,
            address,
            version,
            spec: None,
        };
        self.late("Start", answer)
    }

    async fn platform(
        &self,
        request: Request<wire::ControllerPlatformRequest>,
    ) -> Answer<wire::ControllerPlatformResponse> {
        let said = self.asked("Platform", &request.into_inner().sandbox_id).await?;
        let os = said.unwrap_or_else(|| "linux".to_owned());
        let platform =
            api::containerd::types::Platform { os, architecture: "amd64".to_owned(), ..Default::default() };
        Ok(Response::new(wire::ControllerPlatformResponse { platform: Some(platform) }))
    }

    async fn stop(
        &self,
        request: Request<wire::ControllerStopRequest>,
    ) -> Answer<wire::ControllerStopResponse> {
        let request = request.into_inner();
        self.asked("Stop", &request.sandbox_id).await?;
        let stop = shim::StopSandboxRequest { sandbox_id: request.sandbox_id.clone(), timeout_secs: 5 };
        self.shim::<shim::StopSandboxResponse>(&request.sandbox_id, "StopSandbox", stop).await?;
        self.late("Stop", wire::ControllerStopResponse {})
    }

    async fn wait(
        &self,
        request: Request<wire::ControllerWaitRequest>,
    ) -> Answer<wire::ControllerWaitResponse> {
        let id = request.into_inner().sandbox_id;
        self.asked("Wait", &id).await?;
        let wait = shim::WaitSandboxRequest { sandbox_id: id.clone() };
        let end: shim::WaitSandboxResponse = self.shim(&id, "WaitSandbox", wait).await?;
        let (exit_status, exited_at) = (end.exit_status, end.exited_at);
        Ok(Response::new(wire::ControllerWaitResponse { exit_status, exited_at }))
    }

    async fn status(
        &self,
        request: Request<wire::ControllerStatusRequest>,
    ) -> Answer<wire::ControllerStatusResponse> {
        let wire::ControllerStatusRequest { sandbox_id: id, verbose, .. } = request.into_inner();
        let said = self.asked("Status", &format!("{id} {verbose}")).await?;
        let ask = shim::SandboxStatusRequest { sandbox_id: id.clone(), verbose };
        let told: shim::SandboxStatusResponse = self.shim(&id, "SandboxStatus", ask).await?;
        let (address, version) = self.endpoint(&id, said)?;
        let info = [("info", r#"{"vmPid": 7, "pid": 8}"#), ("more", "of it")];
        let info = info.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Ok(Response::new(wire::ControllerStatusResponse {
            sandbox_id: id,
            pid: told.pid,
            state: told.state,
            info: if verbose { info.into() } else { Default::default() },
            created_at: told.created_at,
            exited_at: told.exited_at,
            extra: None,
            address,
            version,
        }))
    }

    async fn shutdown(
        &self,
        request: Request<wire::ControllerShutdownRequest>,
    ) -> Answer<wire::ControllerShutdownResponse> {
        let id = request.into_inner().sandbox_id;
        self.asked("Shutdown", &id).await?;
        let shutdown = shim::ShutdownSandboxRequest { sandbox_id: id.clone() };
        match self.shim::<shim::ShutdownSandboxResponse>(&id, "ShutdownSandbox", shutdown).await {
            Err(error) if error.code() != tonic::Code::NotFound => return Err(error),
            _ => {}
        }
        if self.place(&id).exists() {
            io(fs::remove_dir_all(self.place(&id)))?;
        }
        self.late("Shutdown", wire::ControllerShutdownResponse {})
    }

    async fn metrics(
        &self,
        request: Request<wire::ControllerMetricsRequest>,
    ) -> Answer<wire::ControllerMetricsResponse> {
        let id = request.into_inner().sandbox_id;
        self.asked("Metrics", &id).await?;
        let ask = shim::SandboxMetricsRequest { sandbox_id: id.clone() };
        let told: shim::SandboxMetricsResponse = self.shim(&id, "SandboxMetrics", ask).await?;
        Ok(Response::new(wire::ControllerMetricsResponse { metrics: told.metrics }))
    }

    async fn update(
        &self,
        request: Request<wire::ControllerUpdateRequest>,
    ) -> Answer<wire::ControllerUpdateResponse> {
        let request = request.into_inner();
        let extensions = request.sandbox.unwrap_or_default().extensions;
        let told: Vec<_> = extensions.keys().collect();
        self.asked("Update", &format!("{} {:?} {told:?}", request.sandbox_id, request.fields)).await?;
        Ok(Response::new(wire::ControllerUpdateResponse {}))
    }
}
