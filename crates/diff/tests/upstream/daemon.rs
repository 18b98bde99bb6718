//! Upstream's daemon, and what it makes of an image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use types::Digest;

use crate::tree::{Facts, walk};

/// Where upstream is, if this run may and can compare with it.
pub fn upstream_bin() -> Option<PathBuf> {
    let Some(bin) = std::env::var_os("CONTAINERD_UPSTREAM_BIN") else {
        eprintln!("SKIPPED: CONTAINERD_UPSTREAM_BIN is not set, nothing was compared with upstream");
        return None;
    };
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return None;
    }
    Some(bin.into())
}

/// Upstream's daemon with a root of its own.
pub struct Upstream {
    bin: PathBuf,
    dir: PathBuf,
    daemon: Child,
}

impl Upstream {
    pub fn start(bin: PathBuf, dir: &Path) -> Self {
        let config = format!(
            "version = 3\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \
             \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\"]\n[grpc]\naddress = {:?}\n[plugins.\"io.containerd.gc.v1.scheduler\"]\n\
             mutation_threshold = 0\ndeletion_threshold = 0\nschedule_delay = \"1h\"\nstartup_delay = \"1h\"\n",
            dir.join("root"),
            dir.join("state"),
            dir.join("sock")
        );
        std::fs::write(dir.join("config.toml"), config).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let daemon = Command::new(bin.join("containerd"))
            .arg("-c")
            .arg(dir.join("config.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let upstream = Self { bin, dir: dir.to_owned(), daemon };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !upstream.command(&["version"]).status.success() {
            assert!(Instant::now() < deadline, "{}", std::fs::read_to_string(dir.join("log")).unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
        upstream
    }

    pub fn command(&self, args: &[&str]) -> std::process::Output {
        Command::new(self.bin.join("ctr")).arg("-a").arg(self.dir.join("sock")).args(args).output().unwrap()
    }

    pub fn ctr(&self, args: &[&str]) -> String {
        let output = self.command(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "ctr {args:?}: {out} {err}");
        out.into_owned()
    }

    /// The tree that it makes of an image, or nothing if it refuses it.
    pub fn try_unpack(&self, archive: &Path, top: &Digest) -> Option<BTreeMap<PathBuf, Facts>> {
        let archive = archive.to_str().unwrap();
        let args = ["images", "import", "--local", "--snapshotter", "native", archive];
        let output = self.command(&args);
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(error.contains("failed to extract layer"), "{error}");
            return None;
        }
        let key = format!("seen-{}", top.hex());
        let mount =
            self.ctr(&["snapshots", "--snapshotter", "native", "view", "--mounts", &key, top.as_str()]);
        // One bind mount, as JSON.
        let (_, source) = mount.split_once("\"Source\": \"").unwrap();
        Some(walk(Path::new(source.split_once('"').unwrap().0)))
    }

    /// The tree that it makes of an image.
    pub fn unpack(&self, archive: &Path, snapshotter: &str, top: &Digest) -> BTreeMap<PathBuf, Facts> {
        self.ctr(&["images", "import", "--local", "--snapshotter", snapshotter, archive.to_str().unwrap()]);
        self.ctr(&["snapshots", "--snapshotter", snapshotter, "view", "seen", top.as_str()]);
        let target = self.dir.join(snapshotter);
        std::fs::create_dir(&target).unwrap();
        let mount = self.ctr(&[
            "snapshots",
            "--snapshotter",
            snapshotter,
            "mounts",
            target.to_str().unwrap(),
            "seen",
        ]);
        let mounted = Command::new("sh").arg("-c").arg(&mount).status().unwrap();
        assert!(mounted.success(), "{mount}");
        let tree = walk(&target);
        assert!(Command::new("umount").arg(&target).status().unwrap().success());
        tree
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
