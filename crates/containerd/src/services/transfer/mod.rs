//! `containerd.services.transfer.v1.Transfer`.
//!
//! ```text
//!  OCIRegistry       -> ImageStore         pull: fetch, unpack, name
//!  ImageStore        -> OCIRegistry        push
//!  ImageImportStream -> ImageStore         import, unpack, name
//!  ImageStore        -> ImageExportStream  an archive
//!  ImageStore        -> ImageStore         tag
//!  ImageImportStream -> ImageExportStream  the bytes as they are, to try streams with
//! ```
//!
//! A transfer ends with its caller, and then takes back what it did: a lease of its own holds everything on the way, and what
//! only that held is collected before an error is answered.

mod bytestream;
mod cri;
mod export;
mod import;
mod lease;
mod progress;
mod pull;
mod push;
mod registry;
mod store;
mod tracker;
mod unpack;

use api::containerd::services::transfer::v1::TransferRequest;
use api::containerd::types::transfer as wire;
use api::{ProtoAny, any};
use grpc::transfer::transfer_server;
use prost::Name as _;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use types::{Any, Class, Error, Namespace, Result, Scope};

use super::House;
use super::reply::{reply, required, scope};
use super::streaming::Stream;
use crate::work::Change;

pub use cri::CriPulls;
use lease::{Leftovers, leased};
use progress::Progress;
use registry::Registry;
use store::ImageStore;

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
        let source_end = self.end(&scope.namespace, &source)?;
        let ends = (source_end, self.end(&scope.namespace, &destination)?);
        let (caller, gone) = watch::channel(());
        let change = Change::new("transfer", &scope.namespace, told(&ends, (&source, &destination)));
        let job =
            Job { house: self.0.clone(), scope, progress, gone: Gone(gone), leftovers: Leftovers::default() };
        let done = self.0.work.run(change, job.run(ends, (source.type_url, destination.type_url))).await;
        drop(caller);
        self.0.work.trim();
        done.map(Response::new)
    }
}

/// From what to what, for the log.
fn told((from, to): &(End, End), types: (&ProtoAny, &ProtoAny)) -> String {
    let short = |end: &End, any: &ProtoAny| {
        let kind = any.type_url.rsplit('.').next().unwrap_or_default();
        match end {
            End::Registry(registry) => format!("{kind} {}", registry.name),
            End::Store(ImageStore(store)) if !store.name.is_empty() => format!("{kind} {}", store.name),
            _ => kind.to_owned(),
        }
    };
    format!("{} to {}", short(from, types.0), short(to, types.1))
}

/// One end of a transfer.
enum End {
    Import(wire::ImageImportStream, Stream),
    Export(wire::ImageExportStream, Stream),
    Store(ImageStore),
    Registry(Registry),
    /// What we know nothing of.
    Other,
}

impl Transfer {
    fn end(&self, namespace: &Namespace, any: &ProtoAny) -> Result<End, Status> {
        reply(end(&self.0, namespace, &any::from_wire(any.clone())))
    }
}

fn end(house: &House, namespace: &Namespace, any: &Any) -> Result<End> {
    let streams = &house.streams;
    if any.is(&wire::OciRegistry::full_name()) {
        let settings = house.transfers.settings();
        return Ok(End::Registry(Registry::open(streams, namespace, any::unpack(any)?, settings)?));
    }
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
    leftovers: Leftovers,
}

impl Job {
    /// Does what there is to do between the two ends, and ends the progress.
    async fn run(mut self, ends: (End, End), types: (String, String)) -> Result<()> {
        let progress = self.progress.clone();
        let done = match ends {
            (End::Registry(from), End::Store(to)) => {
                let name = from.name.clone();
                leased(&mut self, Some(&name), async |job| {
                    pull::run(job, from, to, pull::Wishes::default()).await
                })
                .await
            }
            (End::Store(from), End::Registry(to)) => push::run(&mut self, from, to).await,
            (End::Import(from, stream), End::Store(to)) => {
                leased(&mut self, None, async |job| import::run(job, from, stream, to).await).await
            }
            (End::Store(from), End::Export(to, stream)) => {
                leased(&mut self, None, async |job| export::run(job, from, to, stream).await).await
            }
            (End::Store(from), End::Store(to)) => {
                leased(&mut self, None, async |job| store::tag(job, from, to).await).await
            }
            (End::Import(_, from), End::Export(_, to)) => bytestream::echo(from, to, self.gone.clone()).await,
            _ => Err(Error::unimplemented(format!(
                "unable to transfer from {} to {}: not implemented",
                types.0, types.1
            ))),
        };
        progress.finish().await;
        done
    }
}
