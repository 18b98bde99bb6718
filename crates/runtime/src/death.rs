//! When a shim is gone without having been asked: what it left is killed and unmounted by its own program (`delete`),
//! and the end of the task is published in its stead.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use api::containerd::events::{TaskDelete, TaskExit};
use prost::{Message, Name};
use types::events::{Delivery, Envelope};
use types::task::Deleted;
use types::{Class, Error, Result};

use crate::bundle::Bundle;
use crate::key::TaskKey;
use crate::launch::Target;
use crate::runtime::{Runtime, blocking};
use crate::shim::{Shim, lost};
use crate::why::posthumous::{self, Witness};

/// How long a killed init may take to end, in milliseconds.
const KILLED: u32 = 200;

/// The topic of an exit whose status nobody knows; the event is the exit's. Not below `/tasks`, where dockerd and others would take it
/// for a second exit.
pub const EXIT_ESTIMATED: &str = "/containerd-rs/exit-estimated";

/// The topic of a task that is gone.
pub(crate) const TASK_DELETE: &str = "/tasks/delete";

impl Runtime {
    /// Watches the shim's connection: when it ends and nobody deleted the task, the task is dead.
    pub(crate) fn watch(&self, shim: &Arc<Shim>) {
        let closed = shim.connection.when_closed();
        // Both weak: a runtime that is dropped lets go of its shims.
        let (inner, shim) = (Arc::downgrade(&self.inner), Arc::downgrade(shim));
        tokio::spawn(async move {
            closed.await;
            if let (Some(inner), Some(shim)) = (inner.upgrade(), shim.upgrade()) {
                Self { inner }.died(shim).await;
            }
        });
    }

    /// Gets hold of a task's init, which nobody waits for.
    pub(crate) fn hold_init(&self, shim: &Arc<Shim>) {
        let (shim, limit) = (Arc::downgrade(shim), self.inner.timeouts.state);
        tokio::spawn(async move {
            if let Some(shim) = shim.upgrade() {
                shim.hold_init(limit).await;
            }
        });
    }

    async fn died(&self, shim: Arc<Shim>) {
        // A Create or Delete that is under way ends with the connection, and knows better.
        drop(shim.creating.lock().await);
        let deleting = shim.deleting.lock().await;
        let taken = self.inner.table.take(&shim);
        drop(deleting);
        let Some(place) = taken else { return };
        tracing::warn!(task = %shim.key, "shim disconnected, cleaning up");
        let end = self.end_of(&shim).await;
        if shim.is_created() {
            self.publish_end(&shim.key, end);
        }
        drop(place);
        shim.finished(end);
    }

    /// Ends what a dead shim has left, and says how the container's init ended: as its shim has written down, as the
    /// kernel remembers, or else as killed, which is then said to be a guess.
    pub(crate) async fn end_of(&self, shim: &Arc<Shim>) -> Deleted {
        let of = Arc::clone(shim);
        let remembered = blocking(move || {
            let Some(init) = of.init() else { return Ok(None) };
            // Its shim would have done that, if asked to delete it. One that has ended already is not hurt.
            init.kill()?;
            init.await_end(KILLED)?;
            Ok(init.how_it_ended())
        });
        let remembered = remembered.await;
        // What somebody else's service writes down is not read here.
        let known = !shim.is_served && shim.bundle.knows_exit();
        let witness = match &remembered {
            _ if !shim.is_created() => Witness::None,
            Ok(Some(ended)) => Witness::Kernel(*ended),
            Ok(None) | Err(_) => Witness::Bundle,
        };
        let mut end = self.bury(shim, witness).await;
        match remembered {
            Ok(Some(ended)) => end.exit.status = ended.status(),
            Ok(None) | Err(_) if shim.is_created() && !known => {
                tracing::warn!(task = %shim.key, status = end.exit.status, "exit status is estimated");
                self.publish(&shim.key, EXIT_ESTIMATED, &exit_event(&shim.key, end));
            }
            Ok(None) | Err(_) => {}
        }
        end
    }

    /// Removes everything of a task whose shim is gone. The caller holds the place.
    pub(crate) async fn bury(&self, shim: &Shim, witness: Witness) -> Deleted {
        let target = Target { key: &shim.key, bundle: &shim.bundle, shim: &shim.binary };
        let buried = self.bury_bundle(target, witness).await;
        if shim.connection.is_closed() && !shim.is_served && !self.inner.table.is_shared(shim) {
            let address = shim.bootstrap.address.clone();
            let removed = blocking(move || {
                crate::connect::remove_socket(&address);
                Ok(())
            });
            let _ = removed.await;
        }
        buried.unwrap_or_else(|error| {
            tracing::error!(task = %shim.key, %error, "failed to clean up after shim");
            lost(shim.pid())
        })
    }

    /// Runs `delete` and removes the bundle, and answers how the task ended. If `delete` fails while the container's init may still be there, the
    /// bundle stays, so that the next start of the daemon, or the next Create of this id, tries again.
    pub(crate) async fn bury_bundle(&self, target: Target<'_>, witness: Witness) -> Result<Deleted> {
        let Target { key, bundle, .. } = target;
        self.tell_journal(key, bundle).await;
        let deleted = match bundle.is_served() {
            // What it has left is its sandboxer's to end, with the sandbox.
            true => Ok(lost(bundle.init_pid().unwrap_or(0))),
            false => self.inner.launcher.delete(target, self.inner.timeouts.cleanup).await,
        };
        let served = bundle.is_served();
        let bundle = bundle.clone();
        let group = bundle.cgroup();
        if let Err(error) = deleted {
            if bundle.init_may_live() {
                return Err(error.context("bundle is kept"));
            }
            blocking(move || bundle.remove()).await?;
            return Err(error);
        }
        if let Ok(end) = deleted {
            let (key, bundle) = (key.clone(), bundle.clone());
            if let Err(error) = blocking(move || posthumous::write(&key, &bundle, end, witness)).await {
                tracing::warn!(%error, "no record of the death");
            }
        }
        if let Err(error) = blocking(move || bundle.remove()).await {
            // How it ended is known all the same.
            tracing::error!(task = %key, %error, "failed to delete bundle");
        }
        if let Some(group) = group.filter(|_| !served) {
            // A runtime that was killed at its work has made it, and knows nothing of it any more.
            blocking(move || {
                sys::cgroup::remove_empty(&group);
                Ok(())
            })
            .await?;
        }
        deleted.map(|mut end| {
            if end.exit.at == SystemTime::UNIX_EPOCH {
                end.exit.at = SystemTime::now();
            }
            end
        })
    }

    /// Tells subscribers what a shim that is gone could not tell any more.
    async fn tell_journal(&self, key: &TaskKey, bundle: &Bundle) {
        let journal = bundle.clone();
        let untold = blocking(move || journal.read_journal()).await.unwrap_or_else(|error| {
            tracing::error!(task = %key, %error, "what the shim has not told is lost");
            Vec::new()
        });
        for envelope in untold {
            match self.inner.events.forward_once(envelope) {
                Ok(delivery) => crate::ttrpc::delivered(delivery).await,
                Err(error) => tracing::error!(task = %key, %error, "publish event of a shim that is gone"),
            }
        }
    }

    /// Tells subscribers that a task ended and is gone, as its shim would have.
    pub(crate) fn publish_end(&self, key: &TaskKey, end: Deleted) {
        self.publish(key, "/tasks/exit", &exit_event(key, end));
        self.publish_delete(key, end);
    }

    /// Tells subscribers that a task is gone.
    pub(crate) fn publish_delete(&self, key: &TaskKey, end: Deleted) {
        let delete = TaskDelete {
            container_id: key.id().to_owned(),
            pid: end.pid,
            exit_status: end.exit.status,
            exited_at: api::convert::timestamp(end.exit.at),
            id: String::new(),
        };
        self.publish(key, TASK_DELETE, &delete);
    }

    /// Publishes in place of a shim, unless the shim has said the same.
    fn publish<E: Message + Name>(&self, key: &TaskKey, topic: &str, event: &E) {
        let envelope = Envelope {
            timestamp: SystemTime::now(),
            namespace: key.namespace().as_str().to_owned(),
            topic: topic.to_owned(),
            event: api::any::pack(event),
        };
        // Nobody can wait for its delivery: the shim that could tell it again is gone.
        if let Err(error) = self.inner.events.forward_once(envelope).map(Delivery::told) {
            tracing::error!(task = %key, topic, %error, "publish event");
        }
    }

    /// A shim may listen although its address never reached the bundle, because the daemon died in between. If it
    /// uses upstream's address for a shim of its own, it is found there and sent away.
    pub(crate) async fn dismiss_unreached(&self, key: &TaskKey, bundle: &Bundle) {
        if !matches!(bundle.read_bootstrap(), Ok(None)) {
            return;
        }
        let address = self.default_address(key);
        let limit = self.inner.timeouts.cleanup;
        let Ok(Ok(connection)) = tokio::time::timeout(limit, self.inner.connections.connect(&address)).await
        else {
            return;
        };
        tracing::warn!(task = %key, address, "sending away a shim that was never reached");
        for (method, payload) in farewell_calls(key) {
            let service = "containerd.task.v3.Task";
            let call =
                crate::ttrpc::Call { service, method, namespace: key.namespace(), timeout: Some(limit) };
            match connection.call(call, payload).await.map_err(Error::from) {
                Err(error) if !matches!(error.class(), Class::NotFound) => {
                    tracing::warn!(task = %key, method, %error, "shim that was never reached");
                }
                _ => {}
            }
        }
        let _ = tokio::time::timeout(self.inner.timeouts.shutdown, connection.closed()).await;
    }

    fn default_address(&self, key: &TaskKey) -> String {
        let launcher = &self.inner.launcher;
        let dir = launcher.socket_dir.as_deref().unwrap_or(Path::new("/run/containerd/s"));
        let name = Path::new(&launcher.address).join(key.namespace().as_str()).join(key.id());
        let digest = types::Digest::of(name.as_os_str().as_encoded_bytes());
        format!("unix://{}/{}", dir.display(), digest.hex())
    }
}

fn exit_event(key: &TaskKey, end: Deleted) -> TaskExit {
    TaskExit {
        container_id: key.id().to_owned(),
        id: key.id().to_owned(),
        pid: end.pid,
        exit_status: end.exit.status,
        exited_at: api::convert::timestamp(end.exit.at),
    }
}

fn farewell_calls(key: &TaskKey) -> [(&'static str, Vec<u8>); 2] {
    use api::containerd::task::v3::{DeleteRequest, ShutdownRequest};
    let id = key.id().to_owned();
    [
        ("Delete", DeleteRequest { id: id.clone(), exec_id: String::new() }.encode_to_vec()),
        ("Shutdown", ShutdownRequest { id, now: false }.encode_to_vec()),
    ]
}
