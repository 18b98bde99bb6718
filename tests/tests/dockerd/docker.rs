//! A private dockerd over our containerd: its own data, sockets and cgroup below one directory, no bridge, no packet filter.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use containerd_tests::binaries::{self, Binaries};
use containerd_tests::command::{self, Invocation};
use containerd_tests::{Daemon, archive, deadline, eventually, proc, tar};

/// The image, of the suite's base layer.
pub const IMAGE: &str = "blackbox:latest";

/// Who starts containerd.
pub enum Containerd {
    /// We do, and dockerd is told the socket.
    External(Daemon),
    /// dockerd does, with the configuration that it writes for it.
    Spawned(Binaries),
}

/// A running dockerd.
pub struct Docker {
    pub containerd: Containerd,
    programs: PathBuf,
    dir: tempfile::TempDir,
    child: Mutex<Option<Child>>,
}

impl Docker {
    /// dockerd with a containerd that we start; `None`, said aloud, where there is no dockerd.
    pub fn with_our_containerd() -> Option<Self> {
        let programs = programs()?;
        Some(Self::start(programs, Containerd::External(Daemon::start())))
    }

    /// dockerd that finds our `containerd` on its PATH; `None` as above.
    pub fn that_spawns_containerd() -> Option<Self> {
        let programs = programs()?;
        Some(Self::start(programs, Containerd::Spawned(binaries::tested())))
    }

    fn start(programs: PathBuf, containerd: Containerd) -> Self {
        let dir = tempfile::Builder::new().prefix("dkr-").tempdir().expect("temporary directory");
        let docker = Self { containerd, programs, dir, child: Mutex::new(None) };
        docker.launch();
        docker.import();
        docker
    }

    /// Starts dockerd and waits until it serves.
    pub fn launch(&self) {
        let path = |name: &str| self.dir.path().join(name);
        let log = fs::File::options().create(true).append(true).open(path("log")).expect("log file");
        let mut command = self.command("usr/sbin/dockerd");
        if let Containerd::External(daemon) = &self.containerd {
            command.arg("--containerd").arg(daemon.address());
        }
        let socket = format!("unix://{}", self.socket().display());
        command
            .args([
                "--live-restore",
                // Checkpoints.
                "--experimental",
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
                "--host",
                &socket,
            ])
            .args(["--storage-driver", "vfs", "--cgroup-parent", &self.cgroup()])
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .stdout(Stdio::null())
            .stderr(log);
        let mut child = command.spawn().expect("start dockerd");
        deadline::eventually_within(Duration::from_secs(60), "dockerd serves", || {
            if let Some(status) = child.try_wait().expect("waiting for dockerd") {
                panic!("dockerd ended with {status}:\n{}", self.log());
            }
            self.docker(&["version"]).run().code == 0
        });
        *self.child.lock().expect("no test panics with it") = Some(child);
    }

    /// Ends dockerd alone, as an upgrade does.
    pub fn stop(&self) {
        let Some(mut child) = self.child.lock().expect("no test panics with it").take() else { return };
        let pid = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        if command::wait(&mut child, Duration::from_secs(30)).is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Kills containerd with SIGKILL, and starts it again `after` that; dockerd itself starts one that it spawned.
    pub fn kill_containerd(&self, after: impl FnOnce()) {
        match &self.containerd {
            Containerd::External(daemon) => {
                daemon.kill();
                after();
                daemon.launch();
            }
            Containerd::Spawned(_) => {
                let before = self.spawned().expect("dockerd has spawned containerd");
                proc::kill(before);
                after();
                eventually("dockerd starts containerd again", || {
                    self.spawned().is_some_and(|pid| pid != before)
                });
            }
        }
    }

    /// The containerd that dockerd has spawned.
    pub fn spawned(&self) -> Option<i32> {
        let config = self.dir.path().join("exec/containerd/containerd.toml");
        let of_ours = |process: &proc::Process| {
            process.cmdline.starts_with("containerd")
                && process.cmdline.contains(&config.display().to_string())
        };
        proc::all().iter().find(|process| of_ours(process)).map(|process| process.pid)
    }

    /// A command of Docker's client.
    pub fn docker(&self, arguments: &[&str]) -> Invocation {
        Invocation::new(self.client(arguments))
    }

    /// The client's command line.
    pub fn client(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("usr/bin/docker");
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display()));
        // No configuration of the caller's.
        command.env("DOCKER_CONFIG", self.dir.path()).args(arguments);
        command
    }

    /// `docker inspect` with a template.
    pub fn inspect(&self, name: &str, template: &str) -> String {
        self.docker(&["inspect", "--format", template, name]).ok().trim().to_owned()
    }

    /// Whether there is a first process for `--init`.
    pub fn has_init(&self) -> bool {
        self.programs.join("usr/bin/docker-init").exists()
    }

    /// What dockerd has written.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn command(&self, program: &str) -> Command {
        let shim_dir = match &self.containerd {
            Containerd::External(_) => binaries::tested().shim_dir,
            Containerd::Spawned(binaries) => binaries.shim_dir.clone(),
        };
        let (bin, libraries) =
            (self.programs.join("usr/bin"), self.programs.join("usr/lib/x86_64-linux-gnu"));
        let old = self.programs.join("lib/x86_64-linux-gnu");
        let mut command = Command::new(self.programs.join(program));
        command
            .env("PATH", format!("{}:{}", binaries::search_path(&shim_dir), bin.display()))
            .env("LD_LIBRARY_PATH", format!("{}:{}", libraries.display(), old.display()))
            .stdin(Stdio::null());
        command
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// A cgroup of this test's own.
    fn cgroup(&self) -> String {
        let name = self.dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        format!("/ctd-{name}")
    }

    fn import(&self) {
        let layer = tar::archive(&archive::base_layer());
        self.docker(&["import", "--change", "CMD [\"sh\"]", "-", IMAGE]).input(layer).ok();
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("dockerd's log:\n{}", self.log());
        }
        let all = self.docker(&["ps", "--all", "--quiet"]).run().stdout;
        for id in all.split_whitespace() {
            self.docker(&["rm", "--force", id]).run();
        }
        self.stop();
        // It leaves the network namespaces of containers without a network, and its data mounted on itself.
        for mount in proc::mounts_below(self.dir.path()).iter().rev() {
            let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
        }
        let name = self.cgroup();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(&name[1..]));
        }
        let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(&name[1..]));
    }
}

/// Where Debian's docker.io was unpacked.
fn programs() -> Option<PathBuf> {
    let dir = std::env::var_os("DOCKER_DIR").map(PathBuf::from);
    if dir.is_none() {
        eprintln!("skipped: DOCKER_DIR does not name a directory with Debian's docker.io");
    }
    dir
}
