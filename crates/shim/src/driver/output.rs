//! A process's log: another file under its name, and who gets a copy.

use std::rc::Rc;

use api::containerdrs::shim::v1::{AttachRequest, AttachResponse};
use prost::Message;
use types::output::{LogFile, Output};
use types::{Error, Result, ResultExt};

use super::{Driver, Live};
use crate::call::Call;
use crate::context::Context;
use crate::logfile::Channel;
use crate::output::Then;
use crate::streams;

impl Driver {
    /// Goes on in a new file, for `call`.
    pub fn reopen(&self, cx: &mut Context, exec: &str, call: Call) -> Result<()> {
        let live = self.live(exec)?;
        let log = log_of(&live.stdio.stdout).or_else(|| log_of(&live.stdio.stderr));
        let log = log.ok_or_else(|| not_logged(&self.id))?;
        let carriers = cx.streams.logs(&live.owner).iter().filter_map(|(_, _, carrier)| *carrier).collect();
        cx.renew(call, carriers, Then::Open(self.id.clone(), log));
        Ok(())
    }

    /// Copies what is logged to the pipes of `request`, for `call`.
    pub fn attach(&self, cx: &mut Context, request: &AttachRequest, call: Call) -> Result<()> {
        let live = self.live(&request.exec_id)?;
        let stdio = &live.stdio;
        let wanted = [
            (request.stdout.as_str(), &stdio.stdout, Channel::Out),
            (if stdio.terminal { "" } else { request.stderr.as_str() }, &stdio.stderr, Channel::Err),
        ];
        let mut pipes = Vec::new();
        for (path, uri, channel) in wanted {
            if path.is_empty() {
                continue;
            }
            if !uri.is_empty() && log_of(uri).is_none() {
                return Err(not_logged(&self.id));
            }
            pipes.push((channel, streams::open_copy(path)?));
        }
        let logs = cx.streams.logs(&live.owner);
        let logs: Vec<(Channel, Option<u64>)> =
            logs.into_iter().map(|(_, c, carrier)| (c, carrier)).collect();
        let mut carriers = Vec::new();
        for (channel, pipe) in pipes {
            // What has ended already has nothing to say: to close the pipe says so.
            let Some((_, carrier)) = logs.iter().find(|(of, _)| *of == channel) else { continue };
            let owner = Rc::clone(&live.owner);
            cx.streams.attach((&owner, channel), pipe, &cx.epoll).context(|| "watch who is attached")?;
            carriers.extend(*carrier);
        }
        let answer = AttachResponse { stdin: stdio.stdin.clone(), terminal: stdio.terminal };
        cx.renew(call, carriers, Then::Answer(answer.encode_to_vec()));
        Ok(())
    }

    fn live(&self, exec: &str) -> Result<&Live> {
        self.state.process(exec)?;
        self.processes.get(exec).ok_or_else(|| Error::not_found(format!("process {exec:?}: not found")))
    }
}

/// The log file that output goes to, if it goes to one.
fn log_of(uri: &str) -> Option<LogFile> {
    match Output::parse(uri) {
        Ok(Output::File(log)) => Some(log),
        Ok(Output::None | Output::Path(_) | Output::Program(_)) | Err(_) => None,
    }
}

fn not_logged(id: &str) -> Error {
    Error::precondition(format!(
        "the output of {id} does not go to a log file of the shim: failed precondition"
    ))
}
