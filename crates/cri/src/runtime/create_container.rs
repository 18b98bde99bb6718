//! CreateContainer.
//!
//! ```text
//!  checked  -->  name  -->  directories  -->  image volumes (the pod's)  -->  snapshot  -->  volumes
//!           -->  spec  -->  status file  -->  record  -->  store  -->  told
//! ```
//!
//! Each step has its opposite on the undo list. What a daemon leaves that dies in between is found by nobody and removed when
//! the next one starts (directories) or when the pod ends (the snapshot, which the pod's lease holds).

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use api::containerd::events::{ContainerCreate, container_create};
use api::cri::{ContainerConfig, ContainerEventType, CreateContainerRequest, CreateContainerResponse};
use types::container::{Container as Row, RuntimeInfo};
use types::undo::Undo;
use types::{Any, Error, Labels, Result, ResultExt, any, crash, labels};

use super::remove_container;
use crate::config::Handler;
use crate::container::checkpoint::restore::{self, Archive};
use crate::container::checkpoint::{self, given};
use crate::container::request::{self, Checked};
use crate::container::{
    self, Container, EXTENSION, KIND, KIND_CONTAINER, Record, Status, StatusFile, images, signal, snapshot,
    spec, volumes,
};
use crate::cri::{Cri, blocking, new_id};
use crate::image::Image;
use crate::nri;
use crate::pod::{self, Pod, State};

/// Answers the call.
pub async fn run(cri: &Cri, request: CreateContainerRequest) -> Result<CreateContainerResponse> {
    let id = &request.pod_sandbox_id;
    let pod = cri.pods.get(id).context(|| format!("failed to find sandbox id {id:?}"))?;
    let mut config = request.config.ok_or_else(|| Error::invalid("container config must not be empty"))?;
    let sandbox = request.sandbox_config.unwrap_or_else(|| pod.record.config.clone());
    request::check(&config, &sandbox)?;
    ready(&pod)?;
    pod.sandboxer.check_platform(cri, pod.id()).await.context(|| "failed to query sandbox platform")?;
    let handler = pod::handler(cri, &pod.record.config, &pod.record.runtime_handler)?;
    let snapshotter = cri.config.snapshotter(Some(handler), &pod.record.runtime_handler);
    let archive = given::read(cri, (pod.id(), snapshotter), &mut config).await?;
    // What an archive has said is no better than what the request says.
    let checked = request::check(&config, &sandbox)?;
    let mut undo = Undo::new(format!("create container {}", checked.name));
    let creation = Creation { cri, pod, handler, snapshotter, sandbox, id: new_id(), checked, archive };
    match creation.run(config, &mut undo).await {
        Ok(()) => {
            undo.commit();
            Ok(CreateContainerResponse { container_id: creation.id })
        }
        Err(error) => {
            for left in undo.unwind().await {
                tracing::error!(step = left.step, error = %left.error, "could not be undone");
            }
            Err(error)
        }
    }
}

/// Refuses a pod whose sandbox does not run, or will not any more.
pub fn ready(pod: &Pod) -> Result<()> {
    match pod.status().state {
        State::Ready if pod.is_stopping() => {
            Err(Error::precondition(format!("sandbox {:?} is being stopped", pod.id())))
        }
        State::Ready => Ok(()),
        State::NotReady | State::Unknown => {
            Err(Error::precondition(format!("sandbox container {:?} is not running", pod.id())))
        }
    }
}

/// What the steps share.
struct Creation<'a> {
    cri: &'a Cri,
    pod: Arc<Pod>,
    handler: &'a Handler,
    snapshotter: &'a str,
    /// The pod as the request describes it.
    sandbox: api::cri::PodSandboxConfig,
    id: String,
    checked: Checked,
    /// What it goes on from.
    archive: Option<Arc<Archive>>,
}

impl Creation<'_> {
    async fn run(&self, mut config: ContainerConfig, undo: &mut Undo) -> Result<()> {
        self.reserve(&config, undo)?;
        let image = self.image(&config)?;
        self.directories(undo)?;
        images::mount(self.cri, &self.pod, self.snapshotter, &mut config).await?;
        let labels = spec::selinux(self.cri, &self.pod, &config)?;
        let wanted = spec::Wanted {
            cri: self.cri,
            pod: &self.pod,
            sandbox: &self.sandbox,
            handler: self.handler,
            id: &self.id,
            config: &config,
            image: &image,
            labels: &labels,
        };
        let rootfs = self.snapshot(&wanted, undo).await?;
        self.unpack(&rootfs).await?;
        let spec = spec::make(&wanted, &rootfs).await?;
        let record = self.record(config.clone(), &image, &labels.process)?;
        let _whole = nri::hold(self.cri).await;
        let spec = self.adjusted(&record, &image, spec, undo).await?;
        let row = self.row(&record, &image, &spec)?;
        let file = self.status_file(&spec).await?;
        self.store_row(row, undo).await?;
        self.store(Container::new(record, file), undo)?;
        crate::events::tell(self.cri, &self.id, self.pod.id(), ContainerEventType::ContainerCreatedEvent);
        nri::post_create_container(self.cri, &self.pod, &self.id).await;
        Ok(())
    }

    fn reserve(&self, config: &ContainerConfig, undo: &mut Undo) -> Result<()> {
        let (names, name) = (&self.cri.container_names, &self.checked.name);
        let doing = || {
            format!(
                "failed to reserve container name {name:?}; check if another CreateContainer request is in progress"
            )
        };
        if let Err(error) = names.reserve(name, &self.id) {
            let owner = names.owner(name).and_then(|owner| self.cri.containers.get(&owner).ok());
            let other = owner.is_some_and(|owner| owner.record.config.metadata != config.metadata);
            if other {
                let text =
                    format!("config.metadata.name: joined, it is the name {name:?} of another container");
                return Err(Error::invalid(text));
            }
            return Err(error.context(doing()));
        }
        let (cri, id) = (self.cri.clone(), self.id.clone());
        undo.push("release name", async move {
            cri.container_names.release_id(&id);
            Ok(())
        });
        Ok(())
    }

    fn image(&self, config: &ContainerConfig) -> Result<Arc<Image>> {
        if let Some(archive) = &self.archive {
            let base = &archive.config.rootfs_image_ref;
            let image = self.cri.images.resolve(base);
            return image.context(|| format!("failed to get checkpoint base image {base:?}: pull it first"));
        }
        let name = config.image.as_ref().map(|image| image.image.as_str()).unwrap_or_default();
        self.cri.images.resolve(name).context(|| format!("failed to resolve image {name:?}"))
    }

    /// Unpacks what it goes on from.
    async fn unpack(&self, rootfs: &spec::Rootfs) -> Result<()> {
        let Some(archive) = self.archive.clone() else { return Ok(()) };
        let dir = checkpoint::restore_dir(self.cri, &self.id);
        let (mounts, log) = (rootfs.mounts.clone(), self.checked.log_path.clone());
        let image = archive.image().cloned();
        let work = move |root: &Path| {
            archive.unpack(root, &dir)?;
            restore::put_back(&dir, &mounts, log.as_deref())
        };
        match image {
            Some(image) => snapshot::inside(self.cri, (self.pod.id(), self.snapshotter), &image, work).await,
            None => blocking(move || work(Path::new(""))).await,
        }
    }

    fn directories(&self, undo: &mut Undo) -> Result<()> {
        let dirs = [self.cri.dirs.container(&self.id), self.cri.dirs.container_state(&self.id)];
        for dir in &dirs {
            container::files::make_dir(dir)?;
        }
        crash::point("cri-container-dirs");
        undo.push("remove directories", remove_container::remove_files(dirs));
        Ok(())
    }

    async fn snapshot(&self, wanted: &spec::Wanted<'_>, undo: &mut Undo) -> Result<spec::Rootfs> {
        let (pod, snapshotter) = (self.pod.id(), self.snapshotter);
        let new = snapshot::New { id: &self.id, pod, image: wanted.image, snapshotter };
        let mounts = snapshot::prepare(self.cri, &new, spec::snapshot_labels(wanted.config)?).await?;
        crash::point("cri-container-snapshot");
        let snapshots = self.cri.db.snapshotter(self.cri.scope(None), snapshotter)?;
        let id = self.id.clone();
        undo.push("remove snapshot", async move {
            match snapshots.remove(&id).await {
                Err(error) if !error.is_not_found() => Err(error),
                _ => Ok(()),
            }
        });
        let rootfs = spec::Rootfs { volumes: spec::volumes(wanted), mounts };
        let (filled, of) = (rootfs.volumes.clone(), rootfs.mounts.clone());
        blocking(move || volumes::fill(&filled, &of)).await?;
        Ok(rootfs)
    }

    fn record(&self, config: ContainerConfig, image: &Image, label: &str) -> Result<Record> {
        let stop_signal = signal::requested(config.stop_signal)?;
        let log_path = self.checked.log_path.as_ref().map(|path| path.to_string_lossy().into_owned());
        Ok(Record {
            id: self.id.clone(),
            name: self.checked.name.clone(),
            pod: self.pod.id().to_owned(),
            config,
            image_ref: image.id.clone(),
            log_path: log_path.unwrap_or_default(),
            stop_signal: stop_signal.unwrap_or_else(|| image.config.config.stop_signal.clone()),
            process_label: label.to_owned(),
        })
    }

    /// The spec as NRI plugins want it.
    async fn adjusted(
        &self,
        record: &Record,
        image: &Image,
        spec: serde_json::Value,
        undo: &mut Undo,
    ) -> Result<serde_json::Value> {
        let (cri, pod, id) = (self.cri.clone(), Arc::clone(&self.pod), self.id.clone());
        undo.push("tell plugins", async move {
            nri::undo_create_container(&cri, &pod, &id).await;
            Ok(())
        });
        let labels = labels_of(&record.config.labels, &image.config.config.labels);
        let new = nri::New { pod: &self.pod, record, labels: &labels };
        nri::create_container(self.cri, new, spec).await
    }

    fn row(&self, record: &Record, image: &Image, spec: &serde_json::Value) -> Result<Row> {
        let runtime =
            RuntimeInfo { name: self.handler.runtime_type.clone(), options: pod::options(self.handler)? };
        let spec = serde_json::to_vec(spec).map_err(|e| Error::internal(format!("encode spec: {e}")))?;
        let now = SystemTime::now();
        Ok(Row {
            id: self.id.clone(),
            labels: labels_of(&record.config.labels, &image.config.config.labels),
            image: spec::image_name(image),
            runtime,
            spec: Some(Any::new(any::RUNTIME_SPEC, spec)),
            snapshotter: self.snapshotter.to_owned(),
            snapshot_key: self.id.clone(),
            created_at: now,
            updated_at: now,
            extensions: [(EXTENSION.to_owned(), record.to_any()?)].into(),
            sandbox: self.pod.id().to_owned(),
        })
    }

    async fn status_file(&self, spec: &serde_json::Value) -> Result<StatusFile> {
        let created_at = types::time::nanoseconds(SystemTime::now());
        let (resources, restore) = (Some(spec::resources(spec)?), self.archive.is_some());
        let status = Status { created_at, resources, restore, ..Status::default() };
        let file = StatusFile::create(&self.cri.dirs.container(&self.id), status).await;
        crash::point("cri-container-status");
        file.context(|| format!("failed to create internal container object for {:?}", self.id))
    }

    async fn store_row(&self, row: Row, undo: &mut Undo) -> Result<()> {
        let created = self.cri.db.containers(&self.cri.namespace).create(row).await;
        let created = created.context(|| "failed to create containerd container")?;
        crash::point("cri-container-record");
        let (cri, id) = (self.cri.clone(), self.id.clone());
        undo.push("remove record", async move { remove_container::remove_records(&cri, &id).await });
        let options = created.runtime.options.map(api::any::to_wire);
        let runtime = container_create::Runtime { name: created.runtime.name, options };
        let event = ContainerCreate { id: created.id, image: created.image, runtime: Some(runtime) };
        self.cri.announce("/containers/create", &event);
        Ok(())
    }

    fn store(&self, container: Container, undo: &mut Undo) -> Result<()> {
        let added = self.cri.containers.add(&self.id, Arc::new(container));
        added.context(|| format!("failed to add container {:?} into store", self.id))?;
        let (cri, id) = (self.cri.clone(), self.id.clone());
        undo.push("forget container", async move {
            cri.containers.remove(&id);
            Ok(())
        });
        // A pod that ends now has not seen this container.
        ready(&self.pod)
    }
}

/// The request's labels, and those of the image that mean nothing to the daemon.
fn labels_of(request: &Labels, image: &Labels) -> Labels {
    let harmless = |(key, value): &(&String, &String)| {
        let taken = !labels::is_reserved(key) && !key.is_empty() && labels::validate(key, value).is_ok();
        if !taken {
            let shown: String = key.chars().take(64).collect();
            tracing::warn!(label = shown, "a label of the image is not taken over");
        }
        taken
    };
    let mut all: Labels = image.iter().filter(harmless).map(|(k, v)| (k.clone(), v.clone())).collect();
    all.extend(request.clone());
    all.insert(KIND.to_owned(), KIND_CONTAINER.to_owned());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_an_image_steer_nothing() {
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let image = Labels::from([
            label("containerd.io/restart.loguri", "binary:///bin/sh"),
            label("io.cri-containerd.kind", "sandbox"),
            label("long", &"x".repeat(5000)),
            label("a", "image"),
            label("b", "image"),
        ]);
        let labels = labels_of(&Labels::from([label("a", "request")]), &image);
        let expected = [label("a", "request"), label("b", "image"), label(KIND, KIND_CONTAINER)];
        assert_eq!(labels, Labels::from(expected));
    }
}
