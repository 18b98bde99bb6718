//! The maps of sparse files: which parts of the file the body holds. The rest reads as zeros.

use std::io::BufRead;

use types::Result;

use super::header::number;
use super::pax::integer;
use super::{BLOCK, MAX_REGIONS, MAX_SPECIAL, malformed};

/// A part of a sparse file that has bytes in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// What PAX records say about a sparse file (GNU tar's formats 0.0, 0.1 and 1.0).
#[derive(Debug, Default)]
pub(super) struct MapText {
    major: Vec<u8>,
    minor: Vec<u8>,
    name: Vec<u8>,
    size: Vec<u8>,
    realsize: Vec<u8>,
    blocks: Vec<u8>,
    map: Vec<u8>,
    /// Format 0.0: alternating offset and numbytes records.
    pairs: Vec<Vec<u8>>,
}

/// What the records say about a sparse file.
pub(super) struct Described {
    /// Empty where the entry's own name counts.
    pub name: Vec<u8>,
    /// The size of the whole file, where it is told.
    pub size: Option<i64>,
    pub map: Place,
}

/// Where the map is.
pub(super) enum Place {
    /// In the records.
    Records(Vec<Region>),
    /// In front of the body.
    Body,
}

impl MapText {
    pub(super) fn keep(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let Some(key) = key.strip_prefix(b"GNU.sparse.") else { return Ok(()) };
        let field = match key {
            b"major" => &mut self.major,
            b"minor" => &mut self.minor,
            b"name" => &mut self.name,
            b"size" => &mut self.size,
            b"realsize" => &mut self.realsize,
            b"numblocks" => &mut self.blocks,
            b"map" => &mut self.map,
            b"offset" | b"numbytes" => {
                let wanted: &[u8] = if self.pairs.len().is_multiple_of(2) { b"offset" } else { b"numbytes" };
                if key != wanted || self.pairs.len() >= 2 * MAX_REGIONS {
                    return Err(malformed("sparse map"));
                }
                self.pairs.push(value.to_vec());
                return Ok(());
            }
            _ => return Ok(()),
        };
        value.clone_into(field);
        Ok(())
    }

    /// A sparse file, or `None` where these records describe none.
    pub(super) fn resolve(self) -> Result<Option<Described>> {
        let in_body = match (&self.major[..], &self.minor[..]) {
            (b"0", b"0" | b"1") => false,
            (b"1", b"0") => true,
            (b"", b"") if !self.map.is_empty() || !self.pairs.is_empty() => false,
            (b"", b"") => return Ok(None),
            // Go reads the body of an unknown version as the file: its map would be taken for content.
            _ => return Err(malformed("unknown version of GNU sparse file")),
        };
        let size = if self.size.is_empty() { &self.realsize } else { &self.size };
        let size = if size.is_empty() { None } else { Some(integer(size)?) };
        let map = if in_body { Place::Body } else { Place::Records(self.regions()?) };
        Ok(Some(Described { name: self.name, size, map }))
    }

    fn regions(&self) -> Result<Vec<Region>> {
        let numbers: Vec<&[u8]> = if !self.pairs.is_empty() {
            self.pairs.iter().map(Vec::as_slice).collect()
        } else if self.map.is_empty() {
            Vec::new()
        } else {
            self.map.split(|b| *b == b',').collect()
        };
        let count = usize::try_from(integer(&self.blocks)?).map_err(|_| malformed("sparse map"))?;
        if count > MAX_REGIONS || numbers.len() != 2 * count {
            return Err(malformed("sparse map"));
        }
        numbers.chunks_exact(2).map(|pair| region(integer(pair[0])?, integer(pair[1])?)).collect()
    }
}

fn region(offset: i64, length: i64) -> Result<Region> {
    match (u64::try_from(offset), u64::try_from(length)) {
        (Ok(offset), Ok(length)) => Ok(Region { offset, length }),
        _ => Err(malformed("sparse map")),
    }
}

/// Checks that regions lie in the file, in order, without overlap, and that the body holds exactly their bytes.
pub(super) fn check(regions: &[Region], size: u64, body: u64) -> Result<()> {
    let mut end = 0;
    let mut sum = 0u64;
    for region in regions {
        let after = region.offset.checked_add(region.length).ok_or_else(|| malformed("sparse map"))?;
        if region.offset < end || after > size {
            return Err(malformed("sparse map"));
        }
        end = after;
        // Cannot overflow: regions do not overlap and end within `size`.
        sum += region.length;
    }
    if sum != body {
        return Err(malformed("sparse map and body disagree"));
    }
    Ok(())
}

/// The old GNU format: four regions in the header, more in blocks behind it. `next` delivers those.
pub(super) fn old_gnu(
    header: &[u8; BLOCK],
    mut next: impl FnMut() -> Result<[u8; BLOCK]>,
) -> Result<(i64, Vec<Region>)> {
    let size = number(&header[483..495])?;
    let mut regions = Vec::new();
    old_gnu_regions(&header[386..482], &mut regions)?;
    let mut more = header[482] > 0;
    while more {
        let block = next()?;
        old_gnu_regions(&block[..504], &mut regions)?;
        more = block[504] > 0;
    }
    Ok((size, regions))
}

fn old_gnu_regions(descriptors: &[u8], regions: &mut Vec<Region>) -> Result<()> {
    // Empty blocks count as well, or a chain of them would never end.
    for descriptor in descriptors.chunks_exact(24) {
        if descriptor[0] == 0 {
            break;
        }
        regions.push(region(number(&descriptor[..12])?, number(&descriptor[12..])?)?);
    }
    if regions.len() > MAX_REGIONS { Err(malformed("too many sparse regions")) } else { Ok(()) }
}

/// Format 1.0: decimal numbers, one a line, padded to a whole block in front of the body. Returns the map and how many
/// bytes it took.
pub(super) fn in_body<R: BufRead>(source: &mut R, body: u64) -> Result<(Vec<Region>, u64)> {
    let mut lines = Lines { source, body, taken: 0, block: [0; BLOCK], at: BLOCK };
    let count = usize::try_from(lines.number()?).map_err(|_| malformed("sparse map"))?;
    if count > MAX_REGIONS {
        return Err(malformed("too many sparse regions"));
    }
    let mut regions = Vec::new();
    for _ in 0..count {
        regions.push(region(lines.number()?, lines.number()?)?);
    }
    Ok((regions, lines.taken))
}

struct Lines<'a, R> {
    source: &'a mut R,
    body: u64,
    taken: u64,
    block: [u8; BLOCK],
    at: usize,
}

impl<R: BufRead> Lines<'_, R> {
    fn number(&mut self) -> Result<i64> {
        let mut digits = Vec::new();
        loop {
            if self.at == BLOCK {
                self.refill()?;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => return integer(&digits),
                _ if digits.len() < 24 => digits.push(byte),
                _ => return Err(malformed("sparse map")),
            }
        }
    }

    fn refill(&mut self) -> Result<()> {
        self.taken += BLOCK as u64;
        if self.taken > self.body || self.taken > MAX_SPECIAL {
            return Err(malformed("sparse map"));
        }
        self.source.read_exact(&mut self.block).map_err(super::unreadable)?;
        self.at = 0;
        Ok(())
    }
}
