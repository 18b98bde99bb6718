//! `ctr oci`.

use clap::Subcommand;
use types::oci::spec::Spec;
use types::platform::Platform;
use types::{Result, ResultExt};

use super::print;
use crate::cli::Globals;
use crate::go::json;

/// `ctr oci ...`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// See the output of the default OCI spec
    Spec {
        /// Platform of the spec to print (Examples: 'linux/arm64', 'windows/amd64')
        #[arg(long, default_value = "")]
        platform: String,
        #[arg(hide = true)]
        extra: Vec<String>,
    },
}

/// Prints the default spec; needs no daemon.
pub fn run(globals: &Globals, command: Command) -> Result<()> {
    let Command::Spec { platform, extra: _ } = command;
    let platform: Platform = match platform.as_str() {
        "" => Platform::host(),
        text => text.parse().context(|| "failed to generate spec")?,
    };
    let spec = Spec::default_for(&platform, &globals.namespace.parse()?, "");
    print(json::shown(&spec)?)
}
