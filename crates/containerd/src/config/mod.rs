//! The configuration: what it means. What was written, and in which version, stays in [`tree`].
//!
//! [`load`] reads the files, lets the command line override them, checks everything, and reports all mistakes together.
//! A key that nobody knows is a warning, as upstream; so is the section of a plugin that does not exist here yet.

mod cri;
mod extensions;
mod listeners;
mod nri;
mod section;
mod shims;
mod stores;
pub mod telemetry;
mod transfer;
mod tree;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use types::{Class, Error, Result};

pub use cri::Cri;
pub use extensions::{Proxy, ProxyKind};
pub use listeners::{Listener, MessageSize, Tcp, Tls};
pub use shims::Shims;
pub use stores::{Gc, Overlayfs};
pub use transfer::{Transfer, Unpack, Verifier};

use crate::cli::{DEFAULT_CONFIG, Flags};
use crate::logging::{Format, Threshold};
use section::Section;
use telemetry::Telemetry;
use tree::{Complete, Host, Written};

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
    /// The cgroup that the daemon moves itself to; empty is where it is.
    pub cgroup: String,
    /// The main socket.
    pub grpc: Listener,
    /// Bytes of a message that are accepted, and sent.
    pub message_size: MessageSize,
    /// The socket that shims publish to.
    pub ttrpc: Listener,
    /// Where else the CRI is served, if it is.
    pub tcp: Option<Tcp>,
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
    /// Pulling and pushing.
    pub transfer: Transfer,
    /// Who may veto a pull.
    pub verifier: Verifier,
    /// How often the restart monitor looks at containers.
    pub restart_interval: Duration,
    /// Plugins in other processes.
    pub proxies: Vec<Proxy>,
    /// Shim processes.
    pub shims: Shims,
    /// Kubernetes' front door.
    pub cri: Cri,
    /// Plugins that follow pods and containers, if they are wanted.
    pub nri: Option<::nri::Config>,
    /// Metrics and the debug socket.
    pub telemetry: Telemetry,
    /// For the log, once there is one.
    pub warnings: Vec<String>,
}

/// How to log.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// The least severe level.
    pub threshold: Threshold,
    /// The form of the lines.
    pub format: Format,
}

/// Lists of plugins, and what their plugins are.
const PLUGIN_LISTS: [(&str, &str); 2] = [("disabled_plugins", "disabled"), ("required_plugins", "required")];

/// The configuration that the command line means.
pub fn load(flags: &Flags) -> Result<Config> {
    let (path, chosen) = chosen(flags);
    let mut written = match tree::read(path) {
        // Only the file that nobody named may be missing, and only itself, not what it imports.
        Err(error) if error.is_not_found() && !chosen && !path.exists() => Written::nothing()?,
        written => written?,
    };
    apply(flags, &mut written);
    understand(tree::complete(written, &host())?, flags)
}

/// What holds without any file.
#[cfg(test)]
pub fn default() -> Result<Config> {
    understand(tree::complete(Written::nothing()?, &host())?, &Flags::default())
}

/// The default configuration as a file.
pub fn print_default() -> Result<String> {
    tree::print(&tree::complete(Written::nothing()?, &host())?.table)
}

/// The configuration as one file of the current version, and remarks about it. As upstream, a file that is not there, or an
/// import, is one in which nothing is written; what would have been read after it is not.
pub fn print(flags: &Flags) -> Result<(String, Vec<String>)> {
    let (path, _) = chosen(flags);
    let mut written = Written::nothing()?;
    match tree::read_into(&mut written, path) {
        Err(error) if error.is_not_found() => {}
        read => read?,
    }
    apply(flags, &mut written);
    let complete = tree::complete(written, &host())?;
    let findings = Rc::new(RefCell::new(complete.findings));
    let mut top = Section::root(complete.table.clone(), Rc::clone(&findings));
    for (key, what) in PLUGIN_LISTS {
        uris(&mut top, key, what);
    }
    drop(top);
    let findings = findings.take();
    if !findings.mistakes.is_empty() {
        return Err(invalid(&findings.mistakes));
    }
    Ok((tree::print(&complete.table)?, findings.warnings))
}

fn chosen(flags: &Flags) -> (&Path, bool) {
    match &flags.config {
        Some(path) => (path.as_path(), true),
        None => (Path::new(DEFAULT_CONFIG), false),
    }
}

fn host() -> Host {
    Host {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        platform: types::platform::Platform::host().to_string(),
    }
}

/// Lets the command line override what was written.
fn apply(flags: &Flags, written: &mut Written) {
    for (key, flag) in [("root", &flags.root), ("state", &flags.state)] {
        if let Some(path) = flag {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            written.table.insert(key.into(), path.to_string_lossy().into_owned().into());
        }
    }
    if let Some(address) = &flags.address
        && let Some(section) = written.plugin("io.containerd.server.v1.grpc")
    {
        section.insert("address".into(), address.as_str().into());
    }
}

fn understand(complete: Complete, flags: &Flags) -> Result<Config> {
    let findings = Rc::new(RefCell::new(complete.findings));
    let mut config = read(Section::root(complete.table, Rc::clone(&findings)), flags, &complete.changed);
    let findings = findings.take();
    config.warnings = findings.warnings;
    if findings.mistakes.is_empty() { Ok(config) } else { Err(invalid(&findings.mistakes)) }
}

fn invalid(mistakes: &[String]) -> Error {
    Error::new(Class::InvalidArgument, format!("invalid configuration: {}", mistakes.join("; ")))
}

fn read(mut top: Section, flags: &Flags, changed: &BTreeSet<String>) -> Config {
    let (root, state) = directories(&mut top);
    let temp = top.string("temp", "");
    let (log, trace_id) = log(&mut top, flags);
    let cgroup = top.section("cgroup").string("path", "");
    let oom_score = top.integer("oom_score", 0);
    if !(-1000..=1000).contains(&oom_score) {
        top.mistake(format!("oom_score must be between -1000 and 1000, not {oom_score}"));
    }
    let [disabled, required] = PLUGIN_LISTS.map(|(key, what)| uris(&mut top, key, what));
    let mut timeouts = top.section("timeouts");
    let mut plugins = top.section("plugins");
    let (grpc, message_size, ttrpc) = listeners::main(&mut plugins);
    let tcp = listeners::tcp(&mut plugins);
    let overlayfs = stores::overlayfs(&mut plugins);
    let native_root = stores::native_root(&mut plugins);
    let (differs, sync_fs) = diff_service(&mut plugins);
    let shims = shims::read(&mut plugins, &mut timeouts);
    let gc = stores::gc(&mut plugins);
    stores::metadata(&mut plugins);
    let mut transfer = transfer::read(&mut plugins);
    let cri = cri::read(&mut plugins);
    transfer.downloads = downloads(transfer.downloads, cri.settings.images.max_concurrent_downloads);
    let nri = nri::read(&mut plugins);
    let verifier = transfer::verifier(&mut plugins);
    let restart_interval = shims::restart_interval(&mut plugins);
    let proxies = extensions::proxies(&mut top);
    let telemetry = telemetry::read(&mut plugins, trace_id);
    unknown_timeouts(&mut timeouts);
    not_there_yet(&mut top, &plugins, changed);
    Config {
        root,
        state,
        temp: (!temp.is_empty()).then(|| temp.into()),
        log,
        oom_score,
        cgroup,
        grpc,
        message_size,
        ttrpc,
        tcp,
        disabled,
        required,
        overlayfs,
        native_root,
        differs,
        sync_fs,
        gc,
        transfer,
        verifier,
        restart_interval,
        proxies,
        shims,
        cri,
        nri,
        telemetry,
        warnings: Vec::new(),
    }
}

/// Upstream pulls for the CRI in another way as soon as it is told how much at a time; here it is the same way, which takes the
/// number that somebody has written.
fn downloads(transfer: usize, cri: usize) -> usize {
    const DEFAULT: usize = 3;
    if transfer == DEFAULT && cri > 0 { cri } else { transfer }
}

fn directories(top: &mut Section) -> (PathBuf, PathBuf) {
    let mut directory = |key: &str, default: &str| {
        let path = PathBuf::from(top.string(key, default));
        if path.is_relative() {
            top.mistake(format!("{key} must be an absolute path, not {}", path.display()));
        }
        path
    };
    let root = directory("root", "/var/lib/containerd");
    let state = directory("state", "/run/containerd");
    // Compared by components, so that a slash at the end makes no difference.
    if root == state {
        top.mistake("root and state must be different paths");
    }
    (root, state)
}

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
    (Log { threshold, format }, trace_id)
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

fn unknown_timeouts(timeouts: &mut Section) {
    for (name, value) in timeouts.rest() {
        if value.as_str().and_then(tree::duration::parse).is_none() {
            timeouts.mistake(format!("timeout {name}: {value} is no duration"));
        }
    }
}

/// Says what was asked for and is not here, so that nobody believes it to be at work: one line, whatever a distribution
/// has written.
fn not_there_yet(top: &mut Section, plugins: &Section, changed: &BTreeSet<String>) {
    for old in tree::OLD_SECTIONS.iter().filter(|key| top.has(key)) {
        top.warn(format!("[{old}] means nothing in version 4 and is ignored: `containerd config migrate` of version 3 knows its place"));
    }
    for name in top.section("stream_processors").keys() {
        // Every configuration of upstream lists these two.
        if !name.starts_with("io.containerd.ocicrypt.decoder.v1") {
            top.warn(format!("stream processor {name} is not supported yet and ignored"));
        }
    }
    let ignored: Vec<_> = plugins.keys().into_iter().filter(|uri| changed.contains(uri)).collect();
    if !ignored.is_empty() {
        top.warn(format!("Ignoring configuration of plugins that are not there: {}", ignored.join(", ")));
    }
}

#[cfg(test)]
mod tests;
