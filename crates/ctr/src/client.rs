//! The daemon as the commands see it: generated clients and remote stores over one lazily opened channel.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::containerd::services as wire;
use base64::Engine as _;
use grpc::containers::containers_client::ContainersClient;
use grpc::diagnosis::diagnosis_client::DiagnosisClient;
use grpc::events::events_client::EventsClient;
use grpc::images::images_client::ImagesClient;
use grpc::introspection::introspection_client::IntrospectionClient;
use grpc::leases::leases_client::LeasesClient;
use grpc::namespaces::namespaces_client::NamespacesClient;
use grpc::sandbox::controller_client::ControllerClient;
use grpc::sandbox::store_client::StoreClient;
use grpc::streaming::streaming_client::StreamingClient;
use grpc::tasks::tasks_client::TasksClient;
use grpc::transfer::transfer_client::TransferClient;
use grpc::version::version_client::VersionClient;
use remote::{
    Connection, MAX_MESSAGE, RemoteApplier, RemoteDiffer, RemoteSnapshotter, RemoteStore, Transport,
    from_status,
};
use types::container::Container;
use types::image::Image;
use types::{Error, Result, Scope, labels};

use crate::cli::Globals;
use crate::go;

/// What a namespace's label says which snapshotter its containers use.
const DEFAULT_SNAPSHOTTER_LABEL: &str = "containerd.io/defaults/snapshotter";
/// The snapshotter where nobody says otherwise.
pub const DEFAULT_SNAPSHOTTER: &str = "overlayfs";

/// How long a daemon may be silent before it is given up, unless the command line says otherwise; as upstream.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to the daemon in one namespace, perhaps under a lease. Cloning shares the channel.
#[derive(Clone)]
pub struct Client {
    connection: Connection,
}

macro_rules! services {
    ($($(#[$doc:meta])* $name:ident: $client:ident),* $(,)?) => {
        impl Client {
            $($(#[$doc])* pub fn $name(&self) -> $client<Transport> {
                $client::new(self.connection.transport()).max_decoding_message_size(MAX_MESSAGE)
            })*
        }
    };
}

services! {
    /// The containers service.
    containers: ContainersClient,
    /// Our own service, which other daemons do not have.
    diagnosis: DiagnosisClient,
    /// The events service.
    events: EventsClient,
    /// The images service.
    images: ImagesClient,
    /// The introspection service.
    introspection: IntrospectionClient,
    /// The leases service.
    leases: LeasesClient,
    /// The namespaces service.
    namespaces: NamespacesClient,
    /// The controllers of sandboxes.
    sandbox_controller: ControllerClient,
    /// The records of sandboxes.
    sandboxes: StoreClient,
    /// Streams that transfers take up.
    streaming: StreamingClient,
    /// The tasks service.
    tasks: TasksClient,
    /// The transfer service.
    transfer: TransferClient,
    /// The version service.
    version: VersionClient,
}

impl Client {
    /// A client for the address and namespace of the command line. Only checks that the socket is there.
    pub fn open(globals: &Globals) -> Result<Self> {
        let path = globals.address.strip_prefix("unix://").unwrap_or(&globals.address);
        if let Err(error) = std::fs::metadata(path) {
            return Err(go::path_error("stat", path, error).context(format!("cannot access socket {path}")));
        }
        if globals.namespace.is_empty() {
            return Err(Error::precondition("namespace is required: failed precondition"));
        }
        let scope = Scope::new(globals.namespace.parse()?);
        let limit = if globals.connect_timeout.is_zero() { PATIENCE } else { globals.connect_timeout };
        Ok(Self { connection: Connection::open_within(path, scope, Some(limit))? })
    }

    /// The same daemon in another namespace.
    pub fn in_namespace(&self, namespace: &str) -> Result<Self> {
        Ok(Self { connection: self.connection.with_scope(Scope::new(namespace.parse()?))? })
    }

    /// The namespace of every call.
    pub fn namespace(&self) -> &str {
        self.connection.scope().namespace.as_str()
    }

    /// The content store.
    pub fn content(&self) -> RemoteStore {
        RemoteStore::new(&self.connection)
    }

    /// A snapshotter; an empty name is the namespace's default.
    pub async fn snapshotter(&self, name: &str) -> Result<RemoteSnapshotter> {
        Ok(RemoteSnapshotter::new(&self.connection, self.snapshotter_name(name).await?))
    }

    /// The snapshotter of that name.
    pub fn named_snapshotter(&self, name: &str) -> RemoteSnapshotter {
        RemoteSnapshotter::new(&self.connection, name)
    }

    /// `name`, or if that is empty the namespace's default, or else overlayfs.
    pub async fn snapshotter_name(&self, name: &str) -> Result<String> {
        if !name.is_empty() {
            return Ok(name.into());
        }
        let default = self.default(DEFAULT_SNAPSHOTTER_LABEL).await?;
        Ok(default.unwrap_or_else(|| DEFAULT_SNAPSHOTTER.into()))
    }

    /// What a label of the namespace says.
    pub async fn default(&self, label: &str) -> Result<Option<String>> {
        let request = wire::namespaces::v1::GetNamespaceRequest { name: self.namespace().into() };
        let labels = match self.namespaces().get(request).await.map_err(from_status) {
            Ok(response) => response.into_inner().namespace.unwrap_or_default().labels,
            Err(error) if error.is_not_found() => Default::default(),
            Err(error) => return Err(error),
        };
        Ok(labels.get(label).filter(|name| !name.is_empty()).cloned())
    }

    /// The diff service, to make layers.
    pub fn differ(&self) -> RemoteDiffer {
        RemoteDiffer::new(&self.connection)
    }

    /// The diff service.
    pub fn applier(&self) -> Arc<RemoteApplier> {
        Arc::new(RemoteApplier::new(&self.connection))
    }

    /// An image record.
    pub async fn image(&self, name: &str) -> Result<Image> {
        let request = wire::images::v1::GetImageRequest { name: name.into() };
        let image = self.images().get(request).await.map_err(from_status)?.into_inner().image;
        api::convert::image(image.ok_or_else(|| Error::internal("images service answered no image"))?)
    }

    /// Image records that a filter matches.
    pub async fn list_images(&self, filters: Vec<String>) -> Result<Vec<Image>> {
        let request = wire::images::v1::ListImagesRequest { filters };
        let images = self.images().list(request).await.map_err(from_status)?.into_inner().images;
        images.into_iter().map(api::convert::image).collect()
    }

    /// Hands over the container records that a filter matches, one by one: together they may be larger than a message.
    pub async fn list_containers(
        &self,
        filters: Vec<String>,
        mut each: impl FnMut(wire::containers::v1::Container),
    ) -> Result<()> {
        let request = wire::containers::v1::ListContainersRequest { filters };
        let mut told = match self.containers().list_stream(request.clone()).await {
            Ok(told) => told.into_inner(),
            Err(status) if status.code() == tonic::Code::Unimplemented => {
                let all = self.containers().list(request).await.map_err(from_status)?;
                all.into_inner().containers.into_iter().for_each(each);
                return Ok(());
            }
            Err(status) => return Err(from_status(status)),
        };
        while let Some(message) = told.message().await.map_err(from_status)? {
            message.container.into_iter().for_each(&mut each);
        }
        Ok(())
    }

    /// A container record.
    pub async fn container(&self, id: &str) -> Result<Container> {
        let request = wire::containers::v1::GetContainerRequest { id: id.into() };
        let container = self.containers().get(request).await.map_err(from_status)?.into_inner().container;
        Ok(api::convert::container(
            container.ok_or_else(|| Error::internal("containers service answered no container"))?,
        ))
    }

    /// Creates a lease that ends by itself after `expiration`, and answers a client whose calls it holds.
    /// A lease with the given id that exists already is used as it is.
    pub async fn lease(&self, id: Option<String>, expiration: Duration) -> Result<Leased> {
        let named = id.is_some();
        let id = id.unwrap_or_else(random_lease_id);
        let request = wire::leases::v1::CreateRequest {
            id: id.clone(),
            labels: [(labels::GC_EXPIRE.to_owned(), expires(expiration))].into(),
        };
        match self.leases().create(request).await.map_err(from_status) {
            Ok(_) => {}
            Err(error) if named && error.is_already_exists() => {}
            Err(error) => return Err(error),
        }
        let scope = self.connection.scope().clone().with_lease(id.clone());
        Ok(Leased { client: Self { connection: self.connection.with_scope(scope)? }, id })
    }

    /// Ends a lease; one that is gone already is no error.
    pub async fn end_lease(&self, id: &str) -> Result<()> {
        self.delete_lease(id, false).await
    }

    async fn delete_lease(&self, id: &str, sync: bool) -> Result<()> {
        let request = wire::leases::v1::DeleteRequest { id: id.into(), sync };
        match self.leases().delete(request).await.map_err(from_status) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

/// A client whose calls a lease holds.
pub struct Leased {
    /// Creates things under the lease.
    pub client: Client,
    /// The lease's id.
    pub id: String,
}

impl Leased {
    /// Ends the lease: what nothing else refers to may be collected.
    pub async fn release(self) -> Result<()> {
        self.client.end_lease(&self.id).await
    }

    /// Ends the lease, and waits until what nothing else refers to has been collected.
    pub async fn collect(self) -> Result<()> {
        self.client.delete_lease(&self.id, true).await
    }
}

/// Upstream's form of an id: nanoseconds and three random bytes.
pub fn random_lease_id() -> String {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    let random: [u8; 3] = rand::random();
    format!("{nanos}-{}", base64::engine::general_purpose::URL_SAFE.encode(random))
}

/// When something ends that begins now, for the label.
pub fn expires(after: Duration) -> String {
    let end = SystemTime::now() + after;
    let (seconds, _) = types::time::unix(end);
    types::time::rfc3339(types::time::from_unix(seconds, 0))
}
