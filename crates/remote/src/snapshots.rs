//! A snapshotter over gRPC.

use api::containerd::services::snapshots::v1 as wire;
use api::{FieldMask, convert};
use async_trait::async_trait;
use grpc::snapshots::snapshots_client::SnapshotsClient;
use snapshots::snapshotter::Snapshotter;
use types::fields::FieldPaths;
use types::filters::Filters;
use types::mount::Mount;
use types::snapshot::{Info, Usage};
use types::{Error, Labels, Result};

use crate::connection::{Connection, MAX_MESSAGE, Transport};
use crate::status::from_status;

/// One snapshotter of another process.
#[derive(Clone)]
pub struct RemoteSnapshotter {
    client: SnapshotsClient<Transport>,
    name: String,
}

impl RemoteSnapshotter {
    /// The snapshotter `name` behind `connection`, in its scope. An empty name is the server's default.
    pub fn new(connection: &Connection, name: impl Into<String>) -> Self {
        let client = SnapshotsClient::new(connection.transport()).max_decoding_message_size(MAX_MESSAGE);
        Self { client, name: name.into() }
    }

    /// Its name, as it was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn client(&self) -> SnapshotsClient<Transport> {
        self.client.clone()
    }
}

fn info(info: Option<wire::Info>) -> Result<Info> {
    convert::snapshot(info.ok_or_else(|| Error::internal("snapshots service answered no info"))?)
}

fn mounts(mounts: Vec<api::containerd::types::Mount>) -> Vec<Mount> {
    mounts.into_iter().map(convert::mount).collect()
}

#[async_trait]
impl Snapshotter for RemoteSnapshotter {
    async fn stat(&self, key: &str) -> Result<Info> {
        let request = wire::StatSnapshotRequest { snapshotter: self.name.clone(), key: key.into() };
        info(self.client().stat(request).await.map_err(from_status)?.into_inner().info)
    }

    async fn update(&self, new: Info, fields: &FieldPaths) -> Result<Info> {
        let request = wire::UpdateSnapshotRequest {
            snapshotter: self.name.clone(),
            info: Some(convert::snapshot_to_wire(new)),
            update_mask: Some(FieldMask { paths: fields.0.clone() }),
        };
        info(self.client().update(request).await.map_err(from_status)?.into_inner().info)
    }

    async fn usage(&self, key: &str) -> Result<Usage> {
        let request = wire::UsageRequest { snapshotter: self.name.clone(), key: key.into() };
        let usage = self.client().usage(request).await.map_err(from_status)?.into_inner();
        Ok(Usage { inodes: usage.inodes.unsigned_abs(), size: usage.size.unsigned_abs() })
    }

    async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let request = wire::MountsRequest { snapshotter: self.name.clone(), key: key.into() };
        Ok(mounts(self.client().mounts(request).await.map_err(from_status)?.into_inner().mounts))
    }

    async fn prepare(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        let request = wire::PrepareSnapshotRequest {
            snapshotter: self.name.clone(),
            key: key.into(),
            parent: parent.into(),
            labels,
        };
        Ok(mounts(self.client().prepare(request).await.map_err(from_status)?.into_inner().mounts))
    }

    async fn view(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        let request = wire::ViewSnapshotRequest {
            snapshotter: self.name.clone(),
            key: key.into(),
            parent: parent.into(),
            labels,
        };
        Ok(mounts(self.client().view(request).await.map_err(from_status)?.into_inner().mounts))
    }

    async fn commit(&self, name: &str, key: &str, parent: Option<&str>, labels: Labels) -> Result<()> {
        let request = wire::CommitSnapshotRequest {
            snapshotter: self.name.clone(),
            name: name.into(),
            key: key.into(),
            labels,
            parent: parent.unwrap_or_default().into(),
        };
        self.client().commit(request).await.map_err(from_status)?;
        Ok(())
    }

    async fn remove(&self, key: &str) -> Result<()> {
        let request = wire::RemoveSnapshotRequest { snapshotter: self.name.clone(), key: key.into() };
        self.client().remove(request).await.map_err(from_status)?;
        Ok(())
    }

    async fn walk(&self, filters: &Filters, each: &mut (dyn FnMut(Info) -> Result<()> + Send)) -> Result<()> {
        let request =
            wire::ListSnapshotsRequest { snapshotter: self.name.clone(), filters: filters.texts().to_vec() };
        let mut pages = self.client().list(request).await.map_err(from_status)?.into_inner();
        while let Some(page) = pages.message().await.map_err(from_status)? {
            for found in page.info {
                each(convert::snapshot(found)?)?;
            }
        }
        Ok(())
    }

    async fn cleanup(&self) -> Result<()> {
        let request = wire::CleanupRequest { snapshotter: self.name.clone() };
        self.client().cleanup(request).await.map_err(from_status)?;
        Ok(())
    }
}
