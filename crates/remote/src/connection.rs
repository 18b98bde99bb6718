//! The channel to a socket, and the headers that say in whose name a call is made.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use types::error::os_text;
use types::{Error, Result, Scope};

use crate::patience::Patient;

/// The largest message that containerd's servers and clients send and take, in bytes.
pub const MAX_MESSAGE: usize = 16 << 20;

/// What generated clients are made over.
pub type Transport = InterceptedService<Channel, Headers>;

/// Stamps every request with namespace and lease.
#[derive(Clone, Debug)]
pub struct Headers {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl Headers {
    fn new(scope: &Scope) -> Result<Self> {
        let ascii = |text: &str| {
            MetadataValue::try_from(text)
                .map_err(|_| Error::invalid(format!("{text:?} cannot be a header: invalid argument")))
        };
        Ok(Self {
            namespace: ascii(scope.namespace.as_str())?,
            lease: scope.lease.as_deref().map(ascii).transpose()?,
        })
    }
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let headers = request.metadata_mut();
        headers.insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            headers.insert("containerd-lease", lease.clone());
        }
        Ok(request)
    }
}

/// A channel on a socket and a scope. Cloning is cheap and shares the channel.
#[derive(Clone)]
pub struct Connection {
    channel: Channel,
    scope: Scope,
    headers: Headers,
}

impl Connection {
    /// A connection to the socket at `path`. Nothing is opened before the first call.
    pub fn open(path: impl AsRef<Path>, scope: Scope) -> Result<Self> {
        Self::open_within(path, scope, None)
    }

    /// [`Connection::open`] to somebody who has to speak within `limit` of the first call.
    pub fn open_within(path: impl AsRef<Path>, scope: Scope, limit: Option<Duration>) -> Result<Self> {
        let path: PathBuf = path.as_ref().into();
        let endpoint = Endpoint::from_static("http://localhost")
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            // Each frame is a system call of the daemon's.
            .max_frame_size(256 << 10);
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
            let path = path.clone();
            async move {
                let stream = UnixStream::connect(&path).await.map_err(|error| refused(&path, &error))?;
                Ok::<_, io::Error>(TokioIo::new(Patient::new(stream, path, limit)))
            }
        }));
        Ok(Self { channel, headers: Headers::new(&scope)?, scope })
    }

    /// The same channel under another scope.
    pub fn with_scope(&self, scope: Scope) -> Result<Self> {
        Ok(Self { channel: self.channel.clone(), headers: Headers::new(&scope)?, scope })
    }

    /// In whose name calls are made.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What a generated client is made over.
    pub fn transport(&self) -> Transport {
        InterceptedService::new(self.channel.clone(), self.headers.clone())
    }
}

/// What Go's clients say when nobody listens.
fn refused(path: &Path, error: &io::Error) -> io::Error {
    let dial = format!("dial unix {}: connect: {}", path.display(), os_text(error));
    io::Error::new(
        error.kind(),
        format!("connection error: desc = \"transport: Error while dialing: {dial}\""),
    )
}
