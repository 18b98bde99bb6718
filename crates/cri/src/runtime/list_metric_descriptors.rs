//! ListMetricDescriptors.

use api::cri::{ListMetricDescriptorsRequest, ListMetricDescriptorsResponse};
use types::Result;

use crate::cri::Cri;
use crate::stats::descriptors;

/// Answers the call.
pub async fn run(
    _cri: &Cri,
    _request: ListMetricDescriptorsRequest,
) -> Result<ListMetricDescriptorsResponse> {
    Ok(ListMetricDescriptorsResponse { descriptors: descriptors::list() })
}
