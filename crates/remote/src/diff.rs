//! Applying and making layers over gRPC.

use api::containerd::services::diff::v1::{ApplyRequest, DiffRequest};
use api::{Timestamp, convert};
use async_trait::async_trait;
use diff::applier::{Applied, Applier, ApplyOptions};
use diff::differ::{CompareOptions, Differ};
use grpc::diff::diff_client::DiffClient;
use types::mount::Mount;
use types::oci::Descriptor;
use types::{Error, Result};

use crate::connection::{Connection, Transport};
use crate::status::from_status;

/// The diff service of another process.
#[derive(Clone)]
pub struct RemoteApplier {
    client: DiffClient<Transport>,
}

impl RemoteApplier {
    /// The one behind `connection`, in its scope.
    pub fn new(connection: &Connection) -> Self {
        Self { client: DiffClient::new(connection.transport()) }
    }
}

#[async_trait]
impl Applier for RemoteApplier {
    async fn apply(&self, layer: &Descriptor, mounts: &[Mount], options: ApplyOptions) -> Result<Applied> {
        let request = ApplyRequest {
            diff: Some(convert::descriptor_to_wire(layer.clone())),
            mounts: mounts.iter().cloned().map(convert::mount_to_wire).collect(),
            payloads: Default::default(),
            sync_fs: options.sync,
        };
        let response = self.client.clone().apply(request).await.map_err(from_status)?.into_inner();
        let applied =
            response.applied.ok_or_else(|| Error::internal("diff service answered no descriptor"))?;
        Ok(Applied { uncompressed: convert::descriptor(applied)? })
    }
}

/// The diff service of another process, as the one that compares.
#[derive(Clone)]
pub struct RemoteDiffer {
    client: DiffClient<Transport>,
}

impl RemoteDiffer {
    /// The one behind `connection`, in its scope.
    pub fn new(connection: &Connection) -> Self {
        Self { client: DiffClient::new(connection.transport()) }
    }
}

#[async_trait]
impl Differ for RemoteDiffer {
    async fn compare(&self, lower: &[Mount], upper: &[Mount], options: CompareOptions) -> Result<Descriptor> {
        let mounts = |mounts: &[Mount]| mounts.iter().cloned().map(convert::mount_to_wire).collect();
        let epoch = options.epoch;
        let request = DiffRequest {
            left: mounts(lower),
            right: mounts(upper),
            media_type: options.media_type,
            r#ref: options.reference,
            labels: options.labels,
            source_date_epoch: epoch
                .map(|epoch| Timestamp { seconds: epoch.secs, nanos: epoch.nanos.cast_signed() }),
        };
        let response = self.client.clone().diff(request).await.map_err(from_status)?.into_inner();
        convert::descriptor(
            response.diff.ok_or_else(|| Error::internal("diff service answered no descriptor"))?,
        )
    }
}
