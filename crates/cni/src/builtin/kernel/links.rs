//! Links: what `ip link` shows and changes.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use sys::netlink::{Answer, Family, Message, Refused, Socket};
use types::{Error, Result, ResultExt};

use super::mac::Mac;
use super::{CREATE, EXCLUSIVE};

const NEW: u16 = 16;
const DELETE: u16 = 17;
const GET: u16 = 18;
/// `struct ifinfomsg`
const HEADER: usize = 16;

const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const PEER: u16 = 5;
const MASTER: u16 = 10;
const QUEUE: u16 = 13;
const INFO: u16 = 18;
const ALIAS: u16 = 20;
const OF_GROUP: u16 = 27;
const NETNS_FD: u16 = 28;
const MASK: u16 = 29;
const PROMISCUITY: u16 = 30;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;
const VETH_PEER: u16 = 1;
const PORT_STATE: u16 = 1;
const PORT_HAIRPIN: u16 = 4;
const PORT_ISOLATED: u16 = 33;
/// Without the counters.
const BRIEF: u32 = 8;

/// A link is up.
pub(crate) const UP: u32 = 0x1;
/// It takes what is for others.
pub(crate) const PROMISC: u32 = 0x100;
/// It takes what is for any group.
pub(crate) const ALLMULTI: u32 = 0x200;

/// A link.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub index: u32,
    pub name: String,
    pub mac: String,
    pub mtu: u32,
    pub flags: u32,
    /// How many asked for what is for others.
    pub promiscuity: u32,
    /// How many packets may wait.
    pub queue: u32,
    /// The bridge in which it is, or 0.
    pub master: u32,
    /// The other end, in its own network namespace.
    pub peer: u32,
    /// `bridge`, `veth`, ...; empty for hardware.
    pub kind: String,
    /// What was written on it.
    pub alias: String,
}

impl Link {
    fn of(answer: &Answer) -> Option<Self> {
        let [_, _, _, _, i0, i1, i2, i3, f0, f1, f2, f3, ..] = *answer.structure(HEADER) else { return None };
        let attributes = answer.attributes(HEADER);
        Some(Self {
            index: u32::from_ne_bytes([i0, i1, i2, i3]),
            flags: u32::from_ne_bytes([f0, f1, f2, f3]),
            name: attributes.text(NAME)?,
            mac: attributes.find(ADDRESS).and_then(Mac::read).map(|mac| mac.to_string()).unwrap_or_default(),
            mtu: attributes.number(MTU).unwrap_or_default(),
            promiscuity: attributes.number(PROMISCUITY).unwrap_or_default(),
            queue: attributes.number(QUEUE).unwrap_or_default(),
            master: attributes.number(MASTER).unwrap_or_default(),
            peer: attributes.number(PEER).unwrap_or_default(),
            kind: attributes.inside(INFO).text(INFO_KIND).unwrap_or_default(),
            alias: attributes.text(ALIAS).unwrap_or_default(),
        })
    }

    pub fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// A pair of links: one here, one in a container.
pub(crate) struct Pair<'a> {
    pub host: &'a str,
    pub container: &'a str,
    pub netns: BorrowedFd<'a>,
    /// The container's hardware address, if not any.
    pub mac: Option<Mac>,
    /// Or the kernel's.
    pub mtu: Option<u32>,
}

/// What a link becomes.
#[derive(Default)]
pub(crate) struct Change<'a> {
    /// Which flags, and what they become.
    pub flags: (u32, u32),
    pub mac: Option<Mac>,
    pub mtu: Option<u32>,
    pub queue: Option<u32>,
    pub alias: Option<&'a str>,
    pub master: Option<u32>,
    /// As a port of a bridge: whether packets may go back to where they come from, and not to other such ports.
    pub port: Option<(bool, bool)>,
    /// As a port of a bridge, lets nothing through.
    pub blocked: bool,
    /// A number that it shares with others.
    pub group: Option<u32>,
}

impl Change<'_> {
    /// Only up.
    pub fn up() -> Self {
        Self { flags: (UP, UP), ..Self::default() }
    }

    /// Only a flag.
    pub fn flag(flag: u32, on: bool) -> Self {
        Self { flags: (flag, if on { flag } else { 0 }), ..Self::default() }
    }
}

/// The links of a network namespace.
#[derive(Debug)]
pub(crate) struct Links(pub(super) Socket);

impl Links {
    /// Of the thread's namespace.
    pub fn open() -> Result<Self> {
        Socket::open(Family::Route).map(Self).context(|| "open a netlink socket")
    }

    /// The link of this name.
    pub fn by_name(&self, name: &str) -> Result<Option<Link>> {
        let mut message = message(GET, 0, 0, (0, 0));
        message.text(NAME, name).number(MASK, BRIEF);
        self.one(message).context(|| format!("look up link {name:?}"))
    }

    /// The link of this index.
    pub fn by_index(&self, index: u32) -> Result<Option<Link>> {
        let mut message = message(GET, 0, index, (0, 0));
        message.number(MASK, BRIEF);
        self.one(message).context(|| format!("look up link {index}"))
    }

    /// The same; it is an error if there is none.
    pub fn named(&self, name: &str) -> Result<Link> {
        self.by_name(name)?.ok_or_else(|| Error::not_found(format!("link {name:?} not found")))
    }

    fn one(&self, message: Message) -> Result<Option<Link>, Refused> {
        match self.0.get(message) {
            Ok(answers) => Ok(answers.iter().find_map(Link::of)),
            Err(refused) if refused.errno == Errno::NODEV => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    /// All links.
    pub fn all(&self) -> Result<Vec<Link>> {
        let mut message = message(GET, 0, 0, (0, 0));
        message.number(MASK, BRIEF);
        let answers = self.0.list(message).context(|| "list links")?;
        Ok(answers.iter().filter_map(Link::of).collect())
    }

    /// Makes a bridge with a hardware address of its own: it keeps that, whatever ports come and go. False if there is a link
    /// of this name.
    pub fn add_bridge(&self, name: &str, mtu: Option<u32>) -> Result<bool> {
        let mut message = message(NEW, CREATE | EXCLUSIVE, 0, (UP, UP));
        message.text(NAME, name).put(ADDRESS, &Mac::random().0);
        mtu.map(|mtu| message.number(MTU, mtu));
        message.nest(INFO, |info| {
            info.text(INFO_KIND, "bridge");
        });
        made(self.0.change(message)).context(|| format!("add bridge {name:?}"))
    }

    /// Makes a device that passes on what is sent to it.
    pub fn add_ifb(&self, name: &str, mtu: u32) -> Result<bool> {
        let mut message = message(NEW, CREATE | EXCLUSIVE, 0, (UP, UP));
        message.text(NAME, name).number(MTU, mtu);
        message.nest(INFO, |info| {
            info.text(INFO_KIND, "ifb");
        });
        made(self.0.change(message)).context(|| format!("add ifb {name:?}"))
    }

    /// Makes a pair; the container's end is born in its network namespace. False if one of the names is taken.
    pub fn add_pair(&self, pair: &Pair<'_>) -> Result<bool> {
        let mut message = message(NEW, CREATE | EXCLUSIVE, 0, (0, 0));
        message.text(NAME, pair.host);
        pair.mtu.map(|mtu| message.number(MTU, mtu));
        message.nest(INFO, |info| {
            info.text(INFO_KIND, "veth").nest(INFO_DATA, |data| {
                data.nest(VETH_PEER, |peer| {
                    peer.structure(&[0; HEADER]).text(NAME, pair.container);
                    peer.number(NETNS_FD, pair.netns.as_raw_fd().unsigned_abs());
                    pair.mac.map(|mac| peer.put(ADDRESS, &mac.0));
                    pair.mtu.map(|mtu| peer.number(MTU, mtu));
                });
            });
        });
        made(self.0.change(message)).context(|| format!("add veth {:?} with {:?}", pair.host, pair.container))
    }

    /// Changes a link.
    pub fn change(&self, index: u32, change: &Change<'_>) -> Result<()> {
        let mut message = message(NEW, 0, index, change.flags);
        change.mac.map(|mac| message.put(ADDRESS, &mac.0));
        change.mtu.map(|mtu| message.number(MTU, mtu));
        change.queue.map(|queue| message.number(QUEUE, queue));
        change.alias.map(|alias| message.put(ALIAS, alias.as_bytes()));
        change.master.map(|master| message.number(MASTER, master));
        change.group.map(|group| message.number(OF_GROUP, group));
        if change.blocked {
            message.nest(INFO, |info| {
                info.text(INFO_SLAVE_KIND, "bridge").nest(INFO_SLAVE_DATA, |port| {
                    port.put(PORT_STATE, &[0]);
                });
            });
        }
        if let Some((hairpin, isolated)) = change.port {
            message.nest(INFO, |info| {
                info.text(INFO_SLAVE_KIND, "bridge").nest(INFO_SLAVE_DATA, |port| {
                    port.put(PORT_HAIRPIN, &[hairpin.into()]).put(PORT_ISOLATED, &[isolated.into()]);
                });
            });
        }
        self.0.change(message).context(|| format!("change link {index}"))
    }

    /// Deletes all links of a group at once.
    pub fn delete_group(&self, group: u32) -> Result<()> {
        let mut message = message(DELETE, 0, 0, (0, 0));
        message.number(OF_GROUP, group);
        match self.0.change(message) {
            Err(refused) if refused.errno == Errno::NODEV => Ok(()),
            deleted => deleted.context(|| format!("delete links of group {group}")),
        }
    }

    /// Deletes a link, and the other end of it. One that is gone is deleted.
    pub fn delete(&self, index: u32) -> Result<()> {
        match self.0.change(message(DELETE, 0, index, (0, 0))) {
            Err(refused) if refused.errno == Errno::NODEV => Ok(()),
            deleted => deleted.context(|| format!("delete link {index}")),
        }
    }
}

/// `link` are the flags that change, and what they become.
fn message(kind: u16, flags: u16, index: u32, link: (u32, u32)) -> Message {
    let (changed, become_) = link;
    let mut structure = [0; HEADER];
    for (to, from) in
        structure.iter_mut().skip(4).zip([index, become_, changed].map(u32::to_ne_bytes).concat())
    {
        *to = from;
    }
    Message::new(kind, flags, &structure)
}

fn made(done: Result<(), Refused>) -> Result<bool, Refused> {
    match done {
        Err(refused) if refused.errno == Errno::EXIST => Ok(false),
        done => done.map(|()| true),
    }
}
