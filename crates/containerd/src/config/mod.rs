//! The configuration: what it means. What was written, and in which version, stays in [`raw`] and [`migrate`].
//!
//! [`load`] reads the files, lets the command line override them, checks everything, and reports all mistakes together.
//! A key that nobody knows is a warning, as upstream; so is the section of a plugin that does not exist here yet.

mod duration;
mod migrate;
mod print;
mod raw;
mod section;
pub mod telemetry;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use toml::Table;
use types::{Class, Error, Result};

pub use print::print;

use crate::cli::{DEFAULT_CONFIG, Flags};
use crate::logging::{Format, Threshold};
use section::{Findings, Section};
use telemetry::Telemetry;

/// Bytes of a message that are accepted and sent if the configuration does not say otherwise.
const MESSAGE_SIZE: usize = 16 << 20;

/// What the daemon is to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where persistent data lives.
    pub root: PathBuf,
    /// Where data lives that a reboot may take.
    pub state: PathBuf,
    /// `$TMPDIR` of the daemon and of what it starts.
    pub temp: Option<PathBuf>,
    /// The least severe log level and the form of the lines.
    pub log: Log,
    /// The daemon's own `oom_score_adj`; 0 leaves it as it is.
    pub oom_score: i32,
    /// The main socket.
    pub grpc: Listener,
    /// Bytes of a message that are accepted, and sent.
    pub message_size: MessageSize,
    /// The socket that shims publish to.
    pub ttrpc: Listener,
    /// URIs of plugins not to be loaded.
    pub disabled: Vec<String>,
    /// URIs of plugins without which the daemon does not start.
    pub required: Vec<String>,
    /// The overlayfs snapshotter.
    pub overlayfs: Overlayfs,
    /// Another directory for the native snapshotter.
    pub native_root: Option<PathBuf>,
    /// Makes layers durable before Diff.Apply answers, whatever the request says.
    pub sync_fs: bool,
    /// Shim processes.
    pub shims: Shims,
    /// Metrics and the debug socket.
    pub telemetry: Telemetry,
    /// Patterns of files that were imported.
    pub imports: Vec<String>,
    /// Sections of plugins that are not here, kept for `config dump`.
    pub foreign: Table,
    /// Timeouts that nothing here reads, kept for `config dump`.
    pub foreign_timeouts: BTreeMap<String, String>,
    /// For the log, once there is one.
    pub warnings: Vec<String>,
}

/// How to log.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// As written, or empty.
    pub level: String,
    /// The least severe level.
    pub threshold: Threshold,
    /// The form of the lines.
    pub format: Format,
}

/// A unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its path.
    pub address: PathBuf,
    /// Its owner.
    pub uid: u32,
    /// Its group, which may connect too.
    pub gid: u32,
}

/// Limits of messages, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageSize {
    /// Of requests.
    pub receive: usize,
    /// Of replies.
    pub send: usize,
}

/// Settings of the overlayfs snapshotter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlayfs {
    /// Another directory than the one below root.
    pub root: Option<PathBuf>,
    /// Label snapshots with their upper directory.
    pub upperdir_label: bool,
    /// Options of every mount.
    pub mount_options: Vec<String>,
}

/// Settings of shims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shims {
    /// Additional environment, `KEY=value`.
    pub env: Vec<String>,
    /// Where they put their sockets; empty is their own default.
    pub socket_dir: String,
    /// How long connecting to a running shim may take.
    pub load: Duration,
    /// How long cleaning up after a dead shim may take.
    pub cleanup: Duration,
    /// How long a shim's shutdown may take.
    pub shutdown: Duration,
    /// How long asking a task for its state may take.
    pub task_state: Duration,
    /// How long asking a shim for metrics may take.
    pub stats: Duration,
}

/// The configuration that the command line means.
pub fn load(flags: &Flags) -> Result<Config> {
    let (path, chosen) = match &flags.config {
        Some(path) => (path.as_path(), true),
        None => (Path::new(DEFAULT_CONFIG), false),
    };
    let written = match raw::read(path) {
        // Only the file that nobody named may be missing, and only itself, not what it imports.
        Err(error) if error.is_not_found() && !chosen && !path.exists() => raw::Written::default(),
        written => written?,
    };
    understand(written, flags)
}

/// What holds without any file.
pub fn default() -> Result<Config> {
    understand(raw::Written::default(), &Flags::default())
}

fn understand(written: raw::Written, flags: &Flags) -> Result<Config> {
    let findings = Rc::new(RefCell::new(Findings { warnings: written.warnings, ..Findings::default() }));
    let mut config = read(Section::root(written.table, Rc::clone(&findings)), flags);
    let findings = findings.take();
    config.warnings = findings.warnings;
    if findings.mistakes.is_empty() {
        return Ok(config);
    }
    Err(Error::new(
        Class::InvalidArgument,
        format!("invalid configuration: {}", findings.mistakes.join("; ")),
    ))
}

fn read(mut top: Section, flags: &Flags) -> Config {
    top.integer("version", raw::CURRENT);
    let (root, state) = directories(&mut top, flags);
    let temp = top.string("temp", "");
    let (log, trace_id) = log(&mut top, flags);
    let oom_score = top.integer("oom_score", 0);
    if !(-1000..=1000).contains(&oom_score) {
        top.mistake(format!("oom_score must be between -1000 and 1000, not {oom_score}"));
    }
    let disabled = uris(&mut top, "disabled_plugins", "disabled");
    let required = uris(&mut top, "required_plugins", "required");
    let imports = top.strings("imports", &["/etc/containerd/conf.d/*.toml"]);
    let mut timeouts = top.section("timeouts");
    let mut plugins = top.section("plugins");
    let (grpc, message_size, ttrpc) = listeners(&mut plugins, flags);
    let overlayfs = overlayfs(&mut plugins);
    let native_root = path(&mut plugins.section("io.containerd.snapshotter.v1.native"), "root_path");
    let sync_fs = diff_service(&mut plugins);
    platforms(&mut plugins);
    let shims = shims(&mut plugins, &mut timeouts);
    let telemetry = telemetry::read(&mut plugins, trace_id);
    let foreign_timeouts = foreign_timeouts(&mut timeouts);
    let foreign = plugins.rest();
    not_there_yet(&mut top, &foreign);
    Config {
        root,
        state,
        temp: (!temp.is_empty()).then(|| temp.into()),
        log,
        oom_score,
        grpc,
        message_size,
        ttrpc,
        disabled,
        required,
        overlayfs,
        native_root,
        sync_fs,
        shims,
        telemetry,
        imports,
        foreign,
        foreign_timeouts,
        warnings: Vec::new(),
    }
}

fn directories(top: &mut Section, flags: &Flags) -> (PathBuf, PathBuf) {
    let mut directory = |key: &str, flag: &Option<PathBuf>, default: &str| {
        let written = PathBuf::from(top.string(key, default));
        match flag {
            Some(flag) => std::path::absolute(flag).unwrap_or_else(|_| flag.clone()),
            None if written.as_os_str().is_empty() => {
                top.mistake(format!("{key} must be specified"));
                written
            }
            None if written.is_relative() => {
                top.mistake(format!("{key} must be an absolute path, not {}", written.display()));
                written
            }
            None => written,
        }
    };
    let root = directory("root", &flags.root, "/var/lib/containerd");
    let state = directory("state", &flags.state, "/run/containerd");
    // Compared by components, so that a slash at the end makes no difference.
    if root == state {
        top.mistake("root and state must be different paths");
    }
    (root, state)
}

/// How to log, and whether with ids of traces.
fn log(top: &mut Section, flags: &Flags) -> (Log, bool) {
    let mut debug = top.section("debug");
    let written = debug.string("level", "");
    let format = debug.string("format", "");
    let trace_id = debug.boolean("log_trace_id");
    let level = flags.log_level.clone().unwrap_or(written);
    let threshold = match level.as_str() {
        "" => Threshold::default(),
        level => level.parse().unwrap_or_else(|e: Error| {
            debug.mistake(e.message());
            Threshold::default()
        }),
    };
    let format = format.parse().unwrap_or_else(|e: Error| {
        debug.mistake(e.message());
        Format::default()
    });
    (Log { level, threshold, format }, trace_id)
}

fn uris(top: &mut Section, key: &str, what: &str) -> Vec<String> {
    let uris = top.strings(key, &[]);
    for uri in uris.iter().filter(|uri| !uri.contains('.')) {
        top.mistake(format!("invalid {what} plugin URI {uri:?} expect io.containerd.x.vx"));
    }
    uris
}

fn listeners(plugins: &mut Section, flags: &Flags) -> (Listener, MessageSize, Listener) {
    let mut section = plugins.section("io.containerd.server.v1.grpc");
    let written = section.string("address", "/run/containerd/containerd.sock");
    let grpc = Listener {
        address: flags.address.clone().unwrap_or(written).into(),
        uid: section.integer("uid", rustix::process::geteuid().as_raw()),
        gid: section.integer("gid", rustix::process::getegid().as_raw()),
    };
    let mut size = |key| match section.integer(key, MESSAGE_SIZE) {
        0 => MESSAGE_SIZE,
        size => size,
    };
    let sizes = MessageSize { receive: size("max_recv_message_size"), send: size("max_send_message_size") };
    let mut section = plugins.section("io.containerd.server.v1.ttrpc");
    let mut derived = grpc.address.clone().into_os_string();
    derived.push(".ttrpc");
    let ttrpc = Listener {
        address: match section.string("address", "") {
            address if address.is_empty() => derived.into(),
            address => address.into(),
        },
        uid: section.integer("uid", grpc.uid),
        gid: section.integer("gid", grpc.gid),
    };
    for (name, listener) in [("grpc", &grpc), ("ttrpc", &ttrpc)] {
        if listener.address.is_relative() {
            section.mistake(format!("{name} address must be an absolute path, not {:?}", listener.address));
        }
    }
    (grpc, sizes, ttrpc)
}

fn overlayfs(plugins: &mut Section) -> Overlayfs {
    let mut section = plugins.section("io.containerd.snapshotter.v1.overlayfs");
    for key in ["sync_remove", "slow_chown"] {
        if section.boolean(key) {
            section.warn(format!("overlayfs: {key} is not supported yet and ignored"));
        }
    }
    Overlayfs {
        root: path(&mut section, "root_path"),
        upperdir_label: section.boolean("upperdir_label"),
        mount_options: section.strings("mount_options", &[]),
    }
}

fn path(section: &mut Section, key: &str) -> Option<PathBuf> {
    let path = PathBuf::from(section.string(key, ""));
    if path.as_os_str().is_empty() {
        return None;
    }
    if path.is_relative() {
        section.mistake(format!("{key} must be an absolute path, not {}", path.display()));
    }
    Some(path)
}

fn diff_service(plugins: &mut Section) -> bool {
    let mut section = plugins.section("io.containerd.service.v1.diff-service");
    for differ in section.strings("default", &["walking"]).iter().filter(|name| *name != "walking") {
        section.mistake(format!("needed differ not loaded: {differ}"));
    }
    section.boolean("sync_fs")
}

fn platforms(plugins: &mut Section) {
    let mut section = plugins.section("io.containerd.runtime.v2.task");
    let host = types::platform::Platform::host().to_string();
    for platform in section.strings("platforms", &[]).iter().filter(|platform| **platform != host) {
        section.warn(format!("runtime v2 task: platform {platform} is not this host's and ignored"));
    }
}

fn shims(plugins: &mut Section, timeouts: &mut Section) -> Shims {
    let mut section = plugins.section("io.containerd.shim.v1.manager");
    let env = section.strings("env", &[]);
    for variable in env.iter().filter(|variable| !variable.contains('=')) {
        section.mistake(format!("shim manager: env {variable:?} must be KEY=value"));
    }
    let mut timeout = |name: &str, default: &str| {
        let written = timeouts.string(&format!("io.containerd.timeout.{name}"), default);
        duration::parse(&written).unwrap_or_else(|| {
            timeouts.mistake(format!("timeout {name}: {written:?} is no duration"));
            Duration::ZERO
        })
    };
    Shims {
        env,
        socket_dir: section.string("socket_dir", ""),
        load: timeout("shim.load", "5s"),
        cleanup: timeout("shim.cleanup", "5s"),
        shutdown: timeout("shim.shutdown", "3s"),
        task_state: timeout("task.state", "2s"),
        stats: timeout("metrics.shimstats", "2s"),
    }
}

fn foreign_timeouts(timeouts: &mut Section) -> BTreeMap<String, String> {
    let mut others = BTreeMap::new();
    for (name, value) in timeouts.rest() {
        match value.as_str().filter(|text| duration::parse(text).is_some()) {
            Some(text) => drop(others.insert(name, text.to_owned())),
            None => timeouts.mistake(format!("timeout {name}: {value} is no duration")),
        }
    }
    others
}

/// Says what was asked for and is not here, so that nobody believes it to be at work.
fn not_there_yet(top: &mut Section, foreign: &Table) {
    if !top.section("cgroup").string("path", "").is_empty() {
        top.warn("cgroup.path is not supported yet and ignored");
    }
    for (key, what) in [("proxy_plugins", "proxy plugin"), ("stream_processors", "stream processor")] {
        for name in top.section(key).rest().keys() {
            // Every default configuration of upstream lists these two.
            if !name.starts_with("io.containerd.ocicrypt.decoder.v1") {
                top.warn(format!("{what} {name} is not supported yet and ignored"));
            }
        }
    }
    for uri in foreign.keys() {
        top.warn(format!("Ignoring configuration of a plugin that is not there: {uri}"));
    }
}

#[cfg(test)]
mod tests;
