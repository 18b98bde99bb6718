//! Plugins that connect, and are launched: registered, asked in the order of their indices, and done with when they hang.
//! The other side of the protocol is a plugin of ours, over the same multiplexer.

#![allow(missing_docs)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nri::wire::*;
use nri::{Config, Domain, Identity, Nri, Observed, Pending, Snapshot, Validator};
use prost::Message;
use runtime::ttrpc::{Call, Client, Request, serve_connection};
use tokio::net::UnixStream;
use types::{Error, Result};

const RUNTIME: &str = "nri.pkg.api.v1alpha1.Runtime";

/// A node that keeps what it was asked.
#[derive(Default)]
struct Node {
    all: Snapshot,
    updated: Mutex<Vec<ContainerUpdate>>,
    evicted: Mutex<Vec<String>>,
}

impl Domain for Node {
    fn snapshot(&self) -> Pending<'_, Snapshot> {
        Box::pin(async { self.all.clone() })
    }

    fn update(&self, update: ContainerUpdate) -> Pending<'_, Result<()>> {
        Box::pin(async {
            if update.container_id == "broken" {
                return Err(Error::precondition("it is broken"));
            }
            self.updated.lock().unwrap().push(update);
            Ok(())
        })
    }

    fn evict(&self, eviction: ContainerEviction) -> Pending<'_, Result<()>> {
        Box::pin(async {
            self.evicted.lock().unwrap().push(eviction.container_id);
            Ok(())
        })
    }
}

type Handler = dyn Fn(&str, &[u8]) -> Option<Result<Vec<u8>>> + Send + Sync;

/// A plugin: what it has heard, and a connection to call by.
struct Plugin {
    heard: Arc<Mutex<Vec<String>>>,
    runtime: Client,
    serving: tokio::task::JoinHandle<()>,
}

impl Plugin {
    /// One that has connected. It answers by `handler`, or else with an empty message; `Hang` in an answer never comes.
    async fn connect(
        socket: &Path,
        name: &str,
        events: &[Event],
        handler: impl Fn(&str, &[u8]) -> Option<Result<Vec<u8>>> + Send + Sync + 'static,
    ) -> Self {
        let split = nri::split(UnixStream::connect(socket).await.unwrap()).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mask = events.iter().fold(0, |mask, event| mask | 1 << (*event as i32 - 1));
        let (log, handler): (_, Arc<Handler>) = (Arc::clone(&heard), Arc::new(handler));
        let answer = move |request: Request| {
            let (log, handler) = (Arc::clone(&log), Arc::clone(&handler));
            async move {
                log.lock().unwrap().push(request.method.clone());
                match handler(&request.method, &request.payload) {
                    Some(Ok(answer)) if answer == b"hang" => std::future::pending().await,
                    Some(answer) => answer,
                    None if request.method == "Configure" => {
                        Ok(ConfigureResponse { events: mask }.encode_to_vec())
                    }
                    None if request.method == "Synchronize" => {
                        let more = SynchronizeRequest::decode(request.payload.as_slice()).unwrap().more;
                        Ok(SynchronizeResponse { update: Vec::new(), more }.encode_to_vec())
                    }
                    None => Ok(Vec::new()),
                }
            }
        };
        let serving = tokio::spawn(async move { serve_connection(split.plugin, answer).await });
        let plugin = Self { heard, runtime: Client::new(split.runtime), serving };
        let (index, name) = name.split_once('-').unwrap();
        let request = RegisterPluginRequest {
            plugin_name: name.to_owned(),
            plugin_idx: index.to_owned(),
            nri_version: "test".to_owned(),
        };
        // One that is turned away may see its connection gone before the answer.
        let _ = plugin.call("RegisterPlugin", &request).await;
        plugin
    }

    async fn call(&self, method: &str, request: &impl Message) -> Result<Vec<u8>> {
        let namespace = "k8s.io".parse().unwrap();
        let timeout = Some(Duration::from_secs(10));
        let call = Call { service: RUNTIME, method, namespace: &namespace, timeout };
        Ok(self.runtime.call(call, request.encode_to_vec()).await?)
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until it has been told all that is there, and is asked from then on.
    async fn admitted(&self, nri: &Nri) {
        eventually(|| self.heard().iter().any(|method| method == "Synchronize")).await;
        // Nothing is held here: whoever synchronizes is through when a call gets its turn.
        drop(nri.hold().await);
        let probe = PodSandbox { id: "probe".to_owned(), ..PodSandbox::default() };
        nri.remove_pod_sandbox(probe).await.unwrap();
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn eventually(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "not within 20 seconds");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct House {
    dir: tempfile::TempDir,
    nri: Nri,
    node: Arc<Node>,
    observed: Arc<Mutex<Vec<Observed>>>,
}

async fn house(change: impl FnOnce(&mut Config, &mut Snapshot)) -> House {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        socket: dir.path().join("run/nri.sock"),
        plugins: dir.path().join("plugins"),
        plugin_configs: dir.path().join("conf.d"),
        ..Config::default()
    };
    let mut all = Snapshot::default();
    change(&mut config, &mut all);
    let identity = Identity { name: "test".to_owned(), version: "1".to_owned() };
    let observed: Arc<Mutex<Vec<Observed>>> = Arc::default();
    let log = Arc::clone(&observed);
    let observe = Arc::new(move |what| log.lock().unwrap().push(what));
    let nri = Nri::new(config, identity, "k8s.io".parse().unwrap(), observe);
    let node = Arc::new(Node { all, ..Node::default() });
    nri.start(Arc::clone(&node) as Arc<dyn Domain>).await.unwrap();
    House { dir, nri, node, observed }
}

impl House {
    fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("run/nri.sock")
    }

    async fn plugin(
        &self,
        name: &str,
        events: &[Event],
        handler: impl Fn(&str, &[u8]) -> Option<Result<Vec<u8>>> + Send + Sync + 'static,
    ) -> Plugin {
        let plugin = Plugin::connect(&self.socket(), name, events, handler).await;
        plugin.admitted(&self.nri).await;
        plugin
    }
}

fn pod() -> PodSandbox {
    PodSandbox { id: "pod".to_owned(), ..PodSandbox::default() }
}

fn container(id: &str) -> Container {
    Container { id: id.to_owned(), env: vec!["A=1".to_owned()], ..Container::default() }
}

fn answer(env: &[(&str, &str)]) -> CreateContainerResponse {
    let env = env.iter().map(|(k, v)| KeyValue { key: (*k).to_owned(), value: (*v).to_owned() }).collect();
    let adjust = Some(ContainerAdjustment { env, ..ContainerAdjustment::default() });
    CreateContainerResponse { adjust, ..CreateContainerResponse::default() }
}

fn silent(_: &str, _: &[u8]) -> Option<Result<Vec<u8>>> {
    None
}

#[tokio::test]
async fn plugins_are_asked_in_the_order_of_their_indices_and_told_what_they_subscribed_to() {
    let house = house(|_, _| ()).await;
    assert!(!house.nri.is_active());
    let second = house
        .plugin("20-second", &[Event::CreateContainer, Event::RunPodSandbox], |method, payload| {
            (method == "CreateContainer").then(|| {
                let seen = CreateContainerRequest::decode(payload).unwrap().container.unwrap().env;
                Ok(answer(&[("SEEN", &seen.join(","))]).encode_to_vec())
            })
        })
        .await;
    let first = house
        .plugin("10-first", &[Event::CreateContainer], |method, _| {
            (method == "CreateContainer").then(|| Ok(answer(&[("A", "2")]).encode_to_vec()))
        })
        .await;
    assert!(house.nri.is_active());
    house.nri.run_pod_sandbox(pod()).await.unwrap();
    let adjustment = house.nri.create_container(pod(), container("c")).await.unwrap();
    let env: Vec<_> = adjustment.env.iter().map(|v| format!("{}={}", v.key, v.value)).collect();
    assert_eq!(env, ["A=2", "SEEN=A=2"]);
    assert_eq!(first.heard(), ["Configure", "Synchronize", "CreateContainer"]);
    assert_eq!(second.heard(), ["Configure", "Synchronize", "RunPodSandbox", "CreateContainer"]);
}

#[tokio::test]
async fn a_plugin_that_hangs_or_is_gone_is_done_with_and_the_call_goes_on() {
    let house = house(|config, _| config.request_timeout = Duration::from_millis(300)).await;
    let hung = house
        .plugin("10-hung", &[Event::CreateContainer], |method, _| {
            (method == "CreateContainer").then(|| Ok(b"hang".to_vec()))
        })
        .await;
    let other = house.plugin("20-other", &[Event::CreateContainer], silent).await;
    let start = Instant::now();
    house.nri.create_container(pod(), container("c")).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(other.heard().last().unwrap(), "CreateContainer");
    house.nri.create_container(pod(), container("d")).await.unwrap();
    assert_eq!(hung.heard().iter().filter(|method| *method == "CreateContainer").count(), 1);
    drop(other);
    eventually(|| !house.nri.is_active()).await;
}

#[tokio::test]
async fn what_plugins_are_asked_and_what_comes_of_it_is_counted() {
    let house = house(|config, _| config.request_timeout = Duration::from_millis(300)).await;
    let update = |id: &str| ContainerUpdate { container_id: id.to_owned(), ..ContainerUpdate::default() };
    let evict = ContainerEviction { container_id: "e".to_owned(), reason: "r".to_owned() };
    let wanting = CreateContainerResponse {
        update: vec![update("x"), update("y")],
        evict: vec![evict],
        ..CreateContainerResponse::default()
    };
    let _wants = house
        .plugin("10-wants", &[Event::CreateContainer], move |method, _| {
            (method == "CreateContainer").then(|| Ok(wanting.encode_to_vec()))
        })
        .await;
    let _old = house
        .plugin("20-old", &[Event::RunPodSandbox, Event::CreateContainer], |method, _| match method {
            "RunPodSandbox" => Some(Err(Error::unimplemented("method"))),
            "StateChange" => Some(Err(Error::precondition("not this one"))),
            "CreateContainer" => Some(Ok(b"hang".to_vec())),
            _ => None,
        })
        .await;
    house.nri.run_pod_sandbox(pod()).await.unwrap_err();
    house.nri.create_container(pod(), container("c")).await.unwrap();
    let observed = house.observed.lock().unwrap().clone();
    let asked: Vec<_> = observed
        .iter()
        .filter_map(|what| match what {
            Observed::Asked { plugin, operation, error, .. } => Some((plugin.as_str(), *operation, *error)),
            Observed::Wanted { .. } | Observed::Active(_) => None,
        })
        .collect();
    let expected = [
        ("10-wants", "Synchronize", None),
        ("20-old", "Synchronize", None),
        ("20-old", "RunPodSandbox", Some("failed_precondition")),
        ("10-wants", "CreateContainer", None),
        ("20-old", "CreateContainer", Some("deadline_exceeded")),
    ];
    assert_eq!(asked, expected);
    let plugin = "10-wants".to_owned();
    let wanted = Observed::Wanted { plugin, operation: "CreateContainer", updates: 2, evictions: 1 };
    assert!(observed.contains(&wanted), "{observed:?}");
    let active = observed.iter().rfind(|what| matches!(what, Observed::Active(_)));
    assert_eq!(active, Some(&Observed::Active(1)), "the one that hangs is done with");
}

#[tokio::test]
async fn an_error_fails_the_call_and_an_end_is_told_once() {
    let house = house(|_, _| ()).await;
    let plugin = house
        .plugin("10-a", &[], |method, _| {
            (method == "RunPodSandbox").then(|| Err(Error::precondition("not this one")))
        })
        .await;
    let error = house.nri.run_pod_sandbox(pod()).await.unwrap_err().to_string();
    assert!(error.starts_with("NRI RunPodSandbox failed") && error.ends_with("not this one"), "{error}");
    house.nri.stop_pod_sandbox(pod()).await.unwrap();
    house.nri.remove_pod_sandbox(pod()).await.unwrap();
    let pods: Vec<_> = plugin.heard().into_iter().filter(|method| method.contains("Pod")).collect();
    assert_eq!(pods, ["RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"]);
    house.nri.create_container(pod(), container("c")).await.unwrap();
    house.nri.stop_container(pod(), container("c")).await.unwrap();
    house.nri.stop_container(pod(), container("c")).await.unwrap();
    house.nri.remove_container(pod(), container("c")).await.unwrap();
    house.nri.remove_container(pod(), container("c")).await.unwrap();
    let heard = plugin.heard().split_off(5);
    assert_eq!(heard, ["CreateContainer", "ValidateContainerAdjustment", "StopContainer", "RemoveContainer"]);
}

#[tokio::test]
async fn a_plugin_that_knows_no_methods_of_their_own_is_told_by_state_changes() {
    let house = house(|_, _| ()).await;
    let changes: Arc<Mutex<Vec<i32>>> = Arc::default();
    let log = Arc::clone(&changes);
    let plugin = house
        .plugin("10-old", &[Event::RunPodSandbox, Event::StartContainer], move |method, payload| match method
        {
            "StateChange" => {
                log.lock().unwrap().push(StateChangeEvent::decode(payload).unwrap().event);
                None
            }
            "Configure" | "Synchronize" => None,
            _ => Some(Err(Error::unimplemented("method"))),
        })
        .await;
    for id in ["a", "b"] {
        house.nri.run_pod_sandbox(PodSandbox { id: id.to_owned(), ..pod() }).await.unwrap();
    }
    house.nri.start_container(pod(), container("c")).await.unwrap();
    let expected = [Event::RunPodSandbox, Event::RunPodSandbox, Event::StartContainer].map(i32::from);
    assert_eq!(*changes.lock().unwrap(), expected);
    assert_eq!(plugin.heard().iter().filter(|method| *method == "RunPodSandbox").count(), 1);
}

#[tokio::test]
async fn all_that_is_there_is_told_in_pieces_and_the_plugins_wishes_are_done() {
    let text = "x".repeat(1 << 20);
    let house = house(|_, all| {
        all.pods = vec![pod()];
        all.containers = (0..9)
            .map(|n| Container {
                labels: BTreeMap::from([("l".to_owned(), text.clone())]),
                state: ContainerState::ContainerRunning.into(),
                ..container(&format!("c{n}"))
            })
            .collect();
    })
    .await;
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&told);
    let plugin = house
        .plugin("10-a", &[Event::StopContainer], move |method, payload| {
            let request = (method == "Synchronize").then(|| SynchronizeRequest::decode(payload).unwrap())?;
            log.lock().unwrap().extend(request.containers.into_iter().map(|container| container.id));
            let last = ["c8", "broken"]
                .map(|id| ContainerUpdate { container_id: id.to_owned(), ..Default::default() });
            let update = if request.more { Vec::new() } else { last.to_vec() };
            Some(Ok(SynchronizeResponse { update, more: request.more }.encode_to_vec()))
        })
        .await;
    let expected: Vec<_> = (0..9).map(|n| format!("c{n}")).collect();
    assert_eq!(*told.lock().unwrap(), expected);
    assert!(plugin.heard().iter().filter(|method| *method == "Synchronize").count() > 2);
    assert_eq!(house.node.updated.lock().unwrap()[0].container_id, "c8");
    // It is told of the end of what it found.
    house.nri.stop_container(pod(), container("c3")).await.unwrap();
    assert_eq!(plugin.heard().last().unwrap(), "StopContainer");
}

#[tokio::test]
async fn updates_are_changed_others_are_done_and_some_are_asked_for_unasked() {
    let house = house(|_, _| ()).await;
    let resources = |bytes| {
        let limit = Some(OptionalInt64 { value: bytes });
        LinuxResources { memory: Some(LinuxMemory { limit, ..Default::default() }), ..Default::default() }
    };
    let update = move |id: &str| ContainerUpdate {
        container_id: id.to_owned(),
        linux: Some(LinuxContainerUpdate { resources: Some(resources(7)) }),
        ignore_failure: false,
    };
    let plugin = house
        .plugin("10-a", &[Event::UpdateContainer], move |method, _| {
            let evict = vec![ContainerEviction { container_id: "y".to_owned(), reason: String::new() }];
            let answer = UpdateContainerResponse { update: vec![update("c"), update("x")], evict };
            (method == "UpdateContainer").then(|| Ok(answer.encode_to_vec()))
        })
        .await;
    let updated = house.nri.update_container(pod(), container("c"), LinuxResources::default()).await.unwrap();
    assert_eq!(updated, Some(resources(7)));
    assert_eq!(house.node.updated.lock().unwrap()[0].container_id, "x");
    assert_eq!(*house.node.evicted.lock().unwrap(), ["y"]);
    let request = UpdateContainersRequest { update: vec![update("z"), update("broken")], evict: Vec::new() };
    let answer = plugin.call("UpdateContainers", &request).await.unwrap();
    let failed = UpdateContainersResponse::decode(answer.as_slice()).unwrap().failed;
    assert_eq!(failed.iter().map(|update| update.container_id.as_str()).collect::<Vec<_>>(), ["broken"]);
    assert_eq!(house.node.updated.lock().unwrap()[1].container_id, "z");
    assert!(plugin.call("RegisterPlugin", &RegisterPluginRequest::default()).await.is_err());
}

#[tokio::test]
async fn a_validator_has_the_last_word() {
    let house = house(|config, _| {
        config.validator =
            Validator { enable: true, required_plugins: vec!["adjuster".to_owned()], ..Validator::default() };
    })
    .await;
    let error = house.nri.create_container(pod(), container("c")).await.unwrap_err();
    assert!(error.to_string().contains("required plugin \"adjuster\" not present"), "{error}");
    let _adjuster = house
        .plugin("10-adjuster", &[Event::CreateContainer], |method, _| {
            (method == "CreateContainer").then(|| Ok(answer(&[("BAD", "1")]).encode_to_vec()))
        })
        .await;
    house.nri.create_container(pod(), container("c")).await.unwrap();
    let _validator = house
        .plugin("90-judge", &[Event::ValidateContainerAdjustment], |method, payload| {
            (method == "ValidateContainerAdjustment").then(|| {
                let request = ValidateContainerAdjustmentRequest::decode(payload).unwrap();
                assert_eq!(request.container.unwrap().env, ["A=1"], "as it was");
                let owners = &request.owners.unwrap().owners["c"].compound[&(Field::Env as i32)].owners;
                let reason = format!("{} is {}'s", request.adjust.unwrap().env[0].key, owners["BAD"]);
                Ok(ValidateContainerAdjustmentResponse { reject: true, reason }.encode_to_vec())
            })
        })
        .await;
    let error = house.nri.create_container(pod(), container("c")).await.unwrap_err().to_string();
    assert!(
        error.contains("validator \"90-judge\" rejected") && error.ends_with("BAD is 10-adjuster's"),
        "{error}"
    );
}

#[tokio::test]
async fn who_does_not_register_or_speaks_nonsense_is_turned_away() {
    let house = house(|config, _| config.registration_timeout = Duration::from_millis(200)).await;
    let mut silent = UnixStream::connect(house.socket()).await.unwrap();
    let mut babbling = UnixStream::connect(house.socket()).await.unwrap();
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    babbling.write_all(&[0xff; 64]).await.unwrap();
    for socket in [&mut silent, &mut babbling] {
        let read = tokio::time::timeout(Duration::from_secs(10), socket.read(&mut [0; 16])).await;
        assert!(matches!(read.expect("it is closed"), Ok(0) | Err(_)));
    }
    let plugin = Plugin::connect(&house.socket(), "x-bad", &[], self::silent).await;
    tokio::time::timeout(Duration::from_secs(10), plugin.runtime.closed()).await.expect("it is closed");
    assert!(!house.nri.is_active());
    assert_eq!(plugin.heard(), Vec::<String>::new());
}

#[tokio::test]
async fn a_plugin_comes_between_calls_and_not_in_the_middle_of_one() {
    let house = house(|_, _| ()).await;
    let call = house.nri.hold().await;
    let plugin = Plugin::connect(&house.socket(), "10-a", &[Event::CreateContainer], silent).await;
    eventually(|| plugin.heard() == ["Configure"]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!house.nri.is_active());
    drop(call);
    plugin.admitted(&house.nri).await;
    assert!(house.nri.is_active());
    house.nri.stop().await;
    assert!(!house.nri.is_active() && !house.socket().exists());
}

#[tokio::test]
async fn a_program_is_launched_with_its_name_and_a_connection_and_ends_with_us() {
    let dir = tempfile::tempdir().unwrap();
    let seen = dir.path().join("seen");
    let script = format!(
        "#!/bin/sh\necho \"$$ $NRI_PLUGIN_IDX-$NRI_PLUGIN_NAME $NRI_PLUGIN_SOCKET $(readlink /proc/self/fd/3)\" > {0}.new\nmv {0}.new {0}\nexec sleep 1000\n",
        seen.display()
    );
    let house = house(|config, _| {
        config.registration_timeout = Duration::from_secs(3);
        std::fs::create_dir(&config.plugins).unwrap();
        let program = config.plugins.join("10-test");
        std::fs::write(&program, script).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    })
    .await;
    // It has not registered in time: it was killed, and its absence is no error.
    let seen = std::fs::read_to_string(seen).unwrap();
    let (pid, rest) = seen.split_once(' ').unwrap();
    assert!(rest.starts_with("10-test 3 socket:"), "{rest}");
    eventually(|| !Path::new("/proc").join(pid).exists()).await;
    assert!(!house.nri.is_active());
}
