//! The table of tasks. It is rebuilt from the bundles when the daemon starts.
//!
//! ```text
//!              reserve                fill                 take              drop of the place
//!   (nothing) ---------> Creating ------------> Live ----------------> Closing ------------> (nothing)
//!              at start                 ^          |
//!   (nothing) ---------> Loading -------+          +-- the connection ends, Delete succeeds, Create fails
//!                           |           |
//!                           +-> Unreached  (its socket does not accept, or we have no descriptor left)
//! ```
//!
//! A [`Place`] is the right to work on an id that is not live: nobody else makes or removes its bundle meanwhile.
//! It is given back by dropping it, so it outlives every file of the task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use types::{Class, Error, Namespace, Result};

use crate::key::TaskKey;
use crate::shim::Shim;

/// The tasks by key. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    slots: Arc<Mutex<Slots>>,
}

#[derive(Debug, Default)]
struct Slots {
    by_key: HashMap<TaskKey, Slot>,
    places: u64,
}

#[derive(Debug)]
enum Slot {
    Pending { place: u64, stage: Stage, over: watch::Receiver<()> },
    Live(Arc<Shim>),
}

/// What is being done at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The task does not exist yet.
    Creating,
    /// The daemon was started and looks for the shim; who asks for the task waits for that.
    Loading,
    /// The task exists, and its shim cannot be reached at the moment; who asks for it is told so.
    Unreached,
    /// The task does not exist any more; who wants the id again waits for its last file to go.
    Closing,
}

/// The right to work on an id.
#[derive(Debug)]
pub(crate) struct Place {
    table: Table,
    key: TaskKey,
    place: u64,
    over: watch::Sender<()>,
}

impl Table {
    /// A place for a new task. Waits for one of this id that is being loaded or removed.
    pub(crate) async fn reserve(&self, key: &TaskKey) -> Result<Place> {
        loop {
            let mut over = {
                let mut slots = self.lock();
                match slots.by_key.get(key) {
                    None => return Ok(self.place(&mut slots, key, Stage::Creating)),
                    Some(Slot::Live(_) | Slot::Pending { stage: Stage::Creating | Stage::Unreached, .. }) => {
                        return Err(Error::already_exists(format!("task {}: already exists", key.id())));
                    }
                    Some(Slot::Pending { over, .. }) => unseen(over),
                }
            };
            // An error says the same: the place is gone.
            let _ = over.changed().await;
        }
    }

    /// A place for each bundle that was found at start; nobody else can have it yet.
    pub(crate) fn loading(&self, key: &TaskKey) -> Place {
        self.place(&mut self.lock(), key, Stage::Loading)
    }

    /// The task. Waits while it is being loaded.
    pub(crate) async fn get(&self, key: &TaskKey) -> Result<Arc<Shim>> {
        loop {
            let mut over = match self.lock().by_key.get(key) {
                Some(Slot::Live(shim)) => return Ok(Arc::clone(shim)),
                Some(Slot::Pending { stage: Stage::Loading, over, .. }) => unseen(over),
                Some(Slot::Pending { stage: Stage::Unreached, .. }) => return Err(unreached(key)),
                None | Some(Slot::Pending { .. }) => return Err(not_found(key)),
            };
            let _ = over.changed().await;
        }
    }

    /// Waits until nothing is being loaded any more.
    pub(crate) async fn loaded(&self) {
        loop {
            let loading = self.lock().by_key.values().find_map(|slot| match slot {
                Slot::Pending { stage: Stage::Loading, over, .. } => Some(unseen(over)),
                _ => None,
            });
            match loading {
                Some(mut over) => drop(over.changed().await),
                None => return,
            }
        }
    }

    /// The task. Waits for its shim to be reached as long as that takes: its end cannot be told before.
    pub(crate) async fn get_reached(&self, key: &TaskKey) -> Result<Arc<Shim>> {
        loop {
            let mut over = match self.lock().by_key.get(key) {
                Some(Slot::Pending { stage: Stage::Unreached, over, .. }) => Some(unseen(over)),
                _ => None,
            };
            match &mut over {
                Some(over) => drop(over.changed().await),
                None => match self.get(key).await {
                    // It has become so since we looked.
                    Err(error) if error.class() == Class::Unavailable => {}
                    found => return found,
                },
            }
        }
    }

    /// The ids of all tasks of a namespace, those that are being loaded included; sandboxes of shims are none.
    pub(crate) fn ids(&self, namespace: &Namespace) -> Vec<String> {
        let exists = |slot: &Slot| match slot {
            Slot::Live(shim) => !shim.is_sandbox,
            Slot::Pending { stage, .. } => matches!(stage, Stage::Loading | Stage::Unreached),
        };
        let slots = self.lock();
        let of_namespace =
            slots.by_key.iter().filter(|(key, slot)| key.namespace() == namespace && exists(slot));
        let mut ids: Vec<_> = of_namespace.map(|(key, _)| key.id().to_owned()).collect();
        ids.sort();
        ids
    }

    /// Takes a live task out; false if somebody else did before.
    pub(crate) fn take(&self, shim: &Arc<Shim>) -> Option<Place> {
        let mut slots = self.lock();
        match slots.by_key.get(&shim.key) {
            Some(Slot::Live(live)) if Arc::ptr_eq(live, shim) => {
                Some(self.place(&mut slots, &shim.key, Stage::Closing))
            }
            _ => None,
        }
    }

    /// Whether a task other than `shim` lives behind the same connection.
    pub(crate) fn is_shared(&self, shim: &Shim) -> bool {
        self.lock().by_key.values().any(|slot| match slot {
            Slot::Live(other) => other.key != shim.key && Arc::ptr_eq(&other.connection, &shim.connection),
            Slot::Pending { .. } => false,
        })
    }

    fn place(&self, slots: &mut Slots, key: &TaskKey, stage: Stage) -> Place {
        slots.places += 1;
        let place = slots.places;
        let (over, receiver) = watch::channel(());
        slots.by_key.insert(key.clone(), Slot::Pending { place, stage, over: receiver });
        Place { table: self.clone(), key: key.clone(), place, over }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for what happens from now on, not for what has happened.
fn unseen(over: &watch::Receiver<()>) -> watch::Receiver<()> {
    let mut over = over.clone();
    over.mark_unchanged();
    over
}

impl Place {
    /// The task lives from now on.
    pub(crate) fn fill(&self, shim: Arc<Shim>) {
        self.table.lock().by_key.insert(self.key.clone(), Slot::Live(shim));
        self.over.send_replace(());
    }

    /// Takes back what was filled in here; false if somebody else took it before.
    pub(crate) fn take_back(&self, shim: &Arc<Shim>) -> bool {
        let mut slots = self.table.lock();
        match slots.by_key.get(&self.key) {
            Some(Slot::Live(live)) if Arc::ptr_eq(live, shim) => {
                let slot =
                    Slot::Pending { place: self.place, stage: Stage::Closing, over: self.over.subscribe() };
                slots.by_key.insert(self.key.clone(), slot);
                true
            }
            _ => false,
        }
    }

    /// The task turned out to be dead: who asks for it need not wait for the rest.
    pub(crate) fn closing(&self) {
        self.turn(Stage::Closing);
    }

    /// The task's shim cannot be reached for now: who asks for it need not wait for that.
    pub(crate) fn unreached(&self) {
        self.turn(Stage::Unreached);
    }

    fn turn(&self, to: Stage) {
        if let Some(Slot::Pending { place, stage, .. }) = self.table.lock().by_key.get_mut(&self.key)
            && *place == self.place
        {
            *stage = to;
        }
        self.over.send_replace(());
    }

    /// Whether the id is still ours to work on.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.table.lock().by_key.get(&self.key), Some(Slot::Pending { place, .. }) if *place == self.place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut slots = self.table.lock();
        if matches!(slots.by_key.get(&self.key), Some(Slot::Pending { place, .. }) if *place == self.place) {
            slots.by_key.remove(&self.key);
        }
    }
}

fn unreached(key: &TaskKey) -> Error {
    Error::unavailable(format!("the shim of task {} cannot be reached at the moment: unavailable", key.id()))
}

/// The words of upstream's task service.
pub(crate) fn not_found(key: &TaskKey) -> Error {
    Error::new(Class::NotFound, format!("task {} not found", key.id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TaskKey {
        TaskKey::new(&"default".parse().unwrap(), "c1").unwrap()
    }

    #[tokio::test]
    async fn an_id_is_reserved_once_and_free_again_after() {
        let table = Table::default();
        let place = table.reserve(&key()).await.unwrap();
        let again = table.reserve(&key()).await.unwrap_err();
        assert_eq!(
            (again.class(), again.to_string().as_str()),
            (Class::AlreadyExists, "task c1: already exists")
        );
        assert!(table.get(&key()).await.unwrap_err().is_not_found());
        assert!(table.ids(key().namespace()).is_empty());
        drop(place);
        assert!(table.reserve(&key()).await.is_ok());
    }

    #[tokio::test]
    async fn who_asks_for_a_task_that_is_being_loaded_waits() {
        let table = Table::default();
        let place = table.loading(&key());
        assert_eq!(table.ids(key().namespace()), ["c1"]);
        let key = key();
        let (asked, reserved) = (table.get(&key), table.reserve(&key));
        tokio::pin!(asked, reserved);
        let moment = std::time::Duration::from_millis(5);
        assert!(tokio::time::timeout(moment, &mut asked).await.is_err());
        assert!(tokio::time::timeout(moment, &mut reserved).await.is_err());
        place.closing();
        assert!(asked.await.unwrap_err().is_not_found());
        assert!(tokio::time::timeout(moment, &mut reserved).await.is_err());
        drop(place);
        assert!(reserved.await.is_ok());
    }

    #[tokio::test]
    async fn a_task_whose_shim_cannot_be_reached_is_there_and_only_its_end_is_waited_for() {
        let table = Table::default();
        let place = table.loading(&key());
        let key = key();
        let (asked, awaited) = (table.get(&key), table.get_reached(&key));
        tokio::pin!(asked, awaited);
        let moment = std::time::Duration::from_millis(5);
        assert!(tokio::time::timeout(moment, &mut asked).await.is_err());
        assert!(tokio::time::timeout(moment, &mut awaited).await.is_err());
        place.unreached();
        assert_eq!(asked.await.unwrap_err().class(), Class::Unavailable);
        assert!(tokio::time::timeout(moment, &mut awaited).await.is_err());
        assert_eq!(table.ids(key.namespace()), ["c1"]);
        assert!(table.reserve(&key).await.unwrap_err().is_already_exists());
        place.closing();
        assert!(awaited.await.unwrap_err().is_not_found());
    }
}
