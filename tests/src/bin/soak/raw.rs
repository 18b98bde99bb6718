//! A client of the API: it makes one call at a time, notes what was acknowledged, and asks again where a call was cut
//! off, until it knows.

use std::time::{Duration, Instant};

use api::containerd::v1::types::Status as TaskStatus;
use containerd_tests::rpc::{self, Answer, Blob, Labels};
use containerd_tests::{Chance, Rpc, binaries, proc};
use tonic::Code;

use crate::arena::Arena;
use crate::model::{Container, Image, Lease, Model};

/// A snapshot or blob with this label is a root.
const ROOT: &str = "containerd.io/gc.root";
/// Digests that all clients write: the same blob is held by many.
const COMMON: u64 = 12;
const SIGKILL: u32 = 9;
/// Part of the name of a lease that nobody deletes.
pub const EXPIRES: &str = "expires";
/// How long it lives.
pub const EXPIRY: Duration = Duration::from_secs(45);

struct Client<'a> {
    arena: &'a Arena,
    name: &'static str,
    runtime: tokio::runtime::Runtime,
    rpc: Rpc,
    /// The daemon's life in which it was connected.
    life: u64,
    chance: Chance,
    model: Model,
    next: u64,
}

/// Works until the arena says that it is over; what is there then.
pub fn live(arena: &Arena, name: &'static str, namespace: &str, chance: Chance) -> Model {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let rpc = runtime.block_on(async { Rpc::new(&arena.daemon.address(), namespace) });
    let model = Model::new(namespace);
    let mut client = Client { arena, name, runtime, rpc, life: 0, chance, model, next: 0 };
    client.make_base();
    while arena.goes_on() {
        client.act();
    }
    client.model
}

impl Client<'_> {
    fn act(&mut self) {
        match self.chance.below(30) {
            0..=2 => self.create_image(),
            3 => self.tag_image(),
            4..=5 => self.delete_image(),
            6..=7 => self.create_lease(),
            8..=10 => self.lease_blob(),
            11..=12 => self.lease_snapshot(),
            13 => self.lease_ingest(),
            14..=15 => self.delete_lease(),
            16..=17 => self.create_snapshot(),
            18 => self.remove_snapshot(),
            19..=20 => self.run_container(),
            21..=22 => self.exec(),
            23..=24 => self.end_container(),
            25 => self.come_and_go_with_namespace(),
            26 => self.lease_that_expires(),
            _ => self.look_at_something(),
        }
    }

    /// Makes one call, again as long as the daemon's death explains its failure. A code in `also` says that it had
    /// been done before; false if it was refused, which is a problem.
    fn certain<T>(
        &mut self,
        what: &str,
        also: Option<Code>,
        call: impl AsyncFn(&Rpc) -> Answer<T>,
    ) -> Option<T> {
        loop {
            let (life, begun) = (self.arena.life(), Instant::now());
            if self.life != life {
                // A connection of another life would tell of its end only now.
                self.life = life;
                let (address, namespace) = (self.arena.daemon.address(), &self.model.namespace);
                self.rpc = self.runtime.block_on(async { Rpc::new(&address, namespace) });
            }
            let answer = self.runtime.block_on(call(&self.rpc));
            self.arena.count(what, begun.elapsed());
            match answer {
                Ok(value) => return Some(value),
                Err(status) if also == Some(status.code()) => return None,
                Err(_) if self.arena.is_excused(life) => {}
                Err(status) => {
                    self.arena.problem(format!("{} {what}: {status:?}", self.name));
                    return None;
                }
            }
        }
    }

    fn name(&mut self, what: &str) -> String {
        self.next += 1;
        format!("{}-{what}{}", self.name, self.next)
    }

    /// Bytes of our own, or some that others write too.
    fn bytes(&mut self) -> Vec<u8> {
        if self.chance.once_in(3) {
            let common = self.chance.number() % COMMON;
            return Chance::new(common).bytes(20_000);
        }
        let length = [10, 1000, 50_000, 300_000][self.chance.below(4)];
        self.chance.bytes(length)
    }

    fn write(&mut self, lease: &str, blob: &Blob) {
        let reference = self.name("write");
        let call = async |rpc: &Rpc| rpc.leased(lease).write(&reference, blob).await;
        self.certain("write", Some(Code::AlreadyExists), call);
    }

    fn make_lease(&mut self) -> String {
        let lease = self.name("lease");
        self.certain("create lease", Some(Code::AlreadyExists), async |rpc: &Rpc| {
            rpc.create_lease(&lease).await
        });
        lease
    }

    fn drop_lease(&mut self, lease: &str) {
        let sync = self.chance.once_in(3);
        let call = async |rpc: &Rpc| rpc.delete_lease(lease, sync).await;
        self.certain("delete lease", Some(Code::NotFound), call);
    }

    /// As a pull does it: blobs under a lease, labels from one to the next, the name, and then the lease goes.
    fn create_image(&mut self) {
        if self.model.images.len() > 40 {
            return;
        }
        let lease = self.make_lease();
        let (config, layer) = (Blob::new(self.bytes()), Blob::new(self.bytes()));
        // Labels of a blob that is there already stay as they were: a manifest is nobody else's.
        let manifest = Blob::new(self.chance.bytes(1000))
            .label("containerd.io/gc.ref.content.0", &config.digest)
            .label("containerd.io/gc.ref.content.l.1", &layer.digest);
        for blob in [&config, &layer, &manifest] {
            self.write(&lease, blob);
        }
        let name = self.name("image");
        let call = async |rpc: &Rpc| rpc.create_image(&name, &manifest.digest, manifest.data.len()).await;
        self.certain("create image", Some(Code::AlreadyExists), call);
        let blobs = [&config, &layer, &manifest].map(|blob| blob.digest.clone()).into();
        let (target, size) = (manifest.digest, manifest.data.len());
        let image = Image { target, size, blobs, ..Image::default() };
        self.model.images.insert(name, image);
        self.drop_lease(&lease);
    }

    fn tag_image(&mut self) {
        let few = self.model.images.len() < 50;
        let Some((_, image)) = self.chance.entry(&self.model.images).filter(|_| few) else { return };
        let name = self.name("tag");
        let call = async |rpc: &Rpc| rpc.create_image(&name, &image.target, image.size).await;
        self.certain("tag image", Some(Code::AlreadyExists), call);
        self.model.images.insert(name, image);
    }

    fn delete_image(&mut self) {
        let Some(name) = self.chance.of(self.model.images.keys()).cloned() else { return };
        self.model.images.remove(&name);
        let sync = self.chance.once_in(2);
        let call = async |rpc: &Rpc| rpc.delete_image(&name, sync).await;
        self.certain("delete image", Some(Code::NotFound), call);
    }

    fn create_lease(&mut self) {
        if self.model.leases.len() < 20 {
            let lease = self.make_lease();
            self.model.leases.insert(lease, Lease::default());
        }
    }

    fn some_lease(&mut self) -> Option<String> {
        self.chance.of(self.model.leases.keys()).cloned()
    }

    fn lease_blob(&mut self) {
        let Some(lease) = self.some_lease() else { return };
        let blob = Blob::new(self.bytes());
        self.write(&lease, &blob);
        self.model.leases.entry(lease).or_default().blobs.insert(blob.digest);
    }

    fn lease_snapshot(&mut self) {
        let Some(lease) = self.some_lease() else { return };
        let (key, base) = (self.name("leased"), self.base());
        let call = async |rpc: &Rpc| rpc.leased(&lease).prepare(&key, &base, Labels::new()).await;
        self.certain("prepare leased", Some(Code::AlreadyExists), call);
        self.model.leases.entry(lease).or_default().snapshots.insert(key, base);
    }

    /// A write that nobody finishes.
    fn lease_ingest(&mut self) {
        let Some(lease) = self.some_lease() else { return };
        let (reference, data) = (self.name("unfinished"), self.chance.bytes(5000));
        let call = async |rpc: &Rpc| rpc.leased(&lease).write_part(&reference, &data).await;
        self.certain("write a part", None, call);
        self.model.leases.entry(lease).or_default().ingests.insert(reference);
    }

    fn delete_lease(&mut self) {
        let Some(lease) = self.some_lease() else { return };
        self.model.leases.remove(&lease);
        self.drop_lease(&lease);
    }

    /// What it holds goes without anybody's doing.
    fn lease_that_expires(&mut self) {
        let (lease, blob) = (self.name(EXPIRES), Blob::new(self.bytes()));
        let at = std::time::SystemTime::now() + EXPIRY;
        let at = types::time::rfc3339(at);
        let call = async |rpc: &Rpc| {
            rpc.create_lease_with(&lease, [("containerd.io/gc.expire".to_owned(), at.clone())].into()).await
        };
        self.certain("create lease", Some(Code::AlreadyExists), call);
        self.write(&lease, &blob);
    }

    fn base(&self) -> String {
        format!("{}-base", self.name)
    }

    /// A layer with a program, for containers.
    fn make_base(&mut self) {
        let (base, key) = (self.base(), format!("{}-extract", self.name));
        let rooted = || Labels::from([(ROOT.to_owned(), "yes".to_owned())]);
        let call = async |rpc: &Rpc| rpc.prepare(&key, "", rooted()).await;
        if let Some(mounts) = self.certain("prepare base", None, call) {
            let root = std::path::Path::new(&mounts[0].source);
            for dir in ["bin", "proc"] {
                std::fs::create_dir_all(root.join(dir)).expect("a directory in a layer");
            }
            std::fs::copy(binaries::busybox(), root.join("bin/sleep")).expect("a program in a layer");
            std::fs::copy(binaries::busybox(), root.join("bin/true")).expect("a program in a layer");
        }
        let call = async |rpc: &Rpc| rpc.commit(&base, &key, rooted()).await;
        self.certain("commit base", Some(Code::AlreadyExists), call);
        self.model.snapshots.insert(base, String::new());
    }

    /// A snapshot that is a root, sometimes made a layer at once.
    fn create_snapshot(&mut self) {
        if self.model.snapshots.len() > 30 {
            return;
        }
        let layers: Vec<String> =
            self.model.snapshots.keys().filter(|key| !key.contains("active")).cloned().collect();
        let parent = self.chance.of(&layers).cloned().unwrap_or_default();
        let rooted = || Labels::from([(ROOT.to_owned(), "yes".to_owned())]);
        let key = self.name("active");
        let call = async |rpc: &Rpc| rpc.prepare(&key, &parent, rooted()).await;
        self.certain("prepare", Some(Code::AlreadyExists), call);
        if self.chance.once_in(2) {
            self.model.snapshots.insert(key, parent);
            return;
        }
        let layer = self.name("layer");
        let call = async |rpc: &Rpc| rpc.commit(&layer, &key, rooted()).await;
        self.certain("commit", Some(Code::AlreadyExists), call);
        self.model.snapshots.insert(layer, parent);
    }

    /// Removes a snapshot on which nothing of ours stands.
    fn remove_snapshot(&mut self) {
        let all = &self.model.snapshots;
        let is_parent = |key: &String| all.values().any(|parent| parent == key);
        let base = self.base();
        let leaves: Vec<String> =
            all.keys().filter(|key| !is_parent(key) && **key != base).cloned().collect();
        let Some(key) = self.chance.of(&leaves).cloned() else { return };
        self.model.snapshots.remove(&key);
        let call = async |rpc: &Rpc| rpc.remove_snapshot(&key).await;
        self.certain("remove snapshot", Some(Code::NotFound), call);
    }

    fn run_container(&mut self) {
        if self.model.containers.len() >= 4 {
            return;
        }
        let (id, base, lease) = (self.name("run"), self.base(), self.make_lease());
        let call = async |rpc: &Rpc| rpc.leased(&lease).prepare(&id, &base, Labels::new()).await;
        self.certain("prepare root", Some(Code::AlreadyExists), call);
        let spec = rpc::spec(&self.model.namespace, &id, &["sleep", "100000"]);
        let call = async |rpc: &Rpc| rpc.create_container(&id, spec.clone()).await;
        self.certain("create container", Some(Code::AlreadyExists), call);
        self.drop_lease(&lease);
        let call = async |rpc: &Rpc| rpc.create_task(&id, rpc.mounts(&id).await?).await;
        self.certain("create task", Some(Code::AlreadyExists), call);
        let call = async |rpc: &Rpc| rpc.start(&id, "").await;
        self.certain("start", Some(Code::FailedPrecondition), call);
        let pid = self.state(&id).map(|process| process.pid.cast_signed());
        self.model.containers.insert(id, Container { parent: base, pid });
    }

    /// What the daemon says of a task. A shim that is being looked for is asked again.
    fn state(&mut self, id: &str) -> Option<api::containerd::v1::types::Process> {
        for _ in 0..20 {
            let process = self.certain("get task", None, async |rpc: &Rpc| rpc.task(id, "").await)?;
            if process.status() != TaskStatus::Unknown {
                return Some(process);
            }
        }
        self.arena.problem(format!("{} the state of {id} stays unknown", self.name));
        None
    }

    fn exec(&mut self) {
        let running = self.model.containers.iter().filter(|(_, container)| container.pid.is_some());
        let ids: Vec<String> = running.map(|(id, _)| id.clone()).collect();
        let Some(id) = self.chance.of(&ids).cloned() else { return };
        let exec = self.name("exec");
        let call = async |rpc: &Rpc| rpc.exec(&id, &exec, rpc::process(&["true"])).await;
        self.certain("exec", Some(Code::AlreadyExists), call);
        let call = async |rpc: &Rpc| rpc.start(&id, &exec).await;
        self.certain("start exec", Some(Code::FailedPrecondition), call);
        let status = self.certain("wait exec", None, async |rpc: &Rpc| rpc.wait(&id, &exec).await);
        if status.is_some_and(|status| status != 0) {
            self.arena.problem(format!("{} exec {exec} in {id} ended with {status:?}", self.name));
        }
        let call = async |rpc: &Rpc| rpc.delete_process(&id, &exec).await;
        self.certain("delete exec", Some(Code::NotFound), call);
    }

    fn end_container(&mut self) {
        let Some(id) = self.chance.of(self.model.containers.keys()).cloned() else { return };
        let call = async |rpc: &Rpc| rpc.kill(&id, "", SIGKILL).await;
        self.certain("kill", Some(Code::NotFound), call);
        let status = self.certain("wait", None, async |rpc: &Rpc| rpc.wait(&id, "").await);
        if status.is_some_and(|status| status != 128 + SIGKILL) {
            self.arena.problem(format!("{} {id} ended with {status:?}", self.name));
        }
        let call = async |rpc: &Rpc| rpc.delete_task(&id).await;
        self.certain("delete task", Some(Code::NotFound), call);
        self.model.containers.remove(&id);
        let call = async |rpc: &Rpc| rpc.delete_container(&id).await;
        self.certain("delete container", Some(Code::NotFound), call);
        // Its snapshot is garbage now; sometimes it is removed by hand.
        if self.chance.once_in(2) {
            let call = async |rpc: &Rpc| rpc.remove_snapshot(&id).await;
            self.certain("remove root", Some(Code::NotFound), call);
        }
    }

    fn come_and_go_with_namespace(&mut self) {
        let name = self.name("space");
        let call = async |rpc: &Rpc| rpc.create_namespace(&name).await;
        self.certain("create namespace", Some(Code::AlreadyExists), call);
        let call = async |rpc: &Rpc| rpc.delete_namespace(&name).await;
        self.certain("delete namespace", Some(Code::NotFound), call);
    }

    /// Something that was acknowledged is there, whatever has happened since.
    fn look_at_something(&mut self) {
        match self.chance.below(4) {
            0 => {
                let Some(digest) = self.chance.of(&self.model.blobs()).cloned() else { return };
                let data = self.certain("read", None, async |rpc: &Rpc| rpc.read(&digest).await);
                if data.is_some_and(|data| Blob::new(data).digest != digest) {
                    self.arena.problem(format!("{} {digest} has other bytes", self.name));
                }
            }
            1 => {
                let Some((name, image)) = self.chance.entry(&self.model.images) else { return };
                let target = self.certain("get image", None, async |rpc: &Rpc| rpc.image(&name).await);
                if target.is_some_and(|target| target != image.target) {
                    self.arena.problem(format!("{} {name} points elsewhere", self.name));
                }
            }
            2 => {
                let Some(key) = self.chance.of(&self.model.all_snapshots()).cloned() else { return };
                self.certain("stat", None, async |rpc: &Rpc| rpc.stat(&key).await.map(drop));
            }
            _ => {
                let Some((id, container)) = self.chance.entry(&self.model.containers) else { return };
                let Some(process) = self.state(&id) else { return };
                let same = Some(process.pid.cast_signed()) == container.pid;
                if !same || process.status() != TaskStatus::Running || !proc::alive(process.pid.cast_signed())
                {
                    self.arena.problem(format!("{} {id} was {container:?} and is {process:?}", self.name));
                }
            }
        }
    }
}
