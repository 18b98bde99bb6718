//! The messages of cgroup figures, as data: `io.containerd.cgroups.{v1,v2}.Metrics`, whose names and numbers are wire
//! facts. They become JSON as Go's encoder shows them, in the order given here and without what is empty.

use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use serde_json::{Map, Value, json};
use types::{Error, Result};

/// Number, name, and what it holds.
pub struct Field(u32, &'static str, Kind);

enum Kind {
    Number,
    Numbers,
    Fraction,
    Text,
    One(&'static [Field]),
    Many(&'static [Field]),
}

use Kind::{Fraction, Many, Number, Numbers, One, Text};

/// Decodes a message; what is not in `fields` is skipped.
pub fn decode(mut bytes: &[u8], fields: &[Field]) -> Result<Map<String, Value>> {
    let mut found: Vec<(u32, Value)> = Vec::new();
    while bytes.has_remaining() {
        let (number, wire) = decode_key(&mut bytes).map_err(bad)?;
        match fields.iter().find(|field| field.0 == number) {
            Some(field) => value(&mut bytes, wire, &field.2, &mut |value| found.push((number, value)))?,
            None => skip_field(wire, number, &mut bytes, DecodeContext::default()).map_err(bad)?,
        }
    }
    let mut shown = Map::new();
    for Field(number, name, kind) in fields {
        let mut values = found.extract_if(.., |(found, _)| found == number).map(|(_, value)| value);
        let value = match kind {
            Numbers | Many(_) => Some(Value::Array(values.collect())).filter(|list| *list != json!([])),
            Number | Fraction | Text | One(_) => values.by_ref().last().filter(|value| !is_empty(value)),
        };
        if let Some(value) = value {
            shown.insert((*name).to_owned(), value);
        }
    }
    Ok(shown)
}

fn value(bytes: &mut &[u8], wire: WireType, kind: &Kind, take: &mut impl FnMut(Value)) -> Result<()> {
    match (wire, kind) {
        (WireType::Varint, Number | Numbers) => take(json!(decode_varint(bytes).map_err(bad)?)),
        (WireType::SixtyFourBit, Fraction) if bytes.remaining() >= 8 => take(json!(bytes.get_f64_le())),
        (WireType::LengthDelimited, Text) => take(json!(String::from_utf8_lossy(part(bytes)?))),
        (WireType::LengthDelimited, One(fields) | Many(fields)) => {
            take(Value::Object(decode(part(bytes)?, fields)?));
        }
        (WireType::LengthDelimited, Numbers) => {
            let mut packed = part(bytes)?;
            while packed.has_remaining() {
                take(json!(decode_varint(&mut packed).map_err(bad)?));
            }
        }
        _ => return Err(bad("a field of another type than ours")),
    }
    Ok(())
}

/// The bytes behind a length.
fn part<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = usize::try_from(decode_varint(bytes).map_err(bad)?).map_err(bad)?;
    let (part, rest) = bytes.split_at_checked(length).ok_or_else(|| bad("it ends early"))?;
    *bytes = rest;
    Ok(part)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        // A message that is there is shown, even if all of it is empty.
        _ => false,
    }
}

fn bad(why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("decode metrics: {why}"))
}

/// Of cgroup v1.
pub const V1: &[Field] = &[
    Field(
        1,
        "hugetlb",
        Many(&[
            Field(1, "usage", Number),
            Field(2, "max", Number),
            Field(3, "failcnt", Number),
            Field(4, "pagesize", Text),
        ]),
    ),
    Field(2, "pids", One(PIDS)),
    Field(
        3,
        "cpu",
        One(&[
            Field(
                1,
                "usage",
                One(&[
                    Field(1, "total", Number),
                    Field(2, "kernel", Number),
                    Field(3, "user", Number),
                    Field(4, "per_cpu", Numbers),
                ]),
            ),
            Field(
                2,
                "throttling",
                One(&[
                    Field(1, "periods", Number),
                    Field(2, "throttled_periods", Number),
                    Field(3, "throttled_time", Number),
                ]),
            ),
        ]),
    ),
    Field(4, "memory", One(MEMORY)),
    Field(
        5,
        "blkio",
        One(&[
            Field(1, "io_service_bytes_recursive", Many(BLOCK)),
            Field(2, "io_serviced_recursive", Many(BLOCK)),
            Field(3, "io_queued_recursive", Many(BLOCK)),
            Field(4, "io_service_time_recursive", Many(BLOCK)),
            Field(5, "io_wait_time_recursive", Many(BLOCK)),
            Field(6, "io_merged_recursive", Many(BLOCK)),
            Field(7, "io_time_recursive", Many(BLOCK)),
            Field(8, "sectors_recursive", Many(BLOCK)),
        ]),
    ),
    Field(6, "rdma", One(RDMA)),
    Field(7, "network", Many(NETWORK)),
    Field(
        8,
        "cgroup_stats",
        One(&[
            Field(1, "nr_sleeping", Number),
            Field(2, "nr_running", Number),
            Field(3, "nr_stopped", Number),
            Field(4, "nr_uninterruptible", Number),
            Field(5, "nr_io_wait", Number),
        ]),
    ),
    Field(
        9,
        "memory_oom_control",
        One(&[
            Field(1, "oom_kill_disable", Number),
            Field(2, "under_oom", Number),
            Field(3, "oom_kill", Number),
        ]),
    ),
];

const PIDS: &[Field] = &[Field(1, "current", Number), Field(2, "limit", Number)];

const MEMORY: &[Field] = &[
    Field(1, "cache", Number),
    Field(2, "rss", Number),
    Field(3, "rss_huge", Number),
    Field(4, "mapped_file", Number),
    Field(5, "dirty", Number),
    Field(6, "writeback", Number),
    Field(7, "pg_pg_in", Number),
    Field(8, "pg_pg_out", Number),
    Field(9, "pg_fault", Number),
    Field(10, "pg_maj_fault", Number),
    Field(11, "inactive_anon", Number),
    Field(12, "active_anon", Number),
    Field(13, "inactive_file", Number),
    Field(14, "active_file", Number),
    Field(15, "unevictable", Number),
    Field(16, "hierarchical_memory_limit", Number),
    Field(17, "hierarchical_swap_limit", Number),
    Field(18, "total_cache", Number),
    Field(19, "total_rss", Number),
    Field(20, "total_rss_huge", Number),
    Field(21, "total_mapped_file", Number),
    Field(22, "total_dirty", Number),
    Field(23, "total_writeback", Number),
    Field(24, "total_pg_pg_in", Number),
    Field(25, "total_pg_pg_out", Number),
    Field(26, "total_pg_fault", Number),
    Field(27, "total_pg_maj_fault", Number),
    Field(28, "total_inactive_anon", Number),
    Field(29, "total_active_anon", Number),
    Field(30, "total_inactive_file", Number),
    Field(31, "total_active_file", Number),
    Field(32, "total_unevictable", Number),
    Field(33, "usage", One(ENTRY)),
    Field(34, "swap", One(ENTRY)),
    Field(35, "kernel", One(ENTRY)),
    Field(36, "kernel_tcp", One(ENTRY)),
];

const ENTRY: &[Field] = &[
    Field(1, "limit", Number),
    Field(2, "usage", Number),
    Field(3, "max", Number),
    Field(4, "failcnt", Number),
];

const BLOCK: &[Field] = &[
    Field(1, "op", Text),
    Field(2, "device", Text),
    Field(3, "major", Number),
    Field(4, "minor", Number),
    Field(5, "value", Number),
];

const RDMA: &[Field] = &[Field(1, "current", Many(RDMA_ENTRY)), Field(2, "limit", Many(RDMA_ENTRY))];

const RDMA_ENTRY: &[Field] =
    &[Field(1, "device", Text), Field(2, "hca_handles", Number), Field(3, "hca_objects", Number)];

const NETWORK: &[Field] = &[
    Field(1, "name", Text),
    Field(2, "rx_bytes", Number),
    Field(3, "rx_packets", Number),
    Field(4, "rx_errors", Number),
    Field(5, "rx_dropped", Number),
    Field(6, "tx_bytes", Number),
    Field(7, "tx_packets", Number),
    Field(8, "tx_errors", Number),
    Field(9, "tx_dropped", Number),
];

/// Of cgroup v2.
pub const V2: &[Field] = &[
    Field(1, "pids", One(PIDS)),
    Field(
        2,
        "cpu",
        One(&[
            Field(1, "usage_usec", Number),
            Field(2, "user_usec", Number),
            Field(3, "system_usec", Number),
            Field(4, "nr_periods", Number),
            Field(5, "nr_throttled", Number),
            Field(6, "throttled_usec", Number),
            Field(7, "psi", One(PRESSURE)),
            Field(8, "nr_bursts", Number),
            Field(9, "burst_usec", Number),
        ]),
    ),
    Field(4, "memory", One(MEMORY_V2)),
    Field(5, "rdma", One(RDMA)),
    Field(
        6,
        "io",
        One(&[
            Field(
                1,
                "usage",
                Many(&[
                    Field(1, "major", Number),
                    Field(2, "minor", Number),
                    Field(3, "rbytes", Number),
                    Field(4, "wbytes", Number),
                    Field(5, "rios", Number),
                    Field(6, "wios", Number),
                ]),
            ),
            Field(2, "psi", One(PRESSURE)),
        ]),
    ),
    Field(
        7,
        "hugetlb",
        Many(&[
            Field(1, "current", Number),
            Field(2, "max", Number),
            Field(3, "pagesize", Text),
            Field(4, "failcnt", Number),
        ]),
    ),
    Field(
        8,
        "memory_events",
        One(&[
            Field(1, "low", Number),
            Field(2, "high", Number),
            Field(3, "max", Number),
            Field(4, "oom", Number),
            Field(5, "oom_kill", Number),
            Field(6, "oom_group_kill", Number),
        ]),
    ),
    Field(9, "network", Many(NETWORK)),
];

const PRESSURE: &[Field] = &[Field(1, "some", One(AVERAGES)), Field(2, "full", One(AVERAGES))];

const AVERAGES: &[Field] = &[
    Field(1, "avg10", Fraction),
    Field(2, "avg60", Fraction),
    Field(3, "avg300", Fraction),
    Field(4, "total", Number),
];

const MEMORY_V2: &[Field] = &[
    Field(1, "anon", Number),
    Field(2, "file", Number),
    Field(3, "kernel_stack", Number),
    Field(4, "slab", Number),
    Field(5, "sock", Number),
    Field(6, "shmem", Number),
    Field(7, "file_mapped", Number),
    Field(8, "file_dirty", Number),
    Field(9, "file_writeback", Number),
    Field(10, "anon_thp", Number),
    Field(11, "inactive_anon", Number),
    Field(12, "active_anon", Number),
    Field(13, "inactive_file", Number),
    Field(14, "active_file", Number),
    Field(15, "unevictable", Number),
    Field(16, "slab_reclaimable", Number),
    Field(17, "slab_unreclaimable", Number),
    Field(18, "pgfault", Number),
    Field(19, "pgmajfault", Number),
    Field(20, "workingset_refault", Number),
    Field(21, "workingset_activate", Number),
    Field(22, "workingset_nodereclaim", Number),
    Field(23, "pgrefill", Number),
    Field(24, "pgscan", Number),
    Field(25, "pgsteal", Number),
    Field(26, "pgactivate", Number),
    Field(27, "pgdeactivate", Number),
    Field(28, "pglazyfree", Number),
    Field(29, "pglazyfreed", Number),
    Field(30, "thp_fault_alloc", Number),
    Field(31, "thp_collapse_alloc", Number),
    Field(32, "usage", Number),
    Field(33, "usage_limit", Number),
    Field(34, "swap_usage", Number),
    Field(35, "swap_limit", Number),
    Field(36, "max_usage", Number),
    Field(37, "swap_max_usage", Number),
    Field(38, "psi", One(PRESSURE)),
];
