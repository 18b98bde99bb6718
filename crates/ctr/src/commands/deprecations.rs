//! `ctr deprecations`.

use clap::Subcommand;
use remote::from_status;
use serde::Serialize;
use types::Result;
use types::time::rfc3339;

use super::print;
use crate::client::Client;
use crate::go::{Columns, json};

/// `ctr deprecations ...`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Print warnings for deprecations
    List {
        /// output format to use (Examples: 'default', 'json')
        #[arg(long, default_value = "")]
        format: String,
        #[arg(hide = true)]
        extra: Vec<String>,
    },
}

#[derive(Serialize)]
struct Warning {
    id: String,
    message: String,
    #[serde(rename = "lastOccurrence")]
    last_occurrence: String,
}

/// Prints what the server warns of, if anything.
pub async fn run(client: &Client, command: Command) -> Result<()> {
    let Command::List { format, extra: _ } = command;
    let server = client.introspection().server(()).await.map_err(from_status)?.into_inner();
    let warnings: Vec<Warning> = server
        .deprecations
        .into_iter()
        .map(|d| Warning {
            id: d.id,
            message: d.message,
            last_occurrence: rfc3339(api::convert::time(d.last_occurrence)),
        })
        .collect();
    if warnings.is_empty() {
        return Ok(());
    }
    if format == "json" {
        return print(json::shown(&warnings)?);
    }
    let mut table = Columns::wide();
    table.line("ID\tLAST OCCURRENCE\tMESSAGE\t");
    for warning in warnings {
        table.line(format!("{}\t{}\t{}", warning.id, warning.last_occurrence, warning.message));
    }
    print(table.finish())
}
