//! `containerdrs.shim.v1.Shim`: what a shim of this project answers besides the Task service.

use api::containerdrs::shim::v1::{InfoRequest, InfoResponse, UpgradeRequest};
use api::ttrpc::Request;
use prost::Message;
use types::{Error, Result, version};

use crate::call::Call;
use crate::handover;
use crate::service::decode;
use crate::shim::Shim;

impl Shim {
    /// Takes a request of our own service.
    pub fn own(&mut self, call: Call, request: &Request) -> Result<()> {
        match request.method.as_str() {
            "Info" => {
                let InfoRequest {} = decode(&request.payload)?;
                let answer = self.info().encode_to_vec();
                self.cx.reply(call, Ok(answer));
                Ok(())
            }
            "Upgrade" => {
                let UpgradeRequest { binary } = decode(&request.payload)?;
                self.upgrade(call, &binary)
            }
            other => Err(Error::unimplemented(format!("method {other}"))),
        }
    }

    fn info(&self) -> InfoResponse {
        let binary = std::fs::read_link("/proc/self/exe").unwrap_or_default();
        InfoResponse {
            version: version::VERSION.to_owned(),
            revision: version::REVISION.to_owned(),
            pid: std::process::id(),
            state_version: handover::VERSION,
            containers: self.ids(),
            binary: binary.to_string_lossy().into_owned(),
        }
    }
}
