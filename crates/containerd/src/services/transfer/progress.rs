//! What happens, told to the client on a stream of its own.

use api::containerd::types::transfer as wire;
use api::{any, convert};
use types::oci::Descriptor;
use types::{Namespace, Result};

use crate::services::streaming::{Stream, Streams};

/// Where progress is told; nowhere if the client does not care.
pub struct Progress(Option<Stream>);

impl Progress {
    /// Takes up the stream that the client has opened for it.
    pub fn open(streams: &Streams, namespace: &Namespace, id: &str) -> Result<Self> {
        Ok(Self(if id.is_empty() { None } else { Some(streams.take(namespace, id)?) }))
    }

    /// Tells of the transfer as a whole.
    pub fn event(&self, event: &str) {
        self.send(wire::Progress { event: event.to_owned(), ..wire::Progress::default() });
    }

    /// Tells of an image.
    pub fn image(&self, event: &str, name: &str, target: &Descriptor) {
        self.send(wire::Progress {
            event: event.to_owned(),
            name: name.to_owned(),
            desc: Some(convert::descriptor_to_wire(target.clone())),
            ..wire::Progress::default()
        });
    }

    /// A client that does not read misses some of it: nothing waits for that.
    fn send(&self, progress: wire::Progress) {
        if let Some(stream) = &self.0 {
            drop(stream.sender.try_send(Ok(any::to_wire(any::pack(&progress)))));
        }
    }
}
