//! `containerd.services.version.v1.Version`.

use api::containerd::services::version::v1::VersionResponse;
use grpc::version::version_server;
use tonic::{Request, Response, Status};

/// Answers what the product is called.
pub struct Version;

#[tonic::async_trait]
impl version_server::Version for Version {
    async fn version(&self, _: Request<()>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: types::version::VERSION.to_owned(),
            revision: types::version::REVISION.to_owned(),
        }))
    }
}
