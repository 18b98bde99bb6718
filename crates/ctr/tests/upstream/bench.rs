//! A private daemon of upstream's, and both clients.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::image::Image;

/// A daemon with images, which goes with the value.
pub struct Bench {
    dir: tempfile::TempDir,
    upstream: PathBuf,
    daemon: Child,
    /// Some blob.
    digest: String,
}

/// Empty when a group begins.
const DIRECTORIES: [&str; 4] = ["opt", "mnt", "mnt2", "mnt3"];

/// One of the two clients.
pub struct Ctr<'a> {
    bench: &'a Bench,
    binary: PathBuf,
}

/// What a client said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Without the lines that hold one of these.
    pub fn without(mut self, parts: &[&str]) -> Self {
        let kept = self.out.lines().filter(|line| parts.iter().all(|part| !line.contains(part)));
        self.out = kept.collect::<Vec<_>>().join("\n");
        self
    }

    /// Without its numbers, and without the columns that are as wide as they.
    pub fn without_numbers(mut self) -> Self {
        let words = self.out.split_whitespace().map(|word| word.replace(|c: char| c.is_ascii_digit(), ""));
        self.out = words.collect::<Vec<_>>().join(" ");
        self
    }

    /// With a line of labels in order: upstream's go through maps.
    pub fn labels_sorted(mut self) -> Self {
        // When it was made differs by more than the client.
        let labels =
            self.out.trim_end().split(',').filter(|label| !label.starts_with("containerd.io/gc.root="));
        let mut labels: Vec<&str> = labels.collect();
        labels.sort_unstable();
        self.out = labels.join(",");
        self
    }

    /// With its messages in order: upstream's go through maps. Times and warnings are left out.
    pub fn sorted(&self) -> Self {
        let mut lines: Vec<&str> = self.err.lines().filter(|line| !line.contains("level=warning")).collect();
        lines.sort_unstable();
        let lines = lines.into_iter().map(|line| {
            match line.strip_prefix("time=\"").and_then(|l| l.split_once('"')) {
                Some((_, rest)) => rest.to_owned(),
                None => line.to_owned(),
            }
        });
        // Help is for people and not compared.
        let out = match self.out.split_once("Incorrect Usage: ") {
            Some((before, usage)) => before.to_owned() + usage.lines().next().unwrap_or_default(),
            None => self.out.clone(),
        };
        let out = if out.contains("USAGE:\n") || out.contains("\nUsage: ctr") { "help".into() } else { out };
        // Snapshots are numbered through.
        let mut parts = out.split("/snapshots/");
        let first = parts.next().unwrap_or_default().to_owned();
        let out = parts.fold(first, |out, part| {
            out + "/snapshots/" + part.trim_start_matches(|c: char| c.is_ascii_digit())
        });
        Self { code: self.code, out, err: lines.collect::<Vec<_>>().join("\n") }
    }
}

impl Ctr<'_> {
    /// Runs it with the words of `line`; `@name` stands for an image or a file of the bench.
    pub fn say(&self, line: &str) -> Said {
        let words = line.split_whitespace().map(|word| self.bench.expand(&word.replace('|', " ")));
        let output = Command::new(&self.binary)
            .args(words)
            .env("CONTAINERD_ADDRESS", self.bench.path("sock"))
            .env("CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS", "1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }
}

impl Bench {
    /// A running daemon (`CTR_DAEMON`, or the one beside upstream's client) with the images, or `None` with the reason said.
    pub fn new() -> Option<Self> {
        let Some(upstream) = std::env::var_os("CTR_UPSTREAM").map(PathBuf::from) else {
            eprintln!("SKIPPED: CTR_UPSTREAM names no ctr of upstream's to compare with");
            return None;
        };
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: containers need root");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("ctr-").tempdir_in("/var/tmp").unwrap();
        let config = "version = 3\ndisabled_plugins = ['io.containerd.cri.v1.images', \
                      'io.containerd.cri.v1.runtime', 'io.containerd.grpc.v1.cri']\n";
        std::fs::write(dir.path().join("config.toml"), config).unwrap();
        let beside = upstream.parent().unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let file = |name: &str| dir.path().join(name);
        let daemon = std::env::var_os("CTR_DAEMON").map_or_else(|| beside.join("containerd"), PathBuf::from);
        let shims = daemon.parent().unwrap().to_path_buf();
        let daemon = Command::new(daemon)
            .args(["--config".into(), file("config.toml"), "--root".into(), file("root")])
            .args(["--state".into(), file("state"), "--address".into(), file("sock")])
            .env("PATH", format!("{}:{}", shims.display(), std::env::var("PATH").unwrap_or_default()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut bench = Self { dir, upstream, daemon, digest: String::new() };
        bench.wait();
        bench.fill();
        let [blobs, _] = bench.both(|ctr| ctr.say("content ls -q").out);
        bench.digest = blobs.lines().next().unwrap_or_default().to_owned();
        bench.clean();
        Some(bench)
    }

    /// A file of the bench.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What upstream's client and ours make of the same task.
    pub fn both<T>(&self, task: impl Fn(&Ctr<'_>) -> T) -> [T; 2] {
        [self.upstream.as_path(), Path::new(env!("CARGO_BIN_EXE_ctr"))]
            .map(|binary| task(&Ctr { bench: self, binary: binary.into() }))
    }

    /// Removes everything but the images, by upstream's client.
    pub fn clean(&self) {
        let ctr = Ctr { bench: self, binary: self.upstream.clone() };
        let mut mine = Vec::new();
        for (list, remove) in [
            ("tasks ls -q", "tasks rm -f"),
            ("containers ls -q", "containers rm"),
            ("leases ls -q", "leases rm"),
            ("snapshots ls", "snapshots rm"),
        ] {
            let listed = ctr.say(list).out;
            let names = listed.lines().filter_map(|line| line.split_whitespace().next());
            for name in names.filter(|name| *name != "KEY" && !name.starts_with("sha256:")) {
                mine.push(format!("{remove} {name}"));
            }
        }
        // Twice, as some hold others.
        for line in mine.iter().chain(&mine) {
            ctr.say(line);
        }
        for directory in DIRECTORIES {
            std::fs::remove_dir_all(self.path(directory)).ok();
            std::fs::create_dir_all(self.path(directory)).unwrap();
        }
    }

    fn expand(&self, word: &str) -> String {
        let file = |name: &str| self.path(name).display().to_string();
        match word.strip_prefix('@') {
            None => word.to_owned(),
            Some("digest") => self.digest.clone(),
            Some(name @ ("env" | "profile" | "rootfs")) => file(name),
            Some(name) => match name.strip_prefix("dir/") {
                Some(name) => file(name),
                None => format!("docker.io/library/{name}:latest"),
            },
        }
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(self.path("sock")).is_err() {
            let log = || std::fs::read_to_string(self.path("log")).unwrap();
            assert!(Instant::now() < deadline, "upstream's daemon does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn fill(&self) {
        std::fs::write(self.path("env"), "A=1\nB\n# c\nC=3=4\n").unwrap();
        let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","x":1,"syscalls":[{"names":["chmod"],"action":"SCMP_ACT_ERRNO","args":null}]}"#;
        std::fs::write(self.path("profile"), profile).unwrap();
        std::fs::create_dir_all(self.path("rootfs/etc")).unwrap();
        std::fs::write(self.path("rootfs/etc/passwd"), crate::image::PASSWD).unwrap();
        std::fs::write(self.path("rootfs/etc/group"), crate::image::GROUP).unwrap();
        let config = serde_json::json!({"Cmd": ["sh"], "Env": ["PATH=/bin", "FOO=img"], "WorkingDir": "/data",
            "Labels": {"a.b": "c", "containerd.io/gc.root": "evil", "io.cri-containerd.x": "y"}});
        let entry = serde_json::json!({"Entrypoint": ["/bin/echo", "ep"], "Cmd": ["x"], "User": "web",
            "Env": ["PATH=/bin"], "StopSignal": "SIGINT"});
        let number = serde_json::json!({"Cmd": ["id"], "User": "1000"});
        for (name, config) in [("bb", config), ("entry", entry), ("number", number)] {
            let archive = self.path(name);
            std::fs::write(&archive, Image::archive(name, &config)).unwrap();
            let [theirs, _] = self.both(|ctr| {
                // Those before 2.0 know nothing but local.
                let local =
                    if ctr.say("images import --help").out.contains("--local") { "--local" } else { "" };
                let import =
                    |flags: &str| ctr.say(&format!("images import {local} {flags} {}", archive.display()));
                (import(""), import("--snapshotter native"))
            });
            assert_eq!((theirs.0.code, theirs.1.code), (0, 0), "{theirs:?}");
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.clean();
        self.daemon.kill().ok();
        self.daemon.wait().ok();
    }
}
