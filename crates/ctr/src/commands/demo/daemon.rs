//! A daemon of the demo's own: private root, state and socket, and its client.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a daemon may take to serve.
const START: Duration = Duration::from_secs(10);

/// One pair of daemon and client.
pub struct Daemon {
    /// Where everything of it lives.
    dir: PathBuf,
    binaries: Binaries,
    child: Child,
}

/// Which programs to run.
#[derive(Clone)]
pub struct Binaries {
    /// The daemon.
    pub containerd: PathBuf,
    /// Its client.
    pub ctr: PathBuf,
    /// The version of its configuration format.
    pub config_version: u8,
    /// Where the shim and the OCI runtime are looked up, in front of `PATH`.
    pub path: Vec<PathBuf>,
}

impl Binaries {
    fn path_variable(&self) -> Result<std::ffi::OsString> {
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        Ok(std::env::join_paths(self.path.iter().cloned().chain(std::env::split_paths(&inherited)))?)
    }
}

impl Daemon {
    /// Starts a daemon below `dir` and waits until it serves.
    pub fn start(dir: &Path, binaries: Binaries) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let config = format!(
            "version = {version}\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {address:?}\n",
            version = binaries.config_version,
            root = dir.join("root"),
            state = dir.join("state"),
            address = dir.join("c.sock"),
        );
        std::fs::write(dir.join("config.toml"), config)?;
        let child = spawn(dir, &binaries)?;
        let mut daemon = Self { dir: dir.to_owned(), binaries, child };
        daemon.wait_until_serving()?;
        Ok(daemon)
    }

    /// The pid of the daemon.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The daemon's socket.
    pub fn address(&self) -> PathBuf {
        self.dir.join("c.sock")
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts the daemon again on the same root; answers how long it took to serve.
    pub fn restart(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.child = spawn(&self.dir, &self.binaries)?;
        self.wait_until_serving()?;
        Ok(begun.elapsed())
    }

    /// Stops the daemon with SIGTERM and waits for its end.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        self.child.wait()?;
        Ok(())
    }

    /// A client command that may fail.
    pub fn try_ctr<S: AsRef<str>>(&self, args: &[S]) -> Result<Output> {
        let output = Command::new(&self.binaries.ctr)
            .arg("-a")
            .arg(self.address())
            .args(args.iter().map(AsRef::as_ref))
            .env("PATH", self.binaries.path_variable()?)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("run {}", self.binaries.ctr.display()))?;
        Ok(output)
    }

    /// A client command that must succeed; its output.
    pub fn ctr<S: AsRef<str>>(&self, args: &[S]) -> Result<String> {
        let output = self.try_ctr(args)?;
        if !output.status.success() {
            let command: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
            bail!(
                "ctr {}: {}: {}",
                command.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn wait_until_serving(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            if UnixStream::connect(self.address()).is_ok() && self.ctr(&["version"]).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the daemon ended with {status}: {}", self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("the daemon does not serve after {START:?}: {}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Whatever failed before: no daemon of ours stays.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path, binaries: &Binaries) -> Result<Child> {
    let log = File::options().append(true).create(true).open(dir.join("log"))?;
    Command::new(&binaries.containerd)
        .arg("-c")
        .arg(dir.join("config.toml"))
        .env("PATH", binaries.path_variable()?)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("start {}", binaries.containerd.display()))
}
