//! From a container's record to its task.

use prost::Message;
use types::mount::Mount;
use types::task::Stdio;
use types::{Any, Error, Namespace, Result};

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
}

impl Tasks {
    /// Makes the container's task; returns the pid of its init, which waits to be started. If it fails, nothing of it is
    /// left. Not cancel safe.
    pub async fn create(&self, namespace: &Namespace, create: Create) -> Result<u32> {
        let container = self.db.containers(namespace).get(&create.id)?;
        let given = create.options.filter(|options| !options.value.is_empty());
        if given.as_ref().is_some_and(restores) {
            return Err(Error::unimplemented("restore from a checkpoint: not implemented"));
        }
        let runtime = [create.runtime, container.runtime.name].into_iter().find(|name| !name.is_empty());
        let runtime = runtime.unwrap_or_else(|| DEFAULT_RUNTIME.to_owned());
        let rootfs = self.activate(namespace, &create.id, create.rootfs, &runtime).await?;
        let task = types::task::Create {
            rootfs: rootfs.mounts,
            stdio: create.stdio,
            spec: container.spec,
            runtime,
            options: given.or(container.runtime.options),
        };
        let created = self.runtime.create(namespace, &create.id, task).await;
        if created.is_err() && rootfs.activated {
            self.deactivate(namespace, &create.id).await;
        }
        created
    }
}

/// Whether the options name a checkpoint.
fn restores(options: &Any) -> bool {
    use api::containerd::runc::v1::Options;
    options.is("containerd.runc.v1.Options")
        && Options::decode(options.value.as_slice()).is_ok_and(|options| !options.criu_image_path.is_empty())
}

#[cfg(test)]
mod tests {
    use api::containerd::runc::v1::Options;

    use super::*;

    #[test]
    fn only_options_with_a_checkpoint_restore() {
        let options = Options { binary_name: "crun".into(), ..Options::default() };
        assert!(!restores(&api::any::pack(&options)));
        assert!(restores(&api::any::pack(&Options { criu_image_path: "/x".into(), ..options })));
        assert!(!restores(&Any::new("other.Options", *b"\x52\x01x")));
    }
}
