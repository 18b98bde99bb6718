//! `ctr events`: one line per event, until interrupted.

use api::containerd::services::events::v1::SubscribeRequest;
use clap::Args;
use remote::from_status;
use types::Result;

use super::print;
use crate::client::Client;
use crate::flags::Words;
use crate::{go, log};

mod shapes;

/// Filters.
#[derive(Args, Debug)]
pub struct Flags {
    #[command(flatten)]
    filters: Words,
}

/// Prints time, namespace, topic and event.
pub async fn run(client: &Client, flags: Flags) -> Result<()> {
    let request = SubscribeRequest { filters: flags.filters.words };
    let mut events = client.events().subscribe(request).await.map_err(from_status)?.into_inner();
    while let Some(envelope) = events.message().await.map_err(from_status)? {
        let event =
            match envelope.event.clone().map(|event| shapes::json(&api::any::from_wire(event))).transpose() {
                Ok(event) => event.unwrap_or_default(),
                Err(error) => {
                    log::warn("cannot unmarshal an event from Any", Some(&error));
                    continue;
                }
            };
        let time = go::time::plain(api::convert::time(envelope.timestamp));
        print(format!("{time} {} {} {event}\n", envelope.namespace, envelope.topic))?;
    }
    Ok(())
}
