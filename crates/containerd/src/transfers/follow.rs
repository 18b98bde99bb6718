//! One pull as operators see it: log lines, events and counts, while it runs and when it has ended.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::containerd::types::transfer::Progress as Told;
use images::{Event, Progress};
use tokio::task::JoinHandle;
use tracing::info;
use types::events::Exchange;
use types::oci::Descriptor;
use types::{Digest, Namespace, Result};

use super::counts::{Counts, Outcome};

/// When the first line about a pull comes, and how long after it each other.
const FIRST: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 2_000 });
const EVERY: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 10_000 });
/// Where subscribers hear of pulls.
pub const TOPIC: &str = "/containerd-rs/pull";
/// From how many bytes on what a pull has brought is worth being kept for the next, if this one fails.
const WORTH: u64 = 1 << 20;

/// Follows a pull from its beginning to its end.
pub struct Follow {
    pull: Arc<Pull>,
    /// Tells of it meanwhile.
    ticking: JoinHandle<()>,
    outcome: Option<Outcome>,
    ended: bool,
}

struct Pull {
    namespace: Namespace,
    name: String,
    events: Exchange,
    counts: Arc<Counts>,
    begun: Instant,
    target: Mutex<Option<Descriptor>>,
    parts: Mutex<BTreeMap<Digest, Part>>,
    /// Bytes that have come.
    came: AtomicU64,
}

/// Something that the pull needs.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    size: u64,
    /// How many bytes are there.
    there: u64,
    /// Whether it needs to come at all.
    comes: bool,
    layer: bool,
    unpacked: bool,
}

impl Follow {
    pub(super) fn begin(counts: Arc<Counts>, namespace: &Namespace, name: &str, events: &Exchange) -> Self {
        counts.running.fetch_add(1, Ordering::Relaxed);
        let pull = Arc::new(Pull {
            namespace: namespace.clone(),
            name: name.to_owned(),
            events: events.clone(),
            counts,
            begun: Instant::now(),
            target: Mutex::default(),
            parts: Mutex::default(),
            came: AtomicU64::new(0),
        });
        let running = Arc::clone(&pull);
        let ticking = tokio::spawn(async move {
            tokio::time::sleep(FIRST).await;
            loop {
                running.tell("pulling", None);
                tokio::time::sleep(EVERY).await;
            }
        });
        Self { pull, ticking, outcome: None, ended: false }
    }

    /// What it is about is known.
    pub fn begins(&self, target: &Descriptor) {
        *lock(&self.pull.target) = Some(target.clone());
    }

    /// Follows what happens, and tells `other` of it.
    pub fn beside(&self, other: Arc<dyn Progress>) -> Arc<dyn Progress> {
        Arc::new(Both { pull: Arc::clone(&self.pull), other })
    }

    /// Why it failed, where the error's class does not tell.
    pub fn is(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }

    /// Whether what has come is worth being kept for another try.
    pub fn brought_much(&self) -> bool {
        lock(&self.pull.parts).values().filter(|part| part.comes).map(|part| part.there).sum::<u64>() >= WORTH
    }

    /// It has ended.
    pub fn end(&mut self, done: &Result<()>) {
        self.ended = true;
        self.ticking.abort();
        let outcome = match done {
            Ok(()) => Outcome::Pulled,
            Err(error) => self.outcome.unwrap_or(Outcome::Failed(error.class())),
        };
        self.pull.counts.ended(outcome, self.pull.begun.elapsed());
        match done {
            Ok(()) => self.pull.tell("pulled", None),
            Err(error) => self.pull.tell("failed", Some(error.to_string())),
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        if !self.ended {
            self.ticking.abort();
            self.pull.counts.ended(Outcome::Failed(types::Class::Internal), self.pull.begun.elapsed());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is of one field.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far a pull has come.
struct Sum {
    there: u64,
    size: u64,
    layers: usize,
    fetched: usize,
    unpacked: usize,
}

impl Pull {
    fn sum(&self) -> Sum {
        let mut sum = Sum { there: 0, size: 0, layers: 0, fetched: 0, unpacked: 0 };
        for part in lock(&self.parts).values() {
            sum.there += part.there;
            sum.size += part.size;
            if part.layer {
                sum.layers += 1;
                sum.fetched += usize::from(part.there == part.size);
                sum.unpacked += usize::from(part.unpacked);
            }
        }
        sum
    }

    /// One line of the log, and one event. The end of a change is logged by [`crate::work`], with its error.
    fn tell(&self, event: &str, error: Option<String>) {
        let Sum { there, size, layers, fetched, unpacked } = self.sum();
        let came = self.came.load(Ordering::Relaxed);
        let milliseconds = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = came.saturating_mul(1000) / milliseconds;
        let target = lock(&self.target).clone();
        let digest = target.as_ref().map_or("", |target| target.digest.as_str());
        if error.is_none() {
            info!(
                namespace = %self.namespace, image = self.name, digest, bytes = there, total = size, came,
                bytes_per_second = rate, layers, fetched, unpacked, "{event} image"
            );
        }
        let told = Told {
            event: error.map_or_else(|| event.to_owned(), |error| format!("{event}: {error}")),
            name: self.name.clone(),
            parents: Vec::new(),
            progress: i64::try_from(there).unwrap_or(i64::MAX),
            total: i64::try_from(size).unwrap_or(i64::MAX),
            desc: target.map(api::convert::descriptor_to_wire),
        };
        if let Err(error) = self.events.publish(&self.namespace, TOPIC, api::any::pack(&told)) {
            tracing::warn!(namespace = %self.namespace, topic = TOPIC, %error, "publish event");
        }
    }

    fn note(&self, event: Event<'_>) {
        let mut parts = lock(&self.parts);
        if let Event::Found(content, _) = event {
            let layer = images::walk::is_layer(&content.media_type);
            let size = content.size.unsigned_abs();
            parts.entry(content.digest.clone()).or_insert(Part { size, layer, ..Part::default() });
            return;
        }
        let Some(part) = digest(event).and_then(|digest| parts.get_mut(digest)) else { return };
        match event {
            Event::Exists(_) => part.there = part.size,
            Event::Fetching(_, at, _) => self.comes(part, at.min(part.size)),
            Event::Fetched(_) => self.comes(part, part.size),
            Event::Unpacked(_) => part.unpacked = true,
            _ => {}
        }
    }

    fn comes(&self, part: &mut Part, at: u64) {
        // The first of them tells where an earlier pull has ended.
        let new =
            if part.comes || part.there > 0 || at == part.size { at.saturating_sub(part.there) } else { 0 };
        part.comes = true;
        part.there = at;
        self.came.fetch_add(new, Ordering::Relaxed);
        self.counts.bytes.fetch_add(new, Ordering::Relaxed);
    }
}

fn digest<'a>(event: Event<'a>) -> Option<&'a Digest> {
    match event {
        Event::Exists(digest)
        | Event::Fetching(digest, ..)
        | Event::Fetched(digest)
        | Event::Unpacking(digest, _)
        | Event::Extracting(digest, ..)
        | Event::Unpacked(digest)
        | Event::Sending(digest, ..)
        | Event::Sent(digest) => Some(digest),
        Event::Found(..) | Event::Member(..) | Event::Stored(_) => None,
    }
}

/// Follows and tells another.
struct Both {
    pull: Arc<Pull>,
    other: Arc<dyn Progress>,
}

impl Progress for Both {
    fn report(&self, event: Event<'_>) {
        self.pull.note(event);
        self.other.report(event);
    }
}

#[cfg(test)]
mod tests {
    use types::Class;
    use types::oci::image::media;

    use super::*;

    fn follow(counts: &Arc<Counts>, events: &Exchange) -> Follow {
        Follow::begin(Arc::clone(counts), &"ns".parse().unwrap(), "r.io/x:1", events)
    }

    #[tokio::test]
    async fn only_what_comes_is_counted_and_the_end_is_told() {
        let (counts, events) = (Arc::new(Counts::default()), Exchange::new());
        let mut subscription = events.subscribe();
        let mut follow = follow(&counts, &events);
        let layer = |text: &[u8]| Descriptor::new(media::OCI_LAYER_GZIP, Digest::of(text), 3 << 20);
        let (there, resumed, new) = (layer(b"there"), layer(b"resumed"), layer(b"new"));
        follow.begins(&there);
        let progress = follow.beside(Arc::new(images::Silent));
        for content in [&there, &resumed, &new] {
            progress.report(Event::Found(content, None));
        }
        progress.report(Event::Exists(&there.digest));
        assert!(!follow.brought_much());
        progress.report(Event::Fetching(&resumed.digest, 2 << 20, 3 << 20));
        progress.report(Event::Fetched(&resumed.digest));
        progress.report(Event::Fetching(&new.digest, 0, 3 << 20));
        progress.report(Event::Fetching(&new.digest, 1 << 20, 3 << 20));
        assert_eq!(counts.bytes.load(Ordering::Relaxed), 2 << 20);
        assert!(follow.brought_much());
        assert_eq!(counts.running.load(Ordering::Relaxed), 1);
        follow.end(&Err(types::Error::new(Class::Unavailable, "gone")));
        assert_eq!(counts.running.load(Ordering::Relaxed), 0);
        let envelope = subscription.next().await.unwrap();
        let told: Told = api::any::unpack(&envelope.event).unwrap();
        assert_eq!((envelope.topic.as_str(), told.event.as_str()), (TOPIC, "failed: gone"));
        assert_eq!((told.progress, told.total), (7 << 20, 9 << 20));
    }

    #[tokio::test]
    async fn a_pull_that_takes_long_is_told_of_meanwhile() {
        let (counts, events) = (Arc::new(Counts::default()), Exchange::new());
        let mut subscription = events.subscribe();
        let mut follow = follow(&counts, &events);
        for _ in 0..3 {
            let told: Told = api::any::unpack(&subscription.next().await.unwrap().event).unwrap();
            assert_eq!(told.event, "pulling");
        }
        follow.end(&Ok(()));
        let told: Told = api::any::unpack(&subscription.next().await.unwrap().event).unwrap();
        assert_eq!(told.event, "pulled");
    }
}
