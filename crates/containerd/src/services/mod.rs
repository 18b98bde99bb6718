//! The gRPC services: one thin file each, which decodes, makes one call into the house, and encodes.
//!
//! What changes something runs detached ([`crate::work`]); what was changed is announced on the event bus here, because
//! the crates below know no wire types.

mod checkpoint;
pub mod containers;
mod content;
pub mod deprecations;
mod diagnosis;
mod diff;
mod event_fields;
mod events;
mod images;
mod ingest;
mod introspection;
mod leases;
mod mounts;
mod namespaces;
pub mod reply;
mod sandbox_controllers;
mod sandboxes;
mod snapshots;
mod streaming;
mod tasks;
pub mod transfer;
mod version;
mod words;

use std::sync::Arc;

use ::diff::applier::Applier;
use ::diff::differ::Differ;
use metadata::Db;
use prost::{Message, Name};
use runtime::{Runtime, StateLock};
use tonic::server::NamedService;
use tonic::service::{Routes, RoutesBuilder};
use tracing::warn;
use types::events::Exchange;
use types::{Namespace, Scope};

use crate::calls::Calls;
use crate::config::MessageSize;
use crate::gc::Collector;
use crate::metrics::{Collections, Pods};
use crate::plugins::{Kind, Plugins};
use crate::proxies::Differs;
use crate::transfers::Transfers;
use crate::work::Work;

use deprecations::Deprecations;

/// What the services work with. Cloning shares it.
#[derive(Clone)]
pub struct House {
    /// Records, and each namespace's view of blobs and snapshots.
    pub db: Db,
    /// Processes.
    pub runtime: Runtime,
    /// Mounts that the daemon keeps.
    pub mounts: ::mounts::Manager,
    /// What has happened.
    pub events: Exchange,
    /// What is being changed.
    pub work: Work,
    /// Removes what nothing refers to.
    pub gc: Collector,
    /// Streams that clients have opened for transfers.
    pub streams: streaming::Streams,
    /// Pulls and pushes.
    pub transfers: Transfers,
    /// What is being asked, and has been.
    pub calls: Calls,
    /// How garbage collection went.
    pub collections: Collections,
    /// What the CRI has done.
    pub pods: Pods,
    /// What was used although it goes away.
    pub deprecations: Deprecations,
    /// Who applies and compares layers.
    differs: Differs,
    /// No other daemon has our tasks.
    _state: Arc<StateLock>,
}

/// What a house is built of.
pub struct Parts {
    /// See [`House::db`].
    pub db: Db,
    /// See [`House::runtime`].
    pub runtime: Runtime,
    /// See [`House::mounts`].
    pub mounts: ::mounts::Manager,
    /// See [`House::events`].
    pub events: Exchange,
    /// See [`House::gc`].
    pub gc: Collector,
    /// Who applies and compares layers.
    pub differs: Differs,
    /// See [`House::transfers`].
    pub transfers: Transfers,
    /// Held as long as the house is.
    pub state: StateLock,
}

impl House {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        let Parts { db, runtime, mounts, events, gc, differs, transfers, state } = parts;
        let streams = streaming::Streams::default();
        db.collect_also(Arc::new(streams.clone()));
        db.collect_also(Arc::new(mounts::Kept::new(mounts.clone())));
        Self {
            db,
            runtime,
            mounts,
            events,
            work: Work::new(),
            calls: Calls::new(),
            collections: gc.collections(),
            gc,
            streams,
            transfers,
            pods: Pods::default(),
            deprecations: Deprecations::of_host(),
            differs,
            _state: Arc::new(state),
        }
    }

    /// Tells subscribers what was done. The change stands either way, so a failure is only logged.
    pub fn announce<E: Message + Name>(&self, namespace: &Namespace, topic: &str, event: &E) {
        if let Err(error) = self.events.publish(namespace, topic, api::any::pack(event)) {
            warn!(%namespace, topic, %error, "publish event");
        }
    }

    /// Whether layers are extracted in this process and nowhere else.
    pub fn is_walking(&self) -> bool {
        self.differs.is_walking()
    }

    /// Makes layers into the content that `scope` can see.
    pub fn differ(&self, scope: &Scope) -> types::Result<Arc<dyn Differ>> {
        self.differs.differ(&self.db.content(scope.clone()), scope)
    }

    /// Extracts layers from the content that `scope` can see.
    pub fn applier(&self, scope: &Scope) -> types::Result<Arc<dyn Applier>> {
        self.differs.applier(&self.db.content(scope.clone()), scope)
    }
}

/// What makes the routes besides the house.
pub struct Doors<'a> {
    /// Kubernetes' front door, if it is open.
    pub cri: Option<cri::Cri>,
    /// Sandboxers in other processes.
    pub sandboxers: crate::proxies::Sandboxers,
    /// Which services are wanted.
    pub plugins: &'a Plugins,
    /// What Introspection tells.
    pub listed: Vec<api::containerd::services::introspection::v1::Plugin>,
    /// Limits of messages.
    pub size: MessageSize,
    /// Diff.Apply always makes layers durable.
    pub sync_fs: bool,
}

/// Adds each named service that is wanted, with the limits of messages that tonic sets service by service.
macro_rules! serve {
    ($routes:ident, $health:ident, $names:ident, $calls:expr, $doors:expr, $($id:literal => $server:ty, $service:expr;)*) => {
        $(if $doors.plugins.wants(Kind::Service, $id) {
            serve_one!($routes, $health, $names, $calls, $doors, $server, $service);
        })*
    };
}

/// Adds one service.
macro_rules! serve_one {
    ($routes:ident, $health:ident, $names:ident, $calls:expr, $doors:expr, $server:ty, $service:expr) => {{
        let server = <$server>::new($service)
            .max_decoding_message_size($doors.size.receive)
            .max_encoding_message_size($doors.size.send);
        $health.set_service_status(name(&server), tonic_health::ServingStatus::Serving).await;
        $calls.serves(name(&server));
        $names.push(name(&server));
        $routes.add_service(server);
    }};
}

fn name<S: NamedService>(_: &S) -> &'static str {
    S::NAME
}

/// The services of the CRI alone, for whoever comes over TCP.
pub fn cri_routes(cri: cri::Cri, size: MessageSize) -> Routes {
    use grpc::cri::image_service_server::ImageServiceServer;
    use grpc::cri::runtime_service_server::RuntimeServiceServer;
    let runtime = RuntimeServiceServer::new(cri.clone())
        .max_decoding_message_size(size.receive)
        .max_encoding_message_size(size.send);
    let images = ImageServiceServer::new(cri)
        .max_decoding_message_size(size.receive)
        .max_encoding_message_size(size.send);
    let services = [name(&runtime), name(&images)].into();
    let routes = Routes::new(runtime).add_service(images);
    routes.into_axum_router().layer(words::Words { services }).into()
}

/// All services on one set of routes. A service that is not among them answers Unimplemented.
pub async fn routes(house: &House, uuid: String, doors: Doors<'_>) -> Routes {
    // The reporter starts with the empty name, which stands for the daemon, serving.
    let health = tonic_health::server::HealthReporter::new();
    let mut routes = RoutesBuilder::default();
    let introspection = introspection::Introspection {
        plugins: doors.listed.clone(),
        uuid,
        deprecations: house.deprecations.clone(),
        runtime: house.runtime.clone(),
    };
    let mounts = mounts::Mounts { manager: house.mounts.clone(), work: house.work.clone() };
    let mut names = Vec::new();
    serve! { routes, health, names, house.calls, doors,
        "containers" => grpc::lists::containers_server::ContainersServer<_>, containers::Containers(house.clone());
        "content" => grpc::content::content_server::ContentServer<_>, content::Content(house.clone());
        "diagnosis" => grpc::diagnosis::diagnosis_server::DiagnosisServer<_>, diagnosis::Diagnosis(house.clone());
        "diff" => grpc::diff::diff_server::DiffServer<_>, diff::Diff { house: house.clone(), sync: doors.sync_fs };
        "events" => grpc::events::events_server::EventsServer<_>, events::Events(house.events.clone());
        "images" => grpc::lists::images_server::ImagesServer<_>, images::Images(house.clone());
        "introspection" => grpc::introspection::introspection_server::IntrospectionServer<_>, introspection;
        "leases" => grpc::leases::leases_server::LeasesServer<_>, leases::Leases(house.clone());
        "mounts" => grpc::mounts::mounts_server::MountsServer<_>, mounts;
        "namespaces" => grpc::namespaces::namespaces_server::NamespacesServer<_>, namespaces::Namespaces(house.clone());
        "sandbox-controllers" => grpc::sandbox::controller_server::ControllerServer<_>, sandbox_controllers::Controllers { house: house.clone(), cri: doors.cri.clone(), sandboxers: doors.sandboxers.clone() };
        "sandboxes" => grpc::sandbox::store_server::StoreServer<_>, sandboxes::Sandboxes(house.clone());
        "snapshots" => grpc::lists::snapshots_server::SnapshotsServer<_>, snapshots::Snapshots(house.clone());
        "streaming" => grpc::streaming::streaming_server::StreamingServer<_>, streaming::Streaming(house.clone());
        "tasks" => grpc::tasks::tasks_server::TasksServer<_>, tasks::Tasks(house.clone());
        "transfer" => grpc::transfer::transfer_server::TransferServer<_>, transfer::Transfer(house.clone());
        "version" => grpc::version::version_server::VersionServer<_>, version::Version;
    }
    if let Some(cri) = doors.cri {
        use grpc::cri::image_service_server::ImageServiceServer;
        use grpc::cri::runtime_service_server::RuntimeServiceServer;
        serve_one!(routes, health, names, house.calls, doors, RuntimeServiceServer<_>, cri.clone());
        serve_one!(routes, health, names, house.calls, doors, ImageServiceServer<_>, cri);
    }
    if doors.plugins.wants(Kind::Service, "healthcheck") {
        let service = tonic_health::server::HealthService::from_health_reporter(health);
        house.calls.serves("grpc.health.v1.Health");
        names.push("grpc.health.v1.Health");
        routes.add_service(
            tonic_health::pb::health_server::HealthServer::new(service)
                .max_decoding_message_size(doors.size.receive)
                .max_encoding_message_size(doors.size.send),
        );
    }
    let words = words::Words { services: names.into() };
    routes.routes().into_axum_router().layer(words).into()
}
