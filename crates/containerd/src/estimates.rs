//! Exit statuses that nobody knows: a shim was killed, had written nothing down, and the kernel does not remember.
//!
//! The status is then 137, as if the container had been killed with it. That it is a guess is told as an event of its own,
//! and kept in a label of the container.

use metadata::Db;
use runtime::EXIT_ESTIMATED;
use tracing::warn;
use types::events::Subscription;
use types::fields::FieldPaths;
use types::{Namespace, Result};

/// The label of a container whose exit status is a guess.
pub const LABEL: &str = "containerd-rs/exit-status";
const ESTIMATED: &str = "estimated";

/// Labels containers whose status is a guess, as long as there are events.
pub async fn label(db: Db, mut events: Subscription) {
    while let Ok(envelope) = events.next().await {
        if envelope.topic != EXIT_ESTIMATED {
            continue;
        }
        let exit = api::any::unpack::<api::containerd::events::TaskExit>(&envelope.event);
        let (Ok(exit), Ok(namespace)) = (exit, envelope.namespace.parse::<Namespace>()) else { continue };
        if let Err(error) = keep(&db, &namespace, &exit.container_id).await {
            // A task may have no container.
            let id = exit.container_id;
            warn!(%namespace, id, %error, "an exit status is estimated, which could not be kept");
        }
    }
}

async fn keep(db: &Db, namespace: &Namespace, id: &str) -> Result<()> {
    let mut container = db.containers(namespace).get(id)?;
    container.labels.insert(LABEL.to_owned(), ESTIMATED.to_owned());
    let fields = FieldPaths(vec![format!("labels.{LABEL}")]);
    db.containers(namespace).update(container, &fields).await.map(drop)
}
