//! Questions to a container that change nothing in its state, and what concerns only its streams.

use std::io::{Seek, SeekFrom};

use api::containerd::runc::v1::ProcessDetails;
use api::containerd::task::v3::{PidsResponse, StateResponse};
use api::containerd::v1::types::{ProcessInfo, Status};
use prost::Message;
use types::{Error, Result};

use super::Driver;
use crate::call::{Call, Exit};
use crate::context::Context;
use crate::json::Parser;
use crate::message;
use crate::runtime::{Failure, Run};
use crate::state::Phase;

impl Driver {
    /// Whether it has been made: before, nobody may know of it.
    pub fn is_made(&self) -> bool {
        self.state.init.phase != Phase::Creating
    }

    /// Whether it is being made for this call.
    pub fn is_being_made_for(&self, call: Call) -> bool {
        !self.is_made() && self.state.init.is_pending_for(call)
    }

    /// The number of init.
    pub fn pid(&self) -> u32 {
        self.state.init.pid
    }

    /// When it was made, in seconds and nanoseconds since 1970.
    pub fn created_at(&self) -> (i64, i32) {
        self.death.timeline.moments().next().map_or((0, 0), |first| first.at)
    }

    /// Where a process is in its life.
    pub fn describe(&self, exec: &str) -> Result<StateResponse> {
        let process = self.state.process(exec)?;
        let stdio = self.processes.get(exec).map(|live| live.stdio.clone()).unwrap_or_default();
        // An exec stands still with its container.
        let status = match (process.phase, self.state.init.phase) {
            (Phase::Stopped(_), _) => Status::Stopped,
            (_, Phase::Paused) => Status::Paused,
            (_, Phase::Running) if self.state.is_pausing() => Status::Pausing,
            (Phase::Creating | Phase::Created | Phase::Starting { .. }, _) => Status::Created,
            (Phase::Running, _) => Status::Running,
            (Phase::Paused, _) => Status::Paused,
        };
        let exit = process.exit().unwrap_or(Exit::NEVER);
        Ok(StateResponse {
            id: if exec.is_empty() { self.id.clone() } else { exec.to_owned() },
            bundle: self.bundle.to_string_lossy().into_owned(),
            pid: process.pid,
            status: status.into(),
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            terminal: stdio.terminal,
            exit_status: exit.status,
            exited_at: message::exited_at(exit),
            exec_id: String::new(),
        })
    }

    /// Asks the runtime for the container's processes, for `call`.
    pub fn pids(&mut self, cx: &mut Context, call: Call) -> Result<()> {
        if self.state.init.exit().is_some() {
            // The runtime may have forgotten it already.
            cx.reply(call, Ok(PidsResponse::default().encode_to_vec()));
            return Ok(());
        }
        let run = self.runtime.ps(call)?;
        self.track(cx, run)
    }

    pub(super) fn answer_pids(&self, cx: &mut Context, call: Call, run: &Run, outcome: Result<(), Failure>) {
        let result = match outcome {
            Err(failure) => Err(failure.into_error(&run.task)),
            Ok(()) => listed(run).and_then(|pids| self.with_execs(&pids)),
        };
        cx.reply(call, result.map(|response| response.encode_to_vec()));
    }

    /// Says of each process whether it is an exec of ours.
    fn with_execs(&self, pids: &[u32]) -> Result<PidsResponse> {
        let info = |pid: u32| {
            let exec = self.state.execs.iter().find(|(_, p)| p.pid == pid && p.exit().is_none());
            exec.map(|(id, _)| api::any::to_wire(api::any::pack(&ProcessDetails { exec_id: id.clone() })))
        };
        Ok(PidsResponse {
            processes: pids.iter().map(|pid| ProcessInfo { pid: *pid, info: info(*pid) }).collect(),
        })
    }

    /// The client has written its last byte of input.
    pub fn close_stdin(&mut self, cx: &mut Context, exec: &str) -> Result<()> {
        self.state.process(exec)?;
        if let Some(live) = self.processes.get_mut(exec) {
            live.stdin_closed = true;
            cx.streams.close_stdin(&live.owner);
        }
        Ok(())
    }

    /// The client's window has another size.
    pub fn resize(&self, exec: &str, width: u32, height: u32) -> Result<()> {
        if self.state.process(exec)?.exit().is_some() && !exec.is_empty() {
            return Err(Error::precondition("cannot resize a stopped container"));
        }
        let Some(console) = self.processes.get(exec).and_then(|live| live.console.as_deref()) else {
            return Ok(());
        };
        let cells =
            |n: u32| u16::try_from(n).map_err(|_| Error::invalid(format!("window of {n} characters")));
        Ok(sys::pty::resize(console, cells(width)?, cells(height)?)?)
    }
}

fn listed(run: &Run) -> Result<Vec<u32>> {
    let Some(mut output) = run.output() else { return Ok(Vec::new()) };
    output.seek(SeekFrom::Start(0))?;
    let mut pids = Vec::new();
    Parser::new(output).array(|p| {
        let pid = u32::try_from(p.unsigned()?).map_err(|_| Error::invalid("a pid out of range"))?;
        pids.push(pid);
        Ok(())
    })?;
    Ok(pids)
}
