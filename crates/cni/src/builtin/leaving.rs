//! Links that go: out of the way at once, gone a little later.
//!
//! The kernel waits for all its processors before a link is gone, 5 to 20 milliseconds for one link or for a hundred. Nobody
//! else need wait: a link that goes is put into a group of such links and lets nothing through any more, and one thread
//! deletes the group. The interface's turn goes on until then, so that the next ADD of it finds its name free. What a crash
//! leaves in the group goes with the next one, or with the container's network namespace.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use tracing::warn;
use types::{Error, Result};

use super::kernel::links::{Change, Link, Links};
use super::turn::Turn;

/// The group: `cni` and a number.
const GROUP: u32 = 0x636e_6901;

type Going = Option<Turn>;

/// Where the thread hears of links; none before the first.
static THREAD: Mutex<Option<Sender<Going>>> = Mutex::new(None);

/// Has a link of ours deleted.
pub(super) fn delete(links: &Links, link: &Link, turn: Option<&Turn>) -> Result<()> {
    let leaves = Change { group: Some(GROUP), blocked: link.master != 0, ..Change::default() };
    match links.change(link.index, &leaves) {
        Err(error) if error.is_not_found() => return Ok(()),
        // Another may just have taken the bridge away; then it is enough that the link goes.
        Err(_) => return links.delete(link.index),
        Ok(()) => {}
    }
    let mut thread = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    let heard = thread.as_ref().is_some_and(|thread| thread.send(turn.cloned()).is_ok());
    if !heard {
        let (tell, hear) = channel();
        thread::Builder::new().name("cni-links".into()).spawn(move || work(&hear)).map_err(Error::from)?;
        // It hears, as it has just begun.
        drop(tell.send(turn.cloned()));
        *thread = Some(tell);
    }
    Ok(())
}

/// Deletes the group whenever there are links in it: all that have come while the last ones went.
fn work(hear: &Receiver<Going>) {
    while let Ok(first) = hear.recv() {
        let turns: Vec<Going> = std::iter::once(first).chain(hear.try_iter()).collect();
        if let Err(error) = Links::open().and_then(|links| links.delete_group(GROUP)) {
            warn!(%error, "links of containers stay");
        }
        drop(turns);
    }
}
