//! Status: whether pods can be run, with what, and what will go away.
//!
//! ```text
//!  conditions    here                  handlers    what runtimes can do: each shim is asked once
//!  told          with `verbose`: settings and networks, in upstream's words
//! ```

mod handlers;
mod told;

use std::collections::BTreeMap;

use api::cri::{RuntimeCondition, RuntimeFeatures, RuntimeStatus, StatusRequest, StatusResponse};
use types::{Error, Result};

use crate::cri::Cri;

pub use handlers::Known;

const NETWORK_NOT_READY: &str = "NetworkPluginNotReady";
const HAS_DEPRECATIONS: &str = "ContainerdHasDeprecationWarnings";

/// Answers the call.
pub async fn run(cri: &Cri, request: StatusRequest) -> Result<StatusResponse> {
    let conditions = vec![condition("RuntimeReady"), network(cri).await, deprecations(cri)?];
    let info = if request.verbose { told::info(cri)? } else { BTreeMap::new() };
    Ok(StatusResponse {
        status: Some(RuntimeStatus { conditions }),
        info,
        runtime_handlers: cri.handlers.list(cri).await,
        features: Some(RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: true,
        }),
    })
}

/// Something that is as it should be.
fn condition(kind: &str) -> RuntimeCondition {
    RuntimeCondition { r#type: kind.to_owned(), status: true, ..RuntimeCondition::default() }
}

async fn network(cri: &Cri) -> RuntimeCondition {
    let ready = condition("NetworkReady");
    match cri.network.of("").status().await {
        Ok(()) => ready,
        Err(error) => RuntimeCondition {
            status: false,
            reason: NETWORK_NOT_READY.to_owned(),
            message: format!("Network plugin returns error: {error}"),
            ..ready
        },
    }
}

fn deprecations(cri: &Cri) -> Result<RuntimeCondition> {
    let ignored = &cri.config.runtime.ignore_deprecations;
    let used = (cri.doors.deprecations)().into_iter().filter(|(id, _)| !ignored.contains(id));
    let used: BTreeMap<String, String> = used.collect();
    let none = condition("ContainerdHasNoDeprecationWarnings");
    if used.is_empty() {
        return Ok(none);
    }
    let message = serde_json::to_string(&used)
        .map_err(|error| Error::internal(format!("encode deprecation warnings: {error}")))?;
    Ok(RuntimeCondition { status: false, reason: HAS_DEPRECATIONS.to_owned(), message, ..none })
}
