//! `ctr registry`: what ctr would do with a registry.

use clap::Subcommand;
use types::Result;

use super::{print, refused};
use crate::cli::Globals;
use crate::flags::{RegistryFlags, Words};
use crate::registry;

/// `ctr registry ...`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show which files and hosts a pull would use, with what credentials and TLS, and what each host answers
    Explain {
        #[command(flatten)]
        registry: Box<RegistryFlags>,
        #[command(flatten)]
        words: Words,
    },
}

/// Runs a command. Needs no daemon.
pub async fn run(globals: &Globals, Command::Explain { registry: flags, words }: Command) -> Result<()> {
    if words.first().is_empty() {
        return refused("please provide an image reference to explain");
    }
    let reference = registry::reference(words.first())?;
    let explanation = registry::client(globals, &flags)?.explain(&reference).await?;
    print(explanation.to_string())
}
