//! `ctr shim state`.

use api::containerd::task::v3::{StateRequest, StateResponse};
use serde::Serialize;
use types::Result;

use super::{Shim, Version};
use crate::commands::info::{Timestamp, is_zero};
use crate::commands::print;
use crate::go::json;

/// The answer as Go's encoder shows it.
#[derive(Serialize)]
struct State {
    #[serde(skip_serializing_if = "String::is_empty")]
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    bundle: String,
    #[serde(skip_serializing_if = "is_zero")]
    pid: u32,
    #[serde(skip_serializing_if = "is_zero")]
    status: i32,
    #[serde(skip_serializing_if = "String::is_empty")]
    stdin: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    stdout: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    stderr: String,
    #[serde(skip_serializing_if = "is_zero")]
    terminal: bool,
    #[serde(skip_serializing_if = "is_zero")]
    exit_status: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    exited_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "String::is_empty")]
    exec_id: String,
}

/// Prints what the shim knows of a task.
pub fn run(shim: &Shim<'_>, version: Version, id: String) -> Result<()> {
    let request = StateRequest { id, exec_id: String::new() };
    let state: StateResponse = shim.connect()?.call(version, "State", &request)?;
    print(json::shown(&State {
        id: state.id,
        bundle: state.bundle,
        pid: state.pid,
        status: state.status,
        stdin: state.stdin,
        stdout: state.stdout,
        stderr: state.stderr,
        terminal: state.terminal,
        exit_status: state.exit_status,
        exited_at: state.exited_at.map(Into::into),
        exec_id: state.exec_id,
    })?)
}
