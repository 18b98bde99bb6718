//! The command line: one type per command, parsed by clap after `argv` made Go's syntax into clap's.

use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::argv::{self, Stop};
use crate::commands::{
    containers, content, deprecations, events, images, install, leases, namespaces, oci, plugins, pprof,
    registry, run, sandboxes, shim, shims, snapshots, tasks, version, why,
};
use crate::go::duration;
use crate::{complete, usage};

/// containerd CLI
///
/// ctr is an unsupported debug and administrative client for interacting with the containerd daemon. Because it is
/// unsupported, the commands, options, and operations are not guaranteed to be backward compatible or stable from
/// release to release of the containerd project.
#[derive(Parser, Debug)]
#[command(name = "ctr", disable_help_subcommand = true)]
pub struct Cli {
    /// Flags in front of the command.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags in front of the command.
#[derive(Args, Clone, Debug)]
pub struct Globals {
    /// Enable debug output in logs
    #[arg(long)]
    pub debug: bool,
    /// Address for containerd's GRPC server
    #[arg(long, short, env = "CONTAINERD_ADDRESS", default_value = "/run/containerd/containerd.sock")]
    pub address: String,
    /// Total timeout for ctr commands
    #[arg(long, value_parser = duration::parse, default_value = "0")]
    pub timeout: Duration,
    /// Timeout for connecting to containerd
    #[arg(long, value_parser = duration::parse, default_value = "0")]
    pub connect_timeout: Duration,
    /// Namespace to use with commands
    #[arg(long, short, env = "CONTAINERD_NAMESPACE", default_value = "default")]
    pub namespace: String,
}

/// The commands, in upstream's order.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Provides information about containerd plugins
    #[command(visible_alias = "plugin", subcommand)]
    Plugins(plugins::Command),
    /// Print the client and server versions
    Version(version::Flags),
    /// Manage containers
    #[command(visible_aliases = ["c", "container"], subcommand)]
    Containers(containers::Command),
    /// Manage content
    #[command(subcommand)]
    Content(content::Command),
    /// Display containerd events
    #[command(visible_alias = "event")]
    Events(events::Flags),
    /// Manage images
    #[command(visible_aliases = ["image", "i"], subcommand)]
    Images(images::Command),
    /// Manage leases
    #[command(subcommand)]
    Leases(leases::Command),
    /// Manage namespaces
    #[command(visible_aliases = ["namespace", "ns"], subcommand)]
    Namespaces(namespaces::Command),
    /// Provide golang pprof outputs for containerd
    Pprof(pprof::Flags),
    /// Run a container
    Run(Box<run::Flags>),
    /// Manage snapshots
    #[command(visible_alias = "snapshot")]
    Snapshots(snapshots::Flags),
    /// Manage tasks
    #[command(visible_aliases = ["t", "task"], subcommand)]
    Tasks(tasks::Command),
    /// Install a new package
    Install(install::Flags),
    /// OCI tools
    #[command(subcommand)]
    Oci(oci::Command),
    /// Manage sandboxes
    #[command(visible_aliases = ["sandbox", "sb", "s"], subcommand)]
    Sandboxes(sandboxes::Command),
    /// Interact with a shim directly
    Shim(shim::Flags),
    /// List the shims of a daemon, and replace them while they run
    #[command(subcommand)]
    Shims(shims::Command),
    /// Tell how a container died
    Why(why::Flags),
    /// Print the server info
    Info,
    /// Show what this machine does with containers, in a private root, and leave nothing behind
    Demo,
    /// Look at how registries are reached
    #[command(subcommand)]
    Registry(registry::Command),
    /// Warnings about what will be removed
    #[command(subcommand)]
    Deprecations(deprecations::Command),
}

/// Parses the words behind the program's name. `Err` has printed what there is to say, and is the exit code.
pub fn parse(args: &[String]) -> Result<Cli, u8> {
    if let Some((word, before)) = args.split_last()
        && word == "--generate-bash-completion"
    {
        said(complete::words(&Cli::command(), before));
        return Err(0);
    }
    let mut root = often_used(args).unwrap_or_else(Cli::command);
    let words = argv::normalize(&root, args).map_err(|stop| explain(&mut Cli::command(), stop))?;
    let path = words.iter().skip(1).take_while(|word| *word != "--").filter(|word| !word.starts_with('-'));
    let path: Vec<String> = path.cloned().collect();
    let parsed = root.try_get_matches_from_mut(words).and_then(|matches| Cli::from_arg_matches(&matches));
    parsed.map_err(|error| refuse(&mut Cli::command(), path, &error))
}

/// The definition of the one command that is called, where that is one that people wait for: building those of all
/// hundred takes half a millisecond.
fn often_used(args: &[String]) -> Option<clap::Command> {
    let root = Globals::augment_args(clap::Command::new("ctr"));
    let words = argv::normalize(&root, args).ok()?;
    let name = words.iter().skip_while(|word| *word != "--").nth(1)?;
    let command = clap::Command::new(name.clone());
    match name.as_str() {
        "run" => Some(root.subcommand(run::Flags::augment_args(command))),
        "tasks" => Some(root.subcommand(tasks::Command::augment_subcommands(command))),
        _ => None,
    }
}

fn explain(root: &mut clap::Command, stop: Stop) -> u8 {
    match stop {
        Stop::Help(path) => {
            said(help(root, &path));
            0
        }
        Stop::Version => {
            said(format!("ctr {} {}\n", types::version::PACKAGE, types::version::VERSION));
            0
        }
        Stop::Usage(path, text) => {
            said(format!("Incorrect Usage: {text}\n\n{}", help(root, &path)));
            eprintln!("ctr: {text}");
            1
        }
        Stop::Unknown(name) => {
            eprintln!("No help topic for '{name}'");
            3
        }
    }
}

/// Prints to somebody who may be gone, with nothing made yet that would have to be taken back.
fn said(text: String) {
    if crate::commands::print(text).is_err() {
        sys::process::end_by_broken_pipe();
    }
}

fn help(root: &mut clap::Command, path: &[String]) -> String {
    root.build();
    let mut command = root;
    for name in path {
        // Asked first: what a failed mutable look-up returned would still borrow the command.
        if command.find_subcommand(name).is_none() {
            break;
        }
        let Some(next) = command.find_subcommand_mut(name) else { return String::new() };
        command = next;
    }
    usage::named(command.clone(), path).render_help().to_string()
}

/// What clap still finds wrong: values, in Go's words.
fn refuse(root: &mut clap::Command, path: Vec<String>, error: &clap::Error) -> u8 {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    if matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) {
        let flag = context(ContextKind::InvalidArg);
        let flag = flag.trim_start_matches('-').split([' ', '=']).next().unwrap_or_default();
        let value = context(ContextKind::InvalidValue);
        return explain(
            root,
            Stop::Usage(path, format!("invalid value {value:?} for flag -{flag}: parse error")),
        );
    }
    eprintln!("ctr: {}", error.to_string().trim_end());
    1
}

/// Shows how a command is used, where upstream does so instead of refusing.
pub fn show_help(path: &[&str]) -> types::Result<()> {
    let path: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
    crate::commands::print(help(&mut Cli::command(), &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, u8> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_command_that_is_built_alone_is_the_same_as_among_all() {
        for line in ["-n x run --rm -t IMG ID ls -l", "--debug tasks exec --exec-id e c1 true", "tasks ls -q"]
        {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert!(often_used(&args).is_some());
            let mut all = Cli::command();
            let words = argv::normalize(&all, &args).unwrap();
            let whole = all.try_get_matches_from_mut(words).and_then(|m| Cli::from_arg_matches(&m)).unwrap();
            assert_eq!(format!("{:?}", parsed(line).unwrap()), format!("{whole:?}"));
        }
    }

    #[test]
    fn whatever_else_is_called_is_looked_up_among_all() {
        for line in ["images ls", "nonsense", "-x run", "", "run"] {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(often_used(&args).is_some(), line == "run", "{line}");
        }
        assert!(matches!(parsed("t ls"), Ok(Cli { command: Command::Tasks(_), .. })));
    }
}
