//! A client by command line: each command's code and words are judged, and what was cut off by the daemon's death is
//! repeated, or cleared away, until its outcome is known.

use std::path::{Path, PathBuf};
use std::time::Instant;

use containerd_tests::archive::{Image, Packing, hex};
use containerd_tests::tar::Entry;
use containerd_tests::{Chance, Finished, Invocation, proc};

use crate::arena::Arena;
use crate::model::{Container, Image as Known, Lease, Model};

/// An image that can be imported, and pulled.
struct Archive {
    path: PathBuf,
    name: String,
    /// Its name in the registry.
    published: String,
    known: Known,
    chain: Vec<String>,
}

struct Client<'a> {
    arena: &'a Arena,
    name: &'static str,
    ctr: &'a Path,
    /// Which of its commands can do without the transfer service.
    local: Vec<&'static str>,
    chance: Chance,
    model: Model,
    archives: Vec<Archive>,
    next: u64,
}

/// Works until the arena says that it is over; what is there then.
pub fn live(arena: &Arena, name: &'static str, ctr: &Path, chance: Chance) -> Model {
    let archives = (0..3).map(|number| Archive::make(arena, name, number)).collect();
    let mut model = Model::new(arena.daemon.namespace());
    let local = ["import", "tag", "pull"].into_iter().filter(|command| {
        let help = arena.daemon.client(ctr, &["images", command, "--help"]);
        Invocation::new(help).run().stdout.contains("--local")
    });
    let local = local.collect();
    let chains: &Vec<Archive> = &archives;
    for pair in chains.iter().flat_map(|archive| archive.chain.windows(2)) {
        model.parents.insert(pair[1].clone(), pair[0].clone());
    }
    let mut client = Client { arena, name, ctr, local, chance, model, archives, next: 0 };
    while arena.goes_on() {
        client.act();
    }
    client.model
}

impl Archive {
    /// An image with the base that all have, and a layer that only some have.
    fn make(arena: &Arena, client: &str, number: usize) -> Self {
        let name = format!("docker.io/soak/{client}{number}:latest");
        let own = format!("{number} of {client}");
        let image = Image::named(name.as_str())
            .layer(&containerd_tests::archive::base_layer(), Packing::Gzip)
            .layer(&[Entry::file("number", number.to_string())], Packing::Zstd)
            .layer(&[Entry::file("own", own)], Packing::Plain);
        let mut known = Known::default();
        for entry in image.oci_entries() {
            if let Some(digest) = entry.name.strip_prefix("blobs/sha256/").filter(|hex| !hex.is_empty()) {
                known.blobs.insert(format!("sha256:{digest}"));
            }
        }
        let mut chain: Vec<String> = Vec::new();
        for diff in image.diff_ids() {
            let below =
                chain.last().map(|below| format!("sha256:{}", hex(format!("{below} {diff}").as_bytes())));
            chain.push(below.unwrap_or(diff));
        }
        known.snapshots = chain.iter().cloned().collect();
        let path = arena.daemon.archive(&format!("{client}.tar"), &image.oci()).into();
        let published = image.publish(&arena.registry, &format!("soak/{client}"), &number.to_string());
        Self { path, name, published, known, chain }
    }
}

impl Client<'_> {
    fn act(&mut self) {
        match self.chance.below(27) {
            0..=2 => self.import(),
            24..=26 => self.pull(),
            3..=4 => self.tag(),
            5..=6 => self.remove_image(),
            7..=9 => self.run_to_the_end(),
            10..=11 => self.run_detached(),
            12..=13 => self.exec(),
            14..=15 => self.end_container(),
            16..=17 => self.prepare_snapshot(),
            18 => self.remove_snapshot(),
            19 => self.lease(),
            20 => self.remove_lease(),
            21 => self.come_and_go_with_namespace(),
            _ => self.look(),
        }
    }

    /// Runs a command once. Its outcome, and whether a failure is explained by the daemon's death.
    fn once(&self, arguments: &[&str]) -> (Finished, bool) {
        let (life, begun) = (self.arena.life(), Instant::now());
        let finished = Invocation::new(self.arena.daemon.client(self.ctr, arguments)).run();
        self.arena.count(&format!("ctr {}", arguments[..arguments.len().min(2)].join(" ")), begun.elapsed());
        let excused = finished.code != 0 && self.arena.is_excused(life);
        (finished, excused)
    }

    /// Runs a command until its outcome is known. If it was refused with one of the words in `also`, that is as good.
    fn certain(&self, arguments: &[&str], also: &[&str]) -> Option<Finished> {
        loop {
            let (finished, excused) = self.once(arguments);
            if finished.code == 0 {
                return Some(finished);
            }
            if also.iter().any(|words| finished.stderr.contains(words)) {
                return None;
            }
            if !excused {
                self.arena.problem(format!("{} {finished}", self.name));
                return None;
            }
        }
    }

    fn name(&mut self, what: &str) -> String {
        self.next += 1;
        format!("{}-{what}{}", self.name, self.next)
    }

    fn local(&self, command: &str) -> &'static [&'static str] {
        if self.local.contains(&command) { &["--local"] } else { &[] }
    }

    fn import(&mut self) {
        let index = self.chance.below(self.archives.len());
        let Archive { path, name, known, .. } = &self.archives[index];
        let path = path.to_string_lossy();
        let command = [&["images", "import"], self.local("import"), &[&path]].concat();
        if self.certain(&command, &[]).is_some() {
            self.model.images.insert(name.clone(), known.clone());
        }
    }

    /// Through the daemon, or by the client itself.
    fn pull(&mut self) {
        let index = self.chance.below(self.archives.len());
        let flags = if self.chance.once_in(2) { self.local("pull") } else { &[] };
        let Archive { published, known, .. } = &self.archives[index];
        let command = [&["images", "pull", "--plain-http"], flags, &[published]].concat();
        if self.certain(&command, &[]).is_some() {
            self.model.images.insert(published.clone(), known.clone());
        }
    }

    fn some_image(&mut self) -> Option<(String, Known)> {
        self.chance.entry(&self.model.images)
    }

    fn tag(&mut self) {
        let Some((from, image)) = self.some_image().filter(|_| self.model.images.len() < 12) else { return };
        let to = format!("docker.io/soak/{}:latest", self.name("tag"));
        let command = [&["images", "tag"], self.local("tag"), &["--force", &from, &to]].concat();
        if self.certain(&command, &[]).is_some() {
            self.model.images.insert(to, image);
        }
    }

    fn remove_image(&mut self) {
        let Some((name, _)) = self.some_image() else { return };
        self.model.images.remove(&name);
        let flags: &[&str] = if self.chance.once_in(2) { &["--sync"] } else { &[] };
        self.certain(&[&["images", "rm"], flags, &[&name]].concat(), &["not found"]);
    }

    fn run_to_the_end(&mut self) {
        let Some((image, _)) = self.some_image() else { return };
        let (id, code) = (self.name("once"), self.chance.below(100));
        let script = format!("exit {code}");
        let life = self.arena.life();
        let (finished, excused) = self.once(&["run", "--rm", &image, &id, "sh", "-c", &script]);
        if finished.code == i32::try_from(code).unwrap_or(0) {
            // Go's says nothing of a daemon that died while it cleaned up.
            if self.arena.life() != life {
                self.clear(&id);
            }
            return;
        }
        if !excused {
            self.arena.problem(format!("{} {finished}", self.name));
        }
        self.clear(&id);
    }

    fn run_detached(&mut self) {
        let Some((image, known)) = self.some_image().filter(|_| self.model.containers.len() < 4) else {
            return;
        };
        let id = self.name("run");
        let (finished, excused) = self.once(&["run", "-d", &image, &id, "sleep", "100000"]);
        if finished.code != 0 {
            if !excused {
                self.arena.problem(format!("{} {finished}", self.name));
            }
            self.clear(&id);
            return;
        }
        let parent = self.archives.iter().find(|archive| archive.known.blobs == known.blobs);
        let parent = parent.and_then(|archive| archive.chain.last()).cloned().unwrap_or_default();
        let pid = self.pid(&id);
        self.model.containers.insert(id, Container { parent, pid });
    }

    /// Removes whatever there is of a container whose making or end was cut off.
    fn clear(&self, id: &str) {
        self.certain(&["tasks", "rm", "--force", id], &["not found", "no running task"]);
        self.certain(&["containers", "rm", id], &["not found", "does not exist"]);
        self.certain(&["snapshots", "rm", id], &["not found", "does not exist"]);
    }

    /// The process of a running task, from the list of tasks.
    fn pid(&self, id: &str) -> Option<i32> {
        for _ in 0..20 {
            let list = self.certain(&["tasks", "ls"], &[])?.stdout;
            let line = list.lines().find(|line| line.split_whitespace().next() == Some(id))?;
            let mut fields = line.split_whitespace().skip(1);
            if let (Some(pid), Some("RUNNING")) = (fields.next(), fields.next()) {
                return pid.parse().ok();
            }
        }
        None
    }

    fn some_running(&mut self) -> Option<(String, i32)> {
        let running = self.model.containers.iter();
        let running: Vec<_> = running.filter_map(|(id, c)| Some((id.clone(), c.pid?))).collect();
        self.chance.of(&running).cloned()
    }

    fn exec(&mut self) {
        let Some((id, _)) = self.some_running() else { return };
        let exec = self.name("exec");
        let (finished, excused) = self.once(&["tasks", "exec", "--exec-id", &exec, &id, "echo", &exec]);
        let right = finished.code == 0 && finished.stdout.trim() == exec;
        if !right && !excused {
            self.arena.problem(format!("{} {finished}", self.name));
        }
    }

    fn end_container(&mut self) {
        let Some(id) = self.chance.of(self.model.containers.keys()).cloned() else { return };
        if self.chance.once_in(2) {
            self.certain(&["tasks", "kill", "--signal", "SIGKILL", &id], &["not found", "already finished"]);
        }
        self.model.containers.remove(&id);
        self.clear(&id);
    }

    fn prepare_snapshot(&mut self) {
        let Some((_, image)) = self.some_image().filter(|_| self.model.snapshots.len() < 10) else { return };
        let chain = self.archives.iter().find(|archive| archive.known.blobs == image.blobs);
        let Some(parent) = chain.and_then(|archive| archive.chain.last()).cloned() else { return };
        let key = self.name("snap");
        self.certain(&["snapshots", "prepare", &key, &parent], &["already exists"]);
        self.model.snapshots.insert(key, parent);
    }

    fn remove_snapshot(&mut self) {
        let Some(key) = self.chance.of(self.model.snapshots.keys()).cloned() else { return };
        self.model.snapshots.remove(&key);
        self.certain(&["snapshots", "rm", &key], &["not found", "does not exist"]);
    }

    fn lease(&mut self) {
        let lease = self.name("lease");
        self.certain(&["leases", "create", "--id", &lease], &["already exists"]);
        self.model.leases.insert(lease, Lease::default());
    }

    fn remove_lease(&mut self) {
        let Some(lease) = self.chance.of(self.model.leases.keys()).cloned() else { return };
        self.model.leases.remove(&lease);
        let flags: &[&str] = if self.chance.once_in(2) { &["--sync"] } else { &[] };
        self.certain(&[&["leases", "rm"], flags, &[&lease]].concat(), &["not found"]);
    }

    fn come_and_go_with_namespace(&mut self) {
        let name = self.name("space");
        self.certain(&["namespaces", "create", &name], &["already exists"]);
        self.certain(&["namespaces", "rm", &name], &["not found"]);
    }

    /// What was acknowledged is in the lists.
    fn look(&mut self) {
        let (command, wanted): (&[&str], Vec<String>) = match self.chance.below(4) {
            0 => (&["images", "ls", "-q"], self.model.images.keys().cloned().collect()),
            1 => (&["content", "ls", "-q"], self.model.blobs().into_iter().collect()),
            2 => (&["snapshots", "ls"], self.model.all_snapshots().into_iter().collect()),
            _ => (&["containers", "ls", "-q"], self.model.containers.keys().cloned().collect()),
        };
        let Some(finished) = self.certain(command, &[]) else { return };
        let listed: Vec<&str> =
            finished.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
        for name in wanted.iter().filter(|name| !listed.contains(&name.as_str())) {
            self.arena.problem(format!("{} {name} is not in {command:?}", self.name));
        }
        if let Some((id, pid)) = self.some_running().filter(|(_, pid)| !proc::alive(*pid)) {
            self.arena.problem(format!("{} {id}, process {pid}, has ended", self.name));
        }
    }
}
