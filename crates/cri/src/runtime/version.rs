//! Version: what this is.

use api::cri::{VersionRequest, VersionResponse};
use types::{Result, version};

use crate::cri::Cri;

/// The version of the runtime interface that kubelets ask for.
const KUBELET_VERSION: &str = "0.1.0";

/// Answers the call.
pub async fn run(_cri: &Cri, _request: VersionRequest) -> Result<VersionResponse> {
    Ok(VersionResponse {
        version: KUBELET_VERSION.to_owned(),
        runtime_name: "containerd".to_owned(),
        runtime_version: version::VERSION.to_owned(),
        runtime_api_version: "v1".to_owned(),
    })
}
