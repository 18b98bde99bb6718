//! What one does with containers: the record says what to run, the runtime runs it.
//!
//! Both front doors (the gRPC services, CRI) come here. [`Tasks`] adds to the runtime what the database knows: spec,
//! runtime and options of a container, and the words for one that does not exist.

#![forbid(unsafe_code)]

mod create;
mod metrics;
pub mod monitor;
mod mounts;

use ::mounts::Manager;
use metadata::Db;
use runtime::{Checkpoint, Runtime, Signal, Update};
use types::task::{Deleted, Exec, Exit, Pid, Process};
use types::{Class, Error, Namespace, Result};

pub use create::Create;
pub use metrics::Metric;

/// The tasks of all containers. Cloning shares them.
#[derive(Clone)]
pub struct Tasks {
    db: Db,
    runtime: Runtime,
    mounts: Manager,
}

impl Tasks {
    /// Tasks of the containers in `db`, run by `runtime`; `mounts` does what shims cannot mount.
    pub fn new(db: Db, runtime: Runtime, mounts: Manager) -> Self {
        Self { db, runtime, mounts }
    }

    /// Starts init, or an exec process, and returns its pid.
    pub async fn start(&self, namespace: &Namespace, id: &str, exec: &str) -> Result<u32> {
        self.explain(namespace, id, self.runtime.start(namespace, id, exec).await)
    }

    /// Removes a task that has ended. Not cancel safe.
    pub async fn delete(&self, namespace: &Namespace, id: &str) -> Result<Deleted> {
        let deleted = self.explain(namespace, id, self.runtime.delete(namespace, id).await)?;
        self.deactivate(namespace, id).await;
        Ok(deleted)
    }

    /// Forgets an exec process that has ended.
    pub async fn delete_process(&self, namespace: &Namespace, id: &str, exec: &str) -> Result<Deleted> {
        self.explain(namespace, id, self.runtime.delete_process(namespace, id, exec).await)
    }

    /// The state of init, or of an exec process.
    pub async fn get(&self, namespace: &Namespace, id: &str, exec: &str) -> Result<Process> {
        self.explain(namespace, id, self.runtime.state(namespace, id, exec).await)
    }

    /// The init processes of a namespace, asked for all at once: one that does not answer is told as unknown and does
    /// not hold up the others.
    pub async fn list(&self, namespace: &Namespace) -> Result<Vec<Process>> {
        let mut asked = tokio::task::JoinSet::new();
        for id in self.runtime.list(namespace) {
            let (runtime, namespace) = (self.runtime.clone(), namespace.clone());
            asked.spawn(async move { runtime.state(&namespace, &id, "").await });
        }
        let mut processes = Vec::with_capacity(asked.len());
        while let Some(answered) = asked.join_next().await {
            match answered.map_err(|e| Error::internal(format!("list tasks: {e}")))? {
                Ok(process) => processes.push(process),
                // Deleted meanwhile.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        processes.sort_by(|a, b| a.container.cmp(&b.container));
        Ok(processes)
    }

    /// Sends a signal.
    pub async fn kill(&self, namespace: &Namespace, id: &str, exec: &str, signal: Signal) -> Result<()> {
        self.explain(namespace, id, self.runtime.kill(namespace, id, exec, signal).await)
    }

    /// Adds an exec process.
    pub async fn exec(&self, namespace: &Namespace, id: &str, exec: Exec) -> Result<()> {
        if exec.id.is_empty() {
            return Err(Error::invalid("exec id cannot be empty"));
        }
        self.explain(namespace, id, self.runtime.exec(namespace, id, exec).await)
    }

    /// Waits for the end of init, or of an exec process. Cancel safe.
    pub async fn wait(&self, namespace: &Namespace, id: &str, exec: &str) -> Result<Exit> {
        self.explain(namespace, id, self.runtime.wait(namespace, id, exec).await)
    }

    /// The processes in the container.
    pub async fn pids(&self, namespace: &Namespace, id: &str) -> Result<Vec<Pid>> {
        self.explain(namespace, id, self.runtime.pids(namespace, id).await)
    }

    /// Closes the stdin of a process.
    pub async fn close_io(&self, namespace: &Namespace, id: &str, exec: &str) -> Result<()> {
        self.explain(namespace, id, self.runtime.close_io(namespace, id, exec).await)
    }

    /// Changes the size of a process's terminal; columns and rows.
    pub async fn resize_pty(
        &self,
        namespace: &Namespace,
        id: &str,
        exec: &str,
        size: (u32, u32),
    ) -> Result<()> {
        self.explain(namespace, id, self.runtime.resize_pty(namespace, id, exec, size).await)
    }

    /// Freezes the container.
    pub async fn pause(&self, namespace: &Namespace, id: &str) -> Result<()> {
        self.explain(namespace, id, self.runtime.pause(namespace, id).await)
    }

    /// Thaws the container.
    pub async fn resume(&self, namespace: &Namespace, id: &str) -> Result<()> {
        self.explain(namespace, id, self.runtime.resume(namespace, id).await)
    }

    /// Changes the container's limits.
    pub async fn update(&self, namespace: &Namespace, id: &str, update: Update) -> Result<()> {
        self.explain(namespace, id, self.runtime.update(namespace, id, update).await)
    }

    /// Writes the container's processes to a directory.
    pub async fn checkpoint(&self, namespace: &Namespace, id: &str, checkpoint: Checkpoint) -> Result<()> {
        self.explain(namespace, id, self.runtime.checkpoint(namespace, id, checkpoint).await)
    }

    /// What was not found may be missing because the container is: then that is said, as upstream does.
    ///
    /// The record is asked last, so that a task whose record somebody removed can still be stopped and deleted.
    fn explain<T>(&self, namespace: &Namespace, id: &str, result: Result<T>) -> Result<T> {
        match result {
            // An id that no container can have is told as one that none has.
            Err(error) if matches!(error.class(), Class::NotFound | Class::InvalidArgument) => {
                Err(self.db.containers(namespace).get(id).err().filter(Error::is_not_found).unwrap_or(error))
            }
            result => result,
        }
    }
}
