//! Queues of links, and filters before them: what `tc` shows and changes, as far as a limit of bandwidth needs it.

use sys::netlink::{Answer, Message};
use types::{Result, ResultExt};

use super::links::Links;
use super::{CREATE, EXCLUSIVE};

const NEW_QUEUE: u16 = 36;
const GET_QUEUE: u16 = 38;
const NEW_FILTER: u16 = 44;
/// `struct tcmsg`
const HEADER: usize = 20;

const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const TBF_PARAMETERS: u16 = 1;
const TBF_RATE64: u16 = 4;
const U32_CLASS: u16 = 1;
const U32_SELECT: u16 = 5;
const U32_ACTION: u16 = 7;
const ACTION_KIND: u16 = 1;
const ACTION_OPTIONS: u16 = 2;
const MIRRED_PARAMETERS: u16 = 2;

const ROOT: u32 = 0xffff_ffff;
const INGRESS: u32 = 0xffff_fff1;
const INGRESS_HANDLE: u32 = 0xffff_0000;
const ETHERNET: u8 = 1;
const ALL_PROTOCOLS: u16 = 3;
const TERMINAL: u8 = 1;
const STOLEN: u32 = 4;
const EGRESS_REDIRECT: u32 = 1;
/// How long a packet may wait, in microseconds; as the Go plugin has it.
const LATENCY: u64 = 25_000;
/// What the kernel counts a queue's time in, in nanoseconds.
const TICK: u64 = 64;

/// A bucket of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// Bytes a second.
    pub rate: u64,
    /// How many bytes may wait.
    limit: u32,
    /// How much time may be saved up, in ticks.
    buffer: u32,
}

impl Bucket {
    /// Of bits a second, and bits at once.
    pub fn new(rate: u64, burst: u64) -> Self {
        let (rate, burst) = ((rate / 8).max(1), burst / 8);
        let small = |number: u128| u32::try_from(number).unwrap_or(u32::MAX);
        let wide = |number: u64| u128::from(number);
        Self {
            rate,
            limit: small(wide(rate) * wide(LATENCY) / 1_000_000 + wide(burst)),
            buffer: small(wide(burst) * 1_000_000_000 / wide(rate) / wide(TICK)),
        }
    }

    /// `struct tc_tbf_qopt`
    fn parameters(self) -> Vec<u8> {
        let rate = u32::try_from(self.rate).unwrap_or(u32::MAX).to_ne_bytes();
        // Its fields before the rate: how lengths become time, which kernels of this century work out themselves.
        let rate = [&[0, ETHERNET, 0, 0, 0, 0, 0, 0], &rate[..]].concat();
        [&rate[..], &[0; 12], &self.limit.to_ne_bytes(), &self.buffer.to_ne_bytes(), &[0; 4]].concat()
    }

    fn of(answer: &Answer, link: u32) -> Option<Self> {
        let [_, _, _, _, i0, i1, i2, i3, ..] = *answer.structure(HEADER) else { return None };
        let attributes = answer.attributes(HEADER);
        if u32::from_ne_bytes([i0, i1, i2, i3]) != link || attributes.text(KIND)? != "tbf" {
            return None;
        }
        let options = attributes.inside(OPTIONS);
        let parameters = options.find(TBF_PARAMETERS)?;
        let number = |at: usize| Some(u32::from_ne_bytes(*parameters.get(at..)?.first_chunk()?));
        let wide = options.find(TBF_RATE64).and_then(|bytes| Some(u64::from_ne_bytes(*bytes.first_chunk()?)));
        Some(Self { rate: wide.unwrap_or(number(8)?.into()), limit: number(24)?, buffer: number(28)? })
    }

    /// Whether the kernel's is this one; it rounds times.
    pub fn is(self, found: Self) -> bool {
        self.rate == found.rate && self.limit == found.limit && self.buffer.abs_diff(found.buffer) <= 1
    }
}

impl Links {
    /// Lets out of a link no more than `bucket` has.
    pub fn add_bucket(&self, link: u32, bucket: Bucket) -> Result<()> {
        let mut message = queue(NEW_QUEUE, CREATE | EXCLUSIVE, link, (0x1_0000, ROOT));
        message.text(KIND, "tbf").nest(OPTIONS, |options| {
            options.put(TBF_PARAMETERS, &bucket.parameters());
            if bucket.rate > u32::MAX.into() {
                options.put(TBF_RATE64, &bucket.rate.to_ne_bytes());
            }
        });
        self.0.change(message).context(|| format!("limit link {link}"))
    }

    /// The bucket of a link.
    pub fn bucket(&self, link: u32) -> Result<Option<Bucket>> {
        let message = queue(GET_QUEUE, 0, link, (0, 0));
        let answers = self.0.list(message).context(|| format!("look at the queue of link {link}"))?;
        Ok(answers.iter().find_map(|answer| Bucket::of(answer, link)))
    }

    /// Sends all that comes in by `link` out by `to`.
    pub fn redirect(&self, link: u32, to: u32) -> Result<()> {
        let doing = || format!("redirect what comes in by link {link}");
        let mut message = queue(NEW_QUEUE, CREATE | EXCLUSIVE, link, (INGRESS_HANDLE, INGRESS));
        message.text(KIND, "ingress").nest(OPTIONS, |_| {});
        self.0.change(message).context(doing)?;
        let mut message = queue(NEW_FILTER, CREATE | EXCLUSIVE, link, (0, INGRESS_HANDLE));
        message.text(KIND, "u32").nest(OPTIONS, |options| {
            // One key without a mask: everything.
            let select = [&[TERMINAL, 0, 1, 0][..], &[0; 12], &[0; 16]].concat();
            options.number(U32_CLASS, 0x1_0001).put(U32_SELECT, &select).nest(U32_ACTION, |actions| {
                actions.nest(1, |action| {
                    action.text(ACTION_KIND, "mirred").nest(ACTION_OPTIONS, |options| {
                        let mirred = [0, 0, STOLEN, 0, 0, EGRESS_REDIRECT, to];
                        options.put(MIRRED_PARAMETERS, &mirred.map(u32::to_ne_bytes).concat());
                    });
                });
            });
        });
        self.0.change(message).context(doing)
    }
}

/// `place` is the own handle and the parent's.
fn queue(kind: u16, flags: u16, link: u32, place: (u32, u32)) -> Message {
    let (handle, parent) = place;
    // A filter's place among others, and what it is for.
    let info = if kind == NEW_FILTER { 1 << 16 | u32::from(ALL_PROTOCOLS.to_be()) } else { 0 };
    let structure = [0, link, handle, parent, info].map(u32::to_ne_bytes).concat();
    Message::new(kind, flags, &structure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_what_the_go_plugin_makes_of_the_same_numbers() {
        let bucket = Bucket::new(8_000_000, 80_000);
        // 10 ms of tokens, in ticks of 64 ns; 25 ms at full rate, and the burst.
        assert_eq!(bucket, Bucket { rate: 1_000_000, limit: 35_000, buffer: 156_250 });
        assert_eq!(bucket.parameters().len(), 36);
        assert_eq!(Bucket::new(u64::MAX, u64::MAX).limit, u32::MAX);
        assert_eq!(Bucket::new(1, 8).rate, 1);
    }
}
