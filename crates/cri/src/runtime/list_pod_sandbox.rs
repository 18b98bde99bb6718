//! ListPodSandbox: from memory alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::cri::{
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxFilter, PodSandboxState,
};
use types::Result;

use crate::cri::Cri;
use crate::pod::{Pod, State};

/// Answers the call.
pub async fn run(cri: &Cri, request: ListPodSandboxRequest) -> Result<ListPodSandboxResponse> {
    let items = matching(cri, request.filter.unwrap_or_default());
    Ok(ListPodSandboxResponse { items: items.iter().map(|pod| listed(pod)).collect() })
}

/// The pods that a filter lets through; the beginning of an id is enough.
pub fn matching(cri: &Cri, filter: PodSandboxFilter) -> Vec<Arc<Pod>> {
    let id = match cri.pods.get(&filter.id) {
        Ok(pod) => pod.id().to_owned(),
        Err(_) => filter.id,
    };
    let mut pods = cri.pods.list();
    pods.retain(|pod| {
        let state = filter.state.as_ref().is_none_or(|wanted| wanted.state() == state(pod.status().state));
        (id.is_empty() || pod.id() == id)
            && state
            && selects(&filter.label_selector, &pod.record.config.labels)
    });
    pods
}

/// Whether labels have all that a selector names.
pub fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// In the kubelet's words: what is not known is not ready.
pub fn state(state: State) -> PodSandboxState {
    match state {
        State::Ready => PodSandboxState::SandboxReady,
        State::NotReady | State::Unknown => PodSandboxState::SandboxNotready,
    }
}

/// A pod in a list.
pub fn listed(pod: &Pod) -> PodSandbox {
    let (config, status) = (&pod.record.config, pod.status());
    PodSandbox {
        id: pod.id().to_owned(),
        metadata: config.metadata.clone(),
        state: state(status.state).into(),
        created_at: types::time::nanoseconds(status.created_at),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        runtime_handler: pod.record.runtime_handler.clone(),
    }
}
