//! Delete, and the other two ways in which a task goes while its shim still answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::containerd::events::TaskDelete;
use types::events::{Envelope, Subscription};
use types::task::{Deleted, Status};
use types::{Class, Error, Namespace, Result, crash};

use crate::death::TASK_DELETE;
use crate::key::TaskKey;
use crate::runtime::{Runtime, blocking};
use crate::shim::{Shim, lost};
use crate::shims::Place;
use crate::ttrpc::Failure;
use crate::why::posthumous::Witness;

/// How long the last event of a shim that has gone may still be on its way.
const LAST_EVENT: Duration = Duration::from_secs(1);

impl Runtime {
    /// Removes a task that has ended: its state in the shim, the shim unless others need it, the bundle.
    ///
    /// Not cancel safe, as `create`.
    pub async fn delete(&self, namespace: &Namespace, id: &str) -> Result<Deleted> {
        let shim = self.find(namespace, id).await?;
        if shim.is_being_made() {
            return Err(Error::precondition(
                "failed to delete task: cannot delete a task that is being created",
            ));
        }
        let deleting = shim.deleting.lock().await;
        let heard = self.inner.events.subscribe();
        let deleted = shim.delete("", None).await;
        crash::point("deleted");
        if let Err(Failure::Closed) = deleted {
            // Its death is being dealt with, and is an end like any other.
            drop(deleting);
            return Ok(shim.end().await);
        }
        let gone = match &deleted {
            Ok(_) => true,
            // An earlier Delete may have come this far before its daemon died.
            Err(failure) => failure.is_not_found(),
        };
        if gone && let Some(place) = self.inner.table.take(&shim) {
            let end = deleted.as_ref().map_or_else(|_| lost(shim.pid()), |deleted| *deleted);
            self.farewell(&shim, end).await;
            drop(place);
        }
        if let Ok(end) = deleted {
            tokio::spawn(self.clone().tell_delete(shim.key.clone(), end, heard));
        }
        match deleted {
            Ok(deleted) => Ok(deleted),
            Err(failure) => Err(self.why_not(&shim, failure).await.context("failed to delete task")),
        }
    }

    /// Lets go of a task that its shim does not know any more although nobody here deletes it: a Delete of the daemon
    /// before was finished after that one's death. The caller knew that it had been made when it asked. The rest runs on; who wants the id waits for it.
    pub(crate) fn forget(&self, shim: &Arc<Shim>) {
        let (Ok(_creating), Ok(_deleting)) = (shim.creating.try_lock(), shim.deleting.try_lock()) else {
            return;
        };
        let Some(place) = self.inner.table.take(shim) else { return };
        tracing::warn!(task = %shim.key, "the task was deleted by an earlier daemon, cleaning up");
        let (runtime, shim) = (self.clone(), Arc::clone(shim));
        tokio::spawn(async move {
            runtime.farewell(&shim, lost(shim.pid())).await;
            drop(place);
        });
    }

    /// Tells of the delete in place of a shim that went before it had sent its last event, as upstream's may: it does
    /// not wait for its own queue.
    async fn tell_delete(self, key: TaskKey, end: Deleted, mut heard: Subscription) {
        let told = async {
            while let Ok(envelope) = heard.next().await {
                if envelope.topic == TASK_DELETE && is_of(&envelope, &key) {
                    return;
                }
            }
        };
        if tokio::time::timeout(LAST_EVENT, told).await.is_err() {
            tracing::warn!(task = %key, "shim did not tell of the delete");
            self.publish_delete(&key, end);
        }
    }

    /// Upstream's shim has no class for the refusal to delete what runs; its callers need one.
    async fn why_not(&self, shim: &Shim, failure: Failure) -> Error {
        let error = Error::from(failure);
        if error.class() != Class::Unknown {
            return error;
        }
        match shim.state("", self.inner.timeouts.state).await {
            Ok(state) if api::convert::task_status(state.status) != Status::Stopped => {
                error.reclass(Class::FailedPrecondition)
            }
            _ => error,
        }
    }

    /// Sends the shim away, if no other task needs it, and removes the bundle. The caller holds the place.
    pub(crate) async fn farewell(&self, shim: &Shim, end: Deleted) {
        if shim.is_served {
            // Who serves it decides when to go.
            self.remove_bundle(shim).await;
            return shim.finished(end);
        }
        let begun = Instant::now();
        let limit = self.inner.timeouts.shutdown;
        let asked = shim.shutdown(limit).await;
        if !self.inner.table.is_shared(shim) {
            // The shim still finds its files in the bundle while it goes.
            let rest = limit.saturating_sub(begun.elapsed());
            if tokio::time::timeout(rest, shim.connection.closed()).await.is_err() {
                let error = asked.err().map(Error::from);
                tracing::error!(task = %shim.key, ?error, "shim does not go and might be leaked");
            }
        }
        crash::point("shim-gone");
        self.remove_bundle(shim).await;
        shim.finished(end);
    }

    async fn remove_bundle(&self, shim: &Shim) {
        let bundle = shim.bundle.clone();
        if let Err(error) = blocking(move || bundle.remove()).await {
            tracing::error!(task = %shim.key, %error, "failed to delete bundle");
        }
    }

    /// The opposite of starting a shim, once it is in the table: for a Create that failed.
    pub(crate) async fn give_up(self, shim: Arc<Shim>, place: Arc<Place>) -> Result<()> {
        if !place.take_back(&shim) {
            shim.end().await;
            return Ok(());
        }
        self.dismiss(&shim).await;
        Ok(())
    }

    /// Ends a shim whose task was never made. The caller holds the place.
    pub(crate) async fn dismiss(&self, shim: &Shim) {
        let limit = self.inner.timeouts.cleanup;
        if shim.is_sandbox {
            // All may fail; what counts comes next.
            let _ = shim.shutdown_sandbox(limit).await;
        }
        match shim.delete("", Some(limit)).await {
            Ok(end) => return self.farewell(shim, end).await,
            Err(failure) if failure.is_not_found() => return self.farewell(shim, lost(0)).await,
            Err(Failure::Closed) => {}
            Err(failure) => {
                let error = Error::from(failure);
                tracing::warn!(task = %shim.key, %error, "shim does not delete its task, cleaning up by force");
                // It is told to go all the same; what it leaves is cleaned by its program.
                if !shim.is_served {
                    let _ = shim.shutdown(limit).await;
                }
            }
        }
        let end = self.bury(shim, Witness::None).await;
        shim.finished(end);
    }
}

/// Whether the event is of this task's init.
fn is_of(envelope: &Envelope, key: &TaskKey) -> bool {
    envelope.namespace == key.namespace().as_str()
        && api::any::unpack::<TaskDelete>(&envelope.event).is_ok_and(|event| {
            event.container_id == key.id() && (event.id.is_empty() || event.id == key.id())
        })
}
