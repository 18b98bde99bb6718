//! What a container uses, read from its groups: the messages that upstream's shim answers, field by field.
//!
//! Reading may wait for the kernel (`memory.stat` gathers numbers of all processors), so all of this runs in a forked child.
//! What a kernel or a container does not have is left out, as upstream leaves it out.

mod v1;
mod v2;

use std::io;
use std::path::Path;

use prost::Message;
use sys::cgroup::{Groups, Mode};
use types::{Error, Result};

/// The payload of an answer to Stats.
pub fn measure(groups: &Groups) -> Result<Vec<u8>> {
    let stats = match sys::cgroup::mode() {
        Mode::Legacy => api::any::pack(&v1::measure(groups)?),
        Mode::Unified => {
            let group =
                groups.unified().ok_or_else(|| Error::not_found("cgroup does not exist: not found"))?;
            api::any::pack(&v2::measure(&group)?)
        }
    };
    let answer = api::containerd::task::v3::StatsResponse { stats: Some(api::any::to_wire(stats)) };
    Ok(answer.encode_to_vec())
}

/// A number as the kernel writes it; a negative one counts as none, and `max` is what the reader says.
fn number(text: &str, max: u64) -> io::Result<u64> {
    let text = text.trim();
    match text.parse() {
        Ok(number) => Ok(number),
        Err(_) if text == "max" => Ok(max),
        Err(_) if text.strip_prefix('-').is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit())) => {
            Ok(0)
        }
        Err(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The number in a file of one.
fn single(path: &Path, max: u64) -> io::Result<u64> {
    number(&std::fs::read_to_string(path)?, max)
}

/// A file of lines with a name and a number.
struct Table(String);

impl Table {
    fn read(path: &Path) -> io::Result<Self> {
        let table = Self(std::fs::read_to_string(path)?);
        for line in table.0.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (Some(_), Some(value), None) => number(value, u64::MAX)?,
                _ => return Err(io::ErrorKind::InvalidData.into()),
            };
        }
        Ok(table)
    }

    /// The number with this name; none is 0.
    fn get(&self, name: &str) -> u64 {
        let value = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| number(value, u64::MAX).ok()).unwrap_or(0)
    }

    fn is_empty(&self) -> bool {
        self.0.trim().is_empty()
    }
}

/// The kernel's sizes of huge pages, as the names of its files have them.
fn huge_page_sizes() -> Vec<String> {
    let Ok(directory) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    let mut sizes: Vec<u64> = directory
        .flatten()
        .filter_map(|entry| {
            entry.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()
        })
        .collect();
    sizes.sort_unstable();
    sizes.into_iter().map(size_name).collect()
}

fn size_name(kibibytes: u64) -> String {
    match kibibytes {
        0..1024 => format!("{kibibytes}KB"),
        1024..0x10_0000 => format!("{}MB", kibibytes >> 10),
        _ => format!("{}GB", kibibytes >> 20),
    }
}

/// The lines of an `rdma` file: device, handles, objects.
fn rdma(text: &str) -> impl Iterator<Item = (String, u32, u32)> {
    text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [device, pairs @ ..] = words.as_slice() else { return None };
        let (mut handles, mut objects) = (0, 0);
        for pair in pairs {
            let Some((key, value)) = pair.split_once('=') else { continue };
            let value = if value == "max" { u32::MAX } else { value.parse().unwrap_or(0) };
            match key {
                "hca_handle" => handles = value,
                "hca_object" => objects = value,
                _ => {}
            }
        }
        (pairs.len() == 2).then(|| ((*device).to_owned(), handles, objects))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_upstream_reads_them() {
        assert_eq!(number("17\n", 0).unwrap(), 17);
        assert_eq!((number("max", 0).unwrap(), number("max", u64::MAX).unwrap()), (0, u64::MAX));
        assert_eq!(number("-1", 0).unwrap(), 0);
        assert!(number("x", 0).is_err());
        assert_eq!(
            (size_name(2048), size_name(1 << 20), size_name(64)),
            ("2MB".into(), "1GB".into(), "64KB".into())
        );
    }

    #[test]
    fn a_table_with_anything_else_in_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stat");
        std::fs::write(&path, "cache 1\ntotal_cache 2\n").unwrap();
        let table = Table::read(&path).unwrap();
        assert_eq!((table.get("cache"), table.get("total_cache"), table.get("c")), (1, 2, 0));
        std::fs::write(&path, "cache one\n").unwrap();
        assert!(Table::read(&path).is_err());
    }

    #[test]
    fn devices_for_remote_memory_have_two_numbers() {
        let found: Vec<_> = rdma("mlx4_0 hca_handle=2 hca_object=max\nodd\n").collect();
        assert_eq!(found, [("mlx4_0".to_owned(), 2, u32::MAX)]);
    }
}
