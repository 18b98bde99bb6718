//! When garbage is collected: what upstream calls `io.containerd.gc.v1.scheduler`, with its settings.
//!
//! ```text
//!  a deletion, or enough changes   --> one interval later, but not before schedule_delay
//!  deletion_threshold deletions    --> after schedule_delay
//!  somebody waits for it (`sync`)  --> after schedule_delay
//!  something expires               --> then
//!  the start of the daemon         --> after startup_delay
//! ```
//!
//! The interval is such that collections take `pause_threshold` of real time on average. Unlike upstream nobody looks at the
//! clock in between: as long as nothing changes and nothing expires, nothing happens here at all.

use std::sync::Arc;
use std::time::SystemTime;

use metadata::{Changed, Changes, Collected, Db, Weak};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, error};
use types::events::Exchange;
use types::{Class, Error, Namespace, Result};

use crate::config::Gc as Settings;
use crate::metrics::Collections;

mod schedule;

/// From how many rows on a collection needs so much memory that it is given back at once.
const MANY: usize = 5_000;

use schedule::Schedule;

/// Asks for collections. Cloning shares the scheduler, which ends with the last of them.
#[derive(Clone)]
pub struct Collector {
    waiters: mpsc::UnboundedSender<oneshot::Sender<Result<()>>>,
    collections: Collections,
}

impl Collector {
    /// Starts the scheduler. What is collected is announced on `events`.
    pub fn start(db: &Db, events: Exchange, settings: &Settings) -> Self {
        let (waiters, requests) = mpsc::unbounded_channel();
        let collections = Collections::default();
        let schedule = Schedule::new(settings, Instant::now());
        let changes = db.changes();
        changes.set_thresholds(settings.mutation_threshold, settings.deletion_threshold);
        // Not to keep it open: it is closed in order when those who serve it have gone.
        let db = db.downgrade();
        let task = Task { db, changes, events, schedule, collections: collections.clone() };
        tokio::spawn(task.run(requests));
        Self { waiters, collections }
    }

    /// Waits for a collection that begins after this call, and for its error.
    pub async fn collect(&self) -> Result<()> {
        let stopped = || Error::unavailable("the garbage collector has stopped");
        let (waiter, answer) = oneshot::channel();
        self.waiters.send(waiter).map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// How collections went so far.
    pub fn collections(&self) -> Collections {
        self.collections.clone()
    }
}

/// The one that collects.
struct Task {
    db: Weak,
    changes: Arc<Changes>,
    events: Exchange,
    schedule: Schedule,
    collections: Collections,
}

impl Task {
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<oneshot::Sender<Result<()>>>) {
        let mut waiting = Vec::new();
        loop {
            let next = self.schedule.next();
            tokio::select! {
                () = self.changes.due() => {
                    self.look();
                    continue;
                }
                request = requests.recv() => {
                    let Some(request) = request else { return };
                    waiting.push(request);
                    self.schedule.requested(Instant::now());
                    continue;
                }
                () = until(next) => {}
            }
            // All that asked before it begins.
            while let Ok(request) = requests.try_recv() {
                waiting.push(request);
            }
            let Some(db) = self.db.upgrade() else { return };
            self.collect(&db, &mut waiting).await;
        }
    }

    /// Looks at what has changed.
    fn look(&mut self) {
        self.schedule.changed(self.changes.so_far(), Instant::now(), SystemTime::now());
    }

    async fn collect(&mut self, db: &Db, waiting: &mut Vec<oneshot::Sender<Result<()>>>) {
        let begun = Instant::now();
        self.changes.reset();
        let events = self.events.clone();
        let collected = db.collect(&|namespace, collected| announce(&events, namespace, collected)).await;
        let now = Instant::now();
        match &collected {
            Ok(done) => {
                debug!(duration = ?done.duration, rows = done.rows, removed = done.removed, "garbage collected");
                self.collections.ended(done.duration, true);
                if done.rows > MANY {
                    tokio::task::spawn_blocking(sys::memory::trim);
                }
                self.schedule.succeeded(done.duration);
                let expiry = Changed { expiry: done.next_expiry, ..Changed::default() };
                self.schedule.changed(expiry, now, SystemTime::now());
            }
            Err(error) => {
                error!(%error, "garbage collection failed");
                self.collections.ended(begun.elapsed(), false);
                self.schedule.failed(now);
            }
        }
        // Some of what came meanwhile may not have been seen.
        self.look();
        for waiter in waiting.drain(..) {
            let answer = collected.as_ref().map(drop);
            // Whoever went away needs no answer.
            let _ = waiter
                .send(answer.map_err(|error| Error::new(Class::Unknown, format!("gc failed: {error}"))));
        }
    }
}

/// Waits for `time`; without one, for ever.
pub async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Tells subscribers what was collected, in the words of a client that deletes it.
fn announce(events: &Exchange, namespace: &Namespace, collected: Collected) {
    use api::containerd::events::SnapshotRemove;
    use api::containerd::services::images::v1::ImageDelete;
    let (topic, event) = match collected {
        Collected::Image { name } => ("/images/delete", api::any::pack(&ImageDelete { name })),
        Collected::Snapshot { snapshotter, key } => {
            ("/snapshot/remove", api::any::pack(&SnapshotRemove { key, snapshotter }))
        }
    };
    if let Err(error) = events.publish(namespace, topic, event) {
        tracing::warn!(%namespace, topic, %error, "publish event");
    }
}
