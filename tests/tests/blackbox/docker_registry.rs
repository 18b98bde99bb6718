//! A registry that we have not written: the distribution's own. What any client pushes to it, every other pulls from it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};

use containerd_tests::archive::Image;
use containerd_tests::binaries::{self, beyond_upstream};
use containerd_tests::{Daemon, Invocation, Ledger, eventually};

/// A registry that runs, and is gone when it is dropped.
struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    /// `None` where there is none.
    fn start(daemon: &Daemon) -> Option<Self> {
        let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (dir, config) = (daemon.dir().join("registry"), daemon.dir().join("registry.yml"));
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {host}}}\n",
            dir.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = binaries::docker_registry(&["serve", config.to_str().unwrap()])?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the registry listens", || TcpStream::connect(&host).is_ok());
        Some(Self { child, host })
    }

    fn name(&self, repository: &str) -> String {
        format!("{}/{repository}:1", self.host)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself: the test has failed then anyhow.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_any_client_pushes_every_other_pulls() {
    if beyond_upstream("clients of both projects meet at one registry") {
        return;
    }
    let daemon = Daemon::start();
    let Some(registry) = Registry::start(&daemon) else { return };
    let archive = daemon.archive("image.tar", &Image::standard().oci());
    let before = Ledger::take(&daemon);
    let mut clients = vec![
        ("ours", binaries::tested(), &["--plain-http"][..]),
        ("ours, --local", binaries::tested(), &["--plain-http", "--local"]),
    ];
    clients.extend(binaries::peer().map(|old| ("Go 1.6", old, &["--plain-http"][..])));
    if let Some(new) = binaries::reference() {
        clients.push(("Go 2.3", new.clone(), &["--plain-http"]));
        clients.push(("Go 2.3, --local", new, &["--plain-http", "--local"]));
    }
    let image = containerd_tests::archive::IMAGE;
    for (number, (pusher, with, flags)) in clients.iter().enumerate() {
        daemon.ctr(&["images", "import", &archive]).ok();
        let name = registry.name(&format!("by/client{number}"));
        daemon.ctr_of(with, &[&["images", "push"], *flags, &[&name, image]].concat()).ok();
        daemon.ctr(&["images", "rm", "--sync", image]).ok();
        for (puller, with, flags) in &clients {
            daemon.ctr_of(with, &[&["images", "pull"], *flags, &[&name]].concat()).ok();
            let id = daemon.id("met");
            let said = daemon.ctr(&["run", "--rm", &name, &id, "cat", "/etc/greeting"]).ok();
            assert_eq!(said, "from the second layer\n", "pushed by {pusher}, pulled by {puller}");
            daemon.ctr(&["images", "rm", "--sync", &name]).ok();
        }
        Ledger::check(&before, &daemon);
    }
    let (from, copy) = (registry.name("by/client0"), registry.name("copies/one"));
    let (source, target) = (format!("docker://{from}"), format!("docker://{copy}"));
    let copying = ["copy", "--src-tls-verify=false", "--dest-tls-verify=false", &source, &target];
    if let Some(skopeo) = binaries::skopeo(&copying) {
        Invocation::new(skopeo).ok();
        daemon.ctr(&["images", "pull", &copy]).ok();
        daemon.ctr(&["images", "rm", "--sync", &copy]).ok();
    }
    Ledger::check(&before, &daemon);
}
