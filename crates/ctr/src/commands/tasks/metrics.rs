//! `ctr tasks metrics`: one look at the figures of a task's cgroup.

mod shapes;

use api::any;
use api::cgroups::{v1, v2};
use api::containerd::services::tasks::v1::MetricsRequest;
use api::containerd::types::Metric;
use clap::Args;
use remote::from_status;
use serde_json::Value;
use shapes::Shown as _;
use types::{Any, Error, Result};

use crate::client::Client;
use crate::commands::{print, refused};
use crate::flags::Words;
use crate::go::{self, Columns, json};
use crate::process::no_task;

/// `ctr tasks metrics`.
#[derive(Args, Debug)]
pub struct Flags {
    /// "table" or "json"
    #[arg(long, default_value = "table")]
    format: String,
    #[command(flatten)]
    id: Words,
}

/// The rows of the table, each with the place of its value.
type Rows = &'static [(&'static str, &'static str)];

const ROWS_V1: Rows = &[
    ("memory.usage_in_bytes", "/memory/usage/usage"),
    ("memory.limit_in_bytes", "/memory/usage/limit"),
    ("memory.stat.cache", "/memory/total_cache"),
    ("cpuacct.usage", "/cpu/usage/total"),
    ("cpuacct.usage_percpu", "/cpu/usage/per_cpu"),
    ("pids.current", "/pids/current"),
    ("pids.limit", "/pids/limit"),
];

const ROWS_V2: Rows = &[
    ("pids.current", "/pids/current"),
    ("pids.limit", "/pids/limit"),
    ("cpu.usage_usec", "/cpu/usage_usec"),
    ("cpu.user_usec", "/cpu/user_usec"),
    ("cpu.system_usec", "/cpu/system_usec"),
    ("cpu.nr_periods", "/cpu/nr_periods"),
    ("cpu.nr_throttled", "/cpu/nr_throttled"),
    ("cpu.throttled_usec", "/cpu/throttled_usec"),
    ("memory.usage", "/memory/usage"),
    ("memory.usage_limit", "/memory/usage_limit"),
    ("memory.swap_usage", "/memory/swap_usage"),
    ("memory.swap_limit", "/memory/swap_limit"),
];

/// Prints what the daemon says of one task.
pub async fn run(client: &Client, flags: Flags) -> Result<()> {
    let id = flags.id.first();
    client.container(id).await?;
    crate::process::Process::init(client, id).get().await.map_err(no_task)?;
    let request = MetricsRequest { filters: vec![format!("id=={id}")] };
    let answer = client.tasks().metrics(request).await.map_err(from_status)?.into_inner();
    let missing = || Error::unavailable("no metrics received");
    let metric = answer.metrics.into_iter().next().ok_or_else(missing)?;
    let (figures, rows) = figures(metric.data.clone().map(any::from_wire).unwrap_or_default())?;
    match flags.format.as_str() {
        "table" => print(table(&metric, &figures, rows)),
        "json" => print(json::indented(&figures, "  ")? + "\n"),
        _ => refused("format must be table or json"),
    }
}

fn figures(data: Any) -> Result<(Value, Rows)> {
    if data.is("io.containerd.cgroups.v1.Metrics") {
        Ok((any::unpack::<v1::Metrics>(&data)?.value(), ROWS_V1))
    } else if data.is("io.containerd.cgroups.v2.Metrics") {
        Ok((any::unpack::<v2::Metrics>(&data)?.value(), ROWS_V2))
    } else {
        refused("cannot convert metric data to cgroups.Metrics or windows.Statistics")
    }
}

fn table(metric: &Metric, figures: &Value, rows: Rows) -> String {
    let mut table = Columns::spaced();
    table.line("ID\tTIMESTAMP\t");
    let time = metric.timestamp.map(|time| go::time::proto(&time)).unwrap_or_default();
    table.line(format!("{}\t{time}\t\n", metric.id));
    table.line("METRIC\tVALUE\t");
    for (name, place) in rows {
        let group = place[1..].split('/').next().unwrap_or_default();
        if figures.get(group).is_none() {
            continue;
        }
        let value = match figures.pointer(place) {
            Some(Value::Array(list)) => {
                format!("[{}]", list.iter().map(Value::to_string).collect::<Vec<_>>().join(" "))
            }
            Some(value) => value.to_string(),
            None if place.ends_with("per_cpu") => "[]".into(),
            None => "0".into(),
        };
        table.line(format!("{name}\t{value}\t"));
    }
    table.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// pids { current: 3 }, cpu { usage { total: 7, per_cpu: [3, 4] }, throttling {} }, and an unknown field.
    const BYTES: &[u8] = b"\x12\x02\x08\x03\x1a\x0a\x0a\x06\x08\x07\x22\x02\x03\x04\x12\x00\xa0\x06\x01";

    fn metric(kind: &str, value: &[u8]) -> Metric {
        Metric {
            id: "c1".into(),
            timestamp: Some(api::Timestamp { seconds: 5, nanos: 6 }),
            data: Some(any::to_wire(Any::new(format!("io.containerd.cgroups.{kind}.Metrics"), value))),
        }
    }

    fn of(metric: &Metric) -> Result<(Value, Rows)> {
        figures(metric.data.clone().map(any::from_wire).unwrap())
    }

    #[test]
    fn the_table_is_upstreams() {
        let metric = metric("v1", BYTES);
        let (figures, rows) = of(&metric).unwrap();
        let wanted = "ID    TIMESTAMP            \nc1    seconds:5 nanos:6    \n\nMETRIC                  VALUE    \n\
                      cpuacct.usage           7        \ncpuacct.usage_percpu    [3 4]    \n\
                      pids.current            3        \npids.limit              0        \n";
        assert_eq!(table(&metric, &figures, rows), wanted);
    }

    #[test]
    fn json_leaves_out_zeros_and_keeps_empty_messages() {
        let (figures, _) = of(&metric("v1", BYTES)).unwrap();
        let wanted = r#"{"pids":{"current":3},"cpu":{"usage":{"total":7,"per_cpu":[3,4]},"throttling":{}}}"#;
        assert_eq!(json::compact(&figures).unwrap(), wanted);
    }

    #[test]
    fn fractions_are_eight_bytes() {
        // cpu { psi { some { avg10: 0.5 } } }
        let bytes = b"\x12\x0d\x3a\x0b\x0a\x09\x09\x00\x00\x00\x00\x00\x00\xe0\x3f";
        let (figures, _) = of(&metric("v2", bytes)).unwrap();
        assert_eq!(json::compact(&figures).unwrap(), r#"{"cpu":{"psi":{"some":{"avg10":0.5}}}}"#);
    }

    #[test]
    fn what_is_cut_off_or_of_another_kind_is_refused() {
        for end in 1..BYTES.len() {
            // Some cuts leave a shorter message; none may panic.
            of(&metric("v1", &BYTES[..end])).ok();
        }
        assert!(of(&metric("v1", b"\x12\x05\x08")).is_err());
        assert!(of(&metric("v3", b"")).is_err());
    }
}
