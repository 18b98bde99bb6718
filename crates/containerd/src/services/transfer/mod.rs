//! `containerd.services.transfer.v1.Transfer`, as far as it needs no registry: import, export, tag.
//!
//! ```text
//!  ImageImportStream -> ImageStore         import, unpack, name
//!  ImageStore        -> ImageExportStream  an archive
//!  ImageStore        -> ImageStore         tag
//!  ImageImportStream -> ImageExportStream  the bytes as they are, to try streams with
//! ```
//!
//! A transfer ends with its caller, and then takes back what it did: a lease of its own holds everything on the way, and what
//! only that held is collected before an error is answered.

mod bytestream;
mod export;
mod import;
mod progress;
mod store;

use api::containerd::services::transfer::v1::TransferRequest;
use api::containerd::types::transfer as wire;
use api::{ProtoAny, any};
use grpc::transfer::transfer_server;
use prost::Name as _;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tracing::warn;
use types::{Any, Class, Error, Labels, Namespace, Result, Scope, labels};

use super::House;
use super::reply::{reply, required, scope};
use super::streaming::{Stream, Streams};
use crate::work::Change;

use progress::Progress;
use store::ImageStore;

/// How long what a transfer has made is held, should it not come to its end.
const HELD: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// The service.
pub struct Transfer(pub House);

#[tonic::async_trait]
impl transfer_server::Transfer for Transfer {
    async fn transfer(&self, request: Request<TransferRequest>) -> Result<Response<()>, Status> {
        let scope = scope(request.metadata())?;
        let request = request.into_inner();
        let progress = request.options.unwrap_or_default().progress_stream;
        let progress = reply(Progress::open(&self.0.streams, &scope.namespace, &progress))?;
        let source = required(request.source, "source")?;
        let destination = required(request.destination, "destination")?;
        let ends = (self.end(&scope.namespace, &source)?, self.end(&scope.namespace, &destination)?);
        let (caller, gone) = watch::channel(());
        let change = Change::new("transfer", &scope.namespace, told(&source, &destination));
        let job = Job { house: self.0.clone(), scope, progress, gone: Gone(gone) };
        let done = match ends {
            (End::Import(from, stream), End::Store(to)) => {
                self.0
                    .work
                    .run(change, job.leased(async |job| import::run(job, from, stream, to).await))
                    .await
            }
            (End::Store(from), End::Export(to, stream)) => {
                self.0
                    .work
                    .run(change, job.leased(async |job| export::run(job, from, to, stream).await))
                    .await
            }
            (End::Store(from), End::Store(to)) => {
                self.0.work.run(change, job.leased(async |job| store::tag(job, from, to).await)).await
            }
            (End::Import(_, from), End::Export(_, to)) => {
                self.0.work.run(change, async move { bytestream::echo(from, to, job.gone).await }).await
            }
            _ => Err(Status::unimplemented(format!(
                "method Transfer not implemented for {} to {}",
                source.type_url, destination.type_url
            ))),
        };
        drop(caller);
        self.0.work.trim();
        done.map(Response::new)
    }
}

/// From what to what, for the log.
fn told(source: &ProtoAny, destination: &ProtoAny) -> String {
    let short = |any: &ProtoAny| any.type_url.rsplit('.').next().unwrap_or_default().to_owned();
    format!("{} to {}", short(source), short(destination))
}

/// One end of a transfer.
enum End {
    Import(wire::ImageImportStream, Stream),
    Export(wire::ImageExportStream, Stream),
    Store(ImageStore),
    /// What we know nothing of.
    Other,
}

impl Transfer {
    fn end(&self, namespace: &Namespace, any: &ProtoAny) -> Result<End, Status> {
        reply(end(&self.0.streams, namespace, &any::from_wire(any.clone())))
    }
}

fn end(streams: &Streams, namespace: &Namespace, any: &Any) -> Result<End> {
    if any.is(&wire::ImageImportStream::full_name()) {
        let import: wire::ImageImportStream = any::unpack(any)?;
        let stream = streams.take(namespace, &import.stream)?;
        return Ok(End::Import(import, stream));
    }
    if any.is(&wire::ImageExportStream::full_name()) {
        let export: wire::ImageExportStream = any::unpack(any)?;
        let stream = streams.take(namespace, &export.stream)?;
        return Ok(End::Export(export, stream));
    }
    if any.is(&wire::ImageStore::full_name()) {
        return Ok(End::Store(ImageStore(any::unpack(any)?)));
    }
    Ok(End::Other)
}

/// Tells when the caller has gone.
#[derive(Clone)]
struct Gone(watch::Receiver<()>);

impl Gone {
    /// Ends when the caller has gone; then it is an error.
    async fn wait(&mut self) -> Error {
        // Nothing is ever sent: it changes by being closed.
        while self.0.changed().await.is_ok() {}
        Error::new(Class::Canceled, "context canceled")
    }

    /// Whatever `work` answers, unless the caller goes first.
    async fn or<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            error = self.wait() => Err(error),
        }
    }
}

/// A transfer that is under way.
struct Job {
    house: House,
    scope: Scope,
    progress: Progress,
    gone: Gone,
}

impl Job {
    /// Does `work` under the caller's lease, or one of its own.
    async fn leased(mut self, work: impl AsyncFnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.scope.lease.is_some() {
            return work(&mut self).await;
        }
        let leases = self.house.db.leases(&self.scope.namespace);
        let (seconds, _) = types::time::unix(std::time::SystemTime::now() + HELD);
        let expire = types::time::rfc3339(types::time::from_unix(seconds, 0));
        let lease = leases.create(None, Labels::from([(labels::GC_EXPIRE.to_owned(), expire)])).await?;
        self.scope.lease = Some(lease.id.clone());
        let done = work(&mut self).await;
        if let Err(error) = leases.delete(&lease.id).await {
            warn!(%error, lease = lease.id, "the lease of a transfer stays until it expires");
        }
        if done.is_err()
            && let Err(error) = self.house.gc.collect().await
        {
            warn!(%error, "what a failed transfer has left stays until the next collection");
        }
        done
    }
}
