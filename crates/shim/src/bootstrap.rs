//! `start`: answers the daemon, and becomes the server by a fork without a second exec.
//!
//! ```text
//!  caller                    stdin                      answer
//!  containerd 2.3            BootstrapParams (our id)   BootstrapResult, protobuf
//!  containerd 1.7 to 2.2     Any of options, or empty   JSON, version = min(3, MAX_SHIM_VERSION)
//!  containerd 1.6            Any of options, or empty   the address; `address` in the bundle is ours to write
//! ```
//!
//! An `Any` also decodes as BootstrapParams, so these count only if they carry our id. Older daemons read standard output
//! and error as one: nothing is written to the latter on success.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use api::containerd::runc::v1::Options;
use api::containerd::runtime::bootstrap::v1::{BootstrapParams, BootstrapResult};
use prost::Message;
use sys::process::{Fork, fork};
use types::{Error, Result, ResultExt};

use crate::address::{self, Claim, Socket};
use crate::debug::Door;
use crate::flags::Flags;
use crate::serve::{self, Doors, Settings};
use crate::spec::Facts;

/// As much as upstream reads of standard input.
const INPUT: u64 = 10 << 20;
/// `LOG_LEVEL_DEBUG`; what is lower says more.
const DEBUG: i32 = -4;
/// The Task service that we announce.
const VERSION: i32 = 3;

/// Who called, as far as it decides the form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Protobuf,
    Json { version: i32 },
    Plain,
}

/// What the daemon told us, by whichever way.
struct Params {
    caller: Caller,
    grpc_address: String,
    ttrpc_address: String,
    publish_binary: String,
    debug: bool,
    options: Options,
    socket_dir: Option<PathBuf>,
}

/// Performs `start`.
pub fn start(flags: &Flags) -> Result<()> {
    let mut input = Vec::new();
    std::io::stdin().take(INPUT).read_to_end(&mut input).context(|| "failed to read stdin")?;
    let params = Params::read(flags, &input);
    let bundle = std::env::current_dir().context(|| "working directory")?;
    if let Some(directory) = &params.socket_dir {
        link_socket_dir(directory, &bundle)?;
    }
    if params.options != Options::default() {
        // For a sandbox, whose Create does not tell them.
        crate::options::save(&params.options, &bundle)?;
    }
    let group = Facts::read(&bundle)?.group.unwrap_or_else(|| flags.id.clone());
    let directory = params.socket_dir.clone().unwrap_or_else(|| PathBuf::from(address::DIRECTORY));
    let path = address::path(&directory, &params.grpc_address, &flags.namespace, &group);
    match address::claim(&path)? {
        Claim::Taken => params.answer(&path, &bundle),
        Claim::Ours(listener, socket) => {
            let settings = params.settings(flags, bundle.clone());
            // What cannot be debugged runs all the same.
            let door = || {
                Door::open(&address::debug_path(&directory, &params.grpc_address, &flags.namespace, &group))
            };
            let debug = settings.debug.then(door).and_then(Result::ok);
            params.become_server(Doors { listener, socket, debug }, settings)
        }
    }
}

impl Params {
    fn read(flags: &Flags, input: &[u8]) -> Self {
        let env = |name: &str| std::env::var(name).unwrap_or_default();
        let new =
            BootstrapParams::decode(input).ok().filter(|p| !flags.id.is_empty() && p.instance_id == flags.id);
        let Some(new) = new else {
            let caller = match std::env::var("MAX_SHIM_VERSION").map(|v| v.trim().parse()) {
                Err(_) => Caller::Plain,
                Ok(max) => Caller::Json { version: max.unwrap_or(2).clamp(2, VERSION) },
            };
            return Self {
                caller,
                grpc_address: flags.address.clone(),
                ttrpc_address: env("TTRPC_ADDRESS"),
                publish_binary: flags.publish_binary.clone(),
                debug: flags.debug,
                options: api::ProtoAny::decode(input).ok().map(options_of).unwrap_or_default(),
                socket_dir: None,
            };
        };
        let or = |first: String, second: String| if first.is_empty() { second } else { first };
        let mut values = new.extensions.into_iter().filter_map(|e| e.value);
        let is_options = |any: &api::ProtoAny| any.type_url.ends_with("containerd.runc.v1.Options");
        Self {
            caller: Caller::Protobuf,
            grpc_address: or(new.containerd_grpc_address, flags.address.clone()),
            ttrpc_address: or(new.containerd_ttrpc_address, env("TTRPC_ADDRESS")),
            publish_binary: or(new.containerd_binary, flags.publish_binary.clone()),
            debug: flags.debug || new.log_level <= DEBUG,
            options: values.find(is_options).map(options_of).unwrap_or_default(),
            socket_dir: new.socket_dir.filter(|d| !d.is_empty()).map(PathBuf::from),
        }
    }

    fn settings(&self, flags: &Flags, bundle: PathBuf) -> Settings {
        Settings {
            namespace: flags.namespace.clone(),
            id: flags.id.clone(),
            grpc_address: self.grpc_address.clone(),
            ttrpc_address: self.ttrpc_address.clone(),
            publish_binary: self.publish_binary.clone(),
            debug: self.debug,
            bundle,
        }
    }

    /// Forks: the child serves, the parent answers.
    fn become_server(&self, doors: Doors, settings: Settings) -> Result<()> {
        inherit_oom_score();
        let sockets = doors.sockets();
        let address = doors.socket.path().to_owned();
        match fork().context(|| "fork")? {
            Fork::Child => serve::detached(doors, &settings),
            Fork::Parent(child) => {
                let joined = match self.options.shim_cgroup.as_str() {
                    "" => Ok(()),
                    group => sys::cgroup::join(group, child.pid())
                        .context(|| format!("failed to join cgroup {group}")),
                };
                let result = joined.and_then(|()| self.answer(&address, &settings.bundle));
                if result.is_err() {
                    let _ = child.kill();
                    sockets.iter().for_each(Socket::remove);
                }
                result
            }
        }
    }

    fn answer(&self, path: &Path, bundle: &Path) -> Result<()> {
        let address = format!("unix://{}", path.display());
        let answer = match self.caller {
            Caller::Protobuf => {
                let protocol = String::from("ttrpc");
                let services = [api::ttrpc::OUTPUT, crate::sandbox::SERVICE];
                let metadata = services.map(|service| (service.to_owned(), "1".to_owned())).into();
                BootstrapResult { version: VERSION, address, protocol, metadata, ..Default::default() }
                    .encode_to_vec()
            }
            Caller::Json { version } => {
                write_address(bundle, &address)?;
                let mut text = format!("{{\"version\":{version},\"address\":");
                crate::json::quote(&address, &mut text);
                text.push_str(",\"protocol\":\"ttrpc\"}");
                text.into_bytes()
            }
            Caller::Plain => {
                write_address(bundle, &address)?;
                address.into_bytes()
            }
        };
        let mut stdout = std::io::stdout();
        stdout.write_all(&answer).and_then(|()| stdout.flush()).context(|| "answer")
    }
}

fn options_of(any: api::ProtoAny) -> Options {
    crate::options::unpack(Some(any)).unwrap_or_default()
}

/// Daemons before 2.0 find a running shim again by this file.
fn write_address(bundle: &Path, address: &str) -> Result<()> {
    let (temporary, path) = (bundle.join(".address"), bundle.join("address"));
    std::fs::write(&temporary, address)
        .and_then(|()| std::fs::rename(&temporary, &path))
        .context(|| "write address")
}

/// Upstream's shim leaves a link to the directory of its socket in the bundle; `delete` looks there.
fn link_socket_dir(directory: &Path, bundle: &Path) -> Result<()> {
    let link = bundle.join("s");
    match std::fs::remove_file(&link) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::from(e).context("write socket-dir"));
        }
        Ok(()) | Err(_) => {}
    }
    std::os::unix::fs::symlink(directory, link).context(|| "write socket-dir")
}

/// The daemon shall be killed after its shims when memory runs out. The server inherits our score.
fn inherit_oom_score() {
    let Some(parent) = rustix::process::getppid() else { return };
    let score = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", parent.as_raw_nonzero()));
    if let Some(score) = score.ok().and_then(|s| s.trim().parse::<i32>().ok()) {
        // Lowering it takes a privilege that a rootless shim has not; then it stays as it is.
        let _ = std::fs::write("/proc/self/oom_score_adj", (score + 1).min(1000).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> Flags {
        Flags { id: "c1".into(), address: "/flag.sock".into(), ..Flags::default() }
    }

    #[test]
    fn params_with_our_id_are_the_new_protocol() {
        let params = BootstrapParams {
            instance_id: "c1".into(),
            containerd_grpc_address: "/new.sock".into(),
            log_level: -4,
            ..Default::default()
        };
        let params = Params::read(&flags(), &params.encode_to_vec());
        assert_eq!(
            (params.caller, params.grpc_address.as_str(), params.debug),
            (Caller::Protobuf, "/new.sock", true)
        );
    }

    #[test]
    fn an_any_that_decodes_as_params_is_the_old_protocol() {
        let options = Options { shim_cgroup: "/x".into(), ..Options::default() };
        let any = api::any::to_wire(api::any::pack(&options)).encode_to_vec();
        assert!(BootstrapParams::decode(any.as_slice()).is_ok());
        let params = Params::read(&flags(), &any);
        assert_ne!(params.caller, Caller::Protobuf);
        assert_eq!((params.grpc_address.as_str(), params.options.shim_cgroup.as_str()), ("/flag.sock", "/x"));
        assert_ne!(Params::read(&flags(), b"").caller, Caller::Protobuf);
    }
}
