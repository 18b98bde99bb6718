//! Which addresses are taken: one file each, in the form and by the lock of the Go plugin, which may run beside us.
//!
//! ```text
//!  <dir>/10.88.0.7             "<container>\r\n<interface>"
//!  <dir>/last_reserved_ip.0    "10.88.0.7"                    of the first set of ranges
//!  <dir>/lock                  flock
//! ```
//!
//! A file without content is what a crash between its making and its writing leaves: whoever has the lock knows that nobody
//! is just writing it, and takes the address.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use types::{Error, Result, ResultExt};

/// More than any reservation has.
const LARGEST: u64 = 4096;
/// How long is waited between two looks at a lock that another has.
const PAUSE: Duration = Duration::from_micros(300);

/// Whose an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    text: String,
    container: usize,
}

impl Key {
    pub fn new(container: &str, interface: &str) -> Self {
        let container = container.trim();
        Self { text: format!("{container}\r\n{interface}"), container: container.len() }
    }

    pub fn container(&self) -> &str {
        self.text.get(..self.container).unwrap_or_default()
    }

    /// Whether a file's content is this; old ones have no interface.
    fn is(&self, content: &str) -> bool {
        content == self.text || content == self.container()
    }
}

/// A network's directory.
pub(super) struct Store {
    dir: PathBuf,
    lock: File,
}

impl Store {
    /// Opens it, or makes it.
    pub fn open(dir: &Path) -> Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
        made.context(|| format!("make {}", dir.display()))?;
        let path = dir.join("lock");
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o750).custom_flags(flags);
        let lock = options.open(&path).context(|| format!("open {}", path.display()))?;
        Ok(Self { dir: dir.into(), lock })
    }

    /// Opens it, if it is there.
    pub fn open_if_there(dir: &Path) -> Result<Option<Self>> {
        match fs::metadata(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            _ => Self::open(dir).map(Some),
        }
    }

    /// Waits until nobody else has it.
    pub fn lock(self, patience: Duration) -> Result<Locked> {
        let begun = Instant::now();
        loop {
            match flock(&self.lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Locked(self)),
                Err(Errno::WOULDBLOCK | Errno::INTR) if begun.elapsed() < patience => {
                    std::thread::sleep(PAUSE)
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    let text = format!("{} is locked by another for {patience:?}", self.dir.display());
                    return Err(Error::deadline(text));
                }
                Err(error) => return Err(Error::from(std::io::Error::from(error)).context("lock addresses")),
            }
        }
    }
}

/// A directory that nobody else changes, until this is dropped.
pub(super) struct Locked(Store);

impl Locked {
    fn path(&self, name: &str) -> PathBuf {
        self.0.dir.join(name)
    }

    /// Takes an address; false if another has it.
    pub fn reserve(&self, ip: IpAddr, key: &Key, set: usize) -> Result<bool> {
        let path = self.path(&ip.to_string());
        let doing = || format!("reserve {}", path.display());
        let mut options = File::options();
        options.write(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let mut file = match options.clone().create_new(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let found = fs::symlink_metadata(&path).context(doing)?;
                if !found.is_file() || found.len() > 0 {
                    return Ok(false);
                }
                options.open(&path).context(doing)?
            }
            Err(error) => return Err(Error::from(error).context(doing())),
        };
        let last = self.path(&format!("last_reserved_ip.{set}"));
        let written = file.write_all(key.text.as_bytes()).and_then(|()| write_small(&last, &ip.to_string()));
        written.inspect_err(|_| drop(fs::remove_file(&path))).context(doing)?;
        Ok(true)
    }

    /// Which address of a set was the last; none if that cannot be read.
    pub fn last(&self, set: usize) -> Option<IpAddr> {
        let text = read_small(&self.path(&format!("last_reserved_ip.{set}")))?;
        text.trim().parse().ok().map(|ip: IpAddr| ip.to_canonical())
    }

    /// Gives an address back.
    pub fn release(&self, ip: IpAddr) -> Result<()> {
        remove(&self.path(&ip.to_string()))
    }

    /// The addresses that `key` has.
    pub fn of(&self, key: &Key) -> Result<Vec<IpAddr>> {
        let found = self.reservations()?.into_iter().filter(|(_, content)| key.is(content));
        Ok(found.map(|(ip, _)| ip).collect())
    }

    /// Gives back all that `key` has: those that are `known`, and if they are fewer than it should have, any other.
    pub fn release_all(&self, key: &Key, known: &[IpAddr], wanted: usize) -> Result<()> {
        let mut released = 0;
        for path in known.iter().map(|ip| self.path(&ip.to_string())) {
            if read_small(&path).is_some_and(|content| key.is(content.trim())) {
                remove(&path)?;
                released += 1;
            }
        }
        if released >= wanted {
            return Ok(());
        }
        self.of(key)?.into_iter().try_for_each(|ip| self.release(ip))
    }

    /// Gives back what nobody of `claimed` has.
    pub fn release_others(&self, claimed: &[Key]) -> Result<()> {
        let stale = self
            .reservations()?
            .into_iter()
            .filter(|(_, content)| !claimed.iter().any(|key| key.is(content)));
        stale.into_iter().try_for_each(|(ip, _)| self.release(ip))
    }

    /// All files whose names are addresses.
    fn reservations(&self) -> Result<Vec<(IpAddr, String)>> {
        let doing = || format!("read {}", self.0.dir.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0.dir).context(doing)? {
            let name = entry.context(doing)?.file_name();
            let Some(ip) = name.to_str().and_then(|name| name.parse::<IpAddr>().ok()) else { continue };
            if let Some(content) = read_small(&self.0.dir.join(&name)) {
                found.push((ip, content.trim().to_owned()));
            }
        }
        Ok(found)
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.context(|| format!("remove {}", path.display())),
    }
}

fn write_small(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path)?.write_all(text.as_bytes())
}

/// A file's text; none if it is none, or something else lies there.
fn read_small(path: &Path) -> Option<String> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn store(dir: &tempfile::TempDir) -> Locked {
        Store::open(&dir.path().join("net")).unwrap().lock(LONG).unwrap()
    }

    #[test]
    fn files_look_as_the_go_plugin_writes_them() {
        let dir = tempfile::tempdir().unwrap();
        let (store, key) = (store(&dir), Key::new("c1", "eth0"));
        assert!(store.reserve(ip(7), &key, 1).unwrap() && !store.reserve(ip(7), &key, 1).unwrap());
        let read = |name: &str| fs::read_to_string(dir.path().join("net").join(name)).unwrap();
        assert_eq!((read("10.0.0.7"), read("last_reserved_ip.1")), ("c1\r\neth0".into(), "10.0.0.7".into()));
        assert_eq!((store.last(1), store.last(0)), (Some(ip(7)), None));
        assert_eq!(store.of(&key).unwrap(), [ip(7)]);
        assert!(store.of(&Key::new("c1", "eth1")).unwrap().is_empty());
    }

    #[test]
    fn all_of_a_key_goes_and_nothing_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let (store, key, other) = (store(&dir), Key::new("c1", "eth0"), Key::new("c2", "eth0"));
        for (last, key) in [(2, &key), (3, &other), (4, &key)] {
            assert!(store.reserve(ip(last), key, 0).unwrap());
        }
        // An old reservation has no interface; another's address is no longer this one's, whatever is known.
        fs::write(dir.path().join("net/10.0.0.5"), "c1\n").unwrap();
        store.release_all(&key, &[ip(2), ip(3)], 2).unwrap();
        assert!(store.of(&key).unwrap().is_empty());
        assert_eq!(store.of(&other).unwrap(), [ip(3)]);
        store.release_all(&key, &[], 1).unwrap();
        store.release_others(&[]).unwrap();
        assert!(store.of(&other).unwrap().is_empty());
    }

    #[test]
    fn what_a_crash_left_empty_is_free_and_what_is_no_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (store, key) = (store(&dir), Key::new("c1", "eth0"));
        fs::write(dir.path().join("net/10.0.0.2"), "").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("net/10.0.0.3")).unwrap();
        assert!(store.reserve(ip(2), &key, 0).unwrap() && !store.reserve(ip(3), &key, 0).unwrap());
        assert_eq!(store.of(&key).unwrap(), [ip(2)]);
    }

    #[test]
    fn one_at_a_time_has_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = store(&dir);
        let second = || Store::open_if_there(&dir.path().join("net")).unwrap().unwrap();
        let error = second().lock(Duration::from_millis(5)).err().unwrap();
        assert_eq!(error.class(), types::Class::DeadlineExceeded);
        drop(first);
        second().lock(LONG).unwrap();
        assert!(Store::open_if_there(&dir.path().join("none")).unwrap().is_none());
    }
}
