//! One mechanism that takes back what was done: after each step that created something, push its opposite.
//!
//! ```
//! # use types::undo::Undo;
//! # tokio_test(async {
//! let mut undo = Undo::new("create task c1");
//! // ... make the bundle ...
//! undo.push("remove bundle", async { Ok(()) });
//! // ... a step fails: take it all back, last step first ...
//! let left = undo.unwind().await;
//! assert!(left.is_empty());
//! # });
//! # fn tokio_test<F: std::future::Future>(f: F) -> F::Output {
//! #     let mut f = std::pin::pin!(f);
//! #     let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
//! #     loop { if let std::task::Poll::Ready(v) = f.as_mut().poll(&mut cx) { return v } }
//! # }
//! ```

use std::future::Future;
use std::pin::Pin;

use crate::error::Error;

type Opposite = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// The opposites of the steps done so far.
///
/// Dropping it without [`Undo::commit`] or [`Undo::unwind`] forgets the steps: whoever may be cancelled between
/// two steps runs detached (style.md, rule 22).
pub struct Undo {
    what: String,
    steps: Vec<(&'static str, Opposite)>,
}

/// A step that could not be taken back.
#[derive(Debug)]
pub struct NotUndone {
    /// The operation and the name of the step.
    pub step: String,
    /// Why.
    pub error: Error,
}

impl Undo {
    /// An empty list for the operation `what`.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), steps: Vec::new() }
    }

    /// Adds the opposite of a step that has just been done. It is not polled before [`Undo::unwind`].
    pub fn push(
        &mut self,
        name: &'static str,
        opposite: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) {
        self.steps.push((name, Box::pin(opposite)));
    }

    /// The operation succeeded: nothing will be taken back.
    pub fn commit(mut self) {
        self.steps.clear();
    }

    /// Runs the opposites, last first, goes on after an error and returns all that failed.
    pub async fn unwind(mut self) -> Vec<NotUndone> {
        let mut left = Vec::new();
        while let Some((name, opposite)) = self.steps.pop() {
            if let Err(error) = opposite.await {
                left.push(NotUndone { step: format!("{}: {name}", self.what), error });
            }
        }
        left
    }
}
