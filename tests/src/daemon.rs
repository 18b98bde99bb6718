//! A private daemon: its own root, state and socket below one temporary directory.
//!
//! Whatever it started is gone when it is dropped: containers, shims, mounts, cgroups, sockets, files. It ends only
//! processes of its own namespaces, which carry this process's id in their names.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use tempfile::TempDir;

use crate::archive::Image;
use crate::binaries::{self, Binaries, Suite};
use crate::command::{self, Invocation};
use crate::{Api, deadline, proc};

/// A daemon under test and where it keeps things.
#[derive(Debug)]
pub struct Daemon {
    dir: TempDir,
    binaries: Binaries,
    namespace: String,
    sockets: PathBuf,
    log_level: &'static str,
    wrapper: OnceLock<Vec<String>>,
    child: Mutex<Option<Child>>,
    imported: OnceLock<()>,
}

/// A name that no other daemon of this or another run uses; all of one run are equally long, so that columns line up.
fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}{}-{:04}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Daemon {
    /// The daemon that tests of one run share; it lives as long as any of them holds it.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Daemon>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(daemon) = shared.upgrade() {
            return daemon;
        }
        let daemon = Arc::new(Self::start());
        *shared = Arc::downgrade(&daemon);
        daemon
    }

    /// Starts the daemon under test and waits until it serves.
    pub fn start() -> Self {
        Self::start_of(binaries::tested(), binaries::suite())
    }

    /// Starts the daemon of `binaries`.
    pub fn start_of(binaries: Binaries, suite: Suite) -> Self {
        let daemon = Self::prepare(binaries, suite);
        daemon.launch();
        daemon
    }

    /// Makes the directories and the configuration, and starts nothing.
    ///
    /// # Panics
    /// If not run as root.
    pub fn prepare(binaries: Binaries, suite: Suite) -> Self {
        Self::prepare_below(&std::env::temp_dir(), binaries, suite)
    }

    /// As [`Daemon::prepare`], in a directory below `parent`.
    ///
    /// # Panics
    /// If not run as root.
    pub fn prepare_below(parent: &Path, binaries: Binaries, suite: Suite) -> Self {
        assert!(rustix::process::geteuid().is_root(), "containers need root: run the suite as root");
        let dir = tempfile::Builder::new().prefix("ctd-").tempdir_in(parent).expect("temporary directory");
        let daemon = Self {
            dir,
            binaries,
            namespace: unique("bb"),
            sockets: PathBuf::from("/run/containerd/s"),
            log_level: "info",
            wrapper: OnceLock::new(),
            child: Mutex::new(None),
            imported: OnceLock::new(),
        };
        let version = if suite == Suite::Upstream { 2 } else { 3 };
        fs::write(daemon.config(), config(version)).expect("write the configuration");
        daemon
    }

    /// The same daemon, whose shims keep their sockets below its directory, so that no other daemon's are taken for
    /// theirs.
    ///
    /// # Panics
    /// If the configuration cannot be written.
    #[must_use]
    pub fn with_own_sockets(mut self) -> Self {
        self.sockets = self.dir().join("s");
        let section = format!("[plugins.'io.containerd.shim.v1.manager']\nsocket_dir = {:?}\n", self.sockets);
        self.configured(&section)
    }

    /// The same daemon, which logs as much as this, and has its shims do so.
    #[must_use]
    pub fn with_log_level(mut self, level: &'static str) -> Self {
        self.log_level = level;
        self
    }

    /// The same daemon, with more in its configuration.
    ///
    /// # Panics
    /// If the configuration cannot be written.
    #[must_use]
    pub fn configured(self, section: &str) -> Self {
        let config = fs::read_to_string(self.config()).expect("read the configuration") + section;
        fs::write(self.config(), config).expect("write the configuration");
        self
    }

    /// The same daemon, with this configuration.
    ///
    /// # Panics
    /// If it cannot be written.
    #[must_use]
    pub fn with_config(self, config: &str) -> Self {
        fs::write(self.config(), config).expect("write the configuration");
        self
    }

    /// The same daemon, whose restart monitor looks this often.
    ///
    /// # Panics
    /// If the configuration cannot be written.
    #[must_use]
    pub fn with_restart_interval(self, interval: &str) -> Self {
        let kind = if binaries::suite() == Suite::Upstream { "internal.v1" } else { "monitor.container.v1" };
        let section = format!("[plugins.'io.containerd.{kind}.restart']\ninterval = {interval:?}\n");
        let config = fs::read_to_string(self.config()).expect("read the configuration") + &section;
        fs::write(self.config(), config).expect("write the configuration");
        self
    }

    /// Has it started with mounts of its own, which this shell script makes before it becomes the daemon. The script gets `arguments`,
    /// from `$0` on, and then the daemon's command line.
    ///
    /// # Panics
    /// If there is such a script already.
    pub fn set_own_mounts(&self, script: &str, arguments: &[&str]) {
        let shell = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script];
        let words = shell.iter().chain(arguments).map(|word| (*word).to_owned());
        self.wrapper.set(words.collect()).expect("one script");
    }

    /// Where its shims keep their sockets.
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// The directory that holds everything of this daemon.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its root directory.
    pub fn root(&self) -> PathBuf {
        self.dir().join("root")
    }

    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        self.dir().join("state")
    }

    /// Its socket.
    pub fn address(&self) -> PathBuf {
        self.dir().join("c.sock")
    }

    /// The namespace that commands use if they do not say otherwise.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A name for a container, lease or file that is used once; it begins with the namespace.
    pub fn id(&self, what: &str) -> String {
        format!("{}-{}", self.namespace, unique(what))
    }

    /// What the daemon wrote so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir().join("log")).unwrap_or_default()
    }

    /// The daemon's process id, if it runs.
    pub fn pid(&self) -> Option<i32> {
        let child = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        child.as_ref().and_then(|child| i32::try_from(child.id()).ok())
    }

    /// Starts the process; returns when it serves.
    ///
    /// # Panics
    /// If it ends, or does not serve in time; with its log.
    #[track_caller]
    pub fn launch(&self) {
        self.launch_with(&[]);
    }

    /// As [`Daemon::launch`], with variables in its environment.
    ///
    /// # Panics
    /// As that.
    #[track_caller]
    pub fn launch_with(&self, variables: &[(&str, &str)]) {
        let log =
            fs::File::options().create(true).append(true).open(self.dir().join("log")).expect("log file");
        let mut command = self.command();
        command.stderr(log).envs(variables.iter().copied());
        let mut child = command.spawn().expect("start the daemon");
        deadline::eventually("the daemon serves", || {
            if let Some(status) = child.try_wait().expect("waiting for the daemon") {
                panic!("the daemon ended with {status}:\n{}", self.log());
            }
            Api::answers(&self.address())
        });
        *self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(child);
    }

    /// The daemon's command line, to be started by the caller.
    pub fn command(&self) -> Command {
        let wrapper = self.wrapper.get().map(Vec::as_slice).unwrap_or_default();
        let mut words = wrapper.iter().map(OsStr::new).chain([self.binaries.daemon.as_os_str()]);
        let mut command = Command::new(words.next().expect("the daemon at least"));
        command
            .args(words)
            .arg("--config")
            .arg(self.config())
            .arg("--address")
            .arg(self.address())
            .arg("--root")
            .arg(self.root())
            .arg("--state")
            .arg(self.state())
            .args(["--log-level", self.log_level])
            .env("PATH", binaries::search_path(&self.binaries.shim_dir))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// How the daemon ended, if it did so on its own.
    ///
    /// # Panics
    /// If the system does not tell.
    pub fn ended(&self) -> Option<ExitStatus> {
        let mut child = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        child.as_mut().and_then(|child| child.try_wait().expect("waiting for the daemon"))
    }

    /// Kills the daemon with SIGKILL.
    pub fn kill(&self) {
        self.end(rustix::process::Signal::KILL);
    }

    /// Ends the daemon with SIGTERM.
    pub fn stop(&self) {
        self.end(rustix::process::Signal::TERM);
    }

    /// A command of the client under test, in this daemon's namespace.
    pub fn ctr(&self, arguments: &[&str]) -> Invocation {
        Invocation::new(self.client(&self.binaries.ctr, arguments))
    }

    /// Whether the client is an older one of upstream's that does not know `flag`; said aloud. Ours must know it.
    pub fn lacks_flag(&self, command: &[&str], flag: &str) -> bool {
        let arguments: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        let lacks = binaries::suite() == Suite::Upstream && !self.ctr(&arguments).run().stdout.contains(flag);
        if lacks {
            eprintln!("skipped: this ctr has no {flag}");
        }
        lacks
    }

    /// A command of another client.
    pub fn ctr_of(&self, other: &Binaries, arguments: &[&str]) -> Invocation {
        Invocation::new(self.client(&other.ctr, arguments))
    }

    /// The client's command line, to be started by the caller.
    pub fn client(&self, ctr: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(ctr);
        command
            .arg("--address")
            .arg(self.address())
            .args(arguments)
            .env("CONTAINERD_NAMESPACE", &self.namespace)
            // 2.x warns of cgroup v1 in the middle of a container's errors.
            .env("CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS", "1")
            .env("PATH", binaries::search_path(&self.binaries.shim_dir));
        command
    }

    /// The path of this daemon's client.
    pub fn ctr_binary(&self) -> &Path {
        &self.binaries.ctr
    }

    /// The daemon's API, in this daemon's namespace.
    pub fn api(&self) -> Api {
        Api::connect(&self.address(), &self.namespace)
    }

    /// Writes an archive into this daemon's directory; gives its path.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn archive(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.dir().join(unique(name));
        fs::write(&path, bytes).expect("write the archive");
        path.to_string_lossy().into_owned()
    }

    /// Imports [`Image::standard`], once for each daemon; gives its name.
    #[track_caller]
    pub fn image(&self) -> &'static str {
        self.imported.get_or_init(|| {
            let archive = self.archive("standard.tar", &Image::standard().oci());
            self.ctr(&["images", "import", &archive]).ok();
        });
        crate::archive::IMAGE
    }

    /// Removes what is not referred to: upstream does that when a lease is deleted synchronously.
    pub fn collect_garbage(&self) {
        let lease = self.id("gc");
        let api = self.api();
        api.create_lease(&lease).and_then(|()| api.delete_lease(&lease)).expect("a lease");
    }

    /// The process id of a container's task.
    ///
    /// # Panics
    /// If there is no such task.
    #[track_caller]
    pub fn task_pid(&self, id: &str) -> i32 {
        self.task(id).unwrap_or_else(|| panic!("no task {id}")).0
    }

    /// A task's process id and status, as `tasks list` shows them.
    #[track_caller]
    pub fn task(&self, id: &str) -> Option<(i32, String)> {
        let list = self.ctr(&["tasks", "list"]).ok();
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(id))?;
        let mut fields = line.split_whitespace().skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.to_owned()))
    }

    /// Waits until a task has this status.
    #[track_caller]
    pub fn await_status(&self, id: &str, status: &str) {
        deadline::eventually(&format!("task {id} is {status}"), || {
            self.task(id).is_some_and(|(_, now)| now == status)
        });
    }

    fn config(&self) -> PathBuf {
        self.dir().join("config.toml")
    }

    fn end(&self, signal: rustix::process::Signal) {
        let child = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(mut child) = child {
            // It may have died on its own; the wait tells.
            let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal);
            command::wait(&mut child, Duration::from_secs(30));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's log\n{}---", self.log());
        }
        self.kill();
        let mut pids: Vec<i32> = proc::contained(&self.namespace).iter().map(|p| p.pid).collect();
        let shims: Vec<i32> = proc::shims(&self.namespace).iter().map(|p| p.pid).collect();
        let sockets = proc::listening(&shims);
        pids.extend(shims);
        pids.iter().for_each(|pid| proc::kill(*pid));
        let start = std::time::Instant::now();
        while pids.iter().any(|pid| proc::alive(*pid))
            && start.elapsed() < deadline::patient(Duration::from_secs(10))
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        for mount in proc::mounts_below(self.dir()) {
            let _ = rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH);
        }
        for path in sockets {
            let _ = fs::remove_file(path);
        }
        for cgroup in proc::cgroups(&self.namespace) {
            let _ = fs::remove_dir(cgroup);
        }
        let _ = fs::remove_dir_all(Path::new("/run/containerd/runc").join(&self.namespace));
        remove_fifos(&format!("{}-", self.namespace));
    }
}

/// Upstream's clients leave their FIFOs when they are killed, or when nobody deletes a detached task.
fn remove_fifos(prefix: &str) {
    for dir in fs::read_dir("/run/containerd/fifo").into_iter().flatten().flatten() {
        let names = fs::read_dir(dir.path()).into_iter().flatten().flatten();
        let owned = |name: &fs::DirEntry| name.file_name().to_string_lossy().starts_with(prefix);
        if names.into_iter().any(|name| owned(&name)) {
            let _ = fs::remove_dir_all(dir.path());
        }
    }
}

fn config(version: u32) -> String {
    format!(
        r#"version = {version}
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.btrfs",
]
"#
    )
}
