//! StartContainer.

use std::sync::Arc;
use std::time::SystemTime;

use api::containerd::runc::v1::Options;
use api::cri::{ContainerEventType, NamespaceMode, StartContainerRequest, StartContainerResponse};
use runtime::Signal;
use tasks::Create;
use types::task::{Endpoint, Origin, Stdio};
use types::undo::Undo;
use types::{Any, Error, Result, ResultExt, crash};

use super::create_container::ready;
use super::remove_container;
use crate::container::checkpoint;
use crate::container::files::{self, Writer};
use crate::container::log::{Keepers, Log};
use crate::container::{Container, exits, spec};
use crate::cri::{Cri, gone};
use crate::nri;
use crate::pod::{self, Pod};

/// How a container ends that could not be started.
const CODE: i32 = 128;
const REASON: &str = "StartError";
const KILL: u32 = 9;

/// Answers the call.
pub async fn run(cri: &Cri, request: StartContainerRequest) -> Result<StartContainerResponse> {
    let id = &request.container_id;
    let container = cri.containers.get(id);
    let container = container.context(|| format!("an error occurred when try to find container {id:?}"))?;
    let _starting = container.starting()?;
    // Limits that change meanwhile would be written down, and not be those of the task.
    let _limits = container.limits.lock().await;
    let _whole = nri::hold(cri).await;
    let mut undo = Undo::new(format!("start container {}", container.id()));
    match start(cri, &container, &mut undo).await {
        Ok(()) => undo.commit(),
        Err(error) => {
            for left in undo.unwind().await {
                tracing::error!(step = left.step, error = %left.error, "could not be undone");
            }
            failed(&container, &error).await;
            nri::stop_container(cri, &container).await;
            return Err(error);
        }
    }
    exits::watch(cri, Arc::clone(&container));
    if container.status().restore {
        restored(cri, &container).await;
    }
    let started = ContainerEventType::ContainerStartedEvent;
    crate::events::tell(cri, container.id(), &container.record.pod, started);
    nri::post_start_container(cri, &container).await;
    Ok(StartContainerResponse {})
}

async fn start(cri: &Cri, container: &Container, undo: &mut Undo) -> Result<()> {
    let (id, of) = (container.id(), &container.record.pod);
    let pod = cri.pods.get(of).context(|| format!("sandbox {of:?} not found"))?;
    ready(&pod)?;
    target(cri, container)?;
    let pid = make_task(cri, container, &pod).await.context(|| "failed to create containerd task")?;
    undo.push("delete task", discard(cri.clone(), id.to_owned()));
    crash::point("cri-task-created");
    nri::start_container(cri, &pod, container, pid).await?;
    let pid = cri.tasks.start(&cri.namespace, id, "").await;
    let pid = pid.context(|| format!("failed to start containerd task {id:?}"))?;
    crash::point("cri-task-started");
    let now = types::time::nanoseconds(SystemTime::now());
    let running = container.update(|status| {
        (status.pid, status.started_at) = (pid, now);
        Ok(())
    });
    running.await.context(|| format!("failed to update container {id:?} state"))?;
    // Whoever stops the pod from here on sees that this one runs.
    ready(&pod)
}

/// What it went on from is of no use any more.
async fn restored(cri: &Cri, container: &Container) {
    let dir = checkpoint::restore_dir(cri, container.id());
    if let Err(error) = remove_container::remove_files([dir]).await {
        tracing::warn!(container = container.id(), %error, "remove the checkpoint of a container that runs");
    }
}

/// Writes down that it could not be started.
async fn failed(container: &Container, error: &Error) {
    let (now, message) = (types::time::nanoseconds(SystemTime::now()), error.to_string());
    let written = container.update(|status| {
        (status.pid, status.finished_at, status.exit_code) = (0, now, CODE);
        REASON.clone_into(&mut status.reason);
        status.message.clone_from(&message);
        Ok(())
    });
    if let Err(error) = written.await {
        tracing::error!(container = container.id(), %error, "failed to set start failure state");
    }
}

/// The container whose processes this one is to see must run.
fn target(cri: &Cri, container: &Container) -> Result<()> {
    let options = spec::namespaces(&container.record.config);
    if options.as_ref().is_some_and(|options| options.pid() == NamespaceMode::Target) {
        let target = options.map(|options| options.target_id).unwrap_or_default();
        spec::target(cri, &container.record.pod, &target)?;
    }
    Ok(())
}

async fn make_task(cri: &Cri, container: &Container, pod: &Pod) -> Result<u32> {
    let id = container.id();
    let row = cri.db.containers(&cri.namespace).get(id)?;
    let handler = pod::handler(cri, &pod.record.config, &pod.record.runtime_handler)?;
    let writer = writer(cri, pod.id()).await;
    let streams = files::streams(cri, container, writer);
    files::make_fifos(&streams.fifos)?;
    // Until the shim has opened them.
    let _keepers = match writer {
        Writer::Shim => None,
        Writer::Daemon => Some(follow(cri, container, &streams.stdio)?),
    };
    let snapshots = cri.db.snapshotter(cri.scope(None), &row.snapshotter)?;
    let rootfs = snapshots.mounts(&row.snapshot_key).await?;
    let create = Create {
        id: id.to_owned(),
        rootfs: crate::spec::with_label(rootfs, &spec::mount_label(row.spec.as_ref())?),
        stdio: streams.stdio,
        options: io_owner(&row)?,
        runtime: handler.runtime_path.clone(),
        origin: origin(cri, container),
        // A shim that writes logs serves its pod's containers as well.
        shim_of: (writer == Writer::Shim).then(|| pod.id().to_owned()),
        endpoint: endpoint(pod)?,
        ..Create::default()
    };
    cri.tasks.create(&cri.namespace, create).await
}

/// Where its task is made: with us, unless the pod's sandbox is another process's, which has to say where.
fn endpoint(pod: &Pod) -> Result<Option<Endpoint>> {
    let endpoint = pod.status().endpoint;
    if endpoint.is_none() && pod.sandboxer.is_proxy() {
        let (name, id) = (pod.sandboxer.name(), pod.id());
        let text = format!("sandboxer {name:?} has not said where tasks of sandbox {id:?} are made");
        return Err(Error::precondition(text));
    }
    Ok(endpoint)
}

/// What it goes on from.
fn origin(cri: &Cri, container: &Container) -> Origin {
    if !container.status().restore {
        return Origin::Beginning;
    }
    let images = checkpoint::restore_dir(cri, container.id()).join("checkpoint");
    Origin::Checkpoint(images.to_string_lossy().into_owned())
}

/// Writes its log from now on.
pub fn follow(cri: &Cri, container: &Container, stdio: &Stdio) -> Result<Keepers> {
    let log = Log::open(&container.record.log_path, cri.config.runtime.max_log_line)?;
    let keepers = log.follow(stdio)?;
    container.set_log(log);
    Ok(keepers)
}

/// Who writes the logs of a pod's containers.
pub async fn writer(cri: &Cri, pod: &str) -> Writer {
    match cri.runtime.has_output_service(&cri.namespace, pod).await {
        Ok(true) => Writer::Shim,
        // A sandbox of another kind is no task.
        Ok(false) | Err(_) => Writer::Daemon,
    }
}

/// Options of a task in a user namespace: its pipes belong to its user.
fn io_owner(row: &types::container::Container) -> Result<Option<Any>> {
    let Some((uid, gid)) = spec::io_owner(row.spec.as_ref())? else { return Ok(None) };
    let Some(options) = &row.runtime.options else {
        return Ok(Some(api::any::pack(&Options { io_uid: uid, io_gid: gid, ..Options::default() })));
    };
    let Ok(known) = api::any::unpack::<Options>(options) else { return Ok(None) };
    Ok(Some(api::any::pack(&Options { io_uid: uid, io_gid: gid, ..known })))
}

/// The opposite of making a task. One that is gone is fine.
async fn discard(cri: Cri, id: String) -> Result<()> {
    gone(cri.tasks.kill(&cri.namespace, &id, "", Signal { number: KILL, all: true }).await)?;
    gone(cri.tasks.wait(&cri.namespace, &id, "").await.map(drop))?;
    gone(cri.tasks.delete(&cri.namespace, &id).await.map(drop))
}
