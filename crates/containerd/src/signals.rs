//! What the daemon does when it gets a signal.
//!
//! | signal        | answer                                                                              |
//! | ------------- | ----------------------------------------------------------------------------------- |
//! | TERM, INT     | it stops: STOPPING to systemd, what is nearly done is finished, exit 0              |
//! | HUP           | none, and a line in the log: a terminal that closes ends no node                    |
//! | USR1          | what it is doing, into a file in the state directory that root alone can read       |
//! | USR2          | none, and a line in the log                                                         |
//! | PIPE          | none: a reader of ours that goes away is an error of one write (Rust's runtime does that) |

use std::path::{Path, PathBuf};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};
use types::{Result, ResultExt};

/// The signals that mean something to the daemon.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
    dump: Dump,
}

/// What is written on USR1, and where.
struct Dump {
    path: PathBuf,
    source: Option<Box<dyn Fn() -> String + Send>>,
}

impl Signals {
    /// From now on these signals no longer kill the process. What it is doing is written below `state`.
    pub fn listen(state: &Path) -> Result<Self> {
        let listen = |kind| signal(kind).context(|| "listen for signals");
        let path = state.join(format!("containerd.{}.stacks.log", std::process::id()));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
            user1: listen(SignalKind::user_defined1())?,
            user2: listen(SignalKind::user_defined2())?,
            dump: Dump { path, source: None },
        })
    }

    /// Says where to learn what the daemon is doing.
    pub fn dump(&mut self, source: impl Fn() -> String + Send + 'static) {
        self.dump.source = Some(Box::new(source));
    }

    /// Waits for the signal to stop, and tells systemd about it. May be dropped and called again.
    pub async fn stop(&mut self) {
        let name = loop {
            tokio::select! {
                _ = self.terminate.recv() => break "terminated",
                _ = self.interrupt.recv() => break "interrupt",
                _ = self.hangup.recv() => info!("SIGHUP is ignored: restart to read the configuration again"),
                _ = self.user1.recv() => self.dump.write(),
                _ = self.user2.recv() => info!("SIGUSR2 is ignored: SIGUSR1 writes what the daemon is doing"),
            }
        };
        info!(signal = name, "received signal");
        notify(&NotifyState::Stopping);
    }
}

impl Dump {
    /// Writes the file. A few kilobytes below the state directory, which is memory: that takes no time.
    fn write(&self) {
        let Some(source) = &self.source else {
            return info!("SIGUSR1 is ignored: the daemon has not started yet");
        };
        let path = self.path.display();
        match sys::fs::atomic_write(&self.path, source().as_bytes(), 0o600) {
            Ok(()) => info!(%path, "what the daemon is doing is written"),
            Err(error) => warn!(%path, %error, "write what the daemon is doing"),
        }
    }
}

/// Tells systemd, if it listens.
pub fn notify(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        warn!(%error, "notify systemd");
    }
}
