//! On what terms a task is made: when it may begin, and whether anybody still waits for it.
//!
//! A change that is begun is finished, whoever goes away: but making a task can hang for ever, in a hook or on a disk, and
//! would hold its id. So the front door says when its client has gone.

use tokio::sync::watch;
use types::{Error, Result};

/// On what terms a task is made. By default all that it needs is there, and somebody waits.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Whether what it needs is there.
    pub ready: Ready,
    /// Whether anybody still waits for it.
    pub awaited: Awaited,
}

/// Whether what a task needs is there. Its shim is started meanwhile. By default it is.
#[derive(Clone, Debug, Default)]
pub struct Ready(Option<watch::Receiver<bool>>);

/// Somebody who makes what a task needs. Dropped before, it says that there will be no such thing.
#[derive(Debug)]
pub struct Preparing(watch::Sender<bool>);

impl Ready {
    /// Somebody who makes what is needed, and what hears of it.
    pub fn pair() -> (Preparing, Self) {
        let (sender, receiver) = watch::channel(false);
        (Preparing(sender), Self(Some(receiver)))
    }

    /// Waits until it is there; an error says that there will be no such thing. Cancel safe.
    pub async fn reached(&self) -> Result<()> {
        let Some(receiver) = &self.0 else { return Ok(()) };
        let reached = receiver.clone().wait_for(|ready| *ready).await.map(drop);
        reached.map_err(|_| Error::unavailable("what it needs could not be made"))
    }
}

impl Preparing {
    /// It is there.
    pub fn done(self) {
        self.0.send_replace(true);
    }
}

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
    async fn it_is_ready_when_that_is_said_and_never_if_whoever_prepares_has_gone() {
        let moment = Duration::from_millis(5);
        let (preparing, ready) = Ready::pair();
        assert!(tokio::time::timeout(moment, ready.reached()).await.is_err());
        preparing.done();
        ready.reached().await.unwrap();
        let (preparing, ready) = Ready::pair();
        drop(preparing);
        ready.reached().await.unwrap_err();
        Ready::default().reached().await.unwrap();
    }

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
