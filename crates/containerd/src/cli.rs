//! The daemon's command line, with the flags of upstream's `containerd`.
//!
//! Go's flag syntax knows no difference between one dash and two, so `-log-level debug` is brought into clap's form
//! first; everything else is clap's.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use types::{Error, Result};

use crate::check::Check;

/// Where the configuration is looked for if nobody says where.
pub const DEFAULT_CONFIG: &str = "/etc/containerd/config.toml";

/// What was asked on the command line.
#[derive(Debug, Parser)]
#[command(
    name = "containerd",
    about = "high performance container runtime",
    long_about = "containerd is a high performance container runtime whose daemon can be started by using this \
                  command. Without a command, the daemon runs in the foreground.",
    disable_version_flag = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// Options of the daemon.
    #[command(flatten)]
    pub flags: Flags,
    /// What to do instead of running the daemon.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options of the daemon; each overrides the configuration.
#[derive(Clone, Debug, Default, Args)]
pub struct Flags {
    /// Path to the configuration file [default: /etc/containerd/config.toml]
    #[arg(short, long, global = true)]
    pub config: Option<PathBuf>,
    /// Set the logging level [trace, debug, info, warn, error, fatal, panic]
    #[arg(short, long, global = true)]
    pub log_level: Option<String>,
    /// Address for containerd's GRPC server
    #[arg(short, long, global = true)]
    pub address: Option<String>,
    /// containerd root directory
    #[arg(long, global = true)]
    pub root: Option<PathBuf>,
    /// containerd state directory
    #[arg(long, global = true)]
    pub state: Option<PathBuf>,
    /// Print the version
    #[arg(short, long)]
    pub version: bool,
}

/// The commands besides running the daemon.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Information on the containerd config
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check machine, configuration, daemon and shims, and whether anything is left behind; changes nothing
    #[command(after_help = "Exit code: 0 nothing to say, 1 warnings, 2 problems")]
    Check(Check),
    /// Publish an event, an encoded Any on stdin, to containerd
    Publish(Publish),
    /// Provides a base for OCI runtime hooks to allow arguments to be injected.
    OciHook {
        /// The program and its arguments, with {{id}}, {{bundle}}, {{rootfs}}, {{pid}}, {{status}}, {{annotation "k"}}
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// What to print.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigCommand {
    /// See the output of the default config
    Default,
    /// See the output of the final main config with imported in subconfig files
    Dump,
    /// Migrate the current configuration file to the latest version (does not migrate subconfig files)
    Migrate,
}

/// The event's envelope.
#[derive(Debug, Args)]
pub struct Publish {
    /// Namespace to publish to
    #[arg(long, default_value = "")]
    pub namespace: String,
    /// Topic of the event
    #[arg(long, default_value = "")]
    pub topic: String,
}

/// Parses the arguments, program name first. `Ok(None)`: help was asked for and has been printed.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Option<Cli>> {
    let mut ours = true;
    let args = args.into_iter().map(|arg| {
        // What stands behind is the hook's, and stays as it is.
        ours &= arg != "oci-hook";
        if ours { go_flag(arg) } else { arg }
    });
    match Cli::try_parse_from(args) {
        Ok(cli) => Ok(Some(cli)),
        Err(help) if help.kind() == ErrorKind::DisplayHelp => {
            help.print()?;
            Ok(None)
        }
        Err(error) => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            Err(Error::invalid(line.strip_prefix("error: ").unwrap_or(line)))
        }
    }
}

/// `-name` and `-name=value` with more than one letter become `--name…`.
fn go_flag(arg: OsString) -> OsString {
    let Some(name) = arg.to_str().and_then(|text| text.strip_prefix('-')) else { return arg };
    let letters = name.split('=').next().unwrap_or_default();
    if letters.len() < 2 || name.starts_with('-') {
        return arg;
    }
    format!("--{name}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(args: &[&str]) -> Flags {
        let args = ["containerd"].iter().chain(args).map(OsString::from);
        parse(args).unwrap().unwrap().flags
    }

    #[test]
    fn long_flags_take_one_dash_or_two_as_in_go() {
        for args in [["-address", "/a"], ["--address", "/a"], ["-a", "/a"]] {
            assert_eq!(flags(&args).address.as_deref(), Some("/a"));
        }
        for arg in ["-address=/a", "--address=/a", "-a=/a"] {
            assert_eq!(flags(&[arg]).address.as_deref(), Some("/a"));
        }
        assert!(flags(&["-version"]).version && flags(&["-v"]).version);
    }

    #[test]
    fn flags_may_stand_behind_the_command() {
        assert_eq!(flags(&["config", "dump", "-c", "/x"]).config, Some("/x".into()));
    }

    #[test]
    fn what_a_hook_is_given_is_left_as_it_is() {
        for args in [
            &["-log-level=debug", "oci-hook", "/p", "-flag", "--", "-a"][..],
            &["oci-hook", "--", "/p", "-flag", "--", "-a"],
        ] {
            let args = ["containerd"].iter().chain(args).map(OsString::from);
            let Some(Command::OciHook { args }) = parse(args).unwrap().unwrap().command else { panic!() };
            assert_eq!(args, ["/p", "-flag", "--", "-a"]);
        }
    }

    #[test]
    fn an_unknown_flag_is_one_line() {
        let error = parse(["containerd", "-nosuch"].map(OsString::from)).unwrap_err().to_string();
        assert!(error.contains("--nosuch") && !error.contains('\n'), "{error}");
    }
}
