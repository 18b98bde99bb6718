//! `ctr version`.

use api::containerd::services::version::v1::VersionResponse;
use clap::Args;
use remote::from_status;
use types::Result;
use types::version::{REVISION, VERSION};

use super::{print, refused};
use crate::cli::Globals;
use crate::client::Client;

/// Takes no arguments.
#[derive(Args, Debug)]
pub struct Flags {
    #[arg(hide = true)]
    extra: Vec<String>,
}

/// Prints the client's version, then the server's.
pub async fn run(globals: &Globals, flags: Flags) -> Result<()> {
    if !flags.extra.is_empty() {
        return refused(format!("extra arguments: &[{}]", flags.extra.join(" ")));
    }
    print(format!("Client:\n  Version:  {VERSION}\n  Revision: {REVISION}\n\n"))?;
    let client = Client::open(globals)?;
    let (mut version, mut introspection) = (client.version(), client.introspection());
    let (version, server) =
        tokio::try_join!(version.version(()), introspection.server(())).map_err(from_status)?;
    let VersionResponse { version, revision } = version.into_inner();
    let uuid = server.into_inner().uuid;
    print(format!("Server:\n  Version:  {version}\n  Revision: {revision}\n  UUID: {uuid}\n"))?;
    if version != VERSION {
        eprintln!("WARNING: version mismatch");
    }
    if revision != REVISION {
        eprintln!("WARNING: revision mismatch");
    }
    Ok(())
}
