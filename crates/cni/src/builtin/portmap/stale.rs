//! Connections of UDP that were known before a port led elsewhere, or after it does no more: their packets would go on as
//! before, as nobody looks at rules for them again.

use sys::netlink::{Family, Message, Socket};
use types::{Result, ResultExt};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = 1;
const DELETE: u16 = 2;
const HEADER: usize = 4;
const ORIGINAL: u16 = 1;
const PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PORT: u16 = 3;
const UDP: u8 = 17;

/// Forgets connections to these ports.
pub(super) fn forget(ports: &[u16]) -> Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let socket = Socket::open(Family::Netfilter).context(|| "open a netlink socket")?;
    for family in [2, 10] {
        let all = socket
            .list(Message::new(SUBSYSTEM | GET, 0, &[family, 0, 0, 0]))
            .context(|| "list connections")?;
        for found in all {
            let original = found.attributes(HEADER).inside(ORIGINAL);
            let protocol = original.inside(PROTOCOL);
            let port = protocol.find(PORT).and_then(|bytes| Some(u16::from_be_bytes(*bytes.first_chunk()?)));
            if protocol.find(PROTOCOL_NUMBER) != Some(&[UDP])
                || !port.is_some_and(|port| ports.contains(&port))
            {
                continue;
            }
            let mut message = Message::new(SUBSYSTEM | DELETE, 0, &[family, 0, 0, 0]);
            let tuple = found.attributes(HEADER).find(ORIGINAL).unwrap_or_default();
            message.nest(ORIGINAL, |nested| {
                nested.structure(tuple);
            });
            // It may just have ended by itself.
            drop(socket.change(message));
        }
    }
    Ok(())
}
