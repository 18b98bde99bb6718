//! Exec and attach: which streams a client has to open, and how it is told of the end.

use std::sync::Arc;
use std::time::Duration;

use api::cri::{AttachRequest, ExecRequest};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;
use types::{Class, Error, Result};

use super::connection::{Connection, Direction, Gone, Inbound, Outbound, Stream, Upgraded};
use super::http::Transport;
use super::resize::Sizes;
use super::server::Shared;
use super::status::Ending;

/// How long a client may take to open its streams.
pub const CREATION: Duration = Duration::from_secs(30);

/// Streams of a process, as a client has them.
#[derive(Debug)]
pub struct Streams {
    /// What it reads.
    pub stdin: Option<Inbound>,
    /// What it says.
    pub stdout: Option<Outbound>,
    /// What it says about what it says.
    pub stderr: Option<Outbound>,
    /// Sizes of its terminal.
    pub resize: Option<Sizes>,
    /// Tells when the client is gone.
    pub gone: Gone,
}

/// What a request wants.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

/// How errors are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Words {
    /// As JSON.
    Status,
    /// As text.
    Text,
}

/// What is left of a connection when the process has its streams.
struct Session {
    connection: Connection,
    streams: Streams,
    errors: Outbound,
    words: Words,
    /// The other direction of streams from the client, to be ended at the end.
    backs: Vec<Outbound>,
}

/// Serves an exec.
pub async fn exec(
    upgraded: Upgraded,
    transport: Transport,
    request: ExecRequest,
    shared: &Arc<Shared>,
) -> Result<()> {
    let ExecRequest { stdin, stdout, stderr, tty, .. } = request;
    let session = open(upgraded, transport, Wanted { stdin, stdout, stderr, tty }).await?;
    let command = request.cmd.clone();
    let run = |streams| {
        let run = (shared.handlers.exec)(request, streams);
        async move { Ending::of_exec(run.await, &command) }
    };
    session.serve(run, shared.idle).await;
    Ok(())
}

/// Serves an attach.
pub async fn attach(
    upgraded: Upgraded,
    transport: Transport,
    request: AttachRequest,
    shared: &Arc<Shared>,
) -> Result<()> {
    let AttachRequest { stdin, stdout, stderr, tty, .. } = request;
    let session = open(upgraded, transport, Wanted { stdin, stdout, stderr, tty }).await?;
    let run = |streams| {
        let run = (shared.handlers.attach)(request, streams);
        async move { Ending::of_attach(run.await) }
    };
    session.serve(run, shared.idle).await;
    Ok(())
}

impl Session {
    /// Runs what was asked for, tells how it ended, and lets the client go.
    async fn serve<F: Future<Output = Ending>>(self, run: impl FnOnce(Streams) -> F, idle: Duration) {
        let Self { connection, streams, errors, words, backs } = self;
        let idle = connection.idle(idle);
        let run = run(streams);
        let serve = async move {
            let ending = run.await;
            let said = match words {
                Words::Status => Some(ending.to_json().to_string()),
                Words::Text => ending.to_text(),
            };
            if let Some(said) = said {
                // Who is gone need not know.
                drop(errors.send(said.into()).await);
            }
            errors.finish().await;
            for back in backs {
                back.finish().await;
            }
            connection.close().await;
        };
        tokio::select! {
            () = serve => {}
            () = idle => {}
        }
    }
}

async fn open(upgraded: Upgraded, transport: Transport, wanted: Wanted) -> Result<Session> {
    match transport {
        Transport::Spdy { tunnel, protocol } => {
            let (connection, incoming) = Connection::spdy(upgraded, tunnel, |_| Ok(()))?;
            let opened = timeout(CREATION, collect(connection, incoming, wanted, protocol)).await;
            opened.unwrap_or_else(|_| {
                let why = "timed out waiting for client to create streams";
                Err(Error::new(Class::DeadlineExceeded, why))
            })
        }
        Transport::Channels { codec, protocol } => {
            let input = |wanted| if wanted { Direction::In } else { Direction::Out };
            let directions =
                [input(wanted.stdin), Direction::Out, Direction::Out, Direction::Out, Direction::In];
            let (connection, streams) = Connection::channels(upgraded, codec, &directions)?;
            let words = if protocol.starts_with('v') { Words::Status } else { Words::Text };
            of_channels(connection, streams, wanted, words).await
        }
    }
}

/// Waits until a client has opened all streams that it needs.
async fn collect(
    connection: Connection,
    mut incoming: mpsc::Receiver<Stream>,
    wanted: Wanted,
    protocol: &str,
) -> Result<Session> {
    let resizes = matches!(protocol, "v4.channel.k8s.io" | "v3.channel.k8s.io");
    let needed = 1 + [wanted.stdin, wanted.stdout, wanted.stderr, wanted.tty && resizes]
        .into_iter()
        .filter(|needed| *needed)
        .count();
    let gone = connection.gone();
    let mut streams = Streams { stdin: None, stdout: None, stderr: None, resize: None, gone };
    let (mut errors, mut backs) = (None, Vec::new());
    let mut count = 0;
    while count < needed {
        let Some(Stream { headers, input, output, .. }) = incoming.recv().await else {
            return Err(Error::unavailable("the client is gone before it has created its streams"));
        };
        match headers.get("streamtype") {
            "error" => errors = Some(output),
            "stdout" => streams.stdout = Some(output),
            "stderr" => streams.stderr = Some(output),
            "stdin" => {
                streams.stdin = Some(input);
                backs.push(output);
            }
            "resize" if resizes => {
                streams.resize = Some(Sizes::new(input));
                backs.push(output);
            }
            other => {
                tracing::debug!(stream = other, "unexpected stream type");
                continue;
            }
        }
        count += 1;
    }
    // One that is not there cannot be told either.
    let errors = errors.ok_or_else(|| Error::invalid("the client has created no error stream"))?;
    let words = if protocol == "v4.channel.k8s.io" { Words::Status } else { Words::Text };
    Ok(Session { connection, streams: streams.only(wanted), errors, words, backs })
}

async fn of_channels(
    connection: Connection,
    streams: Vec<Stream>,
    wanted: Wanted,
    words: Words,
) -> Result<Session> {
    let Ok([stdin, stdout, stderr, error, resize]) = <[Stream; 5]>::try_from(streams) else {
        return Err(Error::internal("five channels are not five"));
    };
    // An empty message tells the client that it is connected.
    let first = [(wanted.stdout, &stdout), (wanted.stderr, &stderr), (true, &error)];
    if let Some((_, stream)) = first.into_iter().find(|(wanted, _)| *wanted) {
        stream.output.send(Bytes::new()).await?;
    }
    let streams = Streams {
        stdin: Some(stdin.input),
        stdout: Some(stdout.output),
        stderr: Some(stderr.output),
        resize: Some(Sizes::new(resize.input)),
        gone: connection.gone(),
    };
    let streams = streams.only(wanted);
    Ok(Session { connection, streams, errors: error.output, words, backs: Vec::new() })
}

impl Streams {
    /// Without what nobody asked for.
    fn only(self, wanted: Wanted) -> Self {
        Self {
            stdin: self.stdin.filter(|_| wanted.stdin),
            stdout: self.stdout.filter(|_| wanted.stdout),
            stderr: self.stderr.filter(|_| wanted.stderr && !wanted.tty),
            resize: self.resize.filter(|_| wanted.tty),
            gone: self.gone,
        }
    }
}
