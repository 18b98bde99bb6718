//! `containerd.services.diff.v1.Diff`.
//!
//! Neither call is detached: a client that goes away ends it. A snapshot that is half-written is never committed, and what a
//! comparison has begun is taken back.

use std::sync::Arc;

use api::containerd::services::diff::v1 as wire;
use api::convert;
use diff::applier::{Applier, ApplyOptions};
use diff::differ::CompareOptions;
use diff::tar::Time;
use grpc::diff::diff_server;
use tonic::{Request, Response, Status};

use super::House;
use super::reply::{reply, required};

/// Layers onto filesystems.
pub struct Diff {
    /// For the content of the caller's namespace.
    pub house: House,
    /// Make every layer durable before answering.
    pub sync: bool,
}

#[tonic::async_trait]
impl diff_server::Diff for Diff {
    async fn apply(
        &self,
        request: Request<wire::ApplyRequest>,
    ) -> Result<Response<wire::ApplyResponse>, Status> {
        let scope = super::reply::scope(request.metadata())?;
        let request = request.into_inner();
        // Payloads are for stream processors: of the media types that we know none needs one.
        let layer = reply(convert::descriptor(required(request.diff, "diff")?))?;
        let mounts: Vec<_> = request.mounts.into_iter().map(convert::mount).collect();
        let options = ApplyOptions { sync: request.sync_fs || self.sync, ..ApplyOptions::default() };
        let applier: Arc<dyn Applier> = reply(self.house.applier(&scope))?;
        let applied = reply(applier.apply(&layer, &mounts, options).await)?;
        self.house.work.trim();
        Ok(Response::new(wire::ApplyResponse {
            applied: Some(convert::descriptor_to_wire(applied.uncompressed)),
        }))
    }

    async fn diff(
        &self,
        request: Request<wire::DiffRequest>,
    ) -> Result<Response<wire::DiffResponse>, Status> {
        let scope = super::reply::scope(request.metadata())?;
        let request = request.into_inner();
        let mounts = |mounts: Vec<_>| mounts.into_iter().map(convert::mount).collect::<Vec<_>>();
        let epoch = request
            .source_date_epoch
            .map(|epoch| Time { secs: epoch.seconds, nanos: u32::try_from(epoch.nanos).unwrap_or(0) });
        let options = CompareOptions {
            media_type: request.media_type,
            reference: request.r#ref,
            labels: request.labels,
            epoch,
        };
        let differ = reply(self.house.differ(&scope))?;
        let made = reply(differ.compare(&mounts(request.left), &mounts(request.right), options).await);
        self.house.work.trim();
        Ok(Response::new(wire::DiffResponse { diff: Some(convert::descriptor_to_wire(made?)) }))
    }
}
