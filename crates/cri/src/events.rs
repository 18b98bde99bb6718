//! What kubelets subscribe to: every change of a pod or container, to all subscribers.
//!
//! As long as nobody listens, events of the last five minutes are kept, for a kubelet that comes back: the first one that does
//! gets them. A subscriber that does not read loses the oldest.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use api::cri::{ContainerEventResponse, ContainerEventType};
use tokio::sync::broadcast;

use crate::cri::Cri;
use crate::runtime::{container_status, pod_sandbox_status};
use crate::timers::{Observe, Observed};

/// So many events are kept for a subscriber that does not read, or for nobody.
const KEPT: usize = 1000;
/// So long they are kept for nobody.
const KEEP: Duration = Duration::from_secs(5 * 60);

/// The events. Cloning shares them.
#[derive(Clone)]
pub struct Events {
    live: broadcast::Sender<ContainerEventResponse>,
    /// Events that nobody has heard.
    unheard: Arc<Mutex<VecDeque<(Instant, ContainerEventResponse)>>>,
    observe: Observe,
}

/// Events that nobody has heard, and those to come.
pub struct Subscription {
    /// The past.
    pub unheard: Vec<ContainerEventResponse>,
    /// The future.
    pub live: broadcast::Receiver<ContainerEventResponse>,
}

impl Events {
    /// Nothing has happened yet. `observe` is told of what nobody hears.
    pub fn new(observe: Observe) -> Self {
        Self { live: broadcast::Sender::new(KEPT), unheard: Arc::default(), observe }
    }

    /// Tells everybody.
    pub fn send(&self, event: ContainerEventResponse) {
        // Held while it is sent, so that a subscriber that comes now gets it once.
        let mut unheard = self.lock();
        if let Err(broadcast::error::SendError(event)) = self.live.send(event) {
            let now = Instant::now();
            let all = unheard.len();
            while unheard.len() >= KEPT || unheard.front().is_some_and(|(at, _)| now - *at > KEEP) {
                unheard.pop_front();
            }
            self.dropped(all - unheard.len());
            unheard.push_back((now, event));
        }
    }

    /// Listens.
    pub fn subscribe(&self) -> Subscription {
        let mut unheard = self.lock();
        let live = self.live.subscribe();
        let (now, all) = (Instant::now(), unheard.len());
        let past = unheard.drain(..).filter(|(at, _)| now - *at <= KEEP).map(|(_, event)| event);
        let past: Vec<_> = past.collect();
        self.dropped(all - past.len());
        Subscription { unheard: past, live }
    }

    fn dropped(&self, count: usize) {
        if count > 0 {
            tracing::info!(count, "events of containers that nobody has heard are dropped");
            (self.observe)(Observed::EventsDropped(count));
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, ContainerEventResponse)>> {
        self.unheard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells subscribers what has happened to a container, or to a pod: then both ids are the pod's.
pub fn tell(cri: &Cri, id: &str, pod_id: &str, kind: ContainerEventType) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let pod = cri.pods.find(pod_id).ok().flatten();
    let containers = cri.containers.list();
    let of_pod = containers.iter().filter(|container| container.record.pod == pod_id);
    cri.events.send(ContainerEventResponse {
        container_id: id.to_owned(),
        container_event_type: kind.into(),
        created_at: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
        pod_sandbox_status: pod.map(|pod| pod_sandbox_status::status_of(cri, &pod)),
        containers_statuses: of_pod.map(|container| container_status::status_of(cri, container)).collect(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str) -> ContainerEventResponse {
        ContainerEventResponse { container_id: id.to_owned(), ..ContainerEventResponse::default() }
    }

    /// Events, and how many were dropped.
    fn events() -> (Events, Arc<Mutex<usize>>) {
        let dropped: Arc<Mutex<usize>> = Arc::default();
        let count = Arc::clone(&dropped);
        let observe = Arc::new(move |what| match what {
            Observed::EventsDropped(more) => *count.lock().unwrap() += more,
            other => panic!("{other:?}"),
        });
        (Events::new(observe), dropped)
    }

    #[tokio::test]
    async fn the_first_subscriber_gets_what_nobody_has_heard_and_all_get_the_rest() {
        let (events, dropped) = events();
        events.send(event("1"));
        let mut first = events.subscribe();
        assert_eq!(first.unheard, [event("1")]);
        let mut second = events.subscribe();
        assert_eq!(second.unheard, []);
        events.send(event("2"));
        assert_eq!(first.live.recv().await.unwrap(), event("2"));
        assert_eq!(second.live.recv().await.unwrap(), event("2"));
        drop((first, second));
        events.send(event("3"));
        assert_eq!(events.subscribe().unheard, [event("3")]);
        assert_eq!(*dropped.lock().unwrap(), 0);
    }

    #[test]
    fn for_nobody_only_so_many_are_kept_and_the_others_are_counted() {
        let (events, dropped) = events();
        for number in 0..KEPT + 5 {
            events.send(event(&number.to_string()));
        }
        let unheard = events.subscribe().unheard;
        assert_eq!((unheard.len(), &unheard[0]), (KEPT, &event("5")));
        assert_eq!(*dropped.lock().unwrap(), 5);
    }

    #[test]
    fn for_nobody_they_are_kept_for_five_minutes() {
        let (events, dropped) = events();
        let minutes = |count: u64| Instant::now().checked_sub(Duration::from_secs(60 * count)).unwrap();
        for (id, at) in [("old", minutes(6)), ("new", minutes(4))] {
            events.lock().push_back((at, event(id)));
        }
        assert_eq!(events.subscribe().unheard, [event("new")]);
        assert_eq!(*dropped.lock().unwrap(), 1);
        events.lock().push_back((minutes(6), event("old")));
        events.send(event("now"));
        assert_eq!(events.subscribe().unheard, [event("now")]);
        assert_eq!(*dropped.lock().unwrap(), 2);
    }
}
