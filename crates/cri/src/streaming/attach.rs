//! Attach: a live copy of what a container says, and a way to say something to it.

use std::future::pending;

use api::cri::AttachRequest;
use futures_util::future::join;
use runtime::{Attach, Attached, Input};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::Sender;
use tokio::sync::watch;
use tokio::time::Instant;
use types::{Result, ResultExt};

use super::command::Streams;
use super::connection::Inbound;
use super::process::{Patience, Sink, pump, running};
use super::resize::Sizes;
use crate::container::Container;
use crate::container::files::{self, Writer};
use crate::container::log::Log;
use crate::cri::Cri;

/// Connects a client to the streams of a container: until they end, or the client goes; one that says goodbye on stdin goes, too,
/// unless that is the end of the container's input.
pub async fn run(cri: &Cri, request: AttachRequest, streams: Streams) -> Result<()> {
    let container = running(cri, &request.container_id)?;
    let Streams { stdin, stdout, stderr, resize, mut gone } = streams;
    let once = container.record.config.stdin_once && !request.tty;
    let want = Attach {
        stdin: match (&stdin, once) {
            (None, _) => Input::None,
            (Some(_), true) => Input::Once,
            (Some(_), false) => Input::Open,
        },
        stdout: stdout.is_some(),
        stderr: stderr.is_some(),
    };
    let attached = match container.log() {
        Some(log) => through_log(cri, &container, &log, want).await?,
        None => cri.runtime.attach(&cri.namespace, container.id(), "", want).await?,
    };
    let Attached { stdin: fifo, stdout: out, stderr: err, .. } = attached;
    let heard = out.is_some() || err.is_some();
    let (tell, exited) = watch::channel(None);
    let outputs = join(
        pump(out, Sink::from(stdout), exited.clone(), Patience::DEFAULT),
        pump(err, Sink::from(stderr), exited, Patience::DEFAULT),
    );
    let ended = async {
        container.ended().await;
        tell.send_replace(Some(Instant::now()));
        if heard {
            pending().await
        }
    };
    tokio::select! {
        _ = outputs, if heard => {}
        () = ended => {}
        () = gone.wait() => {}
        () = input(stdin, fifo, once) => {}
        () = sizes(cri, container.id(), resize) => {}
    }
    Ok(())
}

/// Attaches where the daemon reads what the container says, because its shim writes no log.
async fn through_log(cri: &Cri, container: &Container, log: &Log, want: Attach) -> Result<Attached> {
    let stdio = files::streams(cri, container, Writer::Daemon).stdio;
    let of = (container.id(), "");
    let stdin = cri.runtime.attach_input(&cri.namespace, of, &stdio.stdin, want.stdin).await;
    let stdin = stdin.context(|| format!("attach to {}", container.id()))?;
    let (stdout, stderr) = log.attach(Attach { stderr: want.stderr && !stdio.terminal, ..want })?;
    Ok(Attached { stdin, stdout, stderr, terminal: stdio.terminal })
}

/// Copies what the client says. Ends only if the client is to be let go then.
async fn input(from: Option<Inbound>, to: Option<Sender>, once: bool) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return pending().await };
    while let Some(bytes) = from.next().await {
        if to.write_all(&bytes).await.is_err() {
            break;
        }
    }
    drop(to);
    if once {
        pending().await
    }
}

/// Never ends.
async fn sizes(cri: &Cri, container: &str, sizes: Option<Sizes>) {
    let Some(mut sizes) = sizes else { return pending().await };
    while let Some(size) = sizes.next().await {
        if let Err(error) = cri.tasks.resize_pty(&cri.namespace, container, "", size).await {
            tracing::debug!(container, %error, "resize the terminal of a container");
        }
    }
    pending().await
}
