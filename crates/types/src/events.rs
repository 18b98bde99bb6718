//! The event bus: envelopes in, subscribers out, in order, without anyone waiting for anyone.
//!
//! A publisher never blocks. Each subscriber has a queue of [`QUEUE`] envelopes; one that does not read that many is
//! cut off with an error rather than silently losing some, and without slowing the others.
//!
//! A shim that did not hear whether an event was taken sends it again ([`Exchange::forward_once`]): repeats are dropped,
//! known by what they say, also those of the time before a restart ([`Exchange::remember`]). For that a [`Delivery`] is noted
//! when those who subscribe have it: if the daemon dies before, the shim tells it again.
//!
//! After a restart the shims are back sooner than the clients: what they tell then would reach nobody. So what is
//! published in that time is kept for those who catch up in it ([`Exchange::keep_for`]).

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot};

use crate::any::Any;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::namespace::{Namespace, validate_identifier};

/// How many envelopes may wait for a subscriber.
pub const QUEUE: usize = 16 * 1024;

/// A client that has not read so many does not read, and is not waited for.
const BEHIND: usize = 16;

/// An event with when, where and under which topic it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// When.
    pub timestamp: SystemTime,
    /// In which namespace.
    pub namespace: String,
    /// e.g. `/tasks/exit`.
    pub topic: String,
    /// The typed event.
    pub event: Any,
}

/// The bus. Cloning shares it.
#[derive(Clone, Default)]
pub struct Exchange {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    subscribers: Vec<Subscriber>,
    kept: Option<Kept>,
    seen: Seen,
}

/// How many forwarded events are known again. A shim sends one at a time, so that this is far more than can be under way.
pub const KNOWN: usize = 8192;

/// The latest forwarded events, by what they say.
#[derive(Default)]
struct Seen {
    known: HashSet<u64>,
    order: VecDeque<u64>,
    note: Option<Note>,
}

/// The sending end.
struct Subscriber {
    sender: mpsc::Sender<Parcel>,
    who: Who,
}

/// Who subscribes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// A part of the daemon, which looks at the events when it likes, and dies with it.
    Inside,
    /// A client, which shall not miss one when the daemon dies.
    Client,
}

/// An envelope on its way to a subscriber.
struct Parcel {
    envelope: Arc<Envelope>,
    /// Dropped when the subscriber asks for the next one, unless it keeps the [`Receipt`].
    untaken: Option<Arc<Untaken>>,
}

/// Kept by a subscriber for as long as an envelope that it took may be lost with the daemon.
pub struct Receipt {
    _untaken: Arc<Untaken>,
}

/// As long as it is there, somebody has not got the envelope yet.
type Untaken = oneshot::Sender<Never>;

/// What is never said.
enum Never {}

/// A forwarded event on its way to those who subscribe.
#[must_use = "an event that is not noted as told is taken again after a restart"]
pub struct Delivery {
    exchange: Exchange,
    /// None of a repeat.
    fingerprint: Option<u64>,
    taken: oneshot::Receiver<Never>,
}

/// Called with each event that is to be known after a restart.
pub type Note = Box<dyn FnMut(u64) + Send>;

/// The latest envelopes of a while, at most [`QUEUE`].
struct Kept {
    until: Instant,
    envelopes: VecDeque<Arc<Envelope>>,
}

/// The receiving end. Dropping it unsubscribes.
pub struct Subscription {
    receiver: mpsc::Receiver<Parcel>,
    /// Of the last envelope, which whoever asked for it has still in his hands.
    last: Option<Arc<Untaken>>,
}

impl Exchange {
    /// A bus without subscribers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Publishes what happened now.
    pub fn publish(&self, namespace: &Namespace, topic: &str, event: Any) -> Result<()> {
        let namespace = namespace.as_str().to_owned();
        self.forward(Envelope { timestamp: SystemTime::now(), namespace, topic: topic.to_owned(), event })
    }

    /// Publishes an envelope as it is, after checking it, unless it is one of the latest that came this way.
    pub fn forward_once(&self, envelope: Envelope) -> Result<Delivery> {
        envelope.validate()?;
        let (untaken, taken) = oneshot::channel();
        let fingerprint = envelope.fingerprint();
        let new = self.lock().forward_once(fingerprint, envelope, untaken);
        Ok(Delivery { exchange: self.clone(), fingerprint: new.then_some(fingerprint), taken })
    }

    /// Takes events for known that a daemon before has noted, and has those noted that are forwarded from now on.
    pub fn remember(&self, known: impl IntoIterator<Item = u64>, note: Note) {
        let mut inner = self.lock();
        for fingerprint in known {
            inner.seen.add(fingerprint);
        }
        inner.seen.note = Some(note);
    }

    /// Publishes an envelope as it is, after checking it.
    pub fn forward(&self, envelope: Envelope) -> Result<()> {
        envelope.validate()?;
        self.lock().publish(envelope, None);
        Ok(())
    }

    /// Everything that is published from now on, for a part of the daemon: no [`Delivery`] waits for it.
    pub fn subscribe(&self) -> Subscription {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.lock().subscribers.push(Subscriber { sender, who: Who::Inside });
        Subscription { receiver, last: None }
    }

    /// What is kept, and then everything that is published from now on, for a client.
    pub fn catch_up(&self) -> Subscription {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut inner = self.lock();
        for envelope in inner.kept.iter().flat_map(|kept| &kept.envelopes) {
            // It cannot be full: no more is kept than a queue holds.
            let _ = sender.try_send(Parcel { envelope: Arc::clone(envelope), untaken: None });
        }
        inner.subscribers.push(Subscriber { sender, who: Who::Client });
        Subscription { receiver, last: None }
    }

    /// Keeps what is published in the next `time` for those who [catch up](Self::catch_up) in it.
    pub fn keep_for(&self, time: Duration) {
        self.lock().kept = Some(Kept { until: Instant::now() + time, envelopes: VecDeque::new() });
    }

    /// The state of the bus, without what need not be kept any longer.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.kept = inner.kept.take().filter(|kept| Instant::now() < kept.until);
        inner
    }
}

impl Inner {
    /// Whether it is new.
    fn forward_once(&mut self, fingerprint: u64, envelope: Envelope, untaken: Untaken) -> bool {
        let new = self.seen.add(fingerprint);
        if new {
            self.publish(envelope, Some(Arc::new(untaken)));
        }
        new
    }

    fn publish(&mut self, envelope: Envelope, untaken: Option<Arc<Untaken>>) {
        let envelope = Arc::new(envelope);
        if let Some(kept) = &mut self.kept {
            kept.push(&envelope);
        }
        // A full queue or a dropped receiver ends the subscription: dropping the sender is how the reader learns.
        self.subscribers.retain(|Subscriber { sender, who }| {
            let unread = sender.max_capacity() - sender.capacity();
            let keeps_up = *who == Who::Client && unread < BEHIND;
            let untaken = untaken.clone().filter(|_| keeps_up);
            sender.try_send(Parcel { envelope: Arc::clone(&envelope), untaken }).is_ok()
        });
    }
}

impl Seen {
    /// Whether it was not known.
    fn add(&mut self, fingerprint: u64) -> bool {
        if !self.known.insert(fingerprint) {
            return false;
        }
        self.order.push_back(fingerprint);
        if self.order.len() > KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

impl Delivery {
    /// Waits until every client that is not behind has it: no [`Receipt`] is kept, and it asks for more. Cancel safe.
    pub async fn taken(&mut self) {
        // Nothing is ever said: this ends when the last parcel is gone.
        let _ = (&mut self.taken).await;
    }

    /// Notes that it was told: the daemon after this one drops it when it comes again.
    pub fn told(self) {
        if let (Some(fingerprint), Some(note)) = (self.fingerprint, &mut self.exchange.lock().seen.note) {
            note(fingerprint);
        }
    }
}

impl Kept {
    fn push(&mut self, envelope: &Arc<Envelope>) {
        if self.envelopes.len() == QUEUE {
            self.envelopes.pop_front();
        }
        self.envelopes.push_back(Arc::clone(envelope));
    }
}

impl Subscription {
    /// The next envelope. An error says that the subscriber was cut off for being too slow (or the bus is gone).
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Arc<Envelope>> {
        self.last = None;
        let parcel = self.receiver.recv().await.ok_or_else(|| {
            Error::new(
                crate::Class::ResourceExhausted,
                format!("subscriber did not read {QUEUE} events and was cut off: subscribe again"),
            )
        })?;
        self.last = parcel.untaken;
        Ok(parcel.envelope)
    }

    /// The receipt for the last envelope, for whoever is to keep it when the next one is asked for. None if nobody waits.
    pub fn receipt(&mut self) -> Option<Receipt> {
        self.last.take().map(|untaken| Receipt { _untaken: untaken })
    }
}

impl Envelope {
    /// What it says, in short: the same for an event that is told again.
    ///
    /// The end of a process carries its own time. Whoever tells of it in place of a shim that is gone does so at another
    /// moment, and it is the same event all the same.
    fn fingerprint(&self) -> u64 {
        let (seconds, nanos) = crate::time::unix(self.timestamp);
        let told_by_others = ["/tasks/exit", "/tasks/delete"].contains(&self.topic.as_str());
        let (seconds, nanos) = if told_by_others { (0, 0) } else { (seconds, nanos) };
        let mut text =
            format!("{}\0{}\0{seconds} {nanos}\0{}\0", self.namespace, self.topic, self.event.type_url);
        text.push_str(Digest::of(&self.event.value).hex());
        let digest = Digest::of(text.as_bytes());
        digest.hex().get(..16).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or_default()
    }

    /// Refuses a bad namespace or topic: topics are absolute and made of identifiers.
    pub fn validate(&self) -> Result<()> {
        validate_identifier(&self.namespace)
            .map_err(|e| e.context("event envelope has invalid namespace"))?;
        validate_topic(&self.topic)
    }
}

fn validate_topic(topic: &str) -> Result<()> {
    let bad = |why: &str| Err(Error::invalid(format!("envelope topic {topic:?}: {why}: invalid argument")));
    if topic.is_empty() {
        return bad("must not be empty");
    }
    let Some(rest) = topic.strip_prefix('/') else { return bad("must start with '/'") };
    if rest.is_empty() {
        return bad("must have at least one component");
    }
    for component in rest.split('/') {
        validate_identifier(component).map_err(|e| {
            e.context(format!("envelope topic {topic:?}: failed validation on component {component:?}"))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        loop {
            if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut cx) {
                return value;
            }
        }
    }

    #[test]
    fn a_subscriber_that_does_not_read_is_cut_off_and_the_others_go_on() {
        let bus = Exchange::new();
        let ns: Namespace = "default".parse().unwrap();
        let mut slow = bus.subscribe();
        let mut quick = bus.subscribe();
        for _ in 0..=QUEUE {
            bus.publish(&ns, "/tasks/exit", Any::default()).unwrap();
            block_on(quick.next()).unwrap();
        }
        let mut seen = 0;
        while block_on(slow.next()).is_ok() {
            seen += 1;
        }
        assert_eq!(seen, QUEUE);
        bus.publish(&ns, "/tasks/exit", Any::default()).unwrap();
        assert!(block_on(quick.next()).is_ok());
    }

    #[test]
    fn what_is_kept_reaches_those_who_catch_up_in_time_and_nobody_later() {
        let bus = Exchange::new();
        let ns: Namespace = "default".parse().unwrap();
        bus.publish(&ns, "/before", Any::default()).unwrap();
        bus.keep_for(Duration::from_secs(60));
        bus.publish(&ns, "/missed", Any::default()).unwrap();
        let mut late = bus.catch_up();
        bus.publish(&ns, "/now", Any::default()).unwrap();
        for topic in ["/missed", "/now"] {
            assert_eq!(block_on(late.next()).unwrap().topic, topic);
        }
        bus.keep_for(Duration::ZERO);
        bus.publish(&ns, "/gone", Any::default()).unwrap();
        let mut later = bus.catch_up();
        bus.publish(&ns, "/last", Any::default()).unwrap();
        assert_eq!(block_on(later.next()).unwrap().topic, "/last");
    }

    fn said(topic: &str, seconds: i64, value: &str) -> Envelope {
        let timestamp = crate::time::from_unix(seconds, 7);
        let event = Any::new("t", value);
        Envelope { timestamp, namespace: "default".into(), topic: topic.into(), event }
    }

    #[test]
    fn an_event_that_is_told_again_is_dropped_and_another_is_not() {
        let bus = Exchange::new();
        let mut all = bus.subscribe();
        for envelope in [
            said("/tasks/oom", 1, "a"),
            said("/tasks/oom", 1, "a"),
            said("/tasks/oom", 2, "a"),
            said("/tasks/oom", 1, "b"),
            // Told by the shim, and in its place.
            said("/tasks/exit", 1, "a"),
            said("/tasks/exit", 2, "a"),
            said("/tasks/exit", 2, "b"),
        ] {
            bus.forward_once(envelope).unwrap().told();
        }
        bus.publish(&"default".parse().unwrap(), "/end", Any::default()).unwrap();
        let mut topics = Vec::new();
        while topics.last().is_none_or(|topic| topic != "/end") {
            topics.push(block_on(all.next()).unwrap().topic.clone());
        }
        assert_eq!(topics, ["/tasks/oom", "/tasks/oom", "/tasks/oom", "/tasks/exit", "/tasks/exit", "/end"]);
    }

    #[test]
    fn what_was_told_before_a_restart_is_known_after_it() {
        let noted = Arc::new(Mutex::new(Vec::new()));
        let before = Exchange::new();
        let into = Arc::clone(&noted);
        before.remember([], Box::new(move |fingerprint| into.lock().unwrap().push(fingerprint)));
        for n in 0..KNOWN as i64 + 10 {
            before.forward_once(said("/tasks/oom", n, "")).unwrap().told();
        }
        let after = Exchange::new();
        after.remember(noted.lock().unwrap().iter().copied(), Box::new(|_| ()));
        let mut all = after.subscribe();
        after.forward_once(said("/tasks/oom", KNOWN as i64, "")).unwrap().told();
        // So long ago that nobody tells it again.
        after.forward_once(said("/tasks/oom", 0, "")).unwrap().told();
        assert_eq!(block_on(all.next()).unwrap().timestamp, crate::time::from_unix(0, 7));
        assert_eq!(after.lock().seen.known.len(), KNOWN);
    }

    #[test]
    fn an_event_is_noted_when_those_who_keep_up_have_it() {
        let noted = Arc::new(Mutex::new(0));
        let bus = Exchange::new();
        let count = Arc::clone(&noted);
        bus.remember([], Box::new(move |_| *count.lock().unwrap() += 1));
        let (mut reads, slow, _inside) = (bus.catch_up(), bus.catch_up(), bus.subscribe());
        for _ in 0..BEHIND {
            bus.publish(&"default".parse().unwrap(), "/before", Any::default()).unwrap();
            block_on(reads.next()).unwrap();
        }
        let mut delivery = bus.forward_once(said("/tasks/oom", 1, "")).unwrap();
        assert!(!is_taken(&mut delivery));
        block_on(reads.next()).unwrap();
        // It is in its hands, and may be lost with the daemon.
        assert!(!is_taken(&mut delivery) && *noted.lock().unwrap() == 0);
        drop(reads);
        assert!(is_taken(&mut delivery));
        delivery.told();
        assert_eq!(*noted.lock().unwrap(), 1);
        let mut repeat = bus.forward_once(said("/tasks/oom", 1, "")).unwrap();
        assert!(is_taken(&mut repeat));
        repeat.told();
        drop(slow);
        assert_eq!(*noted.lock().unwrap(), 1);
    }

    fn is_taken(delivery: &mut Delivery) -> bool {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::pin!(delivery.taken()).poll(&mut cx).is_ready()
    }

    #[test]
    fn topics_are_absolute_paths_of_identifiers() {
        for bad in ["", "/", "tasks", "/tasks//x", "/tasks/..", "/ä"] {
            assert!(validate_topic(bad).is_err(), "{bad}");
        }
        assert!(validate_topic("/tasks/exec-added").is_ok());
    }
}
