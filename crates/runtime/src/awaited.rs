//! Whether anybody still waits for a task to be made.
//!
//! A change that is begun is finished, whoever goes away: but making a task can hang for ever, in a hook or on a disk, and
//! would hold its id. So the front door says when its client has gone.

use tokio::sync::watch;

/// Whether somebody waits. By default somebody does, for ever.
#[derive(Clone, Debug, Default)]
pub struct Awaited(Option<watch::Receiver<()>>);

/// Somebody who waits, until it is dropped.
#[derive(Debug)]
pub struct Waiting(#[expect(dead_code, reason = "its end is the message")] watch::Sender<()>);

impl Awaited {
    /// Somebody who waits, and what says so.
    pub fn pair() -> (Waiting, Self) {
        let (sender, receiver) = watch::channel(());
        (Waiting(sender), Self(Some(receiver)))
    }

    /// Returns when nobody waits any more. Cancel safe.
    pub(crate) async fn no_more(&self) {
        match &self.0 {
            None => std::future::pending().await,
            // Nothing is ever sent: an error says that the sender is gone.
            Some(receiver) => drop(receiver.clone().changed().await),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_is_awaited_until_whoever_waits_has_gone() {
        let moment = Duration::from_millis(5);
        let (waiting, awaited) = Awaited::pair();
        assert!(tokio::time::timeout(moment, awaited.no_more()).await.is_err());
        drop(waiting);
        awaited.no_more().await;
        assert!(tokio::time::timeout(moment, Awaited::default().no_more()).await.is_err());
    }
}
