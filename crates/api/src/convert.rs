//! The one conversion table between wire messages and nouns.
//!
//! One function a direction and noun, named after it. Those that return `Result` meet values that the wire can carry
//! and the noun cannot, such as a digest that is none. A missing timestamp is the Unix epoch.

use std::time::{SystemTime, UNIX_EPOCH};

use types::fields::FieldPaths;
use types::{Error, Result};

use crate::any;
use crate::containerd::services as wire;
use crate::containerd::types as wire_types;
use crate::containerd::v1::types as wire_task;

/// A time for the wire.
pub fn timestamp(time: SystemTime) -> Option<prost_types::Timestamp> {
    let (seconds, nanos) = types::time::unix(time);
    Some(prost_types::Timestamp { seconds, nanos: nanos.cast_signed() })
}

/// A time from the wire.
pub fn time(timestamp: Option<prost_types::Timestamp>) -> SystemTime {
    timestamp.map_or(UNIX_EPOCH, |t| types::time::from_unix(t.seconds, u32::try_from(t.nanos).unwrap_or(0)))
}

/// The paths of an Update.
pub fn field_paths(mask: Option<prost_types::FieldMask>) -> FieldPaths {
    FieldPaths(mask.map(|mask| mask.paths).unwrap_or_default())
}

fn present<T>(value: Option<T>, what: &str) -> Result<T> {
    value.ok_or_else(|| Error::invalid(format!("{what} is required")))
}

fn unsigned(value: i64, what: &str) -> Result<u64> {
    u64::try_from(value).map_err(|_| Error::invalid(format!("{what} must not be negative")))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A mount from the wire.
pub fn mount(m: wire_types::Mount) -> types::mount::Mount {
    types::mount::Mount { kind: m.r#type, source: m.source, target: m.target, options: m.options }
}

/// A mount for the wire.
pub fn mount_to_wire(m: types::mount::Mount) -> wire_types::Mount {
    wire_types::Mount { r#type: m.kind, source: m.source, target: m.target, options: m.options }
}

/// A descriptor from the wire (which carries no platform and no urls).
pub fn descriptor(d: wire_types::Descriptor) -> Result<types::oci::Descriptor> {
    let size = unsigned(d.size, "descriptor size")?;
    let mut descriptor = types::oci::Descriptor::new(d.media_type, d.digest.parse()?, size);
    descriptor.annotations = d.annotations;
    Ok(descriptor)
}

/// A descriptor for the wire.
pub fn descriptor_to_wire(d: types::oci::Descriptor) -> wire_types::Descriptor {
    wire_types::Descriptor {
        media_type: d.media_type,
        digest: d.digest.into(),
        size: d.size,
        annotations: d.annotations,
    }
}

/// A platform from the wire.
pub fn platform(p: wire_types::Platform) -> types::platform::Platform {
    types::platform::Platform {
        os: p.os,
        architecture: p.architecture,
        variant: p.variant,
        os_version: p.os_version,
        os_features: p.os_features,
    }
}

/// A platform for the wire.
pub fn platform_to_wire(p: types::platform::Platform) -> wire_types::Platform {
    wire_types::Platform {
        os: p.os,
        architecture: p.architecture,
        variant: p.variant,
        os_version: p.os_version,
        os_features: p.os_features,
    }
}

/// A container record from the wire.
pub fn container(c: wire::containers::v1::Container) -> types::container::Container {
    let runtime = c.runtime.unwrap_or_default();
    types::container::Container {
        id: c.id,
        labels: c.labels,
        image: c.image,
        runtime: types::container::RuntimeInfo {
            name: runtime.name,
            options: runtime.options.map(any::from_wire),
        },
        spec: c.spec.map(any::from_wire),
        snapshotter: c.snapshotter,
        snapshot_key: c.snapshot_key,
        created_at: time(c.created_at),
        updated_at: time(c.updated_at),
        extensions: c.extensions.into_iter().map(|(k, v)| (k, any::from_wire(v))).collect(),
        sandbox: c.sandbox,
    }
}

/// A container record for the wire.
pub fn container_to_wire(c: types::container::Container) -> wire::containers::v1::Container {
    wire::containers::v1::Container {
        id: c.id,
        labels: c.labels,
        image: c.image,
        runtime: Some(wire::containers::v1::container::Runtime {
            name: c.runtime.name,
            options: c.runtime.options.map(any::to_wire),
        }),
        spec: c.spec.map(any::to_wire),
        snapshotter: c.snapshotter,
        snapshot_key: c.snapshot_key,
        created_at: timestamp(c.created_at),
        updated_at: timestamp(c.updated_at),
        extensions: c.extensions.into_iter().map(|(k, v)| (k, any::to_wire(v))).collect(),
        sandbox: c.sandbox,
    }
}

/// A sandbox record from the wire.
pub fn sandbox(s: crate::containerd::types::Sandbox) -> types::sandbox::Sandbox {
    let runtime = s.runtime.unwrap_or_default();
    types::sandbox::Sandbox {
        id: s.sandbox_id,
        runtime: types::container::RuntimeInfo {
            name: runtime.name,
            options: runtime.options.map(any::from_wire),
        },
        spec: s.spec.map(any::from_wire),
        labels: s.labels,
        created_at: time(s.created_at),
        updated_at: time(s.updated_at),
        extensions: s.extensions.into_iter().map(|(k, v)| (k, any::from_wire(v))).collect(),
        sandboxer: s.sandboxer,
    }
}

/// A sandbox record for the wire.
pub fn sandbox_to_wire(s: types::sandbox::Sandbox) -> crate::containerd::types::Sandbox {
    crate::containerd::types::Sandbox {
        sandbox_id: s.id,
        runtime: Some(crate::containerd::types::sandbox::Runtime {
            name: s.runtime.name,
            options: s.runtime.options.map(any::to_wire),
        }),
        spec: s.spec.map(any::to_wire),
        labels: s.labels,
        created_at: timestamp(s.created_at),
        updated_at: timestamp(s.updated_at),
        extensions: s.extensions.into_iter().map(|(k, v)| (k, any::to_wire(v))).collect(),
        sandboxer: s.sandboxer,
    }
}

/// An image record from the wire.
pub fn image(i: wire::images::v1::Image) -> Result<types::image::Image> {
    Ok(types::image::Image {
        name: i.name,
        labels: i.labels,
        target: descriptor(present(i.target, "image target")?)?,
        created_at: time(i.created_at),
        updated_at: time(i.updated_at),
    })
}

/// An image record for the wire.
pub fn image_to_wire(i: types::image::Image) -> wire::images::v1::Image {
    wire::images::v1::Image {
        name: i.name,
        labels: i.labels,
        target: Some(descriptor_to_wire(i.target)),
        created_at: timestamp(i.created_at),
        updated_at: timestamp(i.updated_at),
    }
}

/// A blob's description from the wire.
pub fn content_info(i: wire::content::v1::Info) -> Result<types::content::Info> {
    Ok(types::content::Info {
        digest: i.digest.parse()?,
        size: unsigned(i.size, "content size")?,
        created_at: time(i.created_at),
        updated_at: time(i.updated_at),
        labels: i.labels,
    })
}

/// A blob's description for the wire.
pub fn content_info_to_wire(i: types::content::Info) -> wire::content::v1::Info {
    wire::content::v1::Info {
        digest: i.digest.into(),
        size: signed(i.size),
        created_at: timestamp(i.created_at),
        updated_at: timestamp(i.updated_at),
        labels: i.labels,
    }
}

/// An ingest from the wire.
pub fn content_status(s: wire::content::v1::Status) -> Result<types::content::Status> {
    Ok(types::content::Status {
        reference: s.r#ref,
        offset: unsigned(s.offset, "offset")?,
        total: unsigned(s.total, "total")?,
        expected: if s.expected.is_empty() { None } else { Some(s.expected.parse()?) },
        started_at: time(s.started_at),
        updated_at: time(s.updated_at),
    })
}

/// An ingest for the wire.
pub fn content_status_to_wire(s: types::content::Status) -> wire::content::v1::Status {
    wire::content::v1::Status {
        started_at: timestamp(s.started_at),
        updated_at: timestamp(s.updated_at),
        r#ref: s.reference,
        offset: signed(s.offset),
        total: signed(s.total),
        expected: s.expected.map(String::from).unwrap_or_default(),
    }
}

/// A lease from the wire.
pub fn lease(l: wire::leases::v1::Lease) -> types::lease::Lease {
    types::lease::Lease { id: l.id, labels: l.labels, created_at: time(l.created_at) }
}

/// A lease for the wire.
pub fn lease_to_wire(l: types::lease::Lease) -> wire::leases::v1::Lease {
    wire::leases::v1::Lease { id: l.id, created_at: timestamp(l.created_at), labels: l.labels }
}

/// What a lease holds, from the wire.
pub fn resource(r: wire::leases::v1::Resource) -> types::lease::Resource {
    types::lease::Resource { id: r.id, kind: r.r#type }
}

/// What a lease holds, for the wire.
pub fn resource_to_wire(r: types::lease::Resource) -> wire::leases::v1::Resource {
    wire::leases::v1::Resource { id: r.id, r#type: r.kind }
}

/// A snapshot from the wire.
pub fn snapshot(i: wire::snapshots::v1::Info) -> Result<types::snapshot::Info> {
    use wire::snapshots::v1::Kind as Wire;
    let kind = match Wire::try_from(i.kind) {
        Ok(Wire::View) => types::snapshot::Kind::View,
        Ok(Wire::Active) => types::snapshot::Kind::Active,
        Ok(Wire::Committed) => types::snapshot::Kind::Committed,
        Ok(Wire::Unknown) | Err(_) => {
            return Err(Error::invalid(format!("unknown snapshot kind {}", i.kind)));
        }
    };
    Ok(types::snapshot::Info {
        kind,
        name: i.name,
        parent: i.parent,
        labels: i.labels,
        created_at: time(i.created_at),
        updated_at: time(i.updated_at),
    })
}

/// A snapshot's kind for the wire.
pub fn snapshot_kind(kind: types::snapshot::Kind) -> i32 {
    use wire::snapshots::v1::Kind as Wire;
    let kind = match kind {
        types::snapshot::Kind::View => Wire::View,
        types::snapshot::Kind::Active => Wire::Active,
        types::snapshot::Kind::Committed => Wire::Committed,
    };
    kind.into()
}

/// A snapshot for the wire.
pub fn snapshot_to_wire(i: types::snapshot::Info) -> wire::snapshots::v1::Info {
    wire::snapshots::v1::Info {
        name: i.name,
        parent: i.parent,
        kind: snapshot_kind(i.kind),
        created_at: timestamp(i.created_at),
        updated_at: timestamp(i.updated_at),
        labels: i.labels,
    }
}

/// A process status from the wire; what we do not know is [`types::task::Status::Unknown`].
pub fn task_status(status: i32) -> types::task::Status {
    use types::task::Status;
    match wire_task::Status::try_from(status) {
        Ok(wire_task::Status::Created) => Status::Created,
        Ok(wire_task::Status::Running) => Status::Running,
        Ok(wire_task::Status::Stopped) => Status::Stopped,
        Ok(wire_task::Status::Paused) => Status::Paused,
        Ok(wire_task::Status::Pausing) => Status::Pausing,
        Ok(wire_task::Status::Unknown) | Err(_) => Status::Unknown,
    }
}

/// A process status for the wire.
pub fn task_status_to_wire(status: types::task::Status) -> i32 {
    use types::task::Status;
    let wire = match status {
        Status::Unknown => wire_task::Status::Unknown,
        Status::Created => wire_task::Status::Created,
        Status::Running => wire_task::Status::Running,
        Status::Stopped => wire_task::Status::Stopped,
        Status::Paused => wire_task::Status::Paused,
        Status::Pausing => wire_task::Status::Pausing,
    };
    wire.into()
}

/// A process for the wire of the tasks service.
pub fn process_to_wire(p: types::task::Process) -> wire_task::Process {
    // Go clients know an init process by an empty exec id in `id`'s place: `id` is the exec's, or the container's.
    let id = if p.exec.is_empty() { p.container.clone() } else { p.exec };
    wire_task::Process {
        container_id: p.container,
        id,
        pid: p.pid,
        status: task_status_to_wire(p.status),
        stdin: p.stdio.stdin,
        stdout: p.stdio.stdout,
        stderr: p.stdio.stderr,
        terminal: p.stdio.terminal,
        exit_status: p.exit.map_or(0, |exit| exit.status),
        exited_at: p.exit.and_then(|exit| timestamp(exit.at)),
    }
}

/// An envelope from the wire.
pub fn envelope(e: wire_types::Envelope) -> types::events::Envelope {
    types::events::Envelope {
        timestamp: time(e.timestamp),
        namespace: e.namespace,
        topic: e.topic,
        event: e.event.map(any::from_wire).unwrap_or_default(),
    }
}

/// An envelope for the wire.
pub fn envelope_to_wire(e: types::events::Envelope) -> wire_types::Envelope {
    wire_types::Envelope {
        timestamp: timestamp(e.timestamp),
        namespace: e.namespace,
        topic: e.topic,
        event: Some(any::to_wire(e.event)),
    }
}
