//! The configuration: what it means. What was written, and in which version, stays in [`raw`] and [`migrate`].
//!
//! [`load`] reads the files, lets the command line override them, checks everything, and reports all mistakes together.
//! A key that nobody knows is a warning, as upstream; so is the section of a plugin that does not exist here yet.

mod duration;
mod extensions;
mod listeners;
mod migrate;
mod print;
mod raw;
mod section;
mod shims;
mod stores;
pub mod telemetry;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use toml::Table;
use types::{Class, Error, Result};

pub use extensions::{Processor, Proxy};
pub use listeners::{Endpoint, Listener, MessageSize, Metrics};
pub use print::print;
pub use shims::Shims;
pub use stores::{Gc, Overlayfs, Sharing};

use crate::cli::{DEFAULT_CONFIG, Flags};
use crate::logging::{Format, Threshold};
use section::{Findings, Section};
use telemetry::Telemetry;

/// What the daemon is to do.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "parts of the daemon that are being built read the rest")]
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
    /// Differs in the order in which they are asked.
    pub differs: Vec<String>,
    /// Makes layers durable before Diff.Apply answers, whatever the request says.
    pub sync_fs: bool,
    /// When garbage is collected.
    pub gc: Gc,
    /// How blobs are shared between namespaces.
    pub sharing: Sharing,
    /// Where the daemon lets itself be looked into.
    pub debug: Option<Endpoint>,
    /// What is measured, and where it is told.
    pub metrics: Metrics,
    /// How often containers are looked at that are to be restarted.
    pub restart_interval: Duration,
    /// Plugins in other processes.
    pub proxies: Vec<Proxy>,
    /// Programs that turn layers of one kind into another.
    pub processors: Vec<Processor>,
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
    let (grpc, message_size, ttrpc) = listeners::main(&mut plugins, flags);
    let overlayfs = stores::overlayfs(&mut plugins);
    let native_root = stores::native_root(&mut plugins);
    let (differs, sync_fs) = diff_service(&mut plugins);
    let shims = shims::read(&mut plugins, &mut timeouts);
    let gc = stores::gc(&mut plugins);
    let sharing = stores::sharing(&mut plugins);
    let debug = listeners::debug(&mut plugins);
    let metrics = listeners::metrics(&mut plugins);
    let restart_interval = plugins
        .section("io.containerd.monitor.container.v1.restart")
        .duration("interval", Duration::from_secs(10));
    let proxies = extensions::proxies(&mut top);
    let processors = extensions::processors(&mut top);
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
        differs,
        sync_fs,
        gc,
        sharing,
        debug,
        metrics,
        restart_interval,
        proxies,
        processors,
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

fn diff_service(plugins: &mut Section) -> (Vec<String>, bool) {
    let mut section = plugins.section("io.containerd.service.v1.diff-service");
    (section.strings("default", &["walking"]), section.boolean("sync_fs"))
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
    for uri in foreign.keys() {
        top.warn(format!("Ignoring configuration of a plugin that is not there: {uri}"));
    }
}

#[cfg(test)]
mod tests;
