//! PortForward.

use api::cri::{PortForwardRequest, PortForwardResponse};
use types::{Class, Error, Result, ResultExt};

use crate::cri::Cri;
use crate::pod::State;

/// Answers the call.
pub async fn run(cri: &Cri, request: PortForwardRequest) -> Result<PortForwardResponse> {
    let id = &request.pod_sandbox_id;
    let pod = cri.pods.get(id).context(|| format!("failed to find sandbox {id:?}"))?;
    if pod.status().state != State::Ready {
        return Err(Error::new(Class::Unknown, "sandbox container is not running"));
    }
    Ok(PortForwardResponse { url: cri.streaming.port_forward(request)? })
}
