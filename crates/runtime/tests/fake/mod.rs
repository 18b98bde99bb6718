//! A shim whose program is a shell script and whose server is this process: each answer, refusal, silence and death is
//! the test's choice.

#![allow(dead_code, reason = "each test program uses its part")]

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::containerd::task::v3 as wire;
use prost::Message;
use runtime::{Options, Runtime, Timeouts, ttrpc};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use types::any::RUNTIME_SPEC;
use types::events::{Exchange, Subscription};
use types::task::{Create, Origin, Stdio};
use types::{Any, Error, Namespace, Result};

/// What the server does with a call.
#[derive(Clone)]
pub enum Answer {
    Say(Vec<u8>),
    Refuse(fn() -> Error),
    BeSilent,
    /// Says this when the test lets it.
    Wait(Vec<u8>),
    /// Refuses when the test lets it.
    WaitAndRefuse(fn() -> Error),
    Die,
    /// Dies, and another shim is there at the same moment.
    MakeRoom,
}

/// Deadlines that no working shim meets late, however loaded the machine.
pub fn patient() -> Timeouts {
    let long = Duration::from_secs(60);
    Timeouts { start: long, load: long, cleanup: long, shutdown: long, state: long, stats: long }
}

/// One daemon's directories and one fake shim.
pub struct Fake {
    pub dir: tempfile::TempDir,
    process: Arc<Process>,
}

/// The shim's process, as it were.
struct Process {
    socket: PathBuf,
    answers: Mutex<HashMap<&'static str, Answer>>,
    calls: Mutex<Vec<String>>,
    /// Methods that may go on.
    going_on: watch::Sender<Vec<&'static str>>,
    server: Mutex<Option<AbortHandle>>,
}

pub struct Daemon {
    pub runtime: Runtime,
    pub bus: Exchange,
    pub events: Subscription,
}

pub fn namespace() -> Namespace {
    "fake".parse().unwrap()
}

const SCRIPT: &str = r#"#!/bin/sh
for last; do :; done
echo "$last" >> DIR/actions
[ -e DIR/fail-$last ] && { echo "no $last today" >&2; exit 3; }
[ -e DIR/hang-$last ] && sleep 1000
case "$last" in
start)
  cat > DIR/stdin
  [ -e DIR/before-2.3 ] && grep -q c1 DIR/stdin && { echo "io.containerd.x: type with url c1: not found" >&2; exit 1; }
  cat DIR/answer ;;
delete) printf '\010\052\020\211\001' ;;
esac
"#;

impl Fake {
    /// A shim that does everything right: pid 42, exit code 7.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("fk").tempdir().unwrap();
        let process = Process {
            socket: dir.path().join("shim.sock"),
            answers: Mutex::default(),
            calls: Mutex::default(),
            going_on: watch::Sender::default(),
            server: Mutex::default(),
        };
        let fake = Self { dir, process: Arc::new(process) };
        fake.script("containerd-shim-fake-v2");
        let address = format!("unix://{}", fake.path("shim.sock").display());
        fake.write("answer", &format!(r#"{{"version":3,"address":"{address}","protocol":"ttrpc"}}"#));
        let state = wire::StateResponse { pid: 42, status: 2, ..Default::default() };
        fake.on("Create", Answer::Say(wire::CreateTaskResponse { pid: 42 }.encode_to_vec()));
        fake.on("Start", Answer::Say(wire::StartResponse { pid: 42 }.encode_to_vec()));
        fake.on("State", Answer::Say(state.encode_to_vec()));
        let deleted = wire::DeleteResponse { pid: 42, exit_status: 7, exited_at: None };
        fake.on("Delete", Answer::Say(deleted.encode_to_vec()));
        fake.on("Shutdown", Answer::Die);
        fake.on("Wait", Answer::BeSilent);
        fake.live();
        fake
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Makes the program under this name.
    pub fn script(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, SCRIPT.replace("DIR", self.dir.path().to_str().unwrap())).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub fn on(&self, method: &'static str, answer: Answer) {
        self.process.answers.lock().unwrap().insert(method, answer);
    }

    /// Lets a method that waits for this go on.
    pub fn go_on(&self, method: &'static str) {
        self.process.going_on.send_modify(|methods| methods.push(method));
    }

    /// Begins to serve.
    pub fn live(&self) {
        self.process.live();
    }

    /// Ends the server with all its connections, as a killed process would.
    pub fn die(&self) {
        self.process.die();
    }

    /// The calls so far, without the service's name.
    pub fn calls(&self) -> Vec<String> {
        let name = |call: &String| call.rsplit('/').next().unwrap().to_owned();
        self.process.calls.lock().unwrap().iter().map(name).collect()
    }

    pub fn services(&self) -> Vec<String> {
        self.process.calls.lock().unwrap().clone()
    }

    /// The actions of the program so far.
    pub fn actions(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("actions")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub fn bundle(&self, id: &str) -> PathBuf {
        self.path("state/io.containerd.runtime.v2.task").join(namespace().as_str()).join(id)
    }

    /// A daemon that waits for its shims as long as it takes.
    pub async fn daemon(&self) -> Daemon {
        self.daemon_with(patient()).await
    }

    pub async fn daemon_with(&self, timeouts: Timeouts) -> Daemon {
        let events = Exchange::new();
        let subscription = events.subscribe();
        let options = Options {
            root: self.path("root"),
            state: self.path("state"),
            address: self.path("c.sock").to_str().unwrap().to_owned(),
            ttrpc_address: self.path("c.sock.ttrpc").to_str().unwrap().to_owned(),
            binary: self.path("containerd"),
            socket_dir: Some(self.path("s")),
            env: Vec::new(),
            events: events.clone(),
            debug: false,
            timeouts,
        };
        Daemon { runtime: Runtime::open(options).await.unwrap(), bus: events, events: subscription }
    }

    /// Names of files and bundles below state and root.
    pub fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for dir in ["state", "root"] {
            let below = self.path(dir).join("io.containerd.runtime.v2.task").join(namespace().as_str());
            let entries = std::fs::read_dir(below).into_iter().flatten().flatten();
            left.extend(entries.map(|entry| format!("{dir}/{}", entry.file_name().to_str().unwrap())));
        }
        left.sort();
        left
    }

    pub async fn assert_nothing_left(&self) {
        eventually(|| self.left().is_empty()).await;
    }
}

impl Process {
    fn live(self: &Arc<Self>) {
        let _ = std::fs::remove_file(&self.socket);
        let listener = tokio::net::UnixListener::bind(&self.socket).unwrap();
        let process = Arc::clone(self);
        let handler = move |request: ttrpc::Request| {
            process.calls.lock().unwrap().push(format!("{}/{}", request.service, request.method));
            let answers = process.answers.lock().unwrap();
            let answer =
                answers.iter().find(|(method, _)| **method == request.method).map(|(_, a)| a.clone());
            act(request.method, answer, Arc::clone(&process))
        };
        let serving = tokio::spawn(ttrpc::serve(listener, handler));
        *self.server.lock().unwrap() = Some(serving.abort_handle());
    }

    fn die(&self) {
        if let Some(server) = self.server.lock().unwrap().take() {
            server.abort();
        }
    }
}

async fn act(method: String, answer: Option<Answer>, process: Arc<Process>) -> Result<Vec<u8>> {
    if matches!(answer, Some(Answer::Wait(_) | Answer::WaitAndRefuse(_))) {
        let mut going_on = process.going_on.subscribe();
        going_on.wait_for(|methods| methods.contains(&method.as_str())).await.unwrap();
    }
    match answer {
        None => return Err(Error::unimplemented("not in this shim")),
        Some(Answer::Say(bytes) | Answer::Wait(bytes)) => return Ok(bytes),
        Some(Answer::Refuse(error) | Answer::WaitAndRefuse(error)) => return Err(error()),
        Some(Answer::BeSilent) => {}
        Some(Answer::Die) => process.die(),
        Some(Answer::MakeRoom) => {
            let old = process.server.lock().unwrap().take();
            process.live();
            if let Some(old) = old {
                old.abort();
            }
        }
    }
    std::future::pending().await
}

pub fn create() -> Create {
    Create {
        rootfs: Vec::new(),
        stdio: Stdio::default(),
        spec: Some(Any::new(RUNTIME_SPEC, "{}")),
        runtime: "io.containerd.fake.v2".into(),
        options: None,
        origin: Origin::Beginning,
        shim_of: None,
        endpoint: None,
    }
}

pub async fn eventually(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 60 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Daemon {
    /// The topics of the next `count` events, however long they take, and of those that come at their heels.
    pub async fn topics(&mut self, count: usize) -> Vec<String> {
        let mut topics = Vec::new();
        loop {
            let limit = Duration::from_millis(if topics.len() < count { 60_000 } else { 50 });
            match tokio::time::timeout(limit, self.events.next()).await {
                Ok(next) => topics.push(next.unwrap().topic.clone()),
                Err(_) => return topics,
            }
        }
    }

    pub async fn create(&self, id: &str) -> Result<u32> {
        self.runtime.create(&namespace(), id, create()).await
    }
}
