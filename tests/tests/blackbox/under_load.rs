//! Images are imported, pulled and removed, containers run and leases hold, all at once and while garbage is collected without a pause: nothing
//! that somebody uses is ever collected, and nothing that nobody uses is left.
//!
//! Each client has names of its own and knows what it made; what their images are made of they share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use containerd_tests::archive::{Image, Packing, base_layer, hex};
use containerd_tests::binaries::{self, Suite};
use containerd_tests::tar::Entry;
use containerd_tests::{Daemon, Ledger};
use registry::fake::Fake;

const CLIENTS: u64 = 3;
/// Layers above the base: each image has two of them, so that chains share all or some of what is below.
const KINDS: u64 = 3;
const LENGTH: Duration = Duration::from_secs(12);

struct Client<'a> {
    daemon: &'a Daemon,
    registry: &'a Fake,
    number: u64,
    random: u64,
    /// The images that are there, and their kinds.
    images: Vec<(String, u64)>,
    containers: Vec<(String, u64)>,
    leases: Vec<(String, String)>,
    next: u64,
}

impl Client<'_> {
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    fn some<T: Clone>(&mut self, all: impl Fn(&Self) -> &Vec<T>) -> Option<(usize, T)> {
        let count = all(self).len() as u64;
        let at = usize::try_from(self.below(count.max(1))).unwrap();
        all(self).get(at).cloned().map(|one| (at, one))
    }

    fn act(&mut self) {
        match self.below(12) {
            0..=1 => self.bring(),
            2..=4 => self.pull(),
            5 => self.remove(),
            6..=7 => self.run(),
            8 => self.create(),
            9 => self.end(),
            10 => self.hold(),
            _ => self.release(),
        }
    }

    fn bring(&mut self) {
        let kind = self.below(KINDS * KINDS);
        let name = image_name(self.number, kind);
        let archive =
            self.daemon.archive(&format!("load-{}-{kind}.tar", self.number), &image(&name, kind).oci());
        self.daemon.ctr(&["images", "import", &archive]).ok();
        std::fs::remove_file(archive).unwrap();
        self.has(name, kind);
    }

    /// By the daemon or by the client itself; what others have of it is used.
    fn pull(&mut self) {
        let kind = self.below(KINDS * KINDS);
        let name = published(self.registry, self.number, kind);
        let flags: &[&str] = if self.below(2) == 0 { &["--local"] } else { &[] };
        self.daemon.ctr(&[&["images", "pull"], flags, &[&name]].concat()).ok();
        self.has(name, kind);
    }

    fn has(&mut self, name: String, kind: u64) {
        if !self.images.iter().any(|(known, _)| *known == name) {
            self.images.push((name, kind));
        }
    }

    fn remove(&mut self) {
        let Some((at, (name, _))) = self.some(|client| &client.images) else { return };
        self.images.swap_remove(at);
        let flags: &[&str] = if self.below(2) == 0 { &["--sync"] } else { &[] };
        self.daemon.ctr(&[&["images", "rm"], flags, &[&name]].concat()).ok();
    }

    /// An image that is there runs, and has the files of its kind.
    fn run(&mut self) {
        let Some((_, (name, kind))) = self.some(|client| &client.images) else { return };
        let id = self.id();
        let said = self.daemon.ctr(&["run", "--rm", &name, &id, "cat", "/low", "/high"]).ok();
        assert_eq!(said, contents(kind), "{name}");
    }

    /// A container keeps its snapshot and all below it, whatever becomes of its image.
    fn create(&mut self) {
        let Some((_, (name, kind))) = self.some(|client| &client.images) else { return };
        let id = self.id();
        self.daemon.ctr(&["containers", "create", &name, &id, "cat", "/low", "/high"]).ok();
        self.containers.push((id, kind));
    }

    fn end(&mut self) {
        let Some((at, (id, kind))) = self.some(|client| &client.containers) else { return };
        self.containers.swap_remove(at);
        assert_eq!(self.daemon.ctr(&["tasks", "start", &id]).ok(), contents(kind), "{id}");
        self.daemon.ctr(&["containers", "delete", &id]).ok();
    }

    /// What a lease holds is there, and nothing else refers to it.
    fn hold(&mut self) {
        let (id, api) = (self.id(), self.daemon.api());
        let bytes = format!("held by {id}");
        let digest = format!("sha256:{}", hex(bytes.as_bytes()));
        api.create_lease(&id).unwrap();
        api.ingest(&format!("ref-{id}"), bytes.as_bytes(), &digest, Some(&id)).unwrap();
        self.leases.push((id, digest));
    }

    fn release(&mut self) {
        let Some((at, (id, digest))) = self.some(|client| &client.leases) else { return };
        self.leases.swap_remove(at);
        assert_eq!(self.daemon.ctr(&["content", "get", &digest]).ok(), format!("held by {id}"));
        self.daemon.api().delete_lease(&id).unwrap();
    }

    fn id(&mut self) -> String {
        self.next += 1;
        self.daemon.id(&format!("load-{}-{}", self.number, self.next))
    }

    /// Uses everything once more, then lets it go.
    fn leave(&mut self) {
        while !self.images.is_empty() {
            self.run();
            self.remove();
        }
        while !self.containers.is_empty() {
            self.end();
        }
        while !self.leases.is_empty() {
            self.release();
        }
    }
}

fn image_name(client: u64, kind: u64) -> String {
    format!("docker.io/load/c{client}k{kind}:1")
}

/// The name of a client's image of a kind in the registry.
fn published(registry: &Fake, client: u64, kind: u64) -> String {
    registry.reference(&format!("load/c{client}"), &format!("k{kind}"))
}

/// A registry with an image of each kind for each client.
fn registry() -> Fake {
    let registry = Fake::start();
    for client in 0..CLIENTS {
        for kind in 0..KINDS * KINDS {
            image("", kind).publish(&registry, &format!("load/c{client}"), &format!("k{kind}"));
        }
    }
    registry
}

fn contents(kind: u64) -> String {
    format!("low {}\nhigh {}\n", kind / KINDS, kind % KINDS)
}

fn image(name: &str, kind: u64) -> Image {
    let low = Entry::file("low", format!("low {}\n", kind / KINDS));
    let high = Entry::file("high", format!("high {}\n", kind % KINDS));
    let image = Image::named(name).layer(&base_layer(), Packing::Gzip);
    image.layer(&[low], Packing::Gzip).layer(&[high], Packing::Zstd)
}

#[test]
fn nothing_in_use_is_collected_and_nothing_dead_is_left() {
    let daemon = Daemon::start();
    if daemon.lacks_flag(&["images", "import"], "--sync-fs") {
        return; // Clients as old as that do not hold what they import.
    }
    daemon.collect_garbage();
    let before = Ledger::take(&daemon);
    let registry = registry();
    let over = AtomicBool::new(false);
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (daemon, registry) = (&daemon, &registry);
                let random = (seed + 1).wrapping_mul(0x9E37_79B9 + number) | 1;
                scope.spawn(move || {
                    let mut client = Client {
                        daemon,
                        registry,
                        number,
                        random,
                        images: Vec::new(),
                        containers: Vec::new(),
                        leases: Vec::new(),
                        next: 0,
                    };
                    let begun = Instant::now();
                    while begun.elapsed() < LENGTH {
                        client.act();
                    }
                    client.leave();
                })
            })
            .collect();
        let collector = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                daemon.collect_garbage();
            }
        });
        let ended: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        over.store(true, Ordering::Relaxed);
        collector.join().unwrap();
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    daemon.collect_garbage();
    for listed in [&["content", "ls", "-q"][..], &["images", "ls", "-q"]] {
        assert_eq!(daemon.ctr(listed).ok(), "", "{listed:?}");
    }
    let snapshots = daemon.ctr(&["snapshots", "ls"]).ok();
    assert_eq!(snapshots.lines().count(), 1, "{snapshots}");
    if binaries::suite() == Suite::Ours {
        let blobs = daemon.root().join("io.containerd.content.v1.content/blobs/sha256");
        assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0);
        let layers = daemon.root().join("io.containerd.snapshotter.v1.overlayfs/snapshots");
        assert_eq!(std::fs::read_dir(layers).unwrap().count(), 0);
    }
    Ledger::check(&before, &daemon);
}
