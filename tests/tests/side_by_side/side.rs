//! One side: a daemon, a client, and the names that only this side has.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, OnceLock};

use containerd_tests::archive::{self, Image};
use containerd_tests::binaries::{Binaries, Suite};
use containerd_tests::command::Running;
use containerd_tests::tar::{Entry, Kind};
use containerd_tests::{Daemon, Invocation, eventually};
use registry::fake::Fake;
use serde_json::{Value, json};

/// The image of all tables, packed once.
static ARCHIVES: LazyLock<Archives> = LazyLock::new(Archives::pack);

struct Archives {
    oci: Vec<u8>,
    docker: Vec<u8>,
    digests: Vec<(&'static str, String)>,
}

/// A daemon, started for one table, and the client that drives it.
pub struct Side {
    daemon: Daemon,
    ctr: PathBuf,
    /// Started when a line names it.
    registry: OnceLock<Fake>,
}

impl Side {
    /// Starts the daemon of `binaries`; the client may be another's.
    pub fn start(binaries: Binaries, suite: Suite, ctr: &Path) -> Self {
        let daemon = Daemon::start_of(binaries, suite);
        let side = Self { daemon, ctr: ctr.to_path_buf(), registry: OnceLock::new() };
        fs::write(side.daemon.dir().join("image.tar"), &ARCHIVES.oci).expect("write the archive");
        fs::write(side.daemon.dir().join("docker.tar"), &ARCHIVES.docker).expect("write the archive");
        side
    }

    /// What only this side is called.
    pub fn names(&self) -> Vec<(String, &'static str)> {
        let dir = self.daemon.dir().to_string_lossy().into_owned();
        let own = [(dir, "DIR"), (self.daemon.namespace().to_owned(), "NS")];
        own.into_iter().chain(self.registry.get().map(|registry| (registry.host(), "REGISTRY"))).collect()
    }

    /// This side's registry, which has the image and an index of it.
    fn registry(&self) -> &Fake {
        self.registry.get_or_init(|| {
            let registry = Fake::start();
            let image = Image::standard();
            image.publish(&registry, "library/x", "1");
            let (media_type, bytes) = registry.manifest("library/x", "1").expect("what was published");
            let digest = format!("sha256:{}", archive::hex(&bytes));
            let manifests: Vec<Value> = ["amd64", "arm64"]
                .iter()
                .map(|architecture| {
                    let platform = json!({"os": "linux", "architecture": architecture});
                    json!({"mediaType": media_type, "digest": digest, "size": bytes.len(), "platform": platform})
                })
                .collect();
            let kind = "application/vnd.oci.image.index.v1+json";
            let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests});
            registry.add_manifest("library/x", Some("all"), kind, index.to_string());
            registry
        })
    }

    /// The client with these words, filled in.
    pub fn ctr(&self, words: &[String]) -> Invocation {
        let words: Vec<String> = words.iter().map(|word| self.fill(word)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Invocation::new(self.daemon.client(&self.ctr, &words))
    }

    /// Waits until a task has this status.
    pub fn await_status(&self, id: &str, status: &str) {
        let id = self.fill(id);
        eventually(&format!("task {id} is {status}"), || {
            let list = Invocation::new(self.daemon.client(&self.ctr, &["tasks", "list"])).ok();
            list.lines().any(|line| line.starts_with(&id) && line.contains(status))
        });
    }

    /// Imports the image; clients that have two ways take that through the content store.
    pub fn import(&self) {
        let words = |flags: &[&str]| {
            let words = [&["images", "import"], flags, &["{dir}/image.tar"]].concat();
            self.ctr(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        if words(&["--local"]).run().code != 0 {
            words(&[]).ok();
        }
        self.collect_garbage();
    }

    /// Waits for a garbage collection.
    pub fn collect_garbage(&self) {
        self.daemon.collect_garbage();
    }

    /// Writes a file below this side's directory.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.daemon.dir().join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("make a directory");
        fs::write(path, self.fill(text)).expect("write a file");
    }

    /// Starts a client that watches; returns when it is seen to hear.
    pub fn listen(&self, words: &[String]) -> Running {
        let listener = self.ctr(words).start();
        let label = ["namespaces", "label", self.daemon.namespace(), "heard=yes"].map(str::to_owned);
        eventually("the listener hears", || {
            self.ctr(&label).ok();
            listener.output().contains("/namespaces/update")
        });
        listener
    }

    /// Puts this side's names into a word: `%id`, `{dir}`, `{ns}`, `{image}`, and digests of the image's parts.
    pub fn fill(&self, word: &str) -> String {
        let word = match word.strip_prefix('%') {
            Some(id) => format!("{{ns}}-{id}"),
            None => word.to_owned(),
        };
        let dir = self.daemon.dir().to_string_lossy();
        let word = word.replace("{dir}", &dir).replace("{ns}", self.daemon.namespace());
        let mut word = word.replace("{image}", archive::IMAGE);
        if word.contains("{registry}") {
            word = word.replace("{registry}", &self.registry().host());
        }
        ARCHIVES.digests.iter().fold(word, |word, (name, digest)| word.replace(name, digest))
    }
}

impl Archives {
    fn pack() -> Self {
        let image = Image::standard();
        let entries = image.oci_entries();
        let index = document(&entries, "index.json");
        let digest = |value: &Value| value.as_str().expect("a digest").to_owned();
        let manifest = digest(&index["manifests"][0]["digest"]);
        let parts = document(&entries, &format!("blobs/{}", manifest.replace(':', "/")));
        let digests = vec![
            ("{chain}", image.chain_id()),
            ("{config}", digest(&parts["config"]["digest"])),
            ("{layer}", digest(&parts["layers"][2]["digest"])),
            ("{manifest}", manifest),
        ];
        Self { oci: image.oci(), docker: image.docker(), digests }
    }
}

fn document(entries: &[Entry], name: &str) -> Value {
    match &entries.iter().find(|entry| entry.name == name).expect("an entry of the layout").kind {
        Kind::File(bytes) => serde_json::from_slice(bytes).expect("JSON"),
        other => panic!("{name} is {other:?}"),
    }
}
