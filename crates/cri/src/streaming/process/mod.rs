//! A process in a container: Exec's, for a client that is connected, and ExecSync's, whose output is kept.
//!
//! ```text
//!  FIFOs made -> exec added -> started -> FIFOs' names gone -> exit -> output drained -> exec forgotten
//! ```
//!
//! It runs on a task of its own that always comes to its end, whoever waits for it or not: nothing is left of it then. A
//! client that goes away ends its streams: stdin is closed, and what the process still says is thrown away. See [`Alone`].

mod pipes;
mod pump;

use std::sync::Arc;
use std::time::Duration;

use api::cri::{ContainerState, ExecRequest};
use runtime::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use types::task::{Exec, Exit, Stdio};
use types::{Class, Error, Result, ResultExt};

use super::Answer;
use super::command::Streams;
use super::connection::{Gone, Inbound};
use super::resize::Sizes;
use crate::container::Container;
use crate::cri::{Cri, new_id};
use pipes::Pipes;
use pump::Drained;
pub use pump::{Patience, Sink, pump};

const HANGUP: u32 = 1;
const KILL: u32 = 9;

/// What happens to a process when whoever wanted it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alone {
    /// It goes on; its stdin ends.
    GoOn,
    /// Its terminal is hung up.
    HangUp,
    /// It is killed.
    Kill,
}

/// What is to be run.
#[derive(Debug)]
pub struct Process {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// Whether, and when, it is killed.
    pub timeout: Option<Duration>,
    /// See [`Alone`].
    pub alone: Alone,
    /// How long its output may be held open by others when it has ended.
    pub patience: Patience,
}

/// Its streams.
#[derive(Debug)]
pub struct Ends {
    /// What it reads.
    pub stdin: Option<Inbound>,
    /// Where what it says goes.
    pub stdout: Sink,
    /// The same.
    pub stderr: Sink,
    /// Sizes of its terminal.
    pub resize: Option<Sizes>,
    /// Tells when nobody wants it any more.
    pub gone: Gone,
}

/// How it has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: u32,
    /// Where its output went.
    pub stdout: Sink,
    /// The same.
    pub stderr: Sink,
    /// Whether others still have its output.
    held: bool,
}

/// Runs the process of an Exec.
pub fn stream(cri: Cri, request: ExecRequest, streams: Streams) -> Answer<u32> {
    let Streams { stdin, stdout, stderr, resize, gone } = streams;
    let process = Process {
        args: request.cmd,
        terminal: request.tty,
        timeout: None,
        alone: if request.tty { Alone::HangUp } else { Alone::GoOn },
        patience: Patience::DEFAULT,
    };
    let ends = Ends { stdin, stdout: stdout.into(), stderr: stderr.into(), resize, gone };
    let run = tokio::spawn(async move { run(&cri, &request.container_id, process, ends).await });
    Box::pin(async move { Ok(joined(run.await)?.code) })
}

/// What a task came to.
pub fn joined<T>(joined: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    joined.unwrap_or_else(|e| Err(Error::internal(format!("a task of an exec: {e}"))))
}

/// The container called `id`, if it runs.
pub fn running(cri: &Cri, id: &str) -> Result<Arc<Container>> {
    let container = cri.containers.get(id).context(|| format!("failed to find container {id:?} in store"))?;
    match container.status().state() {
        ContainerState::ContainerRunning => Ok(container),
        state => Err(Error::new(Class::Unknown, format!("container is in {} state", state.as_str_name()))),
    }
}

/// Runs a process. To be run on a task of its own.
pub async fn run(cri: &Cri, container: &str, process: Process, ends: Ends) -> Result<Ended> {
    let container = running(cri, container)?;
    let exec = new_id();
    let spec = cri.db.containers(&cri.namespace).get(container.id())?.spec;
    let spec = spec.map(|spec| serde_json::from_slice(&spec.value)).transpose();
    let spec = spec.map_err(|e| Error::internal(format!("decode the spec of {}: {e}", container.id())))?;
    let oci = crate::spec::process(&spec.unwrap_or_default(), &process.args, process.terminal)?;
    let pipes = Pipes::make(&cri.dirs.container_state(container.id()).join("io"), &exec, &process, &ends)?;
    let stdio = pipes.stdio(process.terminal);
    let add = Exec { id: exec.clone(), stdio, process: Some(crate::spec::process_any(&oci)) };
    cri.tasks
        .exec(&cri.namespace, container.id(), add)
        .await
        .context(|| format!("failed to create exec {exec:?}"))?;
    let attended = Attended { cri, container: container.id(), exec: &exec };
    let ended = attended.run(process, ends, pipes).await;
    let forget = forget(cri.clone(), container.id().to_owned(), exec);
    if ended.as_ref().is_ok_and(|ended| !ended.held) {
        forget.await;
    } else {
        // A shim waits for whoever has its output a while longer. Nobody else needs to.
        tokio::spawn(forget);
    }
    ended
}

async fn forget(cri: Cri, container: String, exec: String) {
    match cri.tasks.delete_process(&cri.namespace, &container, &exec).await {
        Err(error) if !error.is_not_found() => tracing::warn!(container, exec, %error, "delete an exec"),
        _ => {}
    }
}

/// A process that was added.
struct Attended<'a> {
    cri: &'a Cri,
    container: &'a str,
    exec: &'a str,
}

impl Attended<'_> {
    /// Starts it and waits for its end and its last word.
    async fn run(&self, process: Process, ends: Ends, pipes: Pipes) -> Result<Ended> {
        let Self { cri, container, exec } = *self;
        let started = cri.tasks.start(&cri.namespace, container, exec).await;
        started.context(|| format!("failed to start exec {exec:?}"))?;
        let opened = pipes.started();
        let Ends { stdin, stdout, stderr, resize, gone } = ends;
        let (tell, exited) = watch::channel(None);
        let out = tokio::spawn(pump(opened.stdout, stdout, exited.clone(), process.patience));
        let err = tokio::spawn(pump(opened.stderr, stderr, exited, process.patience));
        let mut inputs = JoinSet::new();
        if let (Some(input), Some(fifo)) = (stdin, opened.stdin) {
            inputs.spawn(self.feed(input, fifo, process.terminal));
        }
        if let Some(sizes) = resize {
            inputs.spawn(self.resize(sizes));
        }
        let exit = self.wait(&process, gone).await;
        // Whatever came of it: nobody is to wait for more than is there.
        tell.send_replace(Some(Instant::now()));
        drop(inputs);
        let (out, err) = (out.await, err.await);
        let exit = exit?;
        let (out, err) = (joined(out.map(Ok))?, joined(err.map(Ok))?);
        self.drained(&process, [&out, &err])?;
        let held = out.held || err.held;
        Ok(Ended { code: exit.status, stdout: out.sink, stderr: err.sink, held })
    }

    /// Waits for its end, which comes by force when its time is over.
    async fn wait(&self, process: &Process, mut gone: Gone) -> Result<Exit> {
        let Self { cri, container, exec } = *self;
        let wait = cri.tasks.wait(&cri.namespace, container, exec);
        tokio::pin!(wait);
        let limit = process.timeout.unwrap_or_default();
        let deadline = tokio::time::sleep(limit);
        tokio::pin!(deadline);
        let (mut late, mut alone) = (false, process.alone == Alone::GoOn);
        loop {
            tokio::select! {
                exit = &mut wait => {
                    let exit = exit.context(|| format!("failed while waiting for exec {exec:?}"))?;
                    if late {
                        let why = format!("timeout {} exceeded: context deadline exceeded", seconds(limit));
                        return Err(Error::new(Class::DeadlineExceeded, why));
                    }
                    return Ok(exit);
                }
                () = &mut deadline, if process.timeout.is_some() && !late => {
                    late = true;
                    self.signal(KILL).await?;
                }
                () = gone.wait(), if !alone => {
                    alone = true;
                    let signal = if process.alone == Alone::Kill { KILL } else { HANGUP };
                    self.signal(signal).await?;
                }
            }
        }
    }

    async fn signal(&self, number: u32) -> Result<()> {
        let Self { cri, container, exec } = *self;
        let signal = Signal { number, all: false };
        match cri.tasks.kill(&cri.namespace, container, exec, signal).await {
            // It has ended by itself.
            Err(error) if error.is_not_found() => Ok(()),
            sent => sent.context(|| format!("failed to kill exec {exec:?}")),
        }
    }

    /// Whether it is fine that others hold its output open, where they do.
    fn drained(&self, process: &Process, outputs: [&Drained; 2]) -> Result<()> {
        if !process.patience.strict || outputs.iter().all(|output| !output.held) {
            return Ok(());
        }
        let (exec, limit) = (self.exec, seconds(process.patience.limit));
        let why = format!(
            "failed to drain exec process {exec:?} io in {limit} because io is still held by other processes"
        );
        Err(Error::new(Class::Unknown, why))
    }

    /// Copies what the client says to the process. It ends with it; that the client goes on does not matter to it.
    fn feed(
        &self,
        mut input: Inbound,
        mut fifo: tokio::net::unix::pipe::Sender,
        terminal: bool,
    ) -> impl Future<Output = ()> + Send + use<> {
        use tokio::io::AsyncWriteExt;
        let (cri, container, exec) = (self.cri.clone(), self.container.to_owned(), self.exec.to_owned());
        async move {
            while let Some(bytes) = input.next().await {
                if fifo.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            drop(fifo);
            if terminal {
                // It has one end, which output comes from as well.
                return;
            }
            match cri.tasks.close_io(&cri.namespace, &container, &exec).await {
                Err(error) if !error.is_not_found() => {
                    tracing::warn!(container, exec, %error, "close the stdin of an exec");
                }
                _ => {}
            }
        }
    }

    fn resize(&self, mut sizes: Sizes) -> impl Future<Output = ()> + Send + use<> {
        let (cri, container, exec) = (self.cri.clone(), self.container.to_owned(), self.exec.to_owned());
        async move {
            while let Some(size) = sizes.next().await {
                let resized = cri.tasks.resize_pty(&cri.namespace, &container, &exec, size).await;
                if let Err(error) = resized {
                    tracing::debug!(container, exec, %error, "resize the terminal of an exec");
                }
            }
        }
    }
}

/// Whole seconds, as Go prints a duration.
fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes, duration.subsec_millis()) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{}s", duration.as_secs_f32()),
        (0, _, _) => format!("{minutes}m{}s", seconds % 60),
        _ => format!("{hours}h{minutes}m{}s", seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (seconds, text) in [(1, "1s"), (90, "1m30s"), (3600, "1h0m0s"), (0, "0s")] {
            assert_eq!(super::seconds(Duration::from_secs(seconds)), text);
        }
    }
}
