//! A shim of its own for each test, started as containerd starts it, with a client and a daemon's event socket.
#![allow(dead_code, missing_docs, clippy::unwrap_used, reason = "each test binary uses its part")]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::containerd::runc::v1::Options;
use api::containerd::services::events::ttrpc::v1::ForwardRequest;
use api::containerd::task::v3 as wire;
use api::ttrpc::{self, HEADER, Header, Kind, Request, Response};
use prost::Message;
use types::Result;

pub const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-runc-v2");
pub const V2: &str = "containerd.task.v2.Task";
pub const V3: &str = "containerd.task.v3.Task";
/// Nothing here should take as long.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "{what} did not happen in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process has ended; it may still be a zombie, where process 1 is slow to collect.
pub fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// A blocking client of the shim's socket.
pub struct Client {
    stream: UnixStream,
    next: u32,
}

impl Client {
    pub fn connect(address: &str) -> Self {
        let stream = UnixStream::connect(address.strip_prefix("unix://").unwrap()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self { stream, next: 1 }
    }

    /// Sends a request without waiting for the answer.
    pub fn send(&mut self, service: &str, method: &str, message: &impl Message, timeout: Duration) -> u32 {
        let request = Request {
            service: service.into(),
            method: method.into(),
            payload: message.encode_to_vec(),
            timeout_nano: i64::try_from(timeout.as_nanos()).unwrap(),
            metadata: Vec::new(),
        };
        let stream = self.next;
        self.next += 2;
        self.stream.write_all(&ttrpc::frame(Kind::Request, stream, &request).unwrap()).unwrap();
        stream
    }

    /// The next answer, whosever it is.
    pub fn receive(&mut self) -> (u32, Result<Vec<u8>>) {
        let mut header = [0; HEADER];
        self.stream.read_exact(&mut header).unwrap();
        let header = Header::decode(&header);
        let mut message = vec![0; header.length];
        self.stream.read_exact(&mut message).unwrap();
        (header.stream, ttrpc::result(Response::decode(message.as_slice()).unwrap()))
    }

    pub fn raw(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    pub fn call_of<R: Message + Default>(
        &mut self,
        service: &str,
        method: &str,
        message: &impl Message,
    ) -> Result<R> {
        let sent = self.send(service, method, message, Duration::ZERO);
        let (stream, result) = self.receive();
        assert_eq!(stream, sent);
        result.map(|payload| R::decode(payload.as_slice()).unwrap())
    }

    pub fn call<R: Message + Default>(&mut self, method: &str, message: &impl Message) -> Result<R> {
        self.call_of(V3, method, message)
    }
}

/// What the daemon's socket has received: topic and payload.
pub type Events = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// Answers Forward on `path`, as the daemon does, until the test ends.
pub fn serve_events(path: &Path) -> Events {
    let listener = UnixListener::bind(path).unwrap();
    let events = Events::default();
    let seen = Arc::clone(&events);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || forward(stream, &seen));
        }
    });
    events
}

fn forward(mut stream: UnixStream, seen: &Events) -> Option<()> {
    loop {
        let mut header = [0; HEADER];
        stream.read_exact(&mut header).ok()?;
        let header = Header::decode(&header);
        let mut message = vec![0; header.length];
        stream.read_exact(&mut message).ok()?;
        let request = Request::decode(message.as_slice()).ok()?;
        let envelope = ForwardRequest::decode(request.payload.as_slice()).ok()?.envelope?;
        seen.lock().ok()?.push((envelope.topic, envelope.event?.value));
        stream.write_all(&ttrpc::frame(Kind::Response, header.stream, &Response::default()).ok()?).ok()?;
    }
}

/// A directory with bundles, a runc root, and a shim.
pub struct Rig {
    pub dir: tempfile::TempDir,
    pub address: String,
    pub pid: u32,
    pub events: Events,
    first: String,
    variables: Vec<(&'static str, &'static str)>,
    flags: Vec<&'static str>,
}

impl Rig {
    /// A shim started for the container `id`, whose bundle exists.
    pub fn new(id: &str) -> Self {
        Self::with_environment(id, &[])
    }

    /// The same, with variables in its environment.
    pub fn with_environment(id: &str, variables: &[(&'static str, &'static str)]) -> Self {
        Self::with(id, variables, &[])
    }

    /// The same, with more flags as well.
    pub fn with(id: &str, variables: &[(&'static str, &'static str)], flags: &[&'static str]) -> Self {
        let dir = tempfile::Builder::new().prefix("shim").tempdir().unwrap();
        let events = serve_events(&dir.path().join("d.sock.ttrpc"));
        let rootfs = dir.path().join("image/bin");
        std::fs::create_dir_all(&rootfs).unwrap();
        std::fs::copy(busybox(), rootfs.join("busybox")).unwrap();
        for name in ["sh", "true", "cat", "sleep", "echo", "dd", "tty", "stty", "seq", "kill"] {
            std::os::unix::fs::symlink("busybox", rootfs.join(name)).unwrap();
        }
        for name in ["proc", "dev", "tmp"] {
            std::fs::create_dir(dir.path().join("image").join(name)).unwrap();
        }
        let mut rig = Self {
            dir,
            address: String::new(),
            pid: 0,
            events,
            first: id.to_owned(),
            variables: variables.to_vec(),
            flags: flags.to_vec(),
        };
        rig.bundle(id, &["true"]);
        rig.address = rig.start(id, "2");
        let response: wire::ConnectResponse =
            rig.client().call("Connect", &wire::ConnectRequest::default()).unwrap();
        rig.pid = response.shim_pid;
        rig
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The command that containerd executes.
    pub fn command(&self, id: &str, action: &str) -> Command {
        let mut command = Command::new(SHIM);
        command
            .args(["-namespace", "test", "-id", id, "-address"])
            .arg(self.path("d.sock"))
            .arg("-publish-binary")
            .arg(self.path("publish"))
            .args(&self.flags)
            .arg(action)
            .env("TTRPC_ADDRESS", self.path("d.sock.ttrpc"))
            .env_remove("MAX_SHIM_VERSION")
            .envs(self.variables.iter().copied())
            .current_dir(self.path(id))
            .stdin(Stdio::null());
        command
    }

    /// `start` with the JSON answer; its address.
    pub fn start(&self, id: &str, version: &str) -> String {
        let output = self.command(id, "start").env("MAX_SHIM_VERSION", version).output().unwrap();
        let text = checked(&output);
        let address = text.split("\"address\":\"").nth(1).unwrap().split('"').next().unwrap();
        address.to_owned()
    }

    /// Writes the bundle of a container that runs `args`.
    pub fn bundle(&self, id: &str, args: &[&str]) -> PathBuf {
        self.bundle_with(id, args, "")
    }

    /// The same, with annotations (`,"k":"v"`).
    pub fn bundle_with(&self, id: &str, args: &[&str], annotations: &str) -> PathBuf {
        let bundle = self.path(id);
        std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
        // On disk, as the daemon makes it; what else is in the bundle may be in memory.
        let work = self.path("root/test").join(id);
        std::fs::create_dir_all(&work).unwrap();
        let _ = std::os::unix::fs::symlink(&work, bundle.join("work"));
        let args = args.iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(",");
        let group = format!("\"io.containerd.runc.v2.group\":\"{}\"{annotations}", self.first);
        // Tests that run side by side use the same ids.
        let unique = self.dir.path().file_name().unwrap().to_str().unwrap();
        let config = format!(
            r#"{{"ociVersion":"1.0.2","annotations":{{{group}}},"hostname":"h",
            "process":{{"user":{{"uid":0,"gid":0}},"args":[{args}],"env":["PATH=/bin"],"cwd":"/"}},
            "root":{{"path":"rootfs"}},
            "mounts":[{{"destination":"/proc","type":"proc","source":"proc"}},
                {{"destination":"/dev","type":"tmpfs","source":"tmpfs"}},
                {{"destination":"/dev/pts","type":"devpts","source":"devpts","options":["newinstance","ptmxmode=0666"]}}],
            "linux":{{"cgroupsPath":"/containerd-rs-test-{}-{unique}-{id}","namespaces":[{{"type":"pid"}},{{"type":"mount"}},
                {{"type":"ipc"}},{{"type":"uts"}}]}}}}"#,
            std::process::id(),
        );
        std::fs::write(bundle.join("config.json"), config).unwrap();
        bundle
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.address)
    }

    pub fn options(&self) -> Options {
        Options { root: self.path("runc").to_str().unwrap().into(), ..Options::default() }
    }

    pub fn create_request(&self, id: &str) -> wire::CreateTaskRequest {
        wire::CreateTaskRequest {
            id: id.into(),
            bundle: self.path(id).to_str().unwrap().into(),
            rootfs: vec![api::containerd::types::Mount {
                r#type: "bind".into(),
                source: self.path("image").to_str().unwrap().into(),
                target: String::new(),
                options: vec!["rbind".into(), "rw".into()],
            }],
            options: Some(api::any::to_wire(api::any::pack(&self.options()))),
            ..Default::default()
        }
    }

    /// Makes and starts a container; its pid.
    pub fn run(&self, id: &str, args: &[&str]) -> u32 {
        self.bundle(id, args);
        self.run_as(self.create_request(id))
    }

    pub fn run_as(&self, request: wire::CreateTaskRequest) -> u32 {
        let mut client = self.client();
        let id = request.id.clone();
        let created: wire::CreateTaskResponse = client.call("Create", &request).unwrap();
        let started: wire::StartResponse =
            client.call("Start", &wire::StartRequest { id, exec_id: String::new() }).unwrap();
        assert_eq!(created.pid, started.pid);
        created.pid
    }

    pub fn wait(&self, id: &str, exec: &str) -> u32 {
        let request = wire::WaitRequest { id: id.into(), exec_id: exec.into() };
        self.client().call::<wire::WaitResponse>("Wait", &request).unwrap().exit_status
    }

    pub fn kill(&self, id: &str, exec: &str, signal: u32) -> Result<()> {
        let request = wire::KillRequest { id: id.into(), exec_id: exec.into(), signal, all: false };
        self.client().call::<()>("Kill", &request)
    }

    pub fn delete(&self, id: &str, exec: &str) -> Result<wire::DeleteResponse> {
        self.client().call("Delete", &wire::DeleteRequest { id: id.into(), exec_id: exec.into() })
    }

    pub fn state(&self, id: &str, exec: &str) -> Result<wire::StateResponse> {
        self.client().call("State", &wire::StateRequest { id: id.into(), exec_id: exec.into() })
    }

    /// Adds a process and starts it.
    pub fn exec(&self, id: &str, exec: &str, args: &[&str]) -> Result<u32> {
        self.add(id, exec, args, Default::default())?;
        let request = wire::StartRequest { id: id.into(), exec_id: exec.into() };
        Ok(self.client().call::<wire::StartResponse>("Start", &request)?.pid)
    }

    pub fn add(&self, id: &str, exec: &str, args: &[&str], with: wire::ExecProcessRequest) -> Result<()> {
        let args = args.iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(",");
        let process =
            format!(r#"{{"user":{{"uid":0,"gid":0}},"args":[{args}],"env":["PATH=/bin"],"cwd":"/"}}"#);
        let request = wire::ExecProcessRequest {
            id: id.into(),
            exec_id: exec.into(),
            spec: Some(api::any::to_wire(types::Any::new(types::any::RUNTIME_PROCESS, process))),
            ..with
        };
        self.client().call::<()>("Exec", &request)
    }

    pub fn topics(&self) -> Vec<String> {
        self.events.lock().unwrap().iter().map(|(topic, _)| topic.clone()).collect()
    }

    pub fn wait_for_topic(&self, topic: &str, count: usize) {
        eventually(topic, || self.topics().iter().filter(|t| *t == topic).count() >= count);
    }

    /// Whether anything of this test's is mounted.
    pub fn mounts(&self) -> Vec<String> {
        let prefix = self.dir.path().to_str().unwrap().to_owned();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.lines().filter(|line| line.contains(&prefix)).map(str::to_owned).collect()
    }

    /// Kills a container, deletes it, and lets the shim end.
    pub fn end(&self, id: &str) {
        self.kill(id, "", 9).unwrap();
        self.wait(id, "");
        self.delete(id, "").unwrap();
        self.shut_down();
    }

    /// Asks the shim to end, and waits until it and its socket are gone.
    pub fn shut_down(&self) {
        self.client().call::<()>("Shutdown", &wire::ShutdownRequest::default()).unwrap();
        eventually("the shim's end", || is_gone(self.pid));
        assert!(!Path::new(self.address.strip_prefix("unix://").unwrap()).exists());
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let alive = |pid: u32| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            name.starts_with("containerd-shim")
        };
        if alive(self.pid) {
            // What a failed test leaves is ended by `delete`, after the shim that would watch over it.
            let _ = Command::new("kill").args(["-9", &self.pid.to_string()]).status();
            for entry in std::fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
                let id = entry.file_name().into_string().unwrap_or_default();
                if entry.path().join("config.json").exists() {
                    let _ = self.command(&id, "delete").output();
                }
            }
        }
        let _ = std::fs::remove_file(self.address.strip_prefix("unix://").unwrap_or("/nonexistent"));
    }
}

/// The standard output of a command that must succeed silently.
pub fn checked(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{}: {stderr}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The program that is in each container.
fn busybox() -> PathBuf {
    std::env::var_os("BUSYBOX").map_or_else(|| "/bin/busybox".into(), PathBuf::from)
}

/// Whether tests that run containers can run here: as root, with runc and busybox.
pub fn can_run() -> bool {
    let root = std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    let runc = Command::new("runc").arg("--version").output().is_ok();
    let able = root && runc && busybox().exists();
    if !able {
        eprintln!("skipped: needs root, runc, and busybox in /bin or where BUSYBOX says");
    }
    able
}
