//! ListContainers: from memory alone.

use std::sync::Arc;

use api::cri::{self as wire, ContainerFilter, ListContainersRequest, ListContainersResponse};
use types::Result;

use crate::container::Container;
use crate::cri::Cri;
use crate::index::Index;

/// Answers the call.
pub async fn run(cri: &Cri, request: ListContainersRequest) -> Result<ListContainersResponse> {
    Ok(ListContainersResponse { containers: list(cri, request.filter) })
}

/// The containers that pass a filter.
pub fn list(cri: &Cri, filter: Option<ContainerFilter>) -> Vec<wire::Container> {
    let filter = filter.unwrap_or_default();
    let filter = ContainerFilter {
        id: whole_id(&cri.containers, filter.id, Container::id),
        pod_sandbox_id: whole_id(&cri.pods, filter.pod_sandbox_id, crate::pod::Pod::id),
        ..filter
    };
    let passes = |container: &wire::Container| passes(container, &filter);
    cri.containers.list().iter().map(listed).filter(passes).collect()
}

/// The id that begins so, or what was given if that is not one id's beginning.
fn whole_id<T>(index: &Index<T>, given: String, id: impl Fn(&T) -> &str) -> String {
    match index.find(&given) {
        Ok(Some(thing)) => id(&thing).to_owned(),
        _ => given,
    }
}

fn listed(container: &Arc<Container>) -> wire::Container {
    let (record, status) = (&container.record, container.status());
    wire::Container {
        id: record.id.clone(),
        pod_sandbox_id: record.pod.clone(),
        metadata: record.config.metadata.clone(),
        image: record.config.image.clone(),
        image_ref: record.image_ref.clone(),
        image_id: record.image_ref.clone(),
        state: status.state().into(),
        created_at: status.created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
    }
}

fn passes(container: &wire::Container, filter: &ContainerFilter) -> bool {
    (filter.id.is_empty() || filter.id == container.id)
        && (filter.pod_sandbox_id.is_empty() || filter.pod_sandbox_id == container.pod_sandbox_id)
        && filter.state.as_ref().is_none_or(|wanted| wanted.state == container.state)
        && filter.label_selector.iter().all(|(key, value)| container.labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_filter_must_fit() {
        let labels = [("a".to_owned(), "b".to_owned())];
        let container = wire::Container {
            id: "1".to_owned(),
            pod_sandbox_id: "2".to_owned(),
            state: 1,
            labels: labels.clone().into(),
            ..wire::Container::default()
        };
        let whole = ContainerFilter {
            id: "1".to_owned(),
            pod_sandbox_id: "2".to_owned(),
            state: Some(wire::ContainerStateValue { state: 1 }),
            label_selector: labels.into(),
        };
        assert!(passes(&container, &whole) && passes(&container, &ContainerFilter::default()));
        for other in [
            ContainerFilter { id: "x".to_owned(), ..whole.clone() },
            ContainerFilter { pod_sandbox_id: "x".to_owned(), ..whole.clone() },
            ContainerFilter { state: Some(wire::ContainerStateValue { state: 0 }), ..whole.clone() },
            ContainerFilter { label_selector: [("a".to_owned(), "c".to_owned())].into(), ..whole },
        ] {
            assert!(!passes(&container, &other));
        }
    }
}
