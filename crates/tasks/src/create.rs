//! From a container's record to its task.

use api::containerd::runc::v1::Options;
use runtime::Terms;
use types::container::Container;
use types::mount::Mount;
use types::task::{Endpoint, Origin, Stdio};
use types::{Any, Namespace, Result};

use crate::Tasks;

/// The runtime of a container whose record names none.
const DEFAULT_RUNTIME: &str = "io.containerd.runc.v2";

/// A task to be made of a container.
#[derive(Clone, Debug, Default)]
pub struct Create {
    /// The container.
    pub id: String,
    /// Mounts of the root filesystem, as the snapshotter answered them.
    pub rootfs: Vec<Mount>,
    /// Streams of the init process.
    pub stdio: Stdio,
    /// For the shim instead of the container's runtime options.
    pub options: Option<Any>,
    /// Another runtime than the container's, or empty.
    pub runtime: String,
    /// What it goes on from. A checkpoint that runc's options name counts more.
    pub origin: Origin,
    /// Another task whose shim serves it too.
    pub shim_of: Option<String>,
    /// Where a task service is that serves it, if it is in a sandbox.
    pub endpoint: Option<Endpoint>,
    /// When it may be made, and whether anybody still waits for it.
    pub terms: Terms,
}

impl Tasks {
    /// Makes the container's task; returns the pid of its init, which waits to be started. If it fails, nothing of it is
    /// left. Not cancel safe.
    pub async fn create(&self, namespace: &Namespace, create: Create) -> Result<u32> {
        let container = self.db.containers(namespace).get(&create.id)?;
        self.create_of(namespace, container, create).await
    }

    /// As [`Tasks::create`], of a container whose record may only be written when the task's terms are met.
    pub async fn create_of(
        &self,
        namespace: &Namespace,
        container: Container,
        create: Create,
    ) -> Result<u32> {
        let given = create.options.filter(|options| !options.value.is_empty());
        let checkpoint = given.as_ref().map(restores).filter(|path| !path.is_empty());
        let runtime = [create.runtime, container.runtime.name].into_iter().find(|name| !name.is_empty());
        let runtime = runtime.unwrap_or_else(|| DEFAULT_RUNTIME.to_owned());
        let rootfs = self.activate(namespace, &create.id, create.rootfs, &runtime).await?;
        let task = types::task::Create {
            rootfs: rootfs.mounts,
            stdio: create.stdio,
            spec: container.spec,
            runtime,
            origin: checkpoint.map_or(create.origin, Origin::Checkpoint),
            options: given.or(container.runtime.options),
            shim_of: create.shim_of,
            // As upstream: without a sandbox nobody is asked.
            endpoint: create.endpoint.filter(|_| !container.sandbox.is_empty()),
        };
        let created = self.runtime.create_on(namespace, &create.id, task, create.terms).await;
        if created.is_err() && rootfs.activated {
            self.deactivate(namespace, &create.id).await;
        }
        created
    }
}

/// The checkpoint that runc's options name, or nothing.
fn restores(options: &Any) -> String {
    let options: Result<Options> = api::any::unpack(options);
    options.map(|options| options.criu_image_path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_options_with_a_checkpoint_restore() {
        let options = Options { binary_name: "crun".into(), ..Options::default() };
        assert_eq!(restores(&api::any::pack(&options)), "");
        assert_eq!(restores(&api::any::pack(&Options { criu_image_path: "/x".into(), ..options })), "/x");
        assert_eq!(restores(&Any::new("other.Options", *b"\x52\x01x")), "");
    }
}
