//! Attach.

use api::cri::{AttachRequest, AttachResponse};
use types::Result;

use crate::cri::Cri;
use crate::streaming::process::running;

/// Answers the call.
pub async fn run(cri: &Cri, request: AttachRequest) -> Result<AttachResponse> {
    running(cri, &request.container_id)?;
    Ok(AttachResponse { url: cri.streaming.attach(request)? })
}
