//! Processes of a container, as the daemon and clients see them.

use std::time::SystemTime;

use crate::any::Any;
use crate::mount::Mount;

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// The shim did not say.
    Unknown,
    /// Set up, not started.
    Created,
    /// Running.
    Running,
    /// Exited; the code is kept until Delete.
    Stopped,
    /// Frozen.
    Paused,
    /// Freezing.
    Pausing,
}

/// The paths and mode of a process's streams; an empty path is no stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stdio {
    /// FIFO, or empty.
    pub stdin: String,
    /// FIFO or URI, or empty.
    pub stdout: String,
    /// FIFO or URI, or empty; unused with a terminal.
    pub stderr: String,
    /// Whether the process gets a terminal; then stdout carries both.
    pub terminal: bool,
}

/// The state of an init or exec process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The container's id.
    pub container: String,
    /// The exec id, empty for init.
    pub exec: String,
    /// The pid on the host, 0 before it exists.
    pub pid: u32,
    /// See [`Status`].
    pub status: Status,
    /// Its streams.
    pub stdio: Stdio,
    /// Only with [`Status::Stopped`].
    pub exit: Option<Exit>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, or 128 + signal.
    pub status: u32,
    /// When.
    pub at: SystemTime,
}

/// What Delete answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// The pid it had.
    pub pid: u32,
    /// How it ended; the Unix epoch stands for "never started".
    pub exit: Exit,
}

/// A task to be made from a container record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Create {
    /// Mounts of the root filesystem.
    pub rootfs: Vec<Mount>,
    /// Streams of the init process.
    pub stdio: Stdio,
    /// The OCI spec, verbatim.
    pub spec: Option<Any>,
    /// The runtime (shim) name or path.
    pub runtime: String,
    /// Options for the shim: the task's, or the container's runtime options.
    pub options: Option<Any>,
    /// What it goes on from.
    pub origin: Origin,
    /// Another task of the same namespace whose shim is to serve this one too, instead of one that is started for it. It is there
    /// as long as this task is being made: a pod's sandbox, for its containers.
    pub shim_of: Option<String>,
    /// Where a task service is that is to serve it, instead of one that is started for it.
    pub endpoint: Option<Endpoint>,
}

/// A task service that somebody else has started: a sandboxer in another process, for the containers of a sandbox. Its programs
/// are not ours to execute, nor its processes to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// With its protocol, as sandboxers write it: `ttrpc+unix:///path`.
    pub address: String,
    /// Of the task service: 2 or 3.
    pub version: u32,
}

/// What a new task begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Its first instruction.
    #[default]
    Beginning,
    /// The checkpoint in a directory that is somebody's, and stays as it is.
    Checkpoint(String),
    /// The checkpoint in a directory that becomes the task's own: its shim reads it only when it is started.
    OwnCheckpoint(std::path::PathBuf),
}

/// An additional process to be run in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// Its id, unique within the container.
    pub id: String,
    /// Its streams.
    pub stdio: Stdio,
    /// The OCI process, JSON.
    pub process: Option<Any>,
}

/// One process found in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pid {
    /// On the host.
    pub pid: u32,
    /// What the shim knows about it (`ProcessDetails`).
    pub info: Option<Any>,
}
