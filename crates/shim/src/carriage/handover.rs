//! Programs that take output, handed over.

use std::path::PathBuf;
use std::time::Duration;

use api::containerdrs::shim::v1 as wire;
use types::Result;
use types::output::Program;

use super::Logger;
use crate::handover::required;
use crate::logger::Subject;
use crate::streams::{read_owner, write_owner};

impl Logger {
    /// All of it.
    pub fn write_down(&self) -> wire::Logger {
        let Self { owner, program, subject, child, delay, number } = self;
        let Program { path, args, says_ready } = program.clone();
        let Subject { namespace, container, directory } = subject.clone();
        wire::Logger {
            owner: Some(write_owner(owner)),
            path: path.to_string_lossy().into_owned(),
            args,
            says_ready,
            namespace,
            container,
            directory: directory.to_string_lossy().into_owned(),
            child: child.unwrap_or(0),
            number: *number,
            delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The same, back.
    pub fn read_back(state: wire::Logger) -> Result<Self> {
        Ok(Self {
            owner: read_owner(required(state.owner, "owner of a program")?),
            program: Program {
                path: PathBuf::from(state.path),
                args: state.args,
                says_ready: state.says_ready,
            },
            subject: Subject {
                namespace: state.namespace,
                container: state.container,
                directory: PathBuf::from(state.directory),
            },
            child: Some(state.child).filter(|child| *child != 0),
            delay: Duration::from_millis(state.delay_ms),
            number: state.number,
        })
    }
}
