//! The command line, in the syntax of Go's flag package: `-name value`, `--name=value`, bools without a value.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// What the command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The namespace that owns the shim.
    pub namespace: String,
    /// The id of the task.
    pub id: String,
    /// The gRPC address of the daemon.
    pub address: String,
    /// The bundle, where it is not the working directory.
    pub bundle: String,
    /// Where to serve, instead of the socket that `start` makes.
    pub socket: String,
    /// Where to serve what is going on, beside `socket` and with `debug`.
    pub debug_socket: String,
    /// The daemon's binary, executed to publish events where there is no ttrpc socket.
    pub publish_binary: String,
    /// Internal: what another program of this process has handed over.
    pub handover: String,
    /// Whether to log more.
    pub debug: bool,
    /// Print the version and exit.
    pub version: bool,
    /// Print what this runtime can do and exit.
    pub info: bool,
    /// Print the flags and exit.
    pub help: bool,
    /// `start`, `delete`, or empty to serve.
    pub action: String,
}

impl Flags {
    /// Reads the arguments behind the program's name. The error is what Go prints.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut flags = Self::default();
        let mut args = args.into_iter().map(|a| String::from_utf8_lossy(&a.into_vec()).into_owned());
        while let Some(arg) = args.next() {
            let name = match arg.strip_prefix('-') {
                // A lone dash and the first word without one end the flags.
                None | Some("") => {
                    flags.action = arg;
                    break;
                }
                Some("-") => {
                    flags.action = args.next().unwrap_or_default();
                    break;
                }
                Some(name) => name.strip_prefix('-').unwrap_or(name),
            };
            if name.starts_with(['-', '=']) {
                return Err(format!("bad flag syntax: {arg}"));
            }
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            if let Some(bool) = flags.bool_flag(name) {
                *bool = match value.as_deref() {
                    None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
                    Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
                    Some(other) => {
                        return Err(format!("invalid boolean value {other:?} for -{name}: parse error"));
                    }
                };
            } else if let Some(text) = flags.text_flag(name) {
                let missing = || format!("flag needs an argument: -{name}");
                *text = value.or_else(|| args.next()).ok_or_else(missing)?;
            } else {
                return Err(format!("flag provided but not defined: -{name}"));
            }
        }
        Ok(flags)
    }

    fn bool_flag(&mut self, name: &str) -> Option<&mut bool> {
        match name {
            "debug" => Some(&mut self.debug),
            "v" | "version" => Some(&mut self.version),
            "info" => Some(&mut self.info),
            "h" | "help" => Some(&mut self.help),
            _ => None,
        }
    }

    fn text_flag(&mut self, name: &str) -> Option<&mut String> {
        match name {
            "namespace" => Some(&mut self.namespace),
            "id" => Some(&mut self.id),
            "address" => Some(&mut self.address),
            "bundle" => Some(&mut self.bundle),
            "socket" => Some(&mut self.socket),
            "debug-socket" => Some(&mut self.debug_socket),
            "handover" => Some(&mut self.handover),
            "publish-binary" => Some(&mut self.publish_binary),
            _ => None,
        }
    }
}

/// What `-h` prints.
pub const USAGE: &str = "\
Usage of containerd-shim-runc-v2:
  -address string
    \tgrpc address back to main containerd
  -bundle string
    \tpath to the bundle if not workdir
  -debug
    \tenable debug output in logs
  -debug-socket string
    \tdebug socket path to serve
  -id string
    \tid of the task
  -info
    \tget the option protobuf from stdin, print the shim info protobuf to stdout, and exit
  -namespace string
    \tnamespace that owns the shim
  -publish-binary string
    \tpath to the program that publishes events, if the env TTRPC_ADDRESS names no socket for them
  -socket string
    \tsocket path to serve
  -v
  -version
    \tshow the shim version and exit
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Flags, String> {
        Flags::parse(args.iter().map(OsString::from))
    }

    #[test]
    fn go_writes_flags_with_one_dash_or_two_and_with_or_without_equals() {
        let flags =
            parse(&["-namespace", "k8s.io", "--id=c1", "-debug", "-address=a=b", "start", "-x"]).unwrap();
        assert_eq!(
            (flags.namespace.as_str(), flags.id.as_str(), flags.address.as_str()),
            ("k8s.io", "c1", "a=b")
        );
        assert!(flags.debug);
        assert_eq!(flags.action, "start");
        assert!(!parse(&["-debug=false"]).unwrap().debug);
        assert_eq!(parse(&["--", "delete"]).unwrap().action, "delete");
    }

    #[test]
    fn mistakes_are_told_as_go_tells_them() {
        assert_eq!(parse(&["-nope"]).unwrap_err(), "flag provided but not defined: -nope");
        assert_eq!(parse(&["-id"]).unwrap_err(), "flag needs an argument: -id");
        assert_eq!(parse(&["---id"]).unwrap_err(), "bad flag syntax: ---id");
        assert!(parse(&["-debug=maybe"]).unwrap_err().starts_with("invalid boolean value"));
    }
}
