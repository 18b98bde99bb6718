//! `ctr run`.
//!
//! ```text
//!  make the container          record, snapshot (`container`)
//!  Tasks.Create                FIFOs on our side first; the lease ends meanwhile
//!  ADD                         with --cni (`network`)
//!  Wait, Start                 the wait is on its way before the start
//!  copy, forward, resize       until the end (`process`)
//!  Tasks.Delete                then DEL, and with --rm the record and the snapshot
//! ```
//!
//! Until the process has started, a signal that would end this program is looked at between the steps, so that what was
//! made is taken back; afterwards signals belong to the process.

pub mod container;
pub mod flags;
pub mod image;
pub mod lookup;
mod pull;
mod remap;
pub mod runtime;
mod spec;
mod specfile;
mod words;

use types::{Error, Result};

use self::container::Created;
use self::flags::{ContainerFlags, RunOnlyFlags, Wanted};
use super::refused;
use super::tasks::new::{self, NewTask};
use crate::cli::Globals;
use crate::client::Client;
use crate::flags::Words;
use crate::go;
use crate::io::terminal::Console;
use crate::log;
use crate::network::{self, Attached};
use crate::process::{Attended, Process, Signals};

/// `ctr run`.
#[derive(clap::Args, Debug)]
pub struct Flags {
    /// Remove the container after running, cannot be used with --detach
    #[arg(long)]
    rm: bool,
    /// Send all IO to /dev/null
    #[arg(long)]
    null_io: bool,
    /// Log uri
    #[arg(long, default_value = "")]
    log_uri: String,
    /// Detach from the task after it has started execution, cannot be used with --rm
    #[arg(long, short)]
    detach: bool,
    /// Directory used for storing IO FIFOs
    #[arg(long, default_value = "")]
    fifo_dir: String,
    /// Dump the generated OCI config to a file
    #[arg(long)]
    dump_config: Option<String>,
    /// Pull the image before running it: missing, always or never
    #[arg(long, default_value = "never")]
    pull: String,
    #[command(flatten)]
    container: ContainerFlags,
    #[command(flatten)]
    run: RunOnlyFlags,
    #[command(flatten)]
    words: Words,
}

/// What happens around the process.
struct Plan {
    rm: bool,
    detach: bool,
    dump: Option<String>,
    pid_file: Option<String>,
    cni: bool,
    task: new::Options,
}

/// Runs a container; answers its code.
pub async fn run(globals: &Globals, flags: Flags) -> Result<u8> {
    let plan = Plan {
        rm: flags.rm,
        detach: flags.detach,
        dump: flags.dump_config,
        pid_file: flags.container.pid_file.clone(),
        cni: flags.run.cni,
        task: new::Options {
            null_io: flags.null_io,
            log_uri: flags.log_uri,
            fifo_dir: flags.fifo_dir,
            no_pivot: flags.container.no_pivot,
            checkpoint: None,
        },
    };
    let policy = pull::Policy::of(&flags.pull)?;
    let wanted = Wanted::for_run(flags.container, flags.run, flags.words.words)?;
    if plan.rm && plan.detach {
        return refused("flags --detach and --rm cannot be specified together");
    }
    plan.task.check(wanted.flags.tty)?;
    let client = Client::open(globals)?;
    let mut signals = Signals::catch()?;
    signals.during(pull::before(&client, policy, &wanted)).await?;
    let mut created = signals.during(container::make(&client, &wanted)).await?;
    let lease = created.lease.take();
    let ending = tokio::spawn(async {
        if let Some(lease) = lease {
            container::end(lease).await;
        }
    });
    let result = with_container(&client, &plan, &created, &mut signals).await;
    ending.await.ok();
    if plan.rm {
        if result.is_err() {
            // A Create whose answer was lost, as the daemon was restarted, may have made a task all the same.
            destroy(&Process::init(&client, &created.container.id)).await;
        }
        if let Err(error) = container::remove(&client, &created.container, true).await {
            log::error("failed to cleanup container", Some(&error));
        }
    }
    result
}

async fn with_container(
    client: &Client,
    plan: &Plan,
    created: &Created,
    signals: &mut Signals,
) -> Result<u8> {
    let facts = new::Facts::of(&created.container)?;
    if let Some(path) = &plan.dump {
        dump(path, created)?;
    }
    let console = facts.terminal.then(Console::raw).transpose()?;
    let networks = plan.cni.then(network::open).transpose()?;
    signals.check()?;
    let process = Process::init(client, &created.container.id);
    let NewTask { mut streams, pid } = signals
        .during(new::create(client, &created.container, Some(created.rootfs.clone()), &plan.task))
        .await?;
    let mut attached = None;
    let attended = async {
        if let Some(path) = &plan.pid_file {
            crate::process::write_pid_file(path, pid)?;
        }
        signals.check()?;
        if let Some(networks) = networks {
            let network = attached.insert(Attached::new(client, networks, &created.container.id, pid)?);
            signals.during(network.set_up(pid)).await?;
            signals.check()?;
        }
        if plan.detach {
            return process.start().await.map(|_| 0);
        }
        let attended = Attended { streams: &mut streams, console: console.as_ref(), signals, start: true };
        process.attend(attended).await
    };
    let code = match attended.await {
        Ok(_) if plan.detach => {
            streams.keep();
            return Ok(0);
        }
        Ok(code) => process.delete().await.map(|_| code),
        Err(error) => Err(error),
    };
    if code.is_err() && !plan.detach {
        destroy(&process).await;
    }
    if let Some(attached) = attached {
        attached.remove().await;
    }
    drop(console);
    code.map(exit_code)
}

/// A process's code as ours.
pub fn exit_code(code: u32) -> u8 {
    // The kernel passes on the low eight bits.
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// Takes a task back whose process did not come to its end by itself.
pub async fn destroy(process: &Process) {
    if let Err(error) = process.destroy().await {
        log::error("failed to cleanup task", Some(&error));
    }
}

fn dump(path: &str, created: &Created) -> Result<()> {
    if path.is_empty() {
        return refused("file name is required with --dump-config");
    }
    let spec = created.container.spec.as_ref().map_or(&[][..], |spec| &spec.value);
    let spec: serde_json::Value =
        serde_json::from_slice(spec).map_err(|e| Error::invalid(format!("decode spec: {e}")))?;
    std::fs::write(path, go::json::indented(&spec, "  ")?).map_err(|e| go::path_error("open", path, e))
}
