//! RunPodSandbox: checks everything, then makes a pod in steps, each of them written down before.
//!
//! ```text
//!  name | record and planned namespace | lease | namespace, then its networks | started      | in the store
//!                                              | files and container           | record whole |
//! ```
//!
//! What stands one above the other is done side by side, where nobody can tell: the runtime waits for the namespace alone.
//!
//! A step that fails is followed by the very steps that remove a pod. If one of those fails too, they end there, and the pod stays
//! visible, as one that is not ready: the kubelet's Stop and Remove go on from there. So it is after a crash, if there was more
//! than a record.

use std::path::PathBuf;
use std::sync::Arc;

use api::cri::{
    ContainerEventType, NamespaceMode, PodSandboxConfig, RunPodSandboxRequest, RunPodSandboxResponse,
};
use futures_util::future;
use runtime::Ready;
use types::container::RuntimeInfo;
use types::fields::FieldPaths;
use types::sandbox::Sandbox;
use types::{Any, Error, Labels, Result, ResultExt, crash};

use crate::config::Handler;
use crate::cri::{Cri, blocking, gone, new_id};
use crate::events;
use crate::network::namespace;
use crate::nri;
use crate::pod::teardown;
use crate::pod::{self, CREATING, EXTENSION, Pod, RUNC, Record, State, Status, validate};
use crate::podsandbox::{self, Made};
use crate::sandboxer::{Sandboxer, Started};
use crate::spec;
use crate::timers;

/// Answers the call.
pub async fn run(cri: &Cri, request: RunPodSandboxRequest) -> Result<RunPodSandboxResponse> {
    let mut making = Making::new(cri, request)?;
    let absent = || format!("failed to create sandbox {:?}", making.record.id);
    making.sandboxer.check(cri).await.context(absent)?;
    making.reserve(cri)?;
    let mut made = make(cri, &mut making).await;
    let _whole = nri::hold(cri).await;
    if let Ok(status) = &made {
        let told = nri::run_pod_sandbox(cri, &making.record, status.pid).await;
        made = told.and(made);
    }
    let id = making.record.id.clone();
    match made {
        Ok(status) => {
            let pod = Arc::new(Pod::new(making.record, making.sandboxer, status));
            cri.pods.add(&id, Arc::clone(&pod))?;
            events::tell(cri, &id, &id, ContainerEventType::ContainerCreatedEvent);
            podsandbox::watch(cri, Arc::clone(&pod));
            events::tell(cri, &id, &id, ContainerEventType::ContainerStartedEvent);
            Ok(RunPodSandboxResponse { pod_sandbox_id: id })
        }
        Err(error) => {
            take_back(cri, making).await;
            Err(error)
        }
    }
}

/// A pod that is being made.
struct Making<'a> {
    record: Record,
    handler: &'a Handler,
    sandboxer: Sandboxer,
    options: Option<Any>,
    labels: spec::Labels,
}

impl<'a> Making<'a> {
    /// Checks the request. Nothing is made yet.
    fn new(cri: &'a Cri, request: RunPodSandboxRequest) -> Result<Self> {
        let config = request.config.ok_or_else(|| Error::invalid("sandbox config must be set"))?;
        validate::config(&config)?;
        let handler = pod::handler(cri, &config, &request.runtime_handler)?;
        let sandboxer = Sandboxer::named(&handler.sandboxer);
        let options = pod::options(handler)?;
        let netns = match is_on_host_network(&config) {
            true => String::new(),
            false => cri.network.plan().to_string_lossy().into_owned(),
        };
        let labels = podsandbox::selinux(cri, &config)?;
        let record = Record {
            id: new_id(),
            name: config.metadata.as_ref().map(validate::name).unwrap_or_default(),
            netns,
            runtime_handler: request.runtime_handler,
            config,
            process_label: labels.process.clone(),
            ..Record::default()
        };
        Ok(Self { record, handler, sandboxer, options, labels })
    }

    fn reserve(&self, cri: &Cri) -> Result<()> {
        let name = &self.record.name;
        let Err(taken) = cri.pod_names.reserve(name, &self.record.id) else { return Ok(()) };
        let owner = cri.pod_names.owner(name).and_then(|id| cri.pods.get(&id).ok());
        if owner.is_some_and(|owner| owner.record.config.metadata != self.record.config.metadata) {
            let error =
                format!("metadata.name: {name:?} is the name of another pod, too: joined they are the same");
            return Err(Error::invalid(error));
        }
        Err(taken.context(format!("failed to reserve sandbox name {name:?}")))
    }

    /// Whether the networks can be set up while the runtime makes the container. It cannot if the runtime, who makes the sandbox or the
    /// request's parameters of the kernel need the interfaces to be there.
    fn side_by_side(&self) -> bool {
        let sysctls = self.record.config.linux.as_ref().map(|linux| &linux.sysctls);
        let of_network = |key: &String| key.starts_with("net.") || key.starts_with("net/");
        let plain = self.handler.runtime_type == RUNC && self.handler.base_runtime_spec.is_empty();
        plain && !self.sandboxer.is_proxy() && !sysctls.is_some_and(|sysctls| sysctls.keys().any(of_network))
    }
}

fn is_on_host_network(config: &PodSandboxConfig) -> bool {
    let context = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = context.and_then(|context| context.namespace_options.as_ref());
    options.is_some_and(|options| options.network() == NamespaceMode::Node)
}

async fn make(cri: &Cri, making: &mut Making<'_>) -> Result<Status> {
    // Changes are committed in the order in which they are asked for: the lease never without the record.
    let (written, leased) = future::join(write_down(cri, making), lease(cri, &making.record)).await;
    written.and(leased)?;
    let made = populate(cri, making).await?;
    let started = start(cri, making, made).await?;
    let mut status = Status::new(State::Ready);
    status.pid = started.pid;
    status.created_at = started.created_at;
    status.endpoint = started.endpoint;
    Ok(status)
}

/// Runs the sandbox and writes down the record of a whole pod: while it starts, where the answer is no part of it. Whether a whole
/// pod runs is seen by its sandbox, also by the next daemon.
async fn start(cri: &Cri, making: &Making<'_>, made: Made) -> Result<Started> {
    let id = &making.record.id;
    let start = async {
        let started = making.sandboxer.start(cri, id, &made).await;
        crash::point("sandbox-started");
        started.context(|| format!("failed to start sandbox {id:?}"))
    };
    if making.sandboxer.is_proxy() {
        let started = start.await?;
        complete(cri, making, &as_told(made, &started)).await?;
        return Ok(started);
    }
    let (started, completed) = future::join(start, complete(cri, making, &made)).await;
    let started = started?;
    completed.map(|()| started)
}

/// What was made, with what its start has told of it.
fn as_told(made: Made, started: &Started) -> Made {
    let spec = started.spec.clone().unwrap_or(made.spec);
    Made { spec, labels: made.labels.into_iter().chain(started.labels.clone()).collect(), ..made }
}

/// The record of a pod that may not be whole.
async fn write_down(cri: &Cri, making: &Making<'_>) -> Result<()> {
    let record = &making.record;
    let sandbox = Sandbox {
        id: record.id.clone(),
        runtime: RuntimeInfo { name: making.handler.runtime_type.clone(), options: making.options.clone() },
        labels: [("name", record.name.as_str()), CREATING]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        extensions: [(EXTENSION.to_owned(), record.to_any()?)].into(),
        sandboxer: making.sandboxer.name().to_owned(),
        ..Sandbox::default()
    };
    let written = cri.db.sandboxes(&cri.namespace).create(sandbox).await;
    written.map(drop).context(|| "failed to save sandbox metadata")
}

async fn lease(cri: &Cri, record: &Record) -> Result<()> {
    let leased = cri.db.leases(&cri.namespace).create(Some(record.id.clone()), Labels::new()).await;
    leased.map(drop).context(|| format!("failed to create lease for sandbox name {:?}", record.name))
}

async fn make_namespace(cri: &Cri, record: &Record) -> Result<()> {
    if record.netns.is_empty() {
        return Ok(());
    }
    let path = PathBuf::from(&record.netns);
    let user = podsandbox::user_namespace(cri, record).zip(namespace::user_maps(&record.config));
    let made =
        blocking(move || namespace::create(&path, user.as_ref().map(|(path, maps)| (path.as_path(), maps))));
    made.await.context(|| format!("failed to create network namespace for sandbox {:?}", record.id))?;
    crash::point("netns-made");
    Ok(())
}

/// Makes the namespace, sets up the networks and makes the container. What the networks have given is in the record then, whatever
/// has failed.
async fn populate(cri: &Cri, making: &mut Making<'_>) -> Result<Made> {
    let record = making.record.clone();
    let (handler, options) = (making.handler, making.options.clone());
    let (making_namespace, namespace) = Ready::pair();
    let plan = podsandbox::Plan { pod: &record, handler, options, labels: &making.labels, namespace };
    let attach = async {
        // Who waits for it hears of its failure, too, by its end.
        let making_namespace = making_namespace;
        make_namespace(cri, &record).await?;
        making_namespace.done();
        if record.netns.is_empty() {
            return Ok(None);
        }
        let given =
            timers::network(cri, ("sandbox_create_network", "set_up_pod"), cri.network.attach(&record)).await;
        given.map(Some).context(|| format!("failed to setup network for sandbox {:?}", record.id))
    };
    let create = async {
        let label = ("sandbox_runtime_create", Some(plan.handler.runtime_type.as_str()));
        let made = timers::step(cri, label, making.sandboxer.create(cri, &plan)).await;
        made.context(|| format!("failed to create sandbox {:?}", record.id))
    };
    let (given, made) = match making.side_by_side() {
        true => future::join(attach, create).await,
        false => (Ok(attach.await?), create.await),
    };
    if let Ok(Some(given)) = &given {
        making.record.ip.clone_from(&given.ip);
        making.record.additional_ips.clone_from(&given.additional_ips);
        making.record.cni_result.clone_from(&given.result);
    }
    crash::point("network-attached");
    given.map(drop).and(made)
}

/// The record of a whole pod: in its own row, and with its container as upstream reads it.
async fn complete(cri: &Cri, making: &Making<'_>, made: &Made) -> Result<()> {
    let record = &making.record;
    let mut labels = made.labels.clone();
    labels.insert("oci_runtime_type".to_owned(), making.handler.runtime_type.clone());
    labels.insert("selinux_label".to_owned(), record.process_label.clone());
    let sandbox = Sandbox {
        id: record.id.clone(),
        spec: Some(made.spec.clone()).filter(|spec| *spec != Any::default()),
        labels,
        extensions: [(EXTENSION.to_owned(), record.to_any()?)].into(),
        ..Sandbox::default()
    };
    let of_sandbox = FieldPaths(["extensions", "spec", "labels"].map(str::to_owned).to_vec());
    let sandboxes = cri.db.sandboxes(&cri.namespace);
    let (container, sandbox) =
        future::join(complete_container(cri, making), sandboxes.update(sandbox, &of_sandbox)).await;
    container.and(sandbox.map(drop)).context(|| format!("unable to save sandbox {:?}", record.id))
}

async fn complete_container(cri: &Cri, making: &Making<'_>) -> Result<()> {
    if making.sandboxer != Sandboxer::Podsandbox {
        return Ok(());
    }
    let containers = cri.db.containers(&cri.namespace);
    let mut container = containers.get(&making.record.id)?;
    container.extensions.insert(podsandbox::EXTENSION.to_owned(), making.record.to_any()?);
    containers.update(container, &FieldPaths(vec!["extensions".to_owned()])).await.map(drop)
}

/// Removes what was made. A pod of which something stays is in the store, for the kubelet to see.
async fn take_back(cri: &Cri, making: Making<'_>) {
    let id = making.record.id.clone();
    let pod = Arc::new(Pod::new(making.record, making.sandboxer, Status::new(State::Unknown)));
    let Err(error) = teardown::undo(cri, &pod).await else { return };
    tracing::error!(id, %error, "a pod that was not made stays in part: it is there as one that is not ready");
    if let Err(error) = note(cri, &pod.record).await {
        tracing::error!(id, %error, "write down what is left of a pod");
    }
    if let Err(error) = cri.pods.add(&id, pod) {
        tracing::error!(id, %error, "show what is left of a pod");
    }
}

/// Writes down what networks have given a pod that stays in part.
async fn note(cri: &Cri, record: &Record) -> Result<()> {
    let extensions = [(EXTENSION.to_owned(), record.to_any()?)].into();
    let sandbox = Sandbox { id: record.id.clone(), extensions, ..Sandbox::default() };
    let of_sandbox = FieldPaths(vec!["extensions".to_owned()]);
    // A record that is gone has nothing to be told of.
    gone(cri.db.sandboxes(&cri.namespace).update(sandbox, &of_sandbox).await.map(drop))
}
