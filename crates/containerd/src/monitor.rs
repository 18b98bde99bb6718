//! When somebody looks after the containers that are to run: upstream's restart monitor, with its interval.
//!
//! Upstream asks for every container at each tick. Here a container is looked at with the first tick after something has
//! happened to it, and with the next ones as long as it is not what it should be:
//!
//! ```text
//!  start of the daemon    --> all that have the label
//!  created, updated       --> has it the label? then it is watched, and due
//!  its task came or went  --> due, if it is watched
//!  tick                   --> what is due is asked for, started, stopped; what failed stays due
//! ```
//!
//! So nothing ticks while nothing is due, and who uses no restart policies pays for none. What is watched is rebuilt from
//! the records.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use ::tasks::Tasks;
use ::tasks::monitor::{self, Found, STATUS, Verdict};
use prost::Message;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tracing::{error, warn};
use types::container::Container;
use types::events::{Envelope, Subscription};
use types::{Error, Namespace};

use crate::gc::until;
use crate::services::House;
use crate::services::containers::updated;
use crate::work::Change;

/// A container.
type Key = (Namespace, String);

/// Watches until it is aborted. Changes that it has begun are finished all the same.
pub fn start(house: &House, interval: Duration) -> JoinHandle<()> {
    let mut monitor = Monitor {
        tasks: Tasks::new(house.db.clone(), house.runtime.clone(), house.mounts.clone()),
        house: house.clone(),
        clock: Clock { began: Instant::now(), interval },
        watched: BTreeSet::new(),
        due: BTreeSet::new(),
        busy: BTreeSet::new(),
        next: None,
    };
    tokio::spawn(async move { monitor.run().await })
}

struct Monitor {
    house: House,
    tasks: Tasks,
    clock: Clock,
    /// Those with the label.
    watched: BTreeSet<Key>,
    /// To be looked at with the next tick.
    due: BTreeSet<Key>,
    /// Being looked at, which may take long.
    busy: BTreeSet<Key>,
    /// The next tick, if one is needed.
    next: Option<Instant>,
}

/// When upstream would look.
#[derive(Clone, Copy)]
struct Clock {
    began: Instant,
    interval: Duration,
}

impl Clock {
    /// The first tick after `now`.
    fn tick(self, now: Instant) -> Instant {
        let ticks = now.duration_since(self.began).as_nanos() / self.interval.as_nanos();
        self.began + self.interval * u32::try_from(ticks + 1).unwrap_or(u32::MAX)
    }
}

/// The first field of all events about containers and tasks: the container's id.
#[derive(Clone, PartialEq, Message)]
struct About {
    #[prost(string, tag = "1")]
    id: String,
}

impl Monitor {
    async fn run(&mut self) {
        let mut events = self.house.events.subscribe();
        // What is running already is no reason to start it.
        self.house.runtime.loaded().await;
        self.find().await;
        let mut looks = JoinSet::new();
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Ok(event) => self.heard(&event),
                    Err(_) => events = self.start_over().await,
                },
                Some(done) = looks.join_next() => self.looked(done),
                () = until(self.next) => self.look(&mut looks),
            }
        }
    }

    /// Some events were missed.
    async fn start_over(&mut self) -> Subscription {
        let events = self.house.events.subscribe();
        self.find().await;
        events
    }

    /// Finds what is to be watched, and looks at it at once.
    async fn find(&mut self) {
        let db = self.house.db.clone();
        let found = tokio::task::spawn_blocking(move || monitor::watched(&db)).await;
        match found.unwrap_or_else(|e| Err(Error::internal(format!("find containers to watch: {e}")))) {
            Ok(found) => {
                self.watched = found.into_iter().collect();
                self.due.extend(self.watched.iter().cloned());
                self.next = (!self.due.is_empty()).then(Instant::now);
            }
            Err(error) => {
                error!(%error, "restart monitor: containers cannot be listed");
                self.next = None;
            }
        }
    }

    fn heard(&mut self, event: &Envelope) {
        let topic = event.topic.as_str();
        let record = matches!(topic, "/containers/create" | "/containers/update" | "/containers/delete");
        let task = matches!(topic, "/tasks/create" | "/tasks/start" | "/tasks/exit" | "/tasks/delete");
        if !record && (!task || self.watched.is_empty()) {
            return;
        }
        let (Ok(namespace), Ok(About { id })) =
            (event.namespace.parse::<Namespace>(), About::decode(event.event.value.as_slice()))
        else {
            return;
        };
        let key = (namespace, id);
        if record {
            self.record_changed(key);
        } else if self.watched.contains(&key) {
            self.is_due(key);
        }
    }

    fn record_changed(&mut self, key: Key) {
        let (namespace, id) = &key;
        let found = self.house.db.containers(namespace).get(id);
        if found.is_ok_and(|container| container.labels.contains_key(STATUS)) {
            self.watched.insert(key.clone());
            self.is_due(key);
        } else {
            self.watched.remove(&key);
            self.due.remove(&key);
        }
    }

    fn is_due(&mut self, key: Key) {
        self.due.insert(key);
        self.next.get_or_insert(self.clock.tick(Instant::now()));
    }

    /// Looks at what is due, each on a task of its own: a shim that hangs holds up nobody else.
    fn look(&mut self, looks: &mut JoinSet<(Key, After)>) {
        self.next = None;
        let (later, now): (Vec<Key>, Vec<Key>) =
            std::mem::take(&mut self.due).into_iter().partition(|key| self.busy.contains(key));
        for key in now {
            self.busy.insert(key.clone());
            let look =
                Look { house: self.house.clone(), tasks: self.tasks.clone(), interval: self.clock.interval };
            looks.spawn(async move {
                let after = look.at(&key.0, &key.1).await;
                (key, after)
            });
        }
        later.into_iter().for_each(|key| self.is_due(key));
    }

    fn looked(&mut self, done: Result<(Key, After), tokio::task::JoinError>) {
        match done {
            Ok((key, after)) => {
                self.busy.remove(&key);
                if after == After::LookAgain && self.watched.contains(&key) {
                    self.is_due(key);
                }
            }
            // Whose it was is not known any more.
            Err(error) => {
                error!(%error, "restart monitor: a look ended early");
                self.busy.clear();
            }
        }
    }
}

/// What follows a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// It is as it should be, or will not be.
    Rest,
    LookAgain,
}

struct Look {
    house: House,
    tasks: Tasks,
    interval: Duration,
}

impl Look {
    async fn at(&self, namespace: &Namespace, id: &str) -> After {
        let container = match self.house.db.containers(namespace).get(id) {
            Err(error) if error.is_not_found() => return After::Rest,
            Err(_) => return After::LookAgain,
            Ok(container) => container,
        };
        let task = match self.tasks.get(namespace, id, "").await {
            Ok(task) => Some(task),
            Err(error) if error.is_not_found() => None,
            Err(_) => return After::LookAgain,
        };
        let found = Found::new(task.as_ref(), self.is_fresh(&container));
        match monitor::verdict(&container.labels, found) {
            Ok(Verdict::Settled) => After::Rest,
            Ok(Verdict::Later) => After::LookAgain,
            Ok(Verdict::Start) => self.start(namespace, container).await,
            Ok(Verdict::Stop) => self.stop(namespace, id).await,
            Err(error) => {
                warn!(%namespace, id, %error, "restart policy cannot be followed");
                After::Rest
            }
        }
    }

    async fn start(&self, namespace: &Namespace, container: Container) -> After {
        let change = Change::new("restart container", namespace, container.id.as_str());
        let (house, tasks, namespace) = (self.house.clone(), self.tasks.clone(), namespace.clone());
        let started = self.house.work.run(change, async move {
            let container = tasks.count_restart(&namespace, container).await?;
            house.announce(&namespace, "/containers/update", &updated(&container));
            tasks.run_again(&namespace, &container).await
        });
        if started.await.is_ok() { After::Rest } else { After::LookAgain }
    }

    async fn stop(&self, namespace: &Namespace, id: &str) -> After {
        let change = Change::new("stop container", namespace, id);
        let (tasks, key) = (self.tasks.clone(), (namespace.clone(), id.to_owned()));
        let stopped = self.house.work.run(change, async move { tasks.end(&key.0, &key.1).await });
        if stopped.await.is_ok() { After::Rest } else { After::LookAgain }
    }

    /// Whether its client may be about to make its task.
    fn is_fresh(&self, container: &Container) -> bool {
        let age = SystemTime::now().duration_since(container.updated_at);
        age.is_ok_and(|age| age < self.interval / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_multiples_of_the_interval_from_the_start_on() {
        let began = Instant::now();
        let clock = Clock { began, interval: Duration::from_secs(10) };
        let after = |seconds| (clock.tick(began + Duration::from_secs(seconds)) - began).as_secs();
        assert_eq!([after(0), after(9), after(10), after(4711)], [10, 10, 20, 4720]);
    }

    #[test]
    fn the_first_field_of_every_event_is_the_containers_id() {
        use api::containerd::events as e;
        let about = |event: types::Any| About::decode(event.value.as_slice()).unwrap().id;
        let id = || "c1".to_owned();
        let pack = |event: &dyn Fn() -> types::Any| about(event());
        let events: [&dyn Fn() -> types::Any; 7] = [
            &|| api::any::pack(&e::ContainerCreate { id: id(), ..Default::default() }),
            &|| api::any::pack(&e::ContainerUpdate { id: id(), ..Default::default() }),
            &|| api::any::pack(&e::ContainerDelete { id: id() }),
            &|| api::any::pack(&e::TaskCreate { container_id: id(), ..Default::default() }),
            &|| api::any::pack(&e::TaskStart { container_id: id(), ..Default::default() }),
            &|| api::any::pack(&e::TaskExit { container_id: id(), ..Default::default() }),
            &|| api::any::pack(&e::TaskDelete { container_id: id(), ..Default::default() }),
        ];
        assert_eq!(events.map(pack), [(); 7].map(|()| id()));
    }
}
