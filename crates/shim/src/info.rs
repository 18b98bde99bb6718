//! `-info`: what this runtime is and can do.

use std::io::{Read, Write};
use std::path::Path;

use api::containerd::types::{RuntimeInfo, RuntimeVersion};
use prost::Message;
use types::{Any, Error, Result, ResultExt};

use crate::io::Captured;
use crate::json::Parser;
use crate::offload::memory_file;
use crate::options;
use crate::runtime::external::spawn;

const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Prints the answer to what stands on standard input: an Any of options, or nothing.
pub fn info() -> Result<()> {
    let mut input = Vec::new();
    std::io::stdin().take(10 << 20).read_to_end(&mut input).context(|| "failed to read stdin")?;
    let answer = describe(&input)?.encode_to_vec();
    let mut stdout = std::io::stdout();
    stdout.write_all(&answer).and_then(|()| stdout.flush()).context(|| "answer")
}

fn describe(input: &[u8]) -> Result<RuntimeInfo> {
    let any = match input {
        [] => None,
        _ => Some(api::ProtoAny::decode(input).map_err(|e| Error::invalid(format!("decode options: {e}")))?),
    };
    let options =
        options::unpack(any.clone()).context(|| "failed to read runtime options (*options.Options)")?;
    let command = if options.binary_name.is_empty() { "runc" } else { &options.binary_name };
    let version = RuntimeVersion {
        version: types::version::VERSION.to_owned(),
        revision: types::version::REVISION.to_owned(),
    };
    Ok(RuntimeInfo {
        name: String::from("io.containerd.runc.v2"),
        version: Some(version),
        options: any,
        features: features(command)?.map(|json| api::any::to_wire(Any::new(FEATURES, json))),
        annotations: Default::default(),
    })
}

/// What `runc features` says, if the command knows of it; an error if there is no such command.
fn features(command: &str) -> Result<Option<Vec<u8>>> {
    let output = memory_file("features")?;
    let captured = Captured::new(&output)?;
    let child = spawn(command, &[command.as_ref(), "features".as_ref()], Path::new("/"), captured.stdio())?;
    if !child.collect_blocking().context(|| "wait for the runtime")?.is_success() {
        return Ok(None);
    }
    let mut json = Vec::new();
    let mut output = &output;
    std::io::Seek::rewind(&mut output)?;
    output.read_to_end(&mut json)?;
    let valid = Parser::new(json.as_slice()).object(|p, _| p.skip()).is_ok();
    Ok(valid.then_some(json))
}
