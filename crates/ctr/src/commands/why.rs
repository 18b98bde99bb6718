//! `ctr why`: how a container died, as its shim wrote it down at that moment.

use api::containerdrs::services::diagnosis::v1::WhyRequest;
use clap::Args;
use remote::from_status;
use serde_json::Value;
use types::{Error, Result};

use super::{print, refused};
use crate::cli::Globals;
use crate::client::Client;

/// Of which container.
#[derive(Args, Debug)]
pub struct Flags {
    /// print the record as it is, in JSON
    #[arg(long)]
    json: bool,
    /// id of the container
    #[arg(default_value = "")]
    id: String,
    #[arg(hide = true)]
    extra: Vec<String>,
}

/// Prints the record.
pub async fn run(globals: &Globals, flags: Flags) -> Result<()> {
    if flags.id.is_empty() {
        return refused("container id must be provided");
    }
    let client = Client::open(globals)?;
    let request = WhyRequest { id: flags.id };
    let record = client.diagnosis().why(request).await.map_err(from_status)?.into_inner().record;
    if flags.json {
        return print([&record[..], b"\n"].concat());
    }
    let record: Value = serde_json::from_slice(&record)
        .map_err(|e| Error::internal(format!("the record of the death is no JSON: {e}")))?;
    print(told(&record))
}

/// The record for people: first what happened, then what was there, then what it said last.
fn told(record: &Value) -> String {
    let mut out = String::new();
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    for key in [
        "namespace",
        "id",
        "image",
        "reason",
        "exit_status",
        "status_from",
        "signal",
        "pid",
        "oom_killed",
        "shim",
        "written_by",
    ] {
        if let Some(value) = record.get(key).filter(|value| !value.is_null()) {
            out.push_str(&format!("{:<12} {}\n", format!("{key}:"), text(value)));
        }
    }
    // Nobody knows it where the shim was gone.
    out.push_str(if record["timeline"].is_array() { "timeline:\n" } else { "timeline:    unknown\n" });
    for event in record["timeline"].as_array().into_iter().flatten() {
        out.push_str(&format!("  {}  {}", text(&event["at"]), text(&event["what"])));
        for key in ["exec", "pid", "status"] {
            if let Some(value) = event.get(key) {
                out.push_str(&format!(" {key}={}", text(value)));
            }
        }
        out.push('\n');
    }
    for moment in ["oom", "death"] {
        if let Some(scene) = record.get(moment).filter(|scene| scene.is_object()) {
            out.push_str(&format!("at {moment} ({}):\n", text(&scene["at"])));
            scene_told(scene, &mut out);
        }
    }
    for stream in record["output"].as_array().into_iter().flatten() {
        out.push_str(&format!("last output ({}):\n", text(&stream["from"])));
        for line in text(&stream["text"]).lines() {
            out.push_str(&format!("  | {line}\n"));
        }
    }
    out
}

fn scene_told(scene: &Value, out: &mut String) {
    for part in ["limits", "usage", "pressure"] {
        for (name, value) in scene[part].as_object().into_iter().flatten() {
            let value =
                value.as_str().map_or_else(|| value.to_string(), |text| text.trim().replace('\n', "; "));
            out.push_str(&format!("  {name}: {value}\n"));
        }
    }
    for process in scene["processes"].as_array().into_iter().flatten() {
        out.push_str(&format!(
            "  process {} {} rss={} kB\n",
            process["pid"],
            process["name"].as_str().unwrap_or("-"),
            process["rss_kb"]
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_told_from_what_happened_to_what_was_said_last() {
        let record = serde_json::json!({
            "namespace": "ns", "id": "c1", "reason": "killed by signal 9", "exit_status": 137, "oom_killed": true,
            "timeline": [{"at": "T1", "what": "created", "pid": 7}, {"at": "T2", "what": "exit", "status": 137}],
            "oom": {"at": "T2", "limits": {"memory.max": "10\n"}, "processes": [{"pid": 7, "name": "sh", "rss_kb": 12}]},
            "output": [{"from": "stdout", "text": "a\nb\n"}],
        });
        let text = told(&record);
        let places: Vec<_> =
            ["reason:      killed", "T1  created pid=7", "memory.max: 10", "process 7 sh rss=12 kB", "  | b"]
                .map(|part| text.find(part).unwrap_or_else(|| panic!("no {part:?} in {text}")))
                .into();
        assert!(places.is_sorted(), "{text}");
    }
}
