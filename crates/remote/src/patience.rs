//! A stream whose other end has to say something: a daemon that accepts and then is silent hung before it served.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::Sleep;
use tonic::Status;

/// A stream that breaks unless the first byte comes in time. A server's first is its settings, which wait for nothing.
pub struct Patient {
    stream: UnixStream,
    path: PathBuf,
    /// Until that byte has come.
    limit: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    /// `stream`, connected to `path`; without a limit it is never given up.
    pub fn new(stream: UnixStream, path: PathBuf, limit: Option<Duration>) -> Self {
        Self { stream, path, limit: limit.map(|limit| Box::pin(tokio::time::sleep(limit))) }
    }
}

/// How Go's clients begin to say that nobody ever spoke.
const SILENCE: &str = "connection error: desc = \"error reading server preface: ";

/// What Go's clients say where a call failed because nobody ever spoke. By its text, which is all that HTTP/2 keeps of a
/// stream's error.
pub fn silence(status: &Status) -> Option<String> {
    let first = std::error::Error::source(status);
    std::iter::successors(first, |error| error.source()).find_map(|error| {
        let text = error.to_string();
        text.find(SILENCE).map(|at| text[at..].to_owned())
    })
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let Some(limit) = &mut self.limit else { return read };
        if read.is_ready() {
            if buffer.filled().len() > before {
                self.limit = None;
            }
            return read;
        }
        ready!(limit.as_mut().poll(cx));
        let why = format!("read unix @->{}: use of closed network connection", self.path.display());
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, format!("{SILENCE}{why}\""))))
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use grpc::version::version_client::VersionClient;
    use types::Scope;

    use crate::{Connection, from_status};

    #[tokio::test]
    async fn a_daemon_that_accepts_and_never_speaks_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        let limit = Some(std::time::Duration::from_millis(50));
        let scope = Scope::new("default".parse().unwrap());
        let connection = Connection::open_within(&path, scope, limit).unwrap();
        let error = from_status(VersionClient::new(connection.transport()).version(()).await.unwrap_err());
        assert!(error.to_string().starts_with(super::SILENCE), "{error}");
        assert_eq!(error.class(), types::Class::Unavailable);
    }
}
