//! The container that holds a pod's namespaces, for runtimes whose `sandboxer` is `podsandbox`.
//!
//! ```text
//!  create     image and snapshot, or the built-in pause
//!             directories and files || record || shim
//!             task, which waits to be started
//!  start      runs
//!  end        killed, its task deleted, whatever state it is in
//!  remove     snapshot, record, files: nothing is left
//! ```
//!
//! [`create`] undoes nothing: [`end`] and [`remove`] may be done for a sandbox of which only a part was made, or nothing, and
//! done again.

mod exit;
mod files;
mod ground;

use std::time::{Duration, SystemTime};

use api::containerd::events::{ContainerCreate, ContainerDelete, container_create};
use api::cri::PodSandboxConfig;
use futures_util::future;
use runtime::{Ready, Signal, Terms};
use types::container::{Container, RuntimeInfo};
use types::{Any, Class, Error, Labels, Result, ResultExt};

use self::ground::Ground;
use crate::config::Handler;
use crate::cri::{Cri, gone};
use crate::pod::Record;

pub use exit::{clear, watch};
pub use files::{remove as remove_files, unmount, user_namespace};

/// The label that tells what a container is, and its value for sandboxes.
pub const KIND: (&str, &str) = ("io.cri-containerd.kind", "sandbox");
/// The extension of a sandbox's container that is the pod's record.
pub const EXTENSION: &str = "io.cri-containerd.sandbox.metadata";
/// How long a shim may take to kill a sandbox, and to delete it: more is a shim that hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait before a task that could not be deleted is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// SIGKILL.
const KILL: Signal = Signal { number: 9, all: false };

/// A sandbox to be made.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The pod. Its addresses are not known yet.
    pub pod: &'a Record,
    /// Its runtime.
    pub handler: &'a Handler,
    /// For the shim.
    pub options: Option<Any>,
    /// For SELinux.
    pub labels: &'a crate::spec::Labels,
    /// Whether the network namespace is there, which is made meanwhile.
    pub namespace: Ready,
}

impl Plan<'_> {
    /// Waits until the runtime may use the network namespace.
    pub async fn namespace_made(&self) -> Result<()> {
        self.namespace.reached().await.map_err(|_| Error::unavailable("there is no network namespace"))
    }
}

/// A sandbox that waits to be started.
#[derive(Clone, Debug)]
pub struct Made {
    /// The pid of its init.
    pub pid: u32,
    /// Its OCI spec.
    pub spec: Any,
    /// Of its container.
    pub labels: Labels,
    /// When its container was created.
    pub created_at: SystemTime,
}

/// The SELinux labels of a pod that is to be made.
pub fn selinux(cri: &Cri, config: &PodSandboxConfig) -> Result<crate::spec::Labels> {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let asked = security.and_then(|security| security.selinux_options.as_ref());
    crate::spec::labels(asked, "", &cri.config.runtime, crate::spec::Machine::here())
}

/// Makes the sandbox's container and its task. Not cancel safe.
pub async fn create(cri: &Cri, plan: &Plan<'_>) -> Result<Made> {
    let id = plan.pod.id.as_str();
    let ground = ground::prepare(cri, plan).await?;
    let spec = spec_of(cri, plan, &ground)?;
    let container = container(plan, &ground, spec.clone())?;
    let row = container.clone();
    let (preparing, ready) = Ready::pair();
    let task = tasks::Create {
        id: id.to_owned(),
        rootfs: ground.labelled(&plan.labels.mount),
        runtime: plan.handler.runtime_path.clone(),
        terms: Terms { ready, ..Terms::default() },
        ..tasks::Create::default()
    };
    let prepare = async {
        let (written, row) = future::join(files::write(cri, plan.pod), record(cri, row)).await;
        written?;
        let row = row?;
        plan.namespace_made().await?;
        preparing.done();
        Ok::<_, Error>(row)
    };
    // Its shim starts meanwhile.
    let create = cri.tasks.create_of(&cri.namespace, container, task);
    let (row, pid) = future::join(prepare, create).await;
    let (row, pid) = (row?, pid.context(|| "failed to create containerd task")?);
    types::crash::point("sandbox-created");
    Ok(Made { pid, spec, labels: row.labels, created_at: row.created_at })
}

/// Writes the pod's files; the spec of its sandbox with the built-in pause.
pub async fn builtin_spec(cri: &Cri, plan: &Plan<'_>) -> Result<Any> {
    files::write(cri, plan.pod).await?;
    spec_of(cri, plan, &ground::builtin(cri, plan).await?)
}

/// Writes the pod's files.
pub async fn write_files(cri: &Cri, plan: &Plan<'_>) -> Result<()> {
    files::write(cri, plan.pod).await
}

fn spec_of(cri: &Cri, plan: &Plan<'_>, ground: &Ground) -> Result<Any> {
    let id = plan.pod.id.as_str();
    let spec = crate::spec::sandbox(&crate::spec::Sandbox {
        id,
        config: &plan.pod.config,
        netns: &plan.pod.netns,
        user_namespace: user_namespace(cri, plan.pod),
        pause: ground.pause(),
        image_name: &ground.image,
        handler: plan.handler,
        settings: &cri.config.runtime,
        files: &cri.dirs.pod(id),
        shm: &cri.dirs.pod_state(id).join("shm"),
        labels: plan.labels,
        machine: crate::spec::Machine::here(),
    })?;
    let json = serde_json::to_vec(&spec)
        .map_err(|e| Error::internal(format!("encode the spec of sandbox {id}: {e}")))?;
    Ok(Any::new(types::any::RUNTIME_SPEC, json))
}

/// The sandbox's container.
fn container(plan: &Plan<'_>, ground: &Ground, spec: Any) -> Result<Container> {
    let pod = plan.pod.to_any()?;
    Ok(Container {
        id: plan.pod.id.clone(),
        labels: labels(&plan.pod.config.labels, &ground.labels),
        image: ground.image.clone(),
        runtime: RuntimeInfo { name: plan.handler.runtime_type.clone(), options: plan.options.clone() },
        spec: Some(spec),
        snapshotter: ground.snapshotter.clone(),
        snapshot_key: ground.snapshot_key.clone(),
        created_at: SystemTime::UNIX_EPOCH,
        updated_at: SystemTime::UNIX_EPOCH,
        extensions: [(EXTENSION.to_owned(), pod)].into(),
        sandbox: String::new(),
    })
}

/// Writes the container's record.
async fn record(cri: &Cri, container: Container) -> Result<Container> {
    let container = cri.db.containers(&cri.namespace).create(container).await?;
    let runtime = container_create::Runtime {
        name: container.runtime.name.clone(),
        options: container.runtime.options.clone().map(api::any::to_wire),
    };
    let event =
        ContainerCreate { id: container.id.clone(), image: container.image.clone(), runtime: Some(runtime) };
    cri.announce("/containers/create", &event);
    Ok(container)
}

/// The pod's labels, those of the image that are no options of ours, and the kind.
fn labels(pod: &Labels, image: &Labels) -> Labels {
    let reserved = |key: &str| {
        key.starts_with("containerd.io/")
            || key.contains(".containerd.io/")
            || key.starts_with("io.cri-containerd")
    };
    let image = image.iter().filter(|(key, value)| {
        !reserved(key) && types::labels::validate(key, value).is_ok() && !value.is_empty()
    });
    let mut labels: Labels = image.map(|(key, value)| (key.clone(), value.clone())).collect();
    labels.extend(pod.clone());
    labels.insert(KIND.0.to_owned(), KIND.1.to_owned());
    labels
}

/// Runs the sandbox.
pub async fn start(cri: &Cri, id: &str) -> Result<()> {
    let started = cri.tasks.start(&cri.namespace, id, "").await;
    started.map(drop).context(|| format!("failed to start sandbox container task {id:?}"))
}

/// Kills the sandbox and deletes its task, if there is one. May be done again.
pub async fn end(cri: &Cri, id: &str) -> Result<()> {
    let (runtime, namespace) = (&cri.runtime, &cri.namespace);
    let late = |doing: &str| Error::deadline(format!("{doing} sandbox {id}: the shim does not answer"));
    let killed = tokio::time::timeout(PATIENCE, runtime.kill(namespace, id, "", KILL)).await;
    match killed.unwrap_or_else(|_| Err(late("kill"))) {
        Ok(()) => {
            let ended = tokio::time::timeout(PATIENCE, runtime.wait(namespace, id, "")).await;
            gone(ended.unwrap_or_else(|_| Err(late("wait for"))).map(drop))?;
        }
        killed => gone(killed)?,
    }
    let delete = || async {
        let deleted = tokio::time::timeout(PATIENCE, cri.tasks.delete(namespace, id)).await;
        gone(deleted.unwrap_or_else(|_| Err(late("delete"))).map(drop))
    };
    match delete().await {
        // Whoever watches for its end tries again as well: one failure is not worth an error.
        Err(error) if error.class() != Class::DeadlineExceeded => {
            tracing::warn!(id, %error, "delete the task of a sandbox: it is tried again");
            tokio::time::sleep(PAUSE).await;
            delete().await
        }
        deleted => deleted,
    }
}

/// Removes what is left of a sandbox that has ended. May be done again.
pub async fn remove(cri: &Cri, id: &str) -> Result<()> {
    let containers = cri.db.containers(&cri.namespace);
    match containers.get(id) {
        Ok(container) => {
            ground::remove(cri, &container).await?;
            gone(containers.delete(id).await)?;
            cri.announce("/containers/delete", &ContainerDelete { id: id.to_owned() });
        }
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    files::remove(cri, id).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_an_image_are_no_options_and_do_not_hide_those_of_the_pod() {
        let of = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let image = of(&[
            ("maintainer", "m"),
            ("app", "image"),
            ("containerd.io/gc.root", "x"),
            ("io.cri-containerd.kind", "container"),
            ("long", &"x".repeat(5000)),
        ]);
        let expected = of(&[("app", "pod"), ("io.cri-containerd.kind", "sandbox"), ("maintainer", "m")]);
        assert_eq!(labels(&of(&[("app", "pod")]), &image), expected);
    }
}
