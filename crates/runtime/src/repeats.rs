//! Which events were told, for the daemon after this one: an event whose answer was lost in a restart comes again.
//!
//! ```text
//!  <state>/io.containerd.runtime.v2.task/.told     a ring of eight bytes for each of the latest events
//! ```

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use types::events::{Exchange, KNOWN};
use types::{Result, ResultExt};

const FILE: &str = ".told";
/// Bytes of an event.
const ENTRY: usize = 8;

/// Has `events` know what was told before, and keeps what is told from now on. A write is a few bytes into memory.
pub(crate) fn remember(events: &Exchange, directory: &Path) -> Result<()> {
    let path = directory.join(FILE);
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).context(|| format!("open {path:?}"))?;
    let bytes = std::fs::read(&path).context(|| format!("read {path:?}"))?;
    let told: Vec<u64> = entries(&bytes).collect();
    let mut next = told.len() % KNOWN;
    let note = move |fingerprint: u64| {
        // Without it an event may be told twice, which is better than not at all.
        let _ = file.write_all_at(&fingerprint.to_le_bytes(), (next * ENTRY) as u64);
        next = (next + 1) % KNOWN;
    };
    events.remember(told, Box::new(note));
    Ok(())
}

/// The whole entries; one that was half written is none.
fn entries(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let whole = bytes.chunks_exact(ENTRY).take(KNOWN);
    whole.filter_map(|entry| entry.try_into().ok()).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Any;
    use types::events::Envelope;

    fn event(n: i64) -> Envelope {
        let (namespace, topic) = ("default".to_owned(), "/tasks/oom".to_owned());
        Envelope { timestamp: types::time::from_unix(n, 0), namespace, topic, event: Any::default() }
    }

    #[tokio::test]
    async fn a_repeat_is_known_after_a_restart_and_the_file_does_not_grow() {
        let dir = tempfile::tempdir().unwrap();
        let before = Exchange::new();
        remember(&before, dir.path()).unwrap();
        let many = i64::try_from(KNOWN).unwrap() + 100;
        for n in 0..many {
            before.forward_once(event(n)).unwrap().told();
        }
        let length = std::fs::metadata(dir.path().join(FILE)).unwrap().len();
        assert_eq!(length, (KNOWN * ENTRY) as u64);
        let after = Exchange::new();
        remember(&after, dir.path()).unwrap();
        let mut heard = after.subscribe();
        after.forward_once(event(many - 1)).unwrap().told();
        after.forward_once(event(many)).unwrap().told();
        assert_eq!(heard.next().await.unwrap().timestamp, event(many).timestamp);
    }

    #[test]
    fn a_torn_entry_is_none() {
        assert_eq!(entries(&[1, 0, 0, 0, 0, 0, 0, 0, 2, 0]).collect::<Vec<_>>(), [1]);
    }
}
