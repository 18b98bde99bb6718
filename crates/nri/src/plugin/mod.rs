//! One plugin.
//!
//! ```text
//!  socket --> taken apart --> RegisterPlugin --> Configure --> Synchronize --> in the order of indices --> gone
//!               (mux)           <- 5 s ->        <-------- 2 s each, and every call after -------->
//! ```
//!
//! One that does not answer in time, or whose connection is gone, is done with: the call goes on as if it had never been there.
//! What one answers with an error fails the call. A program that we have launched is killed when its plugin is done with.

mod launch;
mod register;
mod synchronize;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use prost::Message;
use runtime::ttrpc::{Call, Client, Failure};
use sys::pidfd::PidFd;
use tokio::task::AbortHandle;
use types::{Error, Namespace, Result};

use crate::event::{Events, method};
use crate::observe::{self, Observe, Observed};
use crate::wire::{Empty, Event, PluginInstance, StateChangeEvent};

pub use launch::{discover, launch};
pub use register::{Origin, Terms, Unsolicited, connect};
pub use synchronize::synchronize;

const SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";

/// A plugin that is registered and configured.
pub struct Plugin {
    index: String,
    name: String,
    /// Both, as it is called everywhere.
    full: String,
    events: Events,
    /// Events that it only knows in the old way; bit as in the subscription.
    old: AtomicU32,
    closed: AtomicBool,
    client: Client,
    namespace: Namespace,
    observe: Observe,
    timeout: Duration,
    serving: [AbortHandle; 2],
    program: Option<Program>,
}

/// A program that we have launched. It ends with this.
#[derive(Debug)]
pub struct Program(Option<PidFd>);

impl Program {
    /// Ends `child` when it is dropped.
    pub fn new(child: PidFd) -> Self {
        Self(Some(child))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let Some(child) = self.0.take() else { return };
        let _ = child.kill();
        // One that waits for a disk ends when that is done, and must not keep others.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || child.collect_blocking());
        }
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("name", &self.full).finish_non_exhaustive()
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.serving.iter().for_each(AbortHandle::abort);
    }
}

impl Plugin {
    /// `NN-name`.
    pub fn full_name(&self) -> &str {
        &self.full
    }

    /// Its place among the others.
    pub fn index(&self) -> &str {
        &self.index
    }

    /// As validators are told.
    pub fn instance(&self) -> PluginInstance {
        PluginInstance { name: self.name.clone(), index: self.index.clone() }
    }

    /// Whether it has subscribed to an event, and is there.
    pub fn wants(&self, event: Event) -> bool {
        self.events.has(event) && !self.is_closed()
    }

    /// Whether it is done with.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed) || self.client.is_closed()
    }

    /// Ends when its connection is gone, or it is done with.
    pub fn when_closed(&self) -> impl Future<Output = ()> + Send + 'static {
        self.client.when_closed()
    }

    /// Is done with it.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        // Takes the ends of both connections along.
        self.serving.iter().for_each(AbortHandle::abort);
    }

    /// Asks; no answer is that of one that is done with, now or before.
    pub async fn ask<A: Message + Default>(&self, event: Event, request: Vec<u8>) -> Result<Option<A>> {
        if !self.wants(event) {
            return Ok(None);
        }
        let operation = method(event);
        let answer = self.counted(operation, self.call(operation, request)).await;
        self.answered(operation, answer)
    }

    /// Tells; a plugin that does not know the method is told by StateChange, as long as there are such.
    pub async fn tell(&self, event: Event, request: Vec<u8>, old: &StateChangeEvent) -> Result<()> {
        if !self.wants(event) {
            return Ok(());
        }
        let operation = method(event);
        let answer = self.counted(operation, self.call_or_state_change(event, request, old)).await;
        self.answered(operation, answer).map(drop)
    }

    async fn call_or_state_change(
        &self,
        event: Event,
        request: Vec<u8>,
        old: &StateChangeEvent,
    ) -> Result<Empty, Failure> {
        let bit = 1 << (event as u32);
        if self.old.load(Ordering::Relaxed) & bit == 0 {
            match self.call(method(event), request).await {
                Err(failure) if failure.is_unimplemented() => {
                    let (plugin, method) = (&self.full, method(event));
                    tracing::warn!(plugin, method, "plugin uses deprecated StateChange");
                    self.old.fetch_or(bit, Ordering::Relaxed);
                }
                told => return told,
            }
        }
        self.call("StateChange", old.encode_to_vec()).await
    }

    /// Is done with a plugin that has not answered.
    fn answered<A>(&self, method: &str, answer: Result<A, Failure>) -> Result<Option<A>> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(Failure::Answer(error)) => Err(error),
            Err(failure) => {
                let (plugin, error) = (&self.full, Error::from(failure));
                tracing::error!(plugin, method, %error, "closing plugin, failed to handle a request");
                self.close();
                Ok(None)
            }
        }
    }

    /// What `asked` comes to, for who counts as well.
    async fn counted<A>(
        &self,
        operation: &'static str,
        asked: impl Future<Output = Result<A, Failure>>,
    ) -> Result<A, Failure> {
        let begun = Instant::now();
        let answer = asked.await;
        (self.observe)(Observed::Asked {
            plugin: self.full.clone(),
            operation,
            took: begun.elapsed(),
            error: answer.as_ref().err().map(observe::word),
        });
        answer
    }

    /// Counts what it wants of other containers.
    pub fn wanted(&self, operation: &'static str, updates: usize, evictions: usize) {
        if updates + evictions > 0 {
            (self.observe)(Observed::Wanted { plugin: self.full.clone(), operation, updates, evictions });
        }
    }

    async fn call<A: Message + Default>(&self, method: &str, request: Vec<u8>) -> Result<A, Failure> {
        let call = Call { service: SERVICE, method, namespace: &self.namespace, timeout: Some(self.timeout) };
        let answer = self.client.call(call, request).await?;
        A::decode(answer.as_slice()).map_err(|error| {
            tracing::error!(plugin = self.full, method, %error, "a plugin's answer makes no sense");
            Failure::Closed
        })
    }
}
