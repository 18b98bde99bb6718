//! `containerd.runtime.sandbox.v1.Sandbox`, for `sandboxer = "shim"`: a sandbox is the container of its id, which usually executes
//! the built-in pause (`runtime::pause`). Its specification is in the bundle; containers of the pod are made beside it.
//!
//! ```text
//!  CreateSandbox  Create           StopSandbox      SIGTERM, after a while SIGKILL; answered at the end
//!  StartSandbox   Start            ShutdownSandbox  Delete, and the shim's end when nobody else needs it
//!  WaitSandbox    Wait             SandboxMetrics   Stats
//! ```
//!
//! What a driver answers in the words of the Task service is put into those of this one on its way out.

use std::path::Path;
use std::time::{Duration, SystemTime};

use api::containerd::runc::v1::Options;
use api::containerd::runtime::sandbox::v1 as wire;
use api::containerd::task::v3::{CreateTaskRequest, StartResponse, StateResponse, StatsResponse};
use api::containerd::types::{Metric, Platform};
use api::containerd::v1::types::Status;
use api::ttrpc::Request;
use prost::Message;
use types::{Error, Result};

use crate::call::Call;
use crate::service::decode;
use crate::shim::Shim;
use crate::state::Input;
use crate::timers::Deadline;
use crate::{message, options};

/// The service.
pub const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// How long a sandbox may take to end where the client does not say it.
const STOP: Duration = Duration::from_secs(10);

/// How an answer of the Task service is put for a client of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wording {
    /// It says nothing.
    Nothing,
    /// Who was started, and when.
    Started,
    /// What the sandbox of this id uses.
    Metrics(String),
}

impl Wording {
    /// The same answer in this service's words.
    pub fn put(&self, payload: &[u8]) -> Result<Vec<u8>> {
        let now = api::convert::timestamp(SystemTime::now());
        match self {
            Self::Nothing => Ok(Vec::new()),
            Self::Started => {
                let StartResponse { pid } = decode(payload)?;
                Ok(wire::StartSandboxResponse { pid, created_at: now, spec: None }.encode_to_vec())
            }
            Self::Metrics(id) => {
                let StatsResponse { stats } = decode(payload)?;
                let metrics = Some(Metric { timestamp: now, id: id.clone(), data: stats });
                Ok(wire::SandboxMetricsResponse { metrics }.encode_to_vec())
            }
        }
    }
}

impl Shim {
    /// Takes a request about a sandbox.
    pub fn sandbox(&mut self, call: Call, request: &Request) -> Result<()> {
        let payload = request.payload.as_slice();
        match request.method.as_str() {
            "CreateSandbox" => self.create_sandbox(call, decode(payload)?),
            "StartSandbox" => {
                let wire::StartSandboxRequest { sandbox_id } = decode(payload)?;
                self.cx.word(call, Wording::Started);
                self.feed(&sandbox_id, Input::Start { exec: String::new(), call })
            }
            "StopSandbox" => self.stop_sandbox(call, decode(payload)?),
            // The two services say the same of an exit.
            "WaitSandbox" => {
                let wire::WaitSandboxRequest { sandbox_id } = decode(payload)?;
                self.feed(&sandbox_id, Input::Wait { exec: String::new(), call })?;
                self.limit_wait(call, request.timeout_nano);
                Ok(())
            }
            "ShutdownSandbox" => {
                let wire::ShutdownSandboxRequest { sandbox_id } = decode(payload)?;
                self.end_when_empty();
                if self.with(&sandbox_id, |_, _| Ok(())).is_err() {
                    self.cx.reply(call, Ok(Vec::new()));
                    return Ok(());
                }
                self.cx.word(call, Wording::Nothing);
                self.feed(&sandbox_id, Input::Delete { exec: String::new(), call })
            }
            "SandboxMetrics" => {
                let wire::SandboxMetricsRequest { sandbox_id } = decode(payload)?;
                self.cx.word(call, Wording::Metrics(sandbox_id.clone()));
                self.with(&sandbox_id, |driver, cx| driver.stats(cx, call))
            }
            method => {
                let answer = self.answer_of_sandbox(method, payload)?;
                self.cx.reply(call, Ok(answer));
                Ok(())
            }
        }
    }

    /// Methods whose answer is known at once.
    fn answer_of_sandbox(&mut self, method: &str, payload: &[u8]) -> Result<Vec<u8>> {
        match method {
            "Platform" => {
                let wire::PlatformRequest { .. } = decode(payload)?;
                let host = types::platform::Platform::host();
                let (os, architecture, variant) = (host.os, host.architecture, host.variant);
                let platform = Some(Platform { os, architecture, variant, ..Default::default() });
                Ok(wire::PlatformResponse { platform }.encode_to_vec())
            }
            "SandboxStatus" => {
                let wire::SandboxStatusRequest { sandbox_id, .. } = decode(payload)?;
                let (state, created) =
                    self.with(&sandbox_id, |driver, _| Ok((driver.describe("")?, driver.created_at())))?;
                Ok(status(state, created).encode_to_vec())
            }
            "PingSandbox" => {
                let wire::PingRequest { sandbox_id } = decode(payload)?;
                self.with(&sandbox_id, |_, _| Ok(Vec::new()))
            }
            other => Err(Error::unimplemented(format!("method {other}"))),
        }
    }

    fn create_sandbox(&mut self, call: Call, request: wire::CreateSandboxRequest) -> Result<()> {
        let bundle = Path::new(&request.bundle_path);
        if !bundle.join("config.json").exists() {
            let why = "a sandbox without a specification in its bundle: not implemented";
            return Err(Error::unimplemented(why));
        }
        // Other options are the front door's own. The runtime's came with `start` then.
        let is_ours = |any: &api::ProtoAny| any.type_url.ends_with("containerd.runc.v1.Options");
        let given = request.options.filter(is_ours).map(|any| options::unpack(Some(any))).transpose()?;
        let options: Options = given.map_or_else(|| options::load(bundle), Ok)?;
        let create = CreateTaskRequest {
            id: request.sandbox_id,
            bundle: request.bundle_path,
            rootfs: request.rootfs,
            options: Some(api::any::to_wire(api::any::pack(&options))),
            ..CreateTaskRequest::default()
        };
        self.cx.word(call, Wording::Nothing);
        self.create(call, create)
    }

    fn stop_sandbox(&mut self, call: Call, request: wire::StopSandboxRequest) -> Result<()> {
        let wire::StopSandboxRequest { sandbox_id: id, timeout_secs } = request;
        self.with(&id, |_, _| Ok(()))?;
        self.cx.word(call, Wording::Nothing);
        self.signal_sandbox(&id, libc::SIGTERM);
        let limit = if timeout_secs == 0 { STOP } else { Duration::from_secs(timeout_secs.into()) };
        self.cx.timers.set(limit, Deadline::Stop(id.clone()));
        self.feed(&id, Input::Wait { exec: String::new(), call })
    }

    /// A sandbox that was told to end has not, perhaps.
    pub fn stop_expired(&mut self, id: &str) {
        self.signal_sandbox(id, libc::SIGKILL);
    }

    fn signal_sandbox(&mut self, id: &str, signal: i32) {
        let (exec, signal) = (String::new(), signal.unsigned_abs());
        // One that is gone needs none.
        let _ = self.feed(id, Input::Kill { exec, signal, all: false, call: Call::NOBODYS });
    }
}

fn status(state: StateResponse, created: (i64, i32)) -> wire::SandboxStatusResponse {
    let stopped = state.status == i32::from(Status::Stopped);
    wire::SandboxStatusResponse {
        sandbox_id: state.id,
        pid: state.pid,
        state: if stopped { "SANDBOX_NOTREADY" } else { "SANDBOX_READY" }.to_owned(),
        created_at: Some(api::Timestamp { seconds: created.0, nanos: created.1 }),
        exited_at: if stopped { state.exited_at } else { message::exited_at(crate::call::Exit::NEVER) },
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_put_into_the_words_of_the_service() {
        let started = StartResponse { pid: 7 }.encode_to_vec();
        let put = Wording::Started.put(&started).unwrap();
        let put = wire::StartSandboxResponse::decode(put.as_slice()).unwrap();
        assert!(put.pid == 7 && put.created_at.is_some());
        assert!(Wording::Nothing.put(&started).unwrap().is_empty());
        let stats = StatsResponse { stats: Some(api::ProtoAny { type_url: "t".into(), value: vec![1] }) };
        let put = Wording::Metrics("s".into()).put(&stats.encode_to_vec()).unwrap();
        let metric = wire::SandboxMetricsResponse::decode(put.as_slice()).unwrap().metrics.unwrap();
        assert_eq!((metric.id.as_str(), metric.data), ("s", stats.stats));
    }
}
