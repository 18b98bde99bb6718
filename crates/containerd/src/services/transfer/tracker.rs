//! What a pull or a push does with each piece of content, as upstream's daemon tells its clients.
//!
//! ```text
//!  waiting --> downloading, uploading --> complete --> extracting --> extracted
//!     \--> already exists
//! ```
//!
//! That something has changed is told at once, how far it has come a few times a second. A layer that is fetched and extracted
//! at the same time is told of as downloaded until it is there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::containerd::types::transfer as wire;
use api::convert;
use images::Event;
use images::pull::reference;
use tokio::task::JoinHandle;
use types::Digest;
use types::oci::Descriptor;

use super::progress::Progress;

/// How often it is told how far things have come, as by upstream.
const OFTEN: Duration = Duration::from_millis(300);

/// Follows one transfer.
pub struct Tracker {
    progress: Progress,
    /// The image, below which everything is.
    root: String,
    /// What it is called to move: `downloading`, `uploading`.
    moving: &'static str,
    parts: Mutex<BTreeMap<Digest, Part>>,
}

/// A piece of content.
struct Part {
    name: String,
    parents: Vec<String>,
    content: Descriptor,
    state: State,
    /// How many bytes, and how many of them have been told of.
    at: u64,
    told: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Moving,
    Complete,
    Extracting,
    Extracted,
}

/// Tells how far things have come, until it is dropped.
pub struct Ticking(JoinHandle<()>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Tracker {
    /// Follows a transfer of the image `root`.
    pub fn new(progress: Progress, root: &str, moving: &'static str) -> Arc<Self> {
        Arc::new(Self { progress, root: root.to_owned(), moving, parts: Mutex::default() })
    }

    /// Tells how far things have come from now on, if somebody wants to know.
    pub fn tick(self: &Arc<Self>) -> Option<Ticking> {
        if !self.progress.is_watched() {
            return None;
        }
        let tracker = Arc::clone(self);
        Some(Ticking(tokio::spawn(async move {
            loop {
                tokio::time::sleep(OFTEN).await;
                tracker.amounts();
            }
        })))
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<Digest, Part>> {
        // Each change is of one part, and whole.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self, content: &Descriptor, parent: Option<&Digest>) {
        let mut parts = self.parts();
        if parts.contains_key(&content.digest) {
            return;
        }
        let parent = parent.and_then(|digest| parts.get(digest)).map_or(&self.root, |parent| &parent.name);
        let part = Part {
            name: reference(content),
            parents: vec![parent.clone()],
            content: content.clone(),
            state: State::Waiting,
            at: 0,
            told: 0,
        };
        self.progress.content(part.message("waiting", 0));
        parts.insert(content.digest.clone(), part);
    }

    /// Something has become of a part.
    fn becomes(&self, digest: &Digest, state: State, event: &str) {
        if let Some(part) = self.parts().get_mut(digest)
            && part.state != state
        {
            part.state = state;
            (part.at, part.told) = (0, 0);
            let done = if state == State::Extracting { 0 } else { part.size() };
            self.progress.content(part.message(event, done));
        }
    }

    /// A part has come so far.
    fn comes(&self, digest: &Digest, state: State, at: u64) {
        if let Some(part) = self.parts().get_mut(digest) {
            match (part.state, state) {
                (State::Waiting, State::Moving) => part.state = state,
                (State::Moving, State::Moving) | (State::Extracting, State::Extracting) => {}
                // It was there already, or is on its way: extraction shows when it is what there is to wait for.
                (State::Complete, State::Extracting) => part.state = state,
                _ => return,
            }
            part.at = at;
        }
    }

    /// Tells how far things have come.
    fn amounts(&self) {
        for part in self.parts().values_mut().filter(|part| part.at != part.told) {
            let event = match part.state {
                State::Moving => self.moving,
                State::Extracting => "extracting",
                State::Waiting | State::Complete | State::Extracted => continue,
            };
            part.told = part.at;
            self.progress.amount(part.message(event, part.at));
        }
    }
}

impl Part {
    fn size(&self) -> u64 {
        self.content.size.unsigned_abs()
    }

    fn message(&self, event: &str, at: u64) -> wire::Progress {
        wire::Progress {
            event: event.to_owned(),
            name: self.name.clone(),
            parents: self.parents.clone(),
            progress: i64::try_from(at).unwrap_or(i64::MAX),
            total: self.content.size,
            desc: Some(convert::descriptor_to_wire(self.content.clone())),
        }
    }
}

impl images::Progress for Tracker {
    fn report(&self, event: Event<'_>) {
        match event {
            Event::Found(content, parent) => self.found(content, parent),
            Event::Exists(digest) => self.becomes(digest, State::Complete, "already exists"),
            Event::Fetching(digest, at, _) | Event::Sending(digest, at, _) => {
                self.comes(digest, State::Moving, at);
            }
            Event::Fetched(digest) | Event::Sent(digest) => self.becomes(digest, State::Complete, "complete"),
            Event::Extracting(digest, at, _) => self.comes(digest, State::Extracting, at),
            Event::Unpacked(digest) => self.becomes(digest, State::Extracted, "extracted"),
            Event::Unpacking(..) | Event::Member(..) | Event::Stored(_) => {}
        }
    }
}
