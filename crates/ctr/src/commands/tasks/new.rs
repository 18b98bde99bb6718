//! A new task for a container record, with its streams.

use api::containerd::runc::v1::Options as RuncOptions;
use api::containerd::services::tasks::v1::CreateTaskRequest;
use remote::from_status;
use serde::Deserialize;
use snapshots::Snapshotter;
use types::container::Container;
use types::mount::Mount;
use types::oci::Descriptor;
use types::{Any, Error, Result};

use crate::client::Client;
use crate::commands::refused;
use crate::go;
use crate::io::{Streams, Wiring};

/// What the command line says about a task.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// No streams.
    pub null_io: bool,
    /// A log instead of streams.
    pub log_uri: String,
    /// Where FIFOs are made.
    pub fifo_dir: String,
    /// For roots on a ramdisk.
    pub no_pivot: bool,
    /// The state that it goes on from.
    pub checkpoint: Option<Descriptor>,
}

impl Options {
    /// Refuses what excludes each other.
    pub fn check(&self, terminal: bool) -> Result<()> {
        if terminal && self.null_io {
            return refused("tty and null-io cannot be used together");
        }
        Ok(())
    }

    fn wiring(&self, terminal: bool) -> Wiring {
        match () {
            () if terminal => Wiring::Fifos { directory: self.fifo_dir.clone(), terminal },
            () if self.null_io => Wiring::Null,
            () if !self.log_uri.is_empty() => Wiring::Log(self.log_uri.clone()),
            () => Wiring::Fifos { directory: self.fifo_dir.clone(), terminal },
        }
    }
}

/// What a client has to know of a spec.
#[derive(Debug, Default)]
pub struct Facts {
    /// Whether the process gets a terminal.
    pub terminal: bool,
    mount_label: String,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecPart {
    process: Option<ProcessPart>,
    linux: Option<LinuxPart>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ProcessPart {
    terminal: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LinuxPart {
    mount_label: String,
    uid_mappings: Option<Vec<MappingPart>>,
    gid_mappings: Option<Vec<MappingPart>>,
}

#[derive(Deserialize)]
struct MappingPart {
    #[serde(rename = "hostID")]
    host: u32,
}

impl Facts {
    /// Reads them out of a record's spec.
    pub fn of(container: &Container) -> Result<Self> {
        let Some(spec) = &container.spec else { return Ok(Self::default()) };
        let part: SpecPart =
            serde_json::from_slice(&spec.value).map_err(|e| Error::invalid(format!("decode spec: {e}")))?;
        let linux = part.linux.unwrap_or_default();
        let first = |mappings: Option<Vec<MappingPart>>| mappings.and_then(|all| all.first().map(|m| m.host));
        Ok(Self {
            terminal: part.process.unwrap_or_default().terminal,
            mount_label: linux.mount_label,
            uid: first(linux.uid_mappings),
            gid: first(linux.gid_mappings),
        })
    }
}

/// A task that is not started yet.
pub struct NewTask {
    /// Its streams; nothing is copied yet.
    pub streams: Streams,
    /// Its pid.
    pub pid: u32,
}

/// Creates the task of a container. Its mounts are asked for unless they are known.
pub async fn create(
    client: &Client,
    container: &Container,
    rootfs: Option<Vec<Mount>>,
    options: &Options,
) -> Result<NewTask> {
    let facts = Facts::of(container)?;
    options.check(facts.terminal)?;
    let mut rootfs = match rootfs {
        Some(rootfs) => rootfs,
        None => mounts(client, container).await?,
    };
    if !facts.mount_label.is_empty() {
        for mount in &mut rootfs {
            mount.options.push(format!("context={}", go::quote(&facts.mount_label)));
        }
    }
    let streams = Streams::new(options.wiring(facts.terminal), &container.id)?;
    let stdio = streams.stdio().clone();
    let request = CreateTaskRequest {
        container_id: container.id.clone(),
        rootfs: rootfs.into_iter().map(api::convert::mount_to_wire).collect(),
        stdin: stdio.stdin,
        stdout: stdio.stdout,
        stderr: stdio.stderr,
        terminal: stdio.terminal,
        checkpoint: options.checkpoint.clone().map(api::convert::descriptor_to_wire),
        options: runc_options(container, &facts, options)?.map(api::any::to_wire),
        ..Default::default()
    };
    let created = client.tasks().create(request).await.map_err(from_status)?.into_inner();
    Ok(NewTask { streams, pid: created.pid })
}

async fn mounts(client: &Client, container: &Container) -> Result<Vec<Mount>> {
    if container.snapshot_key.is_empty() {
        return Ok(Vec::new());
    }
    if container.snapshotter.is_empty() {
        let text = "unable to resolve rootfs mounts without snapshotter on container: invalid argument";
        return Err(Error::invalid(text));
    }
    client.named_snapshotter(&container.snapshotter).mounts(&container.snapshot_key).await
}

/// The container's options, changed for this task; `None` if they are good as they are.
fn runc_options(container: &Container, facts: &Facts, options: &Options) -> Result<Option<Any>> {
    if !options.no_pivot && facts.uid.is_none() && facts.gid.is_none() {
        return Ok(None);
    }
    if !container.runtime.name.starts_with("io.containerd.runc") {
        return if options.no_pivot {
            refused("--no-pivot is only supported by runc: not implemented")
        } else {
            Ok(None)
        };
    }
    let mut runc: RuncOptions = match &container.runtime.options {
        Some(any) if !any.value.is_empty() => api::any::unpack(any)?,
        _ => RuncOptions::default(),
    };
    runc.no_pivot_root |= options.no_pivot;
    runc.io_uid = facts.uid.unwrap_or(runc.io_uid);
    runc.io_gid = facts.gid.unwrap_or(runc.io_gid);
    Ok(Some(api::any::pack(&runc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_and_null_io_exclude_each_other() {
        let options = Options { null_io: true, ..Default::default() };
        assert_eq!(options.check(true).unwrap_err().to_string(), "tty and null-io cannot be used together");
        assert!(options.check(false).is_ok());
    }
}
