//! Blocks to entries.

use std::io::{BufRead, Read as _};

use types::Result;

use super::header::{self, Format, Raw, has_no_body, kind, text};
use super::pax::Records;
use super::sparse::{self, Place};
use super::{BLOCK, Entry, Kind, MAX_PENDING, MAX_SPECIAL, malformed, unreadable};

/// Reads entries one after another; the body of one must not be asked for after the next.
pub struct Reader<R> {
    source: R,
    /// Bytes of the current body that nobody has taken.
    left: u64,
    /// Bytes behind the body up to the next block.
    padding: u64,
    ended: bool,
}

/// Extensions that wait for their entry.
#[derive(Default)]
struct Pending {
    records: Option<Records>,
    name: Vec<u8>,
    link: Vec<u8>,
}

impl<R: BufRead> Reader<R> {
    /// A reader of the archive that starts here.
    pub fn new(source: R) -> Self {
        Self { source, left: 0, padding: 0, ended: false }
    }

    /// What is behind the archive's end, once [`Reader::next_entry`] returned `None`.
    pub fn into_inner(self) -> R {
        self.source
    }

    /// The next entry, or `None` at the end. What was not taken of the last body is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut pending = Pending::default();
        for _ in 0..=MAX_PENDING {
            self.skip()?;
            let Some((raw, block)) = self.header()? else { return Ok(None) };
            self.set_body(raw.entry.kind, raw.stored)?;
            match raw.flag {
                b'x' => pending.records = Some(Records::parse(&self.special()?)?),
                b'g' => {
                    // Read to see that it is sound. As upstream, it applies to nothing, and drops what was pending.
                    Records::parse(&self.special()?)?;
                    pending = Pending::default();
                }
                b'L' => text(&self.special()?).clone_into(&mut pending.name),
                b'K' => text(&self.special()?).clone_into(&mut pending.link),
                _ => return self.entry(raw, &block, pending).map(Some),
            }
        }
        Err(malformed("too many extension headers in a row"))
    }

    /// The next bytes of the current body, as many as are there without copying; empty at its end.
    pub fn body(&mut self) -> Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let bytes = self.source.fill_buf().map_err(unreadable)?;
        if bytes.is_empty() {
            return Err(malformed("unexpected end"));
        }
        let count = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        Ok(&bytes[..count])
    }

    /// Takes `count` of the bytes that [`Reader::body`] returned.
    pub fn consume(&mut self, count: usize) {
        self.source.consume(count);
        self.left -= count as u64;
    }

    /// The rest of the current body, if it has at most `limit` bytes.
    pub fn read_body(&mut self, limit: u64) -> Result<Vec<u8>> {
        if self.left > limit {
            return Err(malformed(format!("{} bytes where at most {limit} are allowed", self.left)));
        }
        let mut all = Vec::new();
        self.source.by_ref().take(self.left).read_to_end(&mut all).map_err(unreadable)?;
        if all.len() as u64 != self.left {
            return Err(malformed("unexpected end"));
        }
        self.left = 0;
        Ok(all)
    }

    /// Bytes of the current body that are still there.
    pub fn remaining(&self) -> u64 {
        self.left
    }

    fn special(&mut self) -> Result<Vec<u8>> {
        self.read_body(MAX_SPECIAL)
    }

    fn skip(&mut self) -> Result<()> {
        while self.left > 0 {
            let count = self.body()?.len();
            self.consume(count);
        }
        while self.padding > 0 {
            let there = self.source.fill_buf().map_err(unreadable)?.len();
            if there == 0 {
                // Go takes an archive that ends within the padding of its last body.
                self.padding = 0;
                break;
            }
            let count = there.min(usize::try_from(self.padding).unwrap_or(there));
            self.source.consume(count);
            self.padding -= count as u64;
        }
        Ok(())
    }

    /// A block, or `None` where the source ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        if self.source.fill_buf().map_err(unreadable)?.is_empty() {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        self.source.read_exact(&mut block).map_err(unreadable)?;
        Ok(Some(block))
    }

    /// The next header; `None` at two blocks of zeros, or where the source ends.
    fn header(&mut self) -> Result<Option<(Raw, [u8; BLOCK])>> {
        if self.ended {
            return Ok(None);
        }
        self.ended = true;
        let Some(block) = self.block()? else { return Ok(None) };
        if block == [0; BLOCK] {
            return match self.block()? {
                None => Ok(None),
                Some(second) if second == [0; BLOCK] => Ok(None),
                Some(_) => Err(malformed("a header behind a block of zeros")),
            };
        }
        self.ended = false;
        Ok(Some((header::parse(&block)?, block)))
    }

    fn set_body(&mut self, kind: Kind, size: i64) -> Result<()> {
        let size = if has_no_body(kind) { 0 } else { size };
        self.left = u64::try_from(size).map_err(|_| malformed(format!("size {size}")))?;
        self.padding = self.left.wrapping_neg() & (BLOCK as u64 - 1);
        Ok(())
    }

    /// Joins a header with the extensions before it, in Go's order: PAX, then GNU long names, then sparse names.
    fn entry(&mut self, raw: Raw, block: &[u8; BLOCK], pending: Pending) -> Result<Entry> {
        let Raw { mut entry, flag, format, mut stored } = raw;
        let mut sparse = None;
        if let Some(mut records) = pending.records {
            if let Some(size) = records.merge(&mut entry)? {
                stored = size;
            }
            sparse = Some(records.sparse);
        }
        if !pending.name.is_empty() {
            entry.name = pending.name;
        }
        if !pending.link.is_empty() {
            entry.link = pending.link;
        }
        entry.kind = match flag {
            // Before POSIX a slash at the end made a directory.
            0 if entry.name.ends_with(b"/") => Kind::Directory,
            flag => kind(flag),
        };
        self.set_body(entry.kind, stored)?;
        entry.size = self.left;
        if flag == b'S' {
            if format != Format::Gnu {
                return Err(malformed("sparse file in a header that is not GNU's"));
            }
            self.old_gnu_sparse(&mut entry, block)?;
        } else if let Some(text) = sparse {
            self.pax_sparse(&mut entry, text)?;
        }
        Ok(entry)
    }

    fn old_gnu_sparse(&mut self, entry: &mut Entry, block: &[u8; BLOCK]) -> Result<()> {
        let mut taken = BLOCK as u64;
        let (size, regions) = sparse::old_gnu(block, || {
            taken += BLOCK as u64;
            if taken > MAX_SPECIAL {
                return Err(malformed("too many sparse headers"));
            }
            self.block()?.ok_or_else(|| malformed("unexpected end"))
        })?;
        self.set_sparse(entry, Some(size), regions)
    }

    fn pax_sparse(&mut self, entry: &mut Entry, text: sparse::MapText) -> Result<()> {
        let Some(described) = text.resolve()? else { return Ok(()) };
        if has_no_body(entry.kind) {
            return Err(malformed("sparse map of what is no file"));
        }
        if !described.name.is_empty() {
            entry.name = described.name;
        }
        let regions = match described.map {
            Place::Records(regions) => regions,
            Place::Body => {
                let (regions, taken) = sparse::in_body(&mut self.source, self.left)?;
                self.left -= taken;
                regions
            }
        };
        self.set_sparse(entry, described.size, regions)
    }

    fn set_sparse(
        &mut self,
        entry: &mut Entry,
        size: Option<i64>,
        regions: Vec<sparse::Region>,
    ) -> Result<()> {
        if let Some(size) = size {
            entry.size = u64::try_from(size).map_err(|_| malformed(format!("size {size}")))?;
        }
        sparse::check(&regions, entry.size, self.left)?;
        entry.sparse = Some(regions);
        Ok(())
    }
}
