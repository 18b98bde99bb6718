//! A connection, handed over in the middle of messages.

use api::containerdrs::shim::v1 as state;
use sys::handover::Inherited;
use types::Result;

use super::Wire;
use crate::handover::Kept;

impl Wire {
    /// All of it.
    pub fn write_down<'a>(&'a self, kept: &mut Kept<'a>) -> state::Wire {
        let Self { fd, input, skip, output, sent } = self;
        state::Wire {
            fd: kept.add(fd),
            input: input.clone(),
            skip: *skip as u64,
            output: output.get(*sent..).unwrap_or_default().to_vec(),
        }
    }

    /// The same, back.
    pub fn read_back(state: state::Wire, inherited: &mut Inherited) -> Result<Self> {
        let mut wire = Self::new(inherited.take(state.fd)?);
        wire.input = state.input;
        wire.skip = usize::try_from(state.skip).unwrap_or(usize::MAX);
        wire.output = state.output;
        Ok(wire)
    }
}
