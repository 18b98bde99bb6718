//! A process of a container under this program's care: started, fed, signalled, resized, awaited, deleted.

use std::path::Path;
use std::time::Duration;

use api::containerd::services::tasks::v1 as wire;
use futures_util::FutureExt as _;
use remote::from_status;
use tokio::signal::unix::{Signal, SignalKind, signal};
use types::container::Container;
use types::{Error, Result};

use crate::client::Client;
use crate::io::Streams;
use crate::io::terminal::Console;
use crate::log;
use crate::network::Attached;

const SIGKILL: u32 = 9;
/// How long a shim waits for the output of a process that it deletes.
const DRAIN: Duration = Duration::from_secs(10);
/// What a shell makes of an end by SIGPIPE.
const BROKEN_PIPE: u32 = 128 + 13;

/// The init process of a container, or with an exec id another one.
#[derive(Clone)]
pub struct Process {
    /// Whom to ask.
    pub client: Client,
    /// The container.
    pub container: String,
    /// The exec id, or empty.
    pub exec: String,
}

impl Process {
    /// The init process of `container`.
    pub fn init(client: &Client, container: &str) -> Self {
        Self { client: client.clone(), container: container.into(), exec: String::new() }
    }

    fn ids(&self) -> (String, String) {
        (self.container.clone(), self.exec.clone())
    }

    /// Starts it; answers the pid.
    pub async fn start(&self) -> Result<u32> {
        let (container_id, exec_id) = self.ids();
        let request = wire::StartRequest { container_id, exec_id };
        Ok(self.client.tasks().start(request).await.map_err(from_status)?.into_inner().pid)
    }

    /// Sends a signal, to `all` processes of the container if asked.
    pub async fn kill(&self, signal: u32, all: bool) -> Result<()> {
        let (container_id, exec_id) = self.ids();
        let request = wire::KillRequest { container_id, exec_id, signal, all };
        self.client.tasks().kill(request).await.map_err(from_status)?;
        Ok(())
    }

    /// Waits for its end; answers the code.
    pub async fn wait(&self) -> Result<u32> {
        let (container_id, exec_id) = self.ids();
        let request = wire::WaitRequest { container_id, exec_id };
        Ok(self.client.tasks().wait(request).await.map_err(from_status)?.into_inner().exit_status)
    }

    /// What the daemon knows of it.
    pub async fn get(&self) -> Result<api::containerd::v1::types::Process> {
        let (container_id, exec_id) = self.ids();
        let request = wire::GetRequest { container_id, exec_id };
        let process = self.client.tasks().get(request).await.map_err(from_status)?.into_inner().process;
        process.ok_or_else(|| Error::internal("tasks service answered no process"))
    }

    /// What to do about its container's networks when it has been ended.
    pub async fn attached(&self, container: &Container) -> Option<Attached> {
        let pid = self.get().await.ok().map(|process| process.pid);
        Attached::of(&self.client, container, pid)
    }

    /// Deletes it after its end; answers the code.
    pub async fn delete(&self) -> Result<u32> {
        let (container_id, exec_id) = self.ids();
        let mut tasks = self.client.tasks();
        let deleted = if exec_id.is_empty() {
            tasks.delete(wire::DeleteTaskRequest { container_id }).await
        } else {
            tasks.delete_process(wire::DeleteProcessRequest { container_id, exec_id }).await
        };
        Ok(deleted.map_err(from_status)?.into_inner().exit_status)
    }

    /// Ends it, waits for that, and deletes it. One that is gone already is no error.
    pub async fn destroy(&self) -> Result<()> {
        let gone = |error: &Error| error.is_not_found();
        match self.kill(SIGKILL, true).await {
            Ok(()) => drop(self.wait().await),
            // It may have ended by itself, or never have begun.
            Err(error) if gone(&error) || error.class() == types::Class::FailedPrecondition => {}
            Err(error) => return Err(error),
        }
        match self.delete().await {
            Err(error) if !gone(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Why a call failed, in upstream's words. Upstream looks for container and task before each call; we do when
    /// something was not there.
    pub async fn explain(&self, error: Error) -> Error {
        if !error.is_not_found() {
            return error;
        }
        if let Err(missing) = self.client.container(&self.container).await {
            return missing;
        }
        match Self::init(&self.client, &self.container).get().await {
            Err(missing) => no_task(missing),
            Ok(_) => error,
        }
    }

    async fn close_stdin(&self) {
        let (container_id, exec_id) = self.ids();
        let request = wire::CloseIoRequest { container_id, exec_id, stdin: true };
        // The process may be gone by now.
        self.client.tasks().close_io(request).await.ok();
    }

    async fn resize(&self, console: &Console) {
        match self.try_resize(console).await {
            Err(error) if !error.is_not_found() => log::error("resize pty", Some(&error)),
            _ => {}
        }
    }

    async fn try_resize(&self, console: &Console) -> Result<()> {
        let Some((width, height)) = console.size() else { return Ok(()) };
        let (container_id, exec_id) = self.ids();
        let request = wire::ResizePtyRequest { container_id, exec_id, width, height };
        self.client.tasks().resize_pty(request).await.map_err(from_status)?;
        Ok(())
    }

    /// Starts it (unless it runs) and stays with it to its end and the end of its output; answers the code. An exec
    /// is deleted on the way: that is when the shim, after ten seconds, stops to wait for others that hold its streams.
    pub async fn attend(&self, attended: Attended<'_>) -> Result<u32> {
        let process = self.clone();
        // On its own, so that the call is on its way before the one that starts the process.
        let mut wait = tokio::spawn(async move { process.wait().await });
        tokio::task::yield_now().await;
        let early = attended.console.filter(|_| attended.start && self.exec.is_empty());
        if let Some(console) = early {
            // An init has its terminal before it starts, and so never sees one without a size.
            self.resize(console).await;
        }
        if attended.start {
            let started = attended.signals.during(self.start()).await;
            if started.is_err() {
                wait.abort();
            }
            started?;
        }
        let mut stdin = attended.streams.copy(attended.console)?.fuse();
        if let Some(console) = attended.console
            && early.is_none()
        {
            // It may have ended by now.
            self.try_resize(console).await.ok();
        }
        let mut broken = false;
        let code = loop {
            tokio::select! {
                ended = &mut wait => break ended.map_err(|e| Error::internal(format!("wait: {e}")))??,
                () = attended.streams.broken() => match attended.start {
                    // As the pipe would have ended a program of ours; an init may ignore that signal, but not this.
                    true => broken = self.kill(SIGKILL, false).await.is_ok(),
                    false => return Ok(BROKEN_PIPE),
                },
                Ok(()) = &mut stdin => self.close_stdin().await,
                // A terminal sends its own keys; what comes this way is about us, or it is gone (as upstream).
                number = attended.signals.next() => match attended.console {
                    Some(_) if ends(number) => return Err(interrupted(number)),
                    console => self.pass_on(number, console).await,
                },
            }
        };
        tokio::select! {
            () = self.last_output(attended.streams) => {}
            // Somebody else holds the streams open, and whoever waits for us does not want to any more.
            _ = attended.signals.next_ending() => {}
        }
        Ok(if broken { BROKEN_PIPE } else { code })
    }

    async fn last_output(&self, streams: &mut Streams) {
        if self.exec.is_empty() || self.delete().await.is_ok() {
            streams.drained().await;
        } else {
            // Without a deletion nothing would end what others hold open.
            tokio::time::timeout(DRAIN, streams.drained()).await.ok();
        }
    }

    async fn pass_on(&self, number: i32, console: Option<&Console>) {
        if number == SignalKind::window_change().as_raw_value()
            && let Some(console) = console
        {
            return self.resize(console).await;
        }
        match self.kill(number.unsigned_abs(), false).await {
            Err(error) if !error.is_not_found() => {
                log::error(&format!("forward signal {number}"), Some(&error))
            }
            _ => {}
        }
    }
}

/// A task that is not there, in upstream's words.
pub fn no_task(error: Error) -> Error {
    if error.is_not_found() { error.context("no running task found") } else { error }
}

/// What belongs to a process while it is attended.
pub struct Attended<'a> {
    /// Its streams.
    pub streams: &'a mut Streams,
    /// Our terminal, if its streams are one.
    pub console: Option<&'a Console>,
    /// Ours, passed on to it.
    pub signals: &'a mut Signals,
    /// Or it runs already.
    pub start: bool,
}

/// The signals that are passed on: all that a program can catch, except those that its own children, timers and
/// writes cause.
pub struct Signals {
    caught: Vec<(i32, Signal)>,
    /// One that wanted this program to end, before there was a process to pass it on to.
    ending: Option<i32>,
}

impl Signals {
    /// Catches them from now on.
    pub fn catch() -> Result<Self> {
        use rustix::process::Signal as S;
        let named = [
            S::HUP,
            S::INT,
            S::QUIT,
            S::USR1,
            S::USR2,
            S::ALARM,
            S::TERM,
            S::CONT,
            S::TSTP,
            S::TTIN,
            S::TTOU,
            S::XCPU,
            S::XFSZ,
            S::VTALARM,
            S::PROF,
            S::WINCH,
            S::IO,
            S::POWER,
        ];
        let realtime = 35..=64;
        let numbers = named.into_iter().map(S::as_raw).chain(realtime);
        let caught = numbers.map(|number| Ok((number, signal(SignalKind::from_raw(number))?)));
        let caught = caught.collect::<std::io::Result<_>>();
        let caught = caught.map_err(|e| Error::from(e).context("catch signals"))?;
        Ok(Self { caught, ending: None })
    }

    /// The next one. Cancel safe.
    pub async fn next(&mut self) -> i32 {
        let next = self.caught.iter_mut().map(|(number, signal)| {
            let number = *number;
            Box::pin(async move {
                match signal.recv().await {
                    Some(()) => number,
                    None => std::future::pending().await,
                }
            })
        });
        futures_util::future::select_all(next).await.0
    }

    /// The next one that wants this program to end. Cancel safe.
    async fn next_ending(&mut self) -> i32 {
        loop {
            let number = self.next().await;
            if ends(number) {
                return number;
            }
        }
    }

    /// Does a step that must not be cut: a signal that wants this program to end is remembered for [`Signals::check`],
    /// and only a second one gives up on a daemon that does not answer.
    pub async fn during<T>(&mut self, step: impl Future<Output = Result<T>>) -> Result<T> {
        let mut step = std::pin::pin!(step);
        loop {
            tokio::select! {
                done = &mut step => return done,
                number = self.next_ending() => match self.ending.replace(number) {
                    None => {}
                    Some(_) => return Err(interrupted(number)),
                },
            }
        }
    }

    /// Refuses to go on once something wants this program to end.
    pub fn check(&self) -> Result<()> {
        self.ending.map_or(Ok(()), |number| Err(interrupted(number)))
    }
}

fn ends(number: i32) -> bool {
    [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit(), SignalKind::terminate()]
        .map(|kind| kind.as_raw_value())
        .contains(&number)
}

fn interrupted(number: i32) -> Error {
    Error::new(types::Class::Canceled, format!("interrupted by signal {number}"))
}

/// Writes a pid for others to read: all of it or nothing.
pub fn write_pid_file(path: &str, pid: u32) -> Result<()> {
    let path = std::path::absolute(path).map_err(|e| crate::go::path_error("abs", path, e))?;
    sys::fs::atomic_write(Path::new(&path), pid.to_string().as_bytes(), 0o644)
}
