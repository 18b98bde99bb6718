//! The Task service, versions 2 and 3: two names for the same messages.

use api::containerd::task::v3 as wire;
use api::ttrpc::Request;
use prost::Message;
use types::{Error, Result};

use crate::call::Call;
use crate::driver::{CreateRequest, control};
use crate::shim::Shim;
use crate::state::{Control, Input};

/// The signal that also ends what is only being made. Upstream has nothing that does.
const SIGKILL: u32 = libc::SIGKILL.unsigned_abs();

const SERVICES: [&str; 2] = ["containerd.task.v3.Task", "containerd.task.v2.Task"];

/// A request's message.
pub fn decode<M: Message + Default>(payload: &[u8]) -> Result<M> {
    M::decode(payload).map_err(|e| Error::internal(format!("ttrpc: error unmarshalling payload: {e}")))
}

impl Shim {
    /// Takes one request. Whatever cannot be begun is answered at once, the rest when it is done.
    pub fn request(&mut self, call: Call, request: Result<Request>) {
        if self.park(call, &request) {
            return;
        }
        if let Err(error) = request.and_then(|request| self.dispatch(call, &request)) {
            self.cx.reply(call, Err(error));
        }
    }

    fn dispatch(&mut self, call: Call, request: &Request) -> Result<()> {
        if request.service == api::ttrpc::SHIM {
            return self.own(call, request);
        }
        if request.service == api::ttrpc::OUTPUT {
            return self.output(call, request);
        }
        if request.service == crate::sandbox::SERVICE {
            return self.sandbox(call, request);
        }
        if !SERVICES.contains(&request.service.as_str()) {
            return Err(Error::unimplemented(format!("service {}", request.service)));
        }
        let payload = request.payload.as_slice();
        match request.method.as_str() {
            "Create" => {
                self.create(call, decode(payload)?)?;
                self.limit_create(call, request.timeout_nano);
                Ok(())
            }
            "Start" => {
                let wire::StartRequest { id, exec_id } = decode(payload)?;
                self.feed(&id, Input::Start { exec: exec_id, call })
            }
            "Wait" => {
                let wire::WaitRequest { id, exec_id } = decode(payload)?;
                self.feed(&id, Input::Wait { exec: exec_id, call })?;
                self.limit_wait(call, request.timeout_nano);
                Ok(())
            }
            "Kill" => {
                let wire::KillRequest { id, exec_id, signal, all } = decode(payload)?;
                if signal == SIGKILL && exec_id.is_empty() && self.end_creation(&id) {
                    self.cx.reply(call, Ok(Vec::new()));
                    return Ok(());
                }
                self.feed(&id, Input::Kill { exec: exec_id, signal, all, call })
            }
            "Delete" => {
                let wire::DeleteRequest { id, exec_id } = decode(payload)?;
                self.feed(&id, Input::Delete { exec: exec_id, call })
            }
            "Exec" => {
                let request: wire::ExecProcessRequest = decode(payload)?;
                let id = request.id.clone();
                self.with(&id, |driver, cx| driver.exec(cx, request, call))
            }
            "Pids" => {
                let wire::PidsRequest { id } = decode(payload)?;
                self.with(&id, |driver, cx| driver.pids(cx, call))
            }
            "Stats" => {
                let wire::StatsRequest { id } = decode(payload)?;
                self.with(&id, |driver, cx| driver.stats(cx, call))
            }
            "Pause" => {
                let wire::PauseRequest { id } = decode(payload)?;
                self.feed(&id, Input::Control { what: Control::Pause, call })
            }
            "Resume" => {
                let wire::ResumeRequest { id } = decode(payload)?;
                self.feed(&id, Input::Control { what: Control::Resume, call })
            }
            "Update" => {
                let wire::UpdateTaskRequest { id, resources, .. } = decode(payload)?;
                self.with(&id, |_, _| Ok(()))?;
                self.feed(&id, Input::Control { what: control::update(resources)?, call })
            }
            "Checkpoint" => {
                let request: wire::CheckpointTaskRequest = decode(payload)?;
                let id = request.id.clone();
                self.with(&id, |_, _| Ok(()))?;
                self.feed(&id, Input::Control { what: control::checkpoint(request)?, call })
            }
            method => {
                let answer = self.answer(method, payload)?;
                self.cx.reply(call, Ok(answer));
                Ok(())
            }
        }
    }

    /// Methods whose answer is known at once.
    fn answer(&mut self, method: &str, payload: &[u8]) -> Result<Vec<u8>> {
        match method {
            "State" => {
                let wire::StateRequest { id, exec_id } = decode(payload)?;
                self.with(&id, |driver, _| driver.describe(&exec_id)).map(|state| state.encode_to_vec())
            }
            "CloseIO" => {
                // Upstream ignores the flag `stdin` as well.
                let wire::CloseIoRequest { id, exec_id, .. } = decode(payload)?;
                self.with(&id, |driver, cx| driver.close_stdin(cx, &exec_id)).map(|()| Vec::new())
            }
            "ResizePty" => {
                let wire::ResizePtyRequest { id, exec_id, width, height } = decode(payload)?;
                self.with(&id, |driver, _| driver.resize(&exec_id, width, height)).map(|()| Vec::new())
            }
            "Connect" => {
                let wire::ConnectRequest { id } = decode(payload)?;
                let task_pid = self.with(&id, |driver, _| Ok(driver.pid())).unwrap_or(0);
                let response =
                    wire::ConnectResponse { shim_pid: std::process::id(), task_pid, version: String::new() };
                Ok(response.encode_to_vec())
            }
            "Shutdown" => {
                let wire::ShutdownRequest { .. } = decode(payload)?;
                self.shutdown();
                Ok(Vec::new())
            }
            other => Err(Error::unimplemented(format!("method {other}"))),
        }
    }

    /// Makes a container.
    pub fn create(&mut self, call: Call, request: wire::CreateTaskRequest) -> Result<()> {
        let request = CreateRequest::check(request)?;
        self.add(request, call)
    }
}
