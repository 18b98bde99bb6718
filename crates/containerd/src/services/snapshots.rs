//! `containerd.services.snapshots.v1.Snapshots`.

use std::pin::Pin;
use std::sync::Arc;

use api::containerd::events::{SnapshotCommit, SnapshotPrepare, SnapshotRemove};
use api::containerd::services::snapshots::v1 as wire;
use api::containerd::types as wire_types;
use api::convert;
use api::encode::{Encoded, listed_snapshot};
use futures_util::{Stream, stream};
use grpc::lists::snapshots_server;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use types::filters::Filters;
use types::mount::Mount;
use types::snapshot::Info;
use types::{Namespace, Result as Outcome};

use super::House;
use super::reply::{CHUNK, reply, required, scope};
use crate::work::Change;

/// Snapshots of all snapshotters, by name.
pub struct Snapshots(pub House);

/// A snapshotter as the caller sees it.
struct Caller {
    namespace: Namespace,
    snapshotter: Arc<dyn snapshots::Snapshotter>,
}

impl Snapshots {
    fn caller(&self, headers: &MetadataMap, name: &str) -> Result<Caller, Status> {
        let scope = scope(headers)?;
        if name.is_empty() {
            return Err(Status::invalid_argument("snapshotter argument missing: invalid argument"));
        }
        let namespace = scope.namespace.clone();
        let snapshotter = reply(self.0.db.snapshotter(scope, name))?;
        Ok(Caller { namespace, snapshotter })
    }
}

/// A snapshot's key or name, which must not be empty.
fn given<'a>(text: &'a str, what: &str) -> Result<&'a str, Status> {
    match text {
        "" => Err(Status::invalid_argument(format!("snapshot {what} must not be empty: invalid argument"))),
        text => Ok(text),
    }
}

/// A list, written as it is walked.
#[derive(Default)]
struct Messages {
    full: Vec<Encoded>,
    next: Vec<u8>,
    /// How many are in the next.
    count: usize,
}

impl Messages {
    fn add(&mut self, info: &Info) {
        listed_snapshot(info, &mut self.next);
        self.count += 1;
        if self.count == CHUNK {
            self.full.push(Encoded(std::mem::take(&mut self.next).into()));
            self.count = 0;
        }
    }

    fn end(mut self) -> impl Iterator<Item = Encoded> {
        self.full.extend((self.count > 0).then(|| Encoded(self.next.into())));
        self.full.into_iter()
    }
}

fn mounts(mounts: Vec<Mount>) -> Vec<wire_types::Mount> {
    mounts.into_iter().map(convert::mount_to_wire).collect()
}

#[tonic::async_trait]
impl snapshots_server::Snapshots for Snapshots {
    async fn prepare(
        &self,
        request: Request<wire::PrepareSnapshotRequest>,
    ) -> Result<Response<wire::PrepareSnapshotResponse>, Status> {
        let Caller { namespace, snapshotter } =
            self.caller(request.metadata(), &request.get_ref().snapshotter)?;
        given(&request.get_ref().key, "key")?;
        let request = request.into_inner();
        let house = self.0.clone();
        let change = Change::new("prepare snapshot", &namespace, request.key.as_str());
        let prepared = self.0.work.run(change, async move {
            let mounts = snapshotter.prepare(&request.key, &request.parent, request.labels).await?;
            let (key, parent, snapshotter) = (request.key, request.parent, request.snapshotter);
            house.announce(&namespace, "/snapshot/prepare", &SnapshotPrepare { key, parent, snapshotter });
            Ok(mounts)
        });
        Ok(Response::new(wire::PrepareSnapshotResponse { mounts: mounts(prepared.await?) }))
    }

    async fn view(
        &self,
        request: Request<wire::ViewSnapshotRequest>,
    ) -> Result<Response<wire::ViewSnapshotResponse>, Status> {
        let Caller { namespace, snapshotter } =
            self.caller(request.metadata(), &request.get_ref().snapshotter)?;
        given(&request.get_ref().key, "key")?;
        let request = request.into_inner();
        let change = Change::new("prepare view snapshot", &namespace, request.key.as_str());
        // As upstream, a view is no event.
        let viewed = self.0.work.run(change, async move {
            snapshotter.view(&request.key, &request.parent, request.labels).await
        });
        Ok(Response::new(wire::ViewSnapshotResponse { mounts: mounts(viewed.await?) }))
    }

    async fn mounts(
        &self,
        request: Request<wire::MountsRequest>,
    ) -> Result<Response<wire::MountsResponse>, Status> {
        let caller = self.caller(request.metadata(), &request.get_ref().snapshotter)?;
        let found = reply(caller.snapshotter.mounts(&request.get_ref().key).await)?;
        Ok(Response::new(wire::MountsResponse { mounts: mounts(found) }))
    }

    async fn commit(&self, request: Request<wire::CommitSnapshotRequest>) -> Result<Response<()>, Status> {
        let Caller { namespace, snapshotter } =
            self.caller(request.metadata(), &request.get_ref().snapshotter)?;
        given(&request.get_ref().name, "name")?;
        let request = request.into_inner();
        let house = self.0.clone();
        let change = Change::new("commit snapshot", &namespace, request.name.as_str());
        let committed = self.0.work.run(change, async move {
            let parent = Some(request.parent.as_str()).filter(|parent| !parent.is_empty());
            snapshotter.commit(&request.name, &request.key, parent, request.labels).await?;
            let (key, name, snapshotter) = (request.key, request.name, request.snapshotter);
            house.announce(&namespace, "/snapshot/commit", &SnapshotCommit { key, name, snapshotter });
            Ok(())
        });
        committed.await.map(Response::new)
    }

    async fn remove(&self, request: Request<wire::RemoveSnapshotRequest>) -> Result<Response<()>, Status> {
        let Caller { namespace, snapshotter } =
            self.caller(request.metadata(), &request.get_ref().snapshotter)?;
        let request = request.into_inner();
        let house = self.0.clone();
        let change = Change::new("remove snapshot", &namespace, request.key.as_str());
        let removed = self.0.work.run(change, async move {
            snapshotter.remove(&request.key).await?;
            let event = SnapshotRemove { key: request.key, snapshotter: request.snapshotter };
            house.announce(&namespace, "/snapshot/remove", &event);
            Ok(())
        });
        removed.await.map(Response::new)
    }

    async fn stat(
        &self,
        request: Request<wire::StatSnapshotRequest>,
    ) -> Result<Response<wire::StatSnapshotResponse>, Status> {
        let caller = self.caller(request.metadata(), &request.get_ref().snapshotter)?;
        let info = reply(caller.snapshotter.stat(&request.get_ref().key).await)?;
        Ok(Response::new(wire::StatSnapshotResponse { info: Some(convert::snapshot_to_wire(info)) }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateSnapshotRequest>,
    ) -> Result<Response<wire::UpdateSnapshotResponse>, Status> {
        let Caller { namespace, snapshotter } =
            self.caller(request.metadata(), &request.get_ref().snapshotter)?;
        let request = request.into_inner();
        let mut info = required(request.info, "info")?;
        if info.kind() == wire::Kind::Unknown {
            // Clients that change labels leave the kind out; nobody can change it, so any will do.
            info.set_kind(wire::Kind::Active);
        }
        let info = reply(convert::snapshot(info))?;
        let fields = convert::field_paths(request.update_mask);
        let change = Change::new("update snapshot", &namespace, info.name.as_str());
        let updated = self.0.work.run(change, async move { snapshotter.update(info, &fields).await });
        Ok(Response::new(wire::UpdateSnapshotResponse {
            info: Some(convert::snapshot_to_wire(updated.await?)),
        }))
    }

    type ListStream = Pin<Box<dyn Stream<Item = Result<Encoded, Status>> + Send>>;

    async fn list(
        &self,
        request: Request<wire::ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let caller = self.caller(request.metadata(), &request.get_ref().snapshotter)?;
        let filters = reply(Filters::parse(&request.get_ref().filters))?;
        let mut messages = Messages::default();
        let mut each = |info| -> Outcome<()> {
            messages.add(&info);
            Ok(())
        };
        reply(caller.snapshotter.walk(&filters, &mut each).await)?;
        Ok(Response::new(Box::pin(stream::iter(messages.end().map(Ok)))))
    }

    async fn usage(
        &self,
        request: Request<wire::UsageRequest>,
    ) -> Result<Response<wire::UsageResponse>, Status> {
        let caller = self.caller(request.metadata(), &request.get_ref().snapshotter)?;
        let usage = reply(caller.snapshotter.usage(&request.get_ref().key).await)?;
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Ok(Response::new(wire::UsageResponse { size: signed(usage.size), inodes: signed(usage.inodes) }))
    }

    async fn cleanup(&self, request: Request<wire::CleanupRequest>) -> Result<Response<()>, Status> {
        let Caller { namespace, snapshotter } =
            self.caller(request.metadata(), &request.get_ref().snapshotter)?;
        let change = Change::new("clean up snapshotter", &namespace, request.into_inner().snapshotter);
        let cleaned = self.0.work.run(change, async move { snapshotter.cleanup().await });
        cleaned.await.map(Response::new)
    }
}
