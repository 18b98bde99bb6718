//! `containerdrs.shim.v1.Output`: logs that go on in a new file, and copies of what is logged.
//!
//! Both are the carriers' work (`carrier`), which know at their beginning what there is to know: the ones that run are asked
//! to end, and the next ones find the new file and whoever is attached. What has begun of a line goes from one to the next
//! by a memo, so that no line is torn. The caller is answered when those before have ended.

use api::containerdrs::shim::v1::{AttachRequest, ReopenRequest};
use api::ttrpc::Request;
use types::output::LogFile;
use types::{Error, Result, ResultExt};

use crate::call::Call;
use crate::children::{Purpose, Work};
use crate::context::Context;
use crate::service::decode;
use crate::shim::Shim;
use crate::timers::Deadline;
use crate::{logfile, offload};

/// A call that is answered when carriers have ended which began before it.
pub struct Awaiting {
    /// Whose answer it is.
    pub call: Call,
    /// Those that have not ended.
    pub carriers: Vec<u64>,
    /// What is done then.
    pub then: Then,
}

/// What is done when nobody writes any more who does not know.
pub enum Then {
    /// This is answered.
    Answer(Vec<u8>),
    /// The log of a container is opened, so that it is there.
    Open(String, LogFile),
}

impl Shim {
    /// Takes a request about output.
    pub fn output(&mut self, call: Call, request: &Request) -> Result<()> {
        match request.method.as_str() {
            "Reopen" => {
                let ReopenRequest { id, exec_id } = decode(&request.payload)?;
                self.with(&id, |driver, cx| driver.reopen(cx, &exec_id, call))
            }
            "Attach" => {
                let request: AttachRequest = decode(&request.payload)?;
                let id = request.id.clone();
                self.with(&id, |driver, cx| driver.attach(cx, &request, call))
            }
            other => Err(Error::unimplemented(format!("method {other}"))),
        }
    }
}

impl Context {
    /// Does `then` for `call` when the carriers among `carriers` have ended, which are asked to.
    pub fn renew(&mut self, call: Call, carriers: Vec<u64>, then: Then) {
        for carrier in &carriers {
            self.stop(Some(*carrier));
        }
        let awaiting = Awaiting { call, carriers, then };
        if awaiting.carriers.is_empty() { self.renewed(awaiting) } else { self.awaiting.push(awaiting) }
    }

    /// A carrier has ended, or was given up.
    pub fn carrier_gone(&mut self, carrier: u64) {
        for awaiting in &mut self.awaiting {
            awaiting.carriers.retain(|of| *of != carrier);
        }
        while let Some(index) = self.awaiting.iter().position(|awaiting| awaiting.carriers.is_empty()) {
            let awaiting = self.awaiting.swap_remove(index);
            self.renewed(awaiting);
        }
    }

    fn renewed(&mut self, Awaiting { call, then, .. }: Awaiting) {
        match then {
            Then::Answer(payload) => self.reply(call, Ok(payload)),
            Then::Open(container, log) => {
                if let Err(error) = self.open_log(call, container, log) {
                    self.reply(call, Err(error));
                }
            }
        }
    }

    fn open_log(&mut self, call: Call, container: String, log: LogFile) -> Result<()> {
        let (child, report) = offload::start(|| {
            let opened = logfile::open(&log).context(|| format!("open log file {}", log.path.display()));
            opened.map(|_| Vec::new())
        })?;
        let work = Work::Reopen(call);
        let serial = self.track(child, Purpose::Offload { container, work, report })?;
        self.timers.set(offload::LIMIT, Deadline::Offload(serial));
        Ok(())
    }
}
