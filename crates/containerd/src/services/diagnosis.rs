//! `containerdrs.services.diagnosis.v1.Diagnosis`, which containerd does not have: what an operator asks a daemon.

use std::time::Instant;

use api::containerdrs::services::diagnosis::v1::{
    Activity, UnderWayRequest, UnderWayResponse, WhyRequest, WhyResponse,
};
use grpc::diagnosis::diagnosis_server;
use tonic::{Request, Response, Status};

use super::House;
use super::reply::{namespace, reply};

/// Answers from what the house knows at the moment.
pub struct Diagnosis(pub House);

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[tonic::async_trait]
impl diagnosis_server::Diagnosis for Diagnosis {
    async fn under_way(&self, _: Request<UnderWayRequest>) -> Result<Response<UnderWayResponse>, Status> {
        let calls = self.0.calls.under_way().into_iter().map(|call| Activity {
            what: call.path.trim_start_matches('/').to_owned(),
            namespace: call.namespace.into(),
            id: String::new(),
            milliseconds: milliseconds(call.since),
        });
        let changes = self.0.work.under_way().into_iter().map(|(change, since)| Activity {
            what: change.what.to_owned(),
            namespace: change.namespace,
            id: change.id,
            milliseconds: milliseconds(since),
        });
        Ok(Response::new(UnderWayResponse {
            calls: calls.collect(),
            changes: changes.collect(),
            dump: crate::debug::dump(&self.0),
            log: crate::logging::recent(),
            pid: std::process::id(),
        }))
    }

    async fn why(&self, request: Request<WhyRequest>) -> Result<Response<WhyResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let record = reply(self.0.runtime.why(&namespace, &request.into_inner().id).await)?;
        Ok(Response::new(WhyResponse { record }))
    }
}
