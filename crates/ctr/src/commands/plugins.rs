//! `ctr plugins`.

use std::collections::BTreeSet;

use api::containerd::services::introspection::v1::{Plugin, PluginsRequest};
use clap::Subcommand;
use remote::from_status;
use types::Result;

use super::print;
use crate::client::Client;
use crate::flags::{RuntimeFlags, Words};
use crate::go::Columns;

mod runtime;

/// `ctr plugins ...`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Lists containerd plugins
    #[command(visible_alias = "ls")]
    List {
        /// Print only the plugin ids
        #[arg(long, short)]
        quiet: bool,
        /// Print detailed information about each plugin
        #[arg(long, short)]
        detailed: bool,
        #[command(flatten)]
        filters: Words,
    },
    /// Display runtime info
    InspectRuntime(RuntimeFlags),
}

/// What the message of a plugin that did not want to be loaded contains.
const SKIPPED: &str = "skip plugin";

/// Lists the plugins.
pub async fn run(client: &Client, command: Command) -> Result<()> {
    let (quiet, detailed, filters) = match command {
        Command::List { quiet, detailed, filters } => (quiet, detailed, filters),
        Command::InspectRuntime(flags) => return runtime::run(client, &flags).await,
    };
    let request = PluginsRequest { filters: filters.words };
    let plugins = client.introspection().plugins(request).await.map_err(from_status)?.into_inner().plugins;
    if quiet {
        return print(plugins.iter().map(|plugin| format!("{}\n", plugin.id)).collect::<String>());
    }
    print(if detailed { details(&plugins) } else { table(&plugins) })
}

fn table(plugins: &[Plugin]) -> String {
    let mut table = Columns::wide();
    table.line("TYPE\tID\tPLATFORMS\tSTATUS\t");
    for plugin in plugins {
        let status = match &plugin.init_err {
            None => "ok",
            Some(error) if error.message.contains(SKIPPED) => "skip",
            Some(_) => "error",
        };
        let platforms = if plugin.platforms.is_empty() { "-".into() } else { platforms(plugin) };
        table.line(format!("{}\t{}\t{platforms}\t{status}\t", plugin.r#type, plugin.id));
    }
    table.finish()
}

fn details(plugins: &[Plugin]) -> String {
    let mut table = Columns::wide();
    for (at, plugin) in plugins.iter().enumerate() {
        if at > 0 {
            table.line("\t\t\t");
        }
        table.line(format!("Type:\t {}", plugin.r#type));
        table.line(format!("ID:\t {}", plugin.id));
        if !plugin.requires.is_empty() {
            table.line("Requires:\t");
            plugin.requires.iter().for_each(|required| table.line(format!("\t {required}")));
        }
        if !plugin.platforms.is_empty() {
            table.line(format!("Platforms:\t {}", platforms(plugin)));
        }
        if !plugin.exports.is_empty() {
            table.line("Exports:\t");
            plugin.exports.iter().for_each(|(key, value)| table.line(format!("\t {key} \t {value}")));
        }
        if !plugin.capabilities.is_empty() {
            table.line(format!("Capabilities:\t {}", plugin.capabilities.join(",")));
        }
        if let Some(error) = &plugin.init_err {
            table.line("Error:\t");
            table.line(format!("\t Code:\t {}", crate::go::code(tonic::Code::from_i32(error.code))));
            table.line(format!("\t Message:\t {}", error.message));
        }
    }
    table.finish()
}

fn platforms(plugin: &Plugin) -> String {
    let names: BTreeSet<String> =
        plugin.platforms.iter().cloned().map(|p| api::convert::platform(p).to_string()).collect();
    names.into_iter().collect::<Vec<_>>().join(",")
}
