//! Mounts of a root filesystem that the shim cannot do: the daemon does them before it starts the shim, and keeps them
//! until the task is deleted. They are named after the container, which keeps them by a back reference.

use api::containerd::types::RuntimeInfo;
use mounts::Activate;
use prost::Message;
use types::mount::Mount;
use types::{Class, Namespace, Result, ResultExt, Scope};

use crate::Tasks;

/// What of the garbage collector's labels names the container.
const BACK_REFERENCE: &str = "containerd.io/gc.bref.container";
/// Where a runtime says which types it mounts itself.
const ALLOWED: &str = "containerd.io/runtime-allow-mounts";

/// A root filesystem, ready for the shim.
pub(crate) struct Rootfs {
    /// What is left for the shim.
    pub(crate) mounts: Vec<Mount>,
    /// It was activated by this call.
    pub(crate) activated: bool,
}

impl Tasks {
    /// Does what of `mounts` the shim of `runtime` cannot.
    pub(crate) async fn activate(
        &self,
        namespace: &Namespace,
        id: &str,
        mounts: Vec<Mount>,
        runtime: &str,
    ) -> Result<Rootfs> {
        if !mounts::needs_activation(&mounts) {
            return Ok(Rootfs { mounts, activated: false });
        }
        let allowed = self.allowed(runtime).await;
        let labels = [(BACK_REFERENCE.to_owned(), id.to_owned())].into();
        let request =
            Activate { name: id.to_owned(), mounts: mounts.clone(), labels, allowed, ..Activate::default() };
        match self.mounts.activate(&Scope::new(namespace.clone()), request).await {
            Ok(done) => Ok(Rootfs { mounts: done.system, activated: true }),
            // Those of a task of the same id before, whose container never went: they are the same.
            Err(error) if error.is_already_exists() => {
                let kept = self.mounts.info(namespace, id);
                let kept = kept.context(|| "failed to get info on already active mount")?;
                Ok(Rootfs { mounts: kept.system, activated: false })
            }
            Err(error)
                if error.class() == Class::Unimplemented && error.message() == mounts::NOTHING_TO_DO =>
            {
                Ok(Rootfs { mounts, activated: false })
            }
            Err(error) => Err(error),
        }
    }

    /// Takes back what [`Self::activate`] did. A failure is only logged: the garbage collector tries again.
    pub(crate) async fn deactivate(&self, namespace: &Namespace, id: &str) {
        match self.mounts.deactivate(namespace, id).await {
            Err(error) if !error.is_not_found() => {
                tracing::error!(%namespace, task = id, %error, "failed to deactivate mounts");
            }
            _ => {}
        }
    }

    /// The types that a runtime mounts itself; none if it does not say.
    async fn allowed(&self, runtime: &str) -> Vec<String> {
        let told = self.runtime.info(runtime, None).await;
        let info = told.map(|bytes| RuntimeInfo::decode(bytes.as_slice()).unwrap_or_default());
        match info {
            Ok(info) => info.annotations.get(ALLOWED).map_or_else(Vec::new, |types| {
                types.split(',').map(|kind| kind.trim().to_owned()).filter(|kind| !kind.is_empty()).collect()
            }),
            Err(error) => {
                tracing::warn!(runtime, %error, "failed to load runtime info");
                Vec::new()
            }
        }
    }
}
