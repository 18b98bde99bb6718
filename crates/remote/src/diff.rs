//! Applying layers over gRPC.

use api::containerd::services::diff::v1::ApplyRequest;
use api::convert;
use async_trait::async_trait;
use diff::applier::{Applied, Applier, ApplyOptions};
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
