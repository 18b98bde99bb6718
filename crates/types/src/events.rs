//! The event bus: envelopes in, subscribers out, in order, without anyone waiting for anyone.
//!
//! A publisher never blocks. Each subscriber has a queue of [`QUEUE`] envelopes; one that does not read that many is
//! cut off with an error rather than silently losing some, and without slowing the others.
//!
//! After a restart the shims are back sooner than the clients: what they tell then would reach nobody. So what is
//! published in that time is kept for those who catch up in it ([`Exchange::keep_for`]).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use crate::any::Any;
use crate::error::{Error, Result};
use crate::namespace::{Namespace, validate_identifier};

/// How many envelopes may wait for a subscriber.
pub const QUEUE: usize = 16 * 1024;

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
    subscribers: Vec<mpsc::Sender<Arc<Envelope>>>,
    kept: Option<Kept>,
}

/// The latest envelopes of a while, at most [`QUEUE`].
struct Kept {
    until: Instant,
    envelopes: VecDeque<Arc<Envelope>>,
}

/// The receiving end. Dropping it unsubscribes.
pub struct Subscription {
    receiver: mpsc::Receiver<Arc<Envelope>>,
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

    /// Publishes an envelope as it is, after checking it.
    pub fn forward(&self, envelope: Envelope) -> Result<()> {
        envelope.validate()?;
        let envelope = Arc::new(envelope);
        let mut inner = self.lock();
        if let Some(kept) = &mut inner.kept {
            kept.push(&envelope);
        }
        // A full queue or a dropped receiver ends the subscription: dropping the sender is how the reader learns.
        inner.subscribers.retain(|subscriber| subscriber.try_send(Arc::clone(&envelope)).is_ok());
        Ok(())
    }

    /// Everything that is published from now on.
    pub fn subscribe(&self) -> Subscription {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.lock().subscribers.push(sender);
        Subscription { receiver }
    }

    /// What is kept, and then everything that is published from now on.
    pub fn catch_up(&self) -> Subscription {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut inner = self.lock();
        for envelope in inner.kept.iter().flat_map(|kept| &kept.envelopes) {
            // It cannot be full: no more is kept than a queue holds.
            let _ = sender.try_send(Arc::clone(envelope));
        }
        inner.subscribers.push(sender);
        Subscription { receiver }
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
        self.receiver.recv().await.ok_or_else(|| {
            Error::new(
                crate::Class::ResourceExhausted,
                format!("subscriber did not read {QUEUE} events and was cut off: subscribe again"),
            )
        })
    }
}

impl Envelope {
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

    #[test]
    fn topics_are_absolute_paths_of_identifiers() {
        for bad in ["", "/", "tasks", "/tasks//x", "/tasks/..", "/ä"] {
            assert!(validate_topic(bad).is_err(), "{bad}");
        }
        assert!(validate_topic("/tasks/exec-added").is_ok());
    }
}
