//! Clients, handed over with what is half read and half written.

use api::containerdrs::shim::v1 as wire;
use sys::epoll::{Epoll, Ready};
use sys::handover::Inherited;
use types::{Result, ResultExt};

use super::{Client, Server, token};
use crate::handover::{Kept, required};
use crate::wire::Wire;

impl Server {
    /// Puts the server into `state`.
    pub fn write_down<'a>(&'a self, state: &mut wire::State, kept: &mut Kept<'a>) {
        // Accepting is tried again by whoever goes on.
        let Self { listener, clients, next, paused: _ } = self;
        state.listener = listener.as_ref().map_or(-1, |fd| kept.add(fd));
        state.next_client = *next;
        let client = |(id, client): (&u64, &'a Client)| {
            // What is watched for follows from the rest.
            let Client { wire, interest: _ } = client;
            wire::Client { id: *id, wire: Some(wire.write_down(kept)) }
        };
        state.clients = clients.iter().map(client).collect();
    }

    /// The server of `state`.
    pub fn read_back(state: &mut wire::State, inherited: &mut Inherited, epoll: &Epoll) -> Result<Self> {
        let mut server = Self::new(inherited.take(state.listener)?, epoll).context(|| "serve")?;
        server.next = state.next_client;
        for client in std::mem::take(&mut state.clients) {
            let wire = Wire::read_back(required(client.wire, "connection of a client")?, inherited)?;
            epoll.add(&wire, token(client.id), Ready::IN).context(|| "watch a client")?;
            let mut restored = Client { wire, interest: Ready::IN };
            restored.watch(client.id, epoll).context(|| "watch a client")?;
            server.clients.insert(client.id, restored);
        }
        Ok(server)
    }
}
