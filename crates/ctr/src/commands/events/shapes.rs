//! Events as JSON, in the shape that Go's encoder gives its generated types: proto names, fields in the order of
//! their declaration, empty ones left out.

use api::containerd::events as wire;
use api::containerd::services::images::v1 as images;
use api::containerd::types::transfer::Progress;
use prost::{Message, Name};
use serde_json::{Map, Value, json};
use types::{Any, Error, Labels, Result};

use crate::commands::info::{AnyValue, Timestamp};
use crate::go;

/// An object in the making that leaves out what is empty.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let empty = match &value {
            Value::Null | Value::Bool(false) => true,
            Value::Bool(true) => false,
            Value::Number(number) => number.as_i64() == Some(0),
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            // A message that is there is shown, even if all of it is empty.
            Value::Object(_) => false,
        };
        if !empty {
            self.0.insert(key.into(), value);
        }
        self
    }

    fn labels(self, labels: Labels) -> Self {
        if labels.is_empty() { self } else { self.with("labels", json!(labels)) }
    }

    fn time(self, time: Option<api::Timestamp>) -> Self {
        match time {
            Some(time) => self.with("exited_at", json!(Timestamp::from(time))),
            None => self,
        }
    }

    fn named(name: String, labels: Labels) -> Self {
        Self::default().with("name", name).labels(labels)
    }

    fn process(container: String) -> Self {
        Self::default().with("container_id", container)
    }
}

/// Decodes an event of any type we know.
pub fn json(event: &Any) -> Result<String> {
    for shape in SHAPES {
        if let Some(object) = shape(event) {
            return go::json::compact(&Value::Object(object?.0));
        }
    }
    Err(Error::not_found(format!("type with url {}: not found", event.type_url)))
}

type Shape = fn(&Any) -> Option<Result<Object>>;

macro_rules! shapes {
    ($($message:ty => $object:expr),* $(,)?) => {
        /// Tried in order; each looks at the type's name first.
        const SHAPES: &[Shape] = &[$(|event| {
            let object: fn($message) -> Object = $object;
            event.is(&<$message>::full_name()).then(|| {
                let message = <$message>::decode(event.value.as_slice());
                message.map(object).map_err(|e| Error::invalid(format!("decode {}: {e}", event.type_url)))
            })
        }),*];
    };
}

shapes! {
    wire::TaskExit => |e| Object::process(e.container_id)
        .with("id", e.id)
        .with("pid", e.pid)
        .with("exit_status", e.exit_status)
        .time(e.exited_at),
    wire::TaskCreate => |e| Object::process(e.container_id)
        .with("bundle", e.bundle)
        .with("rootfs", e.rootfs.into_iter().map(mount).collect::<Vec<_>>())
        .with("io", e.io.map(io).unwrap_or_default())
        .with("checkpoint", e.checkpoint)
        .with("pid", e.pid),
    wire::TaskStart => |e| Object::process(e.container_id).with("pid", e.pid),
    wire::TaskDelete => |e| Object::process(e.container_id)
        .with("pid", e.pid)
        .with("exit_status", e.exit_status)
        .time(e.exited_at)
        .with("id", e.id),
    wire::TaskOom => |e| Object::process(e.container_id),
    wire::TaskExecAdded => |e| Object::process(e.container_id).with("exec_id", e.exec_id),
    wire::TaskExecStarted => |e| Object::process(e.container_id).with("exec_id", e.exec_id).with("pid", e.pid),
    wire::TaskPaused => |e| Object::process(e.container_id),
    wire::TaskResumed => |e| Object::process(e.container_id),
    wire::TaskCheckpointed => |e| Object::process(e.container_id).with("checkpoint", e.checkpoint),
    wire::ContainerCreate => |e| Object::default()
        .with("id", e.id)
        .with("image", e.image)
        .with("runtime", e.runtime.map(runtime).unwrap_or_default()),
    wire::ContainerUpdate => |e| Object::default()
        .with("id", e.id)
        .with("image", e.image)
        .labels(e.labels)
        .with("snapshot_key", e.snapshot_key),
    wire::ContainerDelete => |e| Object::default().with("id", e.id),
    wire::ContentCreate => |e| Object::default().with("digest", e.digest).with("size", e.size),
    wire::ContentDelete => |e| Object::default().with("digest", e.digest),
    images::ImageCreate => |e| Object::named(e.name, e.labels),
    images::ImageUpdate => |e| Object::named(e.name, e.labels),
    images::ImageDelete => |e| Object::default().with("name", e.name),
    wire::NamespaceCreate => |e| Object::named(e.name, e.labels),
    wire::NamespaceUpdate => |e| Object::named(e.name, e.labels),
    wire::NamespaceDelete => |e| Object::default().with("name", e.name),
    wire::SnapshotPrepare => |e| Object::default()
        .with("key", e.key)
        .with("parent", e.parent)
        .with("snapshotter", e.snapshotter),
    wire::SnapshotCommit => |e| Object::default()
        .with("key", e.key)
        .with("name", e.name)
        .with("snapshotter", e.snapshotter),
    wire::SnapshotRemove => |e| Object::default().with("key", e.key).with("snapshotter", e.snapshotter),
    // Of pulls, by our daemon.
    Progress => |e| Object::default()
        .with("event", e.event)
        .with("name", e.name)
        .with("parents", e.parents)
        .with("progress", e.progress)
        .with("total", e.total)
        .with("desc", e.desc.map(descriptor).unwrap_or_default()),
}

fn descriptor(descriptor: api::containerd::types::Descriptor) -> Value {
    let object = Object::default()
        .with("media_type", descriptor.media_type)
        .with("digest", descriptor.digest)
        .with("size", descriptor.size);
    Value::Object(object.0)
}

fn mount(mount: api::containerd::types::Mount) -> Value {
    let object = Object::default()
        .with("type", mount.r#type)
        .with("source", mount.source)
        .with("target", mount.target)
        .with("options", mount.options);
    Value::Object(object.0)
}

fn io(io: wire::TaskIo) -> Value {
    let object = Object::default()
        .with("stdin", io.stdin)
        .with("stdout", io.stdout)
        .with("stderr", io.stderr)
        .with("terminal", io.terminal);
    Value::Object(object.0)
}

fn runtime(runtime: wire::container_create::Runtime) -> Value {
    let options = runtime.options.map_or(Value::Null, |options| json!(AnyValue::from(options)));
    Value::Object(Object::default().with("name", runtime.name).with("options", options).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_reads_as_upstream_prints_it() {
        let exit = wire::TaskExit {
            container_id: "c".into(),
            id: "c".into(),
            pid: 7,
            exit_status: 0,
            exited_at: Some(api::Timestamp { seconds: 5, nanos: 6 }),
        };
        let text = json(&api::any::pack(&exit)).unwrap();
        assert_eq!(text, r#"{"container_id":"c","id":"c","pid":7,"exited_at":{"seconds":5,"nanos":6}}"#);
    }

    #[test]
    fn an_unknown_event_is_an_error() {
        assert!(json(&Any::new("x.Y", [])).unwrap_err().is_not_found());
    }
}
