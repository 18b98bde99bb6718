//! Rules of packet filters, by nf_tables.
//!
//! ```text
//!  table inet containerd_cni
//!    masquerading          -> masqueraded            per pod
//!    prerouting, output    -> ports                  per pod and port        postrouting -> hairpin
//!    forward               -> bridges, pods          per pod                 bridges -> isolated
//! ```
//!
//! Chains with a hook lead to chains of rules, each of which carries its owner as a comment. That frame is looked at with
//! every addition and written anew where it is not whole, whoever flushed it; owners' rules are removed by their comments,
//! all that an owner has and nothing else. Other plugins' tables, and iptables', are never touched, but for [`foreign`].

pub(super) mod expressions;
pub(super) mod foreign;

use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use sys::netlink::{Answer, Family, Message, Refused, Socket};
use types::{Class, Error, Result, ResultExt};

use self::expressions::Rule;
use super::owner::{Owner, comment};

/// The table that has all rules of ours.
pub(super) const TABLE: &str = "containerd_cni";

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = 0;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;
const GET_GENERATION: u16 = 16;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// `struct nfgenmsg`
const HEADER: usize = 4;

const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;

/// The comment of a frame's rules. A frame that has others is written anew.
const FRAME: &str = "frame 1";

/// How often a batch is tried that others' changes make fail.
const TRIES: usize = 10;

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packets {
    /// Of both versions.
    Inet,
    V4,
    V6,
}

impl Packets {
    fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

/// Where a chain is asked, and how early.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hook {
    pub kind: &'static str,
    pub number: u32,
    pub priority: i32,
}

/// A table, or a chain of it.
type Place<'a> = (Packets, &'a str, Option<&'a str>);

/// A chain with a hook, and all its rules.
pub(super) struct Base {
    pub name: &'static str,
    pub hook: Hook,
    pub rules: Vec<Rule>,
}

/// What must be there before a pod's rules: chains without hooks, and chains with hooks that lead to them.
pub(super) struct Frame {
    pub chains: &'static [&'static str],
    pub bases: Vec<Base>,
}

impl Frame {
    /// Makes it, whatever is there of it.
    fn batch(&self) -> Batch {
        let mut batch = Batch::default();
        let mut table = message(NEW_TABLE, Packets::Inet, CREATE);
        table.text(TABLE_NAME, TABLE);
        batch.0.push(table);
        for name in self.chains {
            let mut chain = message(NEW_CHAIN, Packets::Inet, CREATE);
            chain.text(CHAIN_TABLE, TABLE).text(CHAIN_NAME, name);
            batch.0.push(chain);
        }
        for base in &self.bases {
            let mut chain = message(NEW_CHAIN, Packets::Inet, CREATE);
            chain.text(CHAIN_TABLE, TABLE).text(CHAIN_NAME, base.name).text(CHAIN_TYPE, base.hook.kind);
            chain.nest(CHAIN_HOOK, |nested| {
                nested.network(HOOK_NUMBER, base.hook.number);
                nested.put(HOOK_PRIORITY, &base.hook.priority.to_be_bytes());
            });
            let mut flush = message(DELETE_RULE, Packets::Inet, 0);
            flush.text(RULE_TABLE, TABLE).text(RULE_CHAIN, base.name);
            batch.0.extend([chain, flush]);
            for rule in &base.rules {
                batch.rule_in((Packets::Inet, TABLE, base.name), rule, &comment(FRAME), APPEND);
            }
        }
        batch
    }
}

/// Changes to be done together.
#[derive(Clone, Default)]
pub(super) struct Batch(Vec<Message>);

impl Batch {
    /// A rule behind the others of a chain of ours.
    pub fn rule(&mut self, chain: &str, rule: &Rule, owner: &Owner) -> &mut Self {
        self.rule_in((Packets::Inet, TABLE, chain), rule, &owner.comment(), APPEND)
    }

    /// A rule before the others of any chain.
    pub fn first(&mut self, place: (Packets, &str, &str), rule: &Rule, owner: &Owner) -> &mut Self {
        self.rule_in(place, rule, &owner.comment(), 0)
    }

    fn rule_in(
        &mut self,
        (packets, table, chain): (Packets, &str, &str),
        rule: &Rule,
        comment: &[u8],
        flags: u16,
    ) -> &mut Self {
        let mut message = message(NEW_RULE, packets, CREATE | flags);
        message.text(RULE_TABLE, table).text(RULE_CHAIN, chain);
        message.nest(RULE_EXPRESSIONS, |nested| rule.write(nested));
        message.put(RULE_USERDATA, comment);
        self.0.push(message);
        self
    }

    fn remove(&mut self, packets: Packets, rule: &Listed) {
        let mut message = message(DELETE_RULE, packets, 0);
        message.text(RULE_TABLE, &rule.table).text(RULE_CHAIN, &rule.chain).put(RULE_HANDLE, &rule.handle);
        self.0.push(message);
    }
}

/// A rule that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    table: String,
    pub chain: String,
    handle: Vec<u8>,
    pub owner: Owner,
}

impl Listed {
    /// A rule that has an owner; others are nobody's here.
    fn of(answer: &Answer) -> Option<Self> {
        let attributes = answer.attributes(HEADER);
        Some(Self {
            table: attributes.text(RULE_TABLE)?,
            chain: attributes.text(RULE_CHAIN)?,
            handle: attributes.find(RULE_HANDLE)?.to_vec(),
            owner: Owner::of_comment(attributes.find(RULE_USERDATA)?)?,
        })
    }
}

/// The socket of all changes, in the namespace in which the first one was made: the process's. It stays open, as the kernel
/// waits at its end until what the last change removed is gone from all processors, 5 to 20 milliseconds.
static SOCKET: Mutex<Option<Socket>> = Mutex::new(None);

/// The packet filters of this host.
pub(super) struct Nft(());

impl Nft {
    /// # Errors
    /// If the kernel has no nf_tables.
    pub fn open() -> Result<Self> {
        let asked = with(|socket| socket.get(message(GET_GENERATION, Packets::Inet, 0)));
        asked.map_err(without)?;
        Ok(Self(()))
    }

    /// Adds rules, and the frame that they need where it is not whole; all of it or nothing.
    ///
    /// A whole frame is left alone: what takes rules away makes the next change that has one of iptables' own expressions
    /// wait for all processors.
    pub fn add(&self, frame: &Frame, rules: Batch) -> Result<()> {
        let is_whole = |base: &Base| Ok(self.framed(base.name)? == base.rules.len());
        let whole = frame.bases.iter().map(is_whole).collect::<Result<Vec<bool>>>()?;
        if whole.into_iter().all(|whole| whole) {
            match self.try_commit(rules.clone()) {
                // Somebody has just flushed it.
                Err(refused) if refused.errno == Errno::NOENT => {}
                done => return done.map_err(incapable),
            }
        }
        let mut batch = frame.batch();
        batch.0.extend(rules.0);
        self.try_commit(batch).map_err(incapable)
    }

    /// How many rules of a frame a chain has.
    fn framed(&self, chain: &str) -> Result<usize> {
        let mark = comment(FRAME);
        let of_frame = |answer: &&Answer| answer.attributes(HEADER).find(RULE_USERDATA) == Some(&mark);
        Ok(self.list((Packets::Inet, TABLE, Some(chain)))?.iter().filter(of_frame).count())
    }

    fn try_commit(&self, batch: Batch) -> Result<(), Refused> {
        let mark = |kind| Message::new(kind, 0, &[0, 0, 0, 10]);
        with(|socket| socket.batch(mark(BATCH_BEGIN), batch.0, mark(BATCH_END)))
    }

    fn list(&self, (packets, table, chain): Place<'_>) -> Result<Vec<Answer>> {
        let mut message = message(GET_RULE, packets, 0);
        message.text(RULE_TABLE, table);
        chain.map(|chain| message.text(RULE_CHAIN, chain));
        match with(|socket| socket.list(message)) {
            Err(refused) if refused.errno == Errno::NOENT => Ok(Vec::new()),
            answers => answers.context(|| "list packet filters"),
        }
    }

    /// Rules with an owner in a table, or in one chain of it; none if there is no such table.
    pub fn rules(&self, place: Place<'_>) -> Result<Vec<Listed>> {
        Ok(self.list(place)?.iter().filter_map(Listed::of).collect())
    }

    /// Removes the rules there that `is` says are to go. Others may be doing the same.
    pub fn remove(&self, place: Place<'_>, is: impl Fn(&Listed) -> bool) -> Result<()> {
        let mut failure = None;
        for _ in 0..TRIES {
            let mut batch = Batch::default();
            for rule in self.rules(place)?.iter().filter(|rule| is(rule)) {
                batch.remove(place.0, rule);
            }
            match self.try_commit(batch) {
                // Somebody has just removed one of them.
                Err(refused) if refused.errno == Errno::NOENT => failure = Some(refused),
                done => return done.context(|| "remove packet filters"),
            }
        }
        failure.map_or(Ok(()), |refused| Err(Error::from(refused).context("remove packet filters")))
    }

    /// Whether there is such a chain.
    fn has_chain(&self, packets: Packets, table: &str, chain: &str) -> Result<bool> {
        let mut message = message(GET_CHAIN, packets, 0);
        message.text(CHAIN_TABLE, table).text(CHAIN_NAME, chain);
        match with(|socket| socket.get(message)) {
            Err(refused) if refused.errno == Errno::NOENT => Ok(false),
            found => found.map(|_| true).context(|| format!("look at chain {chain} of table {table}")),
        }
    }
}

/// Asks by the socket. One that did not bring an answer to its end is not asked again.
fn with<T>(ask: impl FnOnce(&Socket) -> Result<T, Refused>) -> Result<T, Refused> {
    let mut socket = SOCKET.lock().unwrap_or_else(PoisonError::into_inner);
    let open = match socket.take() {
        Some(open) => open,
        None => Socket::open(Family::Netfilter)?,
    };
    let answer = ask(&open);
    let broken = [Errno::IO, Errno::AGAIN, Errno::NOBUFS, Errno::MSGSIZE];
    if !answer.as_ref().is_err_and(|refused| broken.contains(&refused.errno)) {
        *socket = Some(open);
    }
    answer
}

/// Removes what an owner has in the chains that `of` takes; nothing if the kernel has no packet filters, as there can be none.
pub(super) fn remove(is: impl Fn(&Listed) -> bool) -> Result<()> {
    match Nft::open() {
        Err(error) if error.class() == Class::Unimplemented => Ok(()),
        nft => nft?.remove((Packets::Inet, TABLE, None), is),
    }
}

/// Checks that an owner has `wanted` rules in a chain, at least.
pub(super) fn check(chain: &str, owner: &Owner, wanted: usize) -> Result<()> {
    let rules = Nft::open()?.rules((Packets::Inet, TABLE, Some(chain)))?;
    let found = rules.iter().filter(|rule| rule.owner == *owner).count();
    if found < wanted {
        let text = format!("{found} of {wanted} rules of {owner} are in chain {chain} of table {TABLE}");
        return Err(Error::precondition(text));
    }
    Ok(())
}

/// What a kernel says that has nf_tables, but not all of it.
fn incapable(refused: Refused) -> Error {
    match refused.errno {
        Errno::NOENT | Errno::OPNOTSUPP => {
            let text = format!("the kernel lacks a part of nf_tables that rules need: {refused}");
            Error::new(Class::Unimplemented, text)
        }
        _ => Error::from(refused).context("change packet filters"),
    }
}

fn without(refused: Refused) -> Error {
    let text = format!("the kernel has no nf_tables, which built-in network plugins need: {refused}");
    match refused.errno {
        Errno::PROTONOSUPPORT | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOENT => {
            Error::new(Class::Unimplemented, text)
        }
        _ => Error::from(refused).context("open packet filters"),
    }
}

fn message(kind: u16, packets: Packets, flags: u16) -> Message {
    Message::new(SUBSYSTEM | kind, flags, &[packets.number(), 0, 0, 0])
}
