//! containerd, the daemon.
//!
//! `main` decides what was asked for; the daemon itself is put together in `wiring` and served by `serve`.

#![forbid(unsafe_code)]

mod authority;
mod calls;
mod check;
mod cli;
mod config;
mod cri;
mod debug;
mod directories;
mod estimates;
mod gc;
mod logging;
mod metrics;
mod monitor;
mod oci_hook;
mod pages;
mod plugins;
mod proxies;
mod publish;
mod serve;
mod services;
mod signals;
mod socket;
mod tcp;
mod traces;
mod transfers;
mod verifier;
mod wiring;
mod work;
mod written;

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tracing::{info, warn};
use types::{Error, Result, ResultExt, version};

use cli::{Cli, Command, ConfigCommand, Flags};
use config::Config;

/// Threads that run handlers; blocking work has threads of its own, which end when they are idle.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // The last word, to the administrator; there may be nobody to read it.
            drop(writeln!(std::io::stderr(), "containerd: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Does what was asked for. The exit code.
fn run() -> Result<u8> {
    let Some(Cli { flags, command }) = cli::parse(std::env::args_os())? else { return Ok(0) };
    if flags.version {
        let (package, version, revision) = (version::PACKAGE, version::VERSION, version::REVISION);
        return print(&format!("containerd {package} {version} {revision}\n")).map(|()| 0);
    }
    let done = match command {
        None => daemon(&flags),
        Some(Command::Config(ConfigCommand::Default)) => print(&config::print_default()?),
        Some(Command::Config(ConfigCommand::Dump | ConfigCommand::Migrate)) => {
            let (text, warnings) = config::print(&flags)?;
            logging::start(logging::Threshold::default(), logging::Format::default());
            warnings.iter().for_each(|warning| warn!("{warning}"));
            print(&text)
        }
        Some(Command::Check(check)) => return reactor(1)?.block_on(check::run(&flags, &check)),
        Some(Command::OciHook { args }) => oci_hook::run(&args),
        Some(Command::Publish(request)) => {
            let address = flags.address.unwrap_or_else(|| "/run/containerd/containerd.sock".to_owned());
            reactor(1)?.block_on(publish::publish(&request, &address))
        }
    };
    done.map(|()| 0)
}

fn daemon(flags: &Flags) -> Result<()> {
    let begun = Instant::now();
    let config = config::load(flags)?;
    logging::start(config.log.threshold, config.log.format);
    config.warnings.iter().for_each(|warning| warn!("{warning}"));
    sys::kernel::require()?;
    adjust_process(&config)?;
    let reactor = reactor(WORKERS)?;
    let stopped = reactor.block_on(live(&config, begun));
    // What still runs on blocking threads has had its time.
    reactor.shutdown_background();
    stopped
}

/// The life of the daemon between reading its configuration and its end.
async fn live(config: &Config, begun: Instant) -> Result<()> {
    let mut signals = signals::Signals::listen(&config.state)?;
    info!(revision = version::REVISION, version = version::VERSION, "starting containerd");
    let (mut plugins, remarks) = plugins::Plugins::choose(config)?;
    remarks.iter().for_each(|remark| warn!("{remark}"));
    let house = tokio::select! {
        house = wiring::build(config, &mut plugins) => house?,
        // Told to stop before it began.
        () = signals.stop() => return Ok(()),
    };
    let observed = house.clone();
    signals.dump(move || debug::dump(&observed));
    let sandboxers = proxies::Sandboxers::new(&plugins, config.shims.sandboxer)?;
    let cri = cri::open(&house, config, &mut plugins, &sandboxers).await?;
    let tcp = tcp::bind(config, &mut plugins, cri.is_some()).await?;
    let tcp = tcp.zip(cri.clone()).map(|((door, tcp), cri)| (door, services::cri_routes(cri, tcp.size)));
    let doors = services::Doors {
        cri: cri.clone(),
        sandboxers,
        plugins: &plugins,
        listed: plugins.to_wire(config),
        size: config.message_size,
        sync_fs: config.sync_fs,
    };
    let routes = services::routes(&house, house.db.server_uuid(), doors).await;
    let sockets = serve::Sockets::bind(config)?;
    metrics::start(config, &house, cri.is_some()).await?;
    let _debug = debug::start(config, &house).await?;
    traces::start(config, &house.calls);
    let calls = house.calls.clone();
    let monitor = plugins.wants(plugins::Kind::Monitor, "restart");
    let monitor = monitor.then(|| monitor::start(&house, config.restart_interval));
    serve::serve(house, serve::Open { routes, sockets, tcp, monitor, cri }, &mut signals, begun).await;
    traces::stop(&calls).await;
    Ok(())
}

/// What holds for the whole process, before it has threads.
fn adjust_process(config: &Config) -> Result<()> {
    sys::memory::limit_arenas(2);
    raise_open_files();
    if let Some(temp) = &config.temp {
        directories::make_temp(temp)?;
        sys::environment::set("TMPDIR", temp.as_os_str()).context(|| "set TMPDIR")?;
    }
    if config.oom_score != 0
        && let Err(error) = std::fs::write("/proc/self/oom_score_adj", config.oom_score.to_string())
    {
        // As upstream: without privileges it cannot be lowered, and the daemon is of use all the same.
        warn!(%error, "failed to change OOM score to {}", config.oom_score);
    }
    if !config.cgroup.is_empty() {
        sys::cgroup::join(&config.cgroup, std::process::id())
            .context(|| format!("move the daemon to cgroup {}", config.cgroup))?;
    }
    Ok(())
}

/// Raises the limit of open files to what is allowed, as Go programs do by themselves: each task needs some, and 1024,
/// a shell's usual limit, is soon used up.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it was");
    }
}

/// How long a thread for blocking work waits for more of it; then the daemon is idle without a call of any thread.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_millis(200);

fn reactor(workers: usize) -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_keep_alive(BLOCKING_KEEP_ALIVE)
        .enable_all()
        .build()
        .context(|| "start threads")
}

fn print(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Error::from)
}
