//! Exec.

use api::cri::{ExecRequest, ExecResponse};
use types::Result;

use crate::cri::Cri;
use crate::streaming::process::running;

/// Answers the call.
pub async fn run(cri: &Cri, request: ExecRequest) -> Result<ExecResponse> {
    running(cri, &request.container_id)?;
    Ok(ExecResponse { url: cri.streaming.exec(request)? })
}
