//! A host of a test's own: network and mount namespaces in which it is alone, and containers in it.

#![allow(dead_code, reason = "each test uses what it needs")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

const INSIDE: &str = "CNI_TEST_INSIDE";

/// Runs the test `name` inside; `true` if this is there and the test may begin.
pub fn inside(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let Some(dir) = std::env::var_os("CNI_DIR").map(PathBuf::from) else {
        eprintln!("skipped: CNI_DIR does not name unpacked CNI plugins");
        return false;
    };
    let path = format!("{}:{}", dir.join("bin").display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--propagation", "private", "sh", "-c"]);
    command.args(["mount -t tmpfs tmpfs /var/lib && exec \"$@\"", "sh"]);
    command.arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture", "--include-ignored"]);
    // Its output is ours only if it fails: a test is counted once.
    let done = command.env(INSIDE, "1").env("PATH", path).output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "inside:\n{}", String::from_utf8_lossy(&said));
    if std::env::args().any(|word| word == "--ignored") {
        println!("{}", String::from_utf8_lossy(&said));
    }
    false
}

pub fn plugins() -> PathBuf {
    PathBuf::from(std::env::var_os("CNI_DIR").unwrap()).join("usr/lib/cni")
}

pub fn busybox() -> PathBuf {
    std::env::var_os("BUSYBOX").map_or_else(|| "/bin/busybox".into(), PathBuf::from)
}

pub fn run(command: &mut Command) -> Output {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    done
}

pub fn text(command: &mut Command) -> String {
    String::from_utf8(run(command).stdout).unwrap()
}

/// Rules and links, without what counts.
pub fn state() -> Vec<String> {
    let rules = text(Command::new("nft").args(["list", "ruleset"]));
    let rules = rules.lines().map(|line| line.split("counter packets").next().unwrap_or_default().to_owned());
    let links = text(Command::new(busybox()).args(["ip", "-o", "link"]));
    let links = links.lines().filter_map(|line| line.split(": ").nth(1).map(str::to_owned));
    rules.chain(links).collect()
}

#[track_caller]
pub fn becomes(wanted: &[String]) {
    let begun = Instant::now();
    while state() != wanted {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:#?} is not {wanted:#?}", state());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Something in a network namespace of its own, and what runs there.
pub struct Container(pub Vec<Child>);

impl Container {
    pub fn new() -> Self {
        let sleeps = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap();
        let container = Self(vec![sleeps]);
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let begun = Instant::now();
        while std::fs::read_link(container.netns()).is_ok_and(|netns| netns == own) {
            assert!(begun.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(5));
        }
        container
    }

    pub fn netns(&self) -> String {
        format!("/proc/{}/ns/net", self.0[0].id())
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.netns())).arg(busybox()).args(words);
        command
    }

    /// Checks that `to` answers; what is sent before both ends know each other is lost.
    #[track_caller]
    pub fn reaches(&self, to: &str) {
        let begun = Instant::now();
        while !self.command(&["ping", "-c", "1", "-W", "1", to]).output().unwrap().status.success() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{to} does not answer");
        }
    }

    /// Serves a page that says `words`.
    pub fn serve(&mut self, dir: &Path, words: &str) {
        std::fs::write(dir.join("index.html"), words).unwrap();
        let serving = self.command(&["httpd", "-f", "-p", "80", "-h", &dir.to_string_lossy()]).spawn();
        self.0.push(serving.unwrap());
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        for child in self.0.iter_mut().rev() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Fetches a page; waits for it.
#[track_caller]
pub fn fetch(url: &str) -> String {
    let begun = Instant::now();
    loop {
        let mut wget = Command::new(busybox());
        let done = wget.args(["wget", "-q", "-O", "-", url]).output().unwrap();
        if done.status.success() {
            return String::from_utf8(done.stdout).unwrap();
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{url} does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
}
