//! What was added, for those who remove it: libcni's files, which other programs read and write, too.
//!
//! ```text
//!  <dir>/results/<network>-<container>-<interface>     0600, {"kind": "cniCacheV1", "config": base64, "result": {...}, ...}
//! ```
//!
//! An entry without a result is the intent: it is written before the first plugin of ADD runs, so that a crash between
//! that and its end leaves a record of what may exist; libcni's DEL and GC take it for an attachment. Entries are not
//! synced: what they describe is lost with the power as well, and a damaged one is as none.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::OFlags;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use types::{Error, Result, ResultExt};

use crate::names;
use crate::result::{AddResult, nullable};

/// The only kind of entry there is.
const KIND: &str = "cniCacheV1";
/// The largest entry that is read: a configuration in base64, and a result.
const LARGEST: u64 = 8 << 20;
/// As long as a file's name may be.
const NAME: usize = 255;

/// What an entry is found by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The network.
    pub network: String,
    /// The container.
    pub container: String,
    /// The interface in it.
    pub interface: String,
}

impl Key {
    /// Its file's name; an error if any part is no name.
    fn file(&self) -> Result<String> {
        names::network(&self.network)?;
        names::container(&self.container)?;
        names::interface(&self.interface)?;
        let name = format!("{}-{}-{}", self.network, self.container, self.interface);
        if name.len() > NAME {
            return Err(Error::invalid(format!("{name} is too long for the name of a file")));
        }
        Ok(name)
    }
}

/// An entry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Entry {
    #[serde(deserialize_with = "nullable")]
    pub(crate) kind: String,
    /// The container.
    #[serde(deserialize_with = "nullable")]
    pub container_id: String,
    /// The network's configuration, as it was.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub config: Vec<u8>,
    /// The interface.
    #[serde(deserialize_with = "nullable")]
    pub if_name: String,
    /// The network.
    #[serde(deserialize_with = "nullable")]
    pub network_name: String,
    /// The network namespace.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub netns: String,
    /// CNI_ARGS.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub cni_args: Vec<[String; 2]>,
    /// What the plugins were told.
    #[serde(skip_serializing_if = "Map::is_empty", deserialize_with = "nullable")]
    pub capability_args: Map<String, Value>,
    /// Which of the network's plugins were built in when they did it: DEL asks the same ones. None if whoever wrote this
    /// did not say; libcni passes over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub builtin: Option<Vec<String>>,
    /// What they answered, if they did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Map<String, Value>>,
}

impl Entry {
    /// The entry for `key`, with nothing else in it.
    pub(crate) fn of(key: &Key) -> Self {
        Self {
            kind: KIND.into(),
            container_id: key.container.clone(),
            if_name: key.interface.clone(),
            network_name: key.network.clone(),
            ..Self::default()
        }
    }

    /// Reads an entry, or what versions of libcni before 0.8 wrote: the bare result.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse(bytes: &[u8], key: &Key) -> Result<Self> {
        let bad = |error: serde_json::Error| Error::data_loss(format!("decode cached result: {error}"));
        let value: Map<String, Value> = serde_json::from_slice(bytes).map_err(bad)?;
        if value.get("kind").is_some_and(|kind| kind == KIND) {
            return serde_json::from_value(Value::Object(value)).map_err(bad);
        }
        AddResult::kept(value.clone()).context(|| "decode cached result")?;
        Ok(Self { result: Some(value), ..Self::of(key) })
    }

    pub(crate) fn key(&self) -> Key {
        Key {
            network: self.network_name.clone(),
            container: self.container_id.clone(),
            interface: self.if_name.clone(),
        }
    }
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text: String = nullable(deserializer)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

/// The directory of entries.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    results: PathBuf,
}

impl Cache {
    /// Below `dir`; nothing is made before there is something to write.
    pub fn new(dir: &Path) -> Self {
        Self { results: dir.join("results") }
    }

    /// Removes what programs that were killed while they wrote have left.
    pub fn sweep(&self) {
        for entry in fs::read_dir(&self.results).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let left =
                name.to_str().and_then(|name| name.strip_prefix(NEW)?.split('-').next()?.parse::<u32>().ok());
            if left.is_some_and(|writer| !Path::new(&format!("/proc/{writer}")).exists()) {
                // Nobody reads it: the next sweep may have more luck.
                drop(fs::remove_file(entry.path()));
            }
        }
    }

    /// Writes an entry: whoever reads sees the old one or the whole new one.
    pub fn write(&self, entry: &Entry) -> Result<()> {
        let name = entry.key().file()?;
        let path = self.results.join(&name);
        let bytes = serde_json::to_vec(entry).map_err(|error| Error::internal(error.to_string()))?;
        let written =
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.results).and_then(|()| {
                // Short, as the name may be as long as a name can be; no name of a network begins with a dot.
                let temporary = self.results.join(format!("{NEW}{}", unique()));
                let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
                let done = file.write_all(&bytes).and_then(|()| fs::rename(&temporary, &path));
                done.inspect_err(|_| drop(fs::remove_file(&temporary)))
            });
        let network = &entry.network_name;
        written
            .context(|| format!("failed to set network {network:?} cached result: write {}", path.display()))
    }

    /// Reads an entry.
    pub fn read(&self, key: &Key) -> Result<Option<Entry>> {
        let path = self.results.join(key.file()?);
        match read_file(&path) {
            Err(error) if error.is_not_found() => Ok(None),
            read => read.and_then(|bytes| Entry::parse(&bytes, key)).map(Some).context(|| shown(&path)),
        }
    }

    /// Removes an entry, if there is one.
    pub fn remove(&self, key: &Key) -> Result<()> {
        let path = self.results.join(key.file()?);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.context(|| format!("remove {}", path.display())),
        }
    }

    /// All entries, or those of one container, in the order of their files. What is none is left out, and so is one that
    /// lies under another's name.
    pub fn list(&self, container: Option<&str>) -> Result<Vec<Entry>> {
        let entries = match fs::read_dir(&self.results) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::from(error).context(format!("read {}", shown(&self.results)))),
        };
        let mut found = Vec::new();
        for name in entries.flatten().map(|entry| entry.file_name()) {
            let Some(name) = name.to_str() else { continue };
            if container.is_some_and(|id| !name.contains(&format!("-{id}-"))) {
                continue;
            }
            let read = read_file(&self.results.join(name)).ok();
            let entry = read.and_then(|bytes| serde_json::from_slice::<Entry>(&bytes).ok());
            let ours = |entry: &Entry| {
                entry.kind == KIND
                    && entry.key().file().is_ok_and(|file| file == name)
                    && container.is_none_or(|id| entry.container_id == id)
            };
            if let Some(entry) = entry.filter(ours) {
                found.push((name.to_owned(), entry));
            }
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found.into_iter().map(|(_, entry)| entry).collect())
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A name that no other write uses.
/// How the names of half-written entries begin; the pid of who writes follows.
const NEW: &str = ".new-";

fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = File::options().read(true).custom_flags(flags.cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(Error::data_loss("this is no file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::data_loss(format!("larger than {LARGEST} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(container: &str) -> Key {
        Key { network: "n".into(), container: container.into(), interface: "eth0".into() }
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(&dir.path().join("cni"));
        (dir, cache)
    }

    #[test]
    fn what_a_killed_program_left_is_swept_and_what_is_being_written_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        fs::create_dir(&cache.results).unwrap();
        let dead = cache.results.join(format!("{NEW}{}-0", u32::MAX));
        let alive = cache.results.join(format!("{NEW}{}", unique()));
        fs::write(&dead, "{").unwrap();
        fs::write(&alive, "{").unwrap();
        cache.sweep();
        assert!(!dead.exists() && alive.exists());
    }

    #[test]
    fn an_entry_looks_as_libcni_writes_it() {
        let (dir, cache) = cache();
        let mut entry = Entry::of(&key("c"));
        entry.config = b"{\"name\":\"n\"}".to_vec();
        entry.netns = "/proc/1/ns/net".into();
        entry.cni_args = vec![["K".into(), "V".into()]];
        cache.write(&entry).unwrap();
        entry.result = Some(json!({"cniVersion": "1.0.0"}).as_object().unwrap().clone());
        cache.write(&entry).unwrap();
        let path = dir.path().join("cni/results/n-c-eth0");
        let found: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let wanted = json!({"kind": "cniCacheV1", "containerId": "c", "config": "eyJuYW1lIjoibiJ9", "ifName": "eth0",
            "networkName": "n", "netns": "/proc/1/ns/net", "cniArgs": [["K", "V"]], "result": {"cniVersion": "1.0.0"}});
        assert_eq!(found, wanted);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(cache.read(&key("c")).unwrap(), Some(entry));
        assert_eq!(fs::read_dir(dir.path().join("cni/results")).unwrap().count(), 1);
        cache.remove(&key("c")).unwrap();
        cache.remove(&key("c")).unwrap();
        assert_eq!(cache.read(&key("c")).unwrap(), None);
    }

    #[test]
    fn what_go_leaves_empty_is_read() {
        let text =
            br#"{"kind":"cniCacheV1","containerId":"c","config":null,"ifName":"eth0","networkName":"n",
            "cniArgs":null,"capabilityArgs":null,"result":null,"more":1}"#;
        assert_eq!(Entry::parse(text, &key("c")).unwrap(), Entry::of(&key("c")));
    }

    #[test]
    fn a_bare_result_is_an_entry_of_old() {
        let old = br#"{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.1/8"}}"#;
        let entry = Entry::parse(old, &key("c")).unwrap();
        assert_eq!((entry.key(), entry.result.unwrap()["cniVersion"].clone()), (key("c"), "0.2.0".into()));
    }

    #[test]
    fn damage_is_an_error_and_never_somebody_elses() {
        let (dir, cache) = cache();
        let results = dir.path().join("cni/results");
        fs::create_dir_all(&results).unwrap();
        let path = results.join("n-c-eth0");
        for bytes in ["", "{", "[]", "\0\0\0", r#"{"kind":"other","ips":7,"cniVersion":"1.0.0"}"#] {
            fs::write(&path, bytes).unwrap();
            assert!(cache.read(&key("c")).is_err(), "{bytes:?}");
            assert!(cache.list(None).unwrap().is_empty());
        }
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(cache.read(&key("c")).is_err());
        fs::remove_file(&path).unwrap();
        rustix::fs::mkdirat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        assert!(cache.read(&key("c")).is_err());
    }

    #[test]
    fn names_that_are_none_make_no_path() {
        let (_dir, cache) = cache();
        let bad = Key { network: "../../x".into(), ..key("c") };
        assert!(cache.read(&bad).is_err() && cache.remove(&bad).is_err());
        assert!(cache.write(&Entry::of(&bad)).is_err());
        assert!(cache.write(&Entry::of(&Key { network: "n".repeat(250), ..key("c") })).is_err());
        cache.write(&Entry::of(&Key { network: "n".repeat(248), ..key("c") })).unwrap();
    }

    #[test]
    fn a_container_has_the_entries_in_which_it_is_named() {
        let (dir, cache) = cache();
        assert!(cache.list(None).unwrap().is_empty());
        for container in ["c", "c-1", "d"] {
            cache.write(&Entry::of(&key(container))).unwrap();
        }
        // Under another's name, as somebody might put it there.
        let results = dir.path().join("cni/results");
        fs::copy(results.join("n-c-eth0"), results.join("n-c-eth1")).unwrap();
        let of = |container| {
            let entries = cache.list(container).unwrap();
            entries.into_iter().map(|entry| entry.container_id).collect::<Vec<_>>()
        };
        assert_eq!(of(None), ["c-1", "c", "d"]);
        assert_eq!(of(Some("c")), ["c"]);
        assert_eq!(of(Some("c-1")), ["c-1"]);
    }
}
