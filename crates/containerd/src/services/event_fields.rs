//! What filters of Events.Subscribe see of an event: its envelope, and the text fields of the events that we know.
//!
//! A field is present if it is not empty, as in upstream's generated field paths; numbers and lists cannot be filtered.

use std::borrow::Cow;
use std::sync::OnceLock;

use api::containerd::events as e;
use api::containerd::services::images::v1 as images;
use prost::{Message, Name};
use types::events::Envelope;
use types::filters::Fields;
use types::{Any, Labels};

/// An envelope whose event is decoded when a filter first asks for it.
pub struct Filterable<'a> {
    envelope: &'a Envelope,
    event: OnceLock<Vec<(String, String)>>,
}

impl<'a> Filterable<'a> {
    /// Shows `envelope` to filters.
    pub fn new(envelope: &'a Envelope) -> Self {
        Self { envelope, event: OnceLock::new() }
    }
}

impl Fields for Filterable<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "namespace" => present(&self.envelope.namespace),
            "topic" => present(&self.envelope.topic),
            "timestamp" => Some(types::time::rfc3339(self.envelope.timestamp).into()),
            "event" => {
                let wanted = rest.join(".");
                let fields = self.event.get_or_init(|| fields(&self.envelope.event));
                fields.iter().find(|(name, _)| *name == wanted).and_then(|(_, value)| present(value))
            }
            _ => None,
        }
    }
}

fn present(text: &str) -> Option<Cow<'_, str>> {
    (!text.is_empty()).then_some(Cow::Borrowed(text))
}

/// Decodes the event as the first listed message whose name it bears.
macro_rules! decode {
    ($event:expr, $($message:ty { $($field:ident),* $(; $labels:ident)? })*) => {
        $(if $event.is(&<$message>::full_name()) {
            let message = <$message>::decode($event.value.as_slice()).unwrap_or_default();
            #[allow(unused_mut, reason = "not every message has labels")]
            let mut all = vec![$((stringify!($field).to_owned(), message.$field)),*];
            $(all.extend(labels(message.$labels));)?
            return all;
        })*
    };
}

/// The event's text fields by their path; none for an event of a type that we do not know.
fn fields(event: &Any) -> Vec<(String, String)> {
    decode! { event,
        e::TaskExit { container_id, id }
        e::TaskStart { container_id }
        e::TaskDelete { container_id, id }
        e::TaskOom { container_id }
        e::TaskExecAdded { container_id, exec_id }
        e::TaskExecStarted { container_id, exec_id }
        e::TaskPaused { container_id }
        e::TaskResumed { container_id }
        e::TaskCheckpointed { container_id, checkpoint }
        e::ContainerUpdate { id, image, snapshot_key; labels }
        e::ContainerDelete { id }
        e::ContentCreate { digest }
        e::ContentDelete { digest }
        e::SnapshotPrepare { key, parent, snapshotter }
        e::SnapshotCommit { key, name, snapshotter }
        e::SnapshotRemove { key, snapshotter }
        e::NamespaceCreate { name; labels }
        e::NamespaceUpdate { name; labels }
        e::NamespaceDelete { name }
        images::ImageCreate { name; labels }
        images::ImageUpdate { name; labels }
        images::ImageDelete { name }
    }
    if event.is(&e::TaskCreate::full_name()) {
        return task_create(e::TaskCreate::decode(event.value.as_slice()).unwrap_or_default());
    }
    if event.is(&e::ContainerCreate::full_name()) {
        let message = e::ContainerCreate::decode(event.value.as_slice()).unwrap_or_default();
        let runtime = message.runtime.unwrap_or_default().name;
        return named([("id", message.id), ("image", message.image), ("runtime.name", runtime)]);
    }
    Vec::new()
}

fn task_create(message: e::TaskCreate) -> Vec<(String, String)> {
    let io = message.io.unwrap_or_default();
    named([
        ("container_id", message.container_id),
        ("bundle", message.bundle),
        ("checkpoint", message.checkpoint),
        ("io.stdin", io.stdin),
        ("io.stdout", io.stdout),
        ("io.stderr", io.stderr),
        ("io.terminal", io.terminal.to_string()),
    ])
}

fn named<const N: usize>(fields: [(&str, String); N]) -> Vec<(String, String)> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn labels(labels: Labels) -> impl Iterator<Item = (String, String)> {
    labels.into_iter().map(|(key, value)| (format!("labels.{key}"), value))
}

#[cfg(test)]
mod tests {
    use types::filters::Filters;

    use super::*;

    fn matches(event: Any, filter: &str) -> bool {
        let envelope = Envelope {
            timestamp: std::time::UNIX_EPOCH,
            namespace: "moby".into(),
            topic: "/tasks/exit".into(),
            event,
        };
        Filters::parse(&[filter]).unwrap().matches(&Filterable::new(&envelope))
    }

    #[test]
    fn dockers_filter_finds_task_events() {
        assert!(matches(Any::default(), "namespace==moby,topic~=|^/tasks/|"));
        assert!(!matches(Any::default(), "namespace==k8s.io,topic~=|^/tasks/|"));
    }

    #[test]
    fn fields_of_known_events_can_be_filtered() {
        let exit = api::any::pack(&e::TaskExit { container_id: "c1".into(), ..Default::default() });
        assert!(matches(exit.clone(), "event.container_id==c1"));
        assert!(!matches(exit.clone(), "event.id"));
        assert!(!matches(exit, "event.container_id==c2"));
        let labels = [("a.b".to_owned(), "c".to_owned())].into();
        let update = api::any::pack(&images::ImageUpdate { name: "i".into(), labels });
        assert!(matches(update, r#"event.labels."a.b"==c"#));
        assert!(!matches(Any::new("x.Y", "garbage"), "event.id"));
    }
}
