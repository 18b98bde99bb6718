//! `containerd.services.content.v1.Content`; the state machine of Write is in [`ingest`].

use std::pin::Pin;
use std::sync::Arc;

use api::containerd::events::ContentDelete;
use api::containerd::services::content::v1 as wire;
use api::convert;
use content::{Reader, Store};
use futures_util::Stream;
use grpc::content::content_server;
use tonic::{Request, Response, Status, Streaming};
use types::filters::Filters;
use types::{Digest, Error, Result as Outcome, ResultExt};

use super::House;
use super::ingest;
use super::reply::{chunks, reply, required, scope, status};
use crate::work::Change;

/// Bytes of a blob in one message.
const CHUNK: usize = 1 << 20;

/// Blobs and ingests of a namespace.
pub struct Content(pub House);

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Content {
    fn store<T>(&self, request: &Request<T>) -> Result<Arc<dyn Store>, Status> {
        Ok(self.0.db.content(scope(request.metadata())?))
    }
}

/// Where upstream finds a bad digest later, and says so in other words.
fn checked(text: &str, doing: &str) -> Result<Digest, Status> {
    text.parse().map_err(|_| Status::invalid_argument(format!("{doing}invalid checksum digest format")))
}

fn digest(text: &str) -> Result<Digest, Status> {
    text.parse().map_err(|_| Status::invalid_argument(format!("{text:?} failed validation")))
}

#[tonic::async_trait]
impl content_server::Content for Content {
    async fn info(
        &self,
        request: Request<wire::InfoRequest>,
    ) -> Result<Response<wire::InfoResponse>, Status> {
        let store = self.store(&request)?;
        let info = reply(store.info(&digest(&request.get_ref().digest)?).await)?;
        Ok(Response::new(wire::InfoResponse { info: Some(convert::content_info_to_wire(info)) }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateRequest>,
    ) -> Result<Response<wire::UpdateResponse>, Status> {
        let scope = scope(request.metadata())?;
        let request = request.into_inner();
        let info = required(request.info, "info")?;
        digest(&info.digest)?;
        let info = reply(convert::content_info(info))?;
        let fields = convert::field_paths(request.update_mask);
        let change = Change::new("update content", &scope.namespace, info.digest.as_str());
        let store = self.0.db.content(scope);
        let updated = self.0.work.run(change, async move { store.update(info, &fields).await });
        Ok(Response::new(wire::UpdateResponse { info: Some(convert::content_info_to_wire(updated.await?)) }))
    }

    type ListStream = Messages<wire::ListContentResponse>;

    async fn list(
        &self,
        request: Request<wire::ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let store = self.store(&request)?;
        let filters = reply(Filters::parse(&request.get_ref().filters))?;
        let mut all = Vec::new();
        let mut each = |info| -> Outcome<()> {
            all.push(convert::content_info_to_wire(info));
            Ok(())
        };
        reply(store.walk(&filters, &mut each).await)?;
        let messages = chunks(all).map(|info| Ok(wire::ListContentResponse { info }));
        Ok(Response::new(Box::pin(futures_util::stream::iter(messages))))
    }

    async fn delete(&self, request: Request<wire::DeleteContentRequest>) -> Result<Response<()>, Status> {
        let scope = scope(request.metadata())?;
        let digest = checked(&request.get_ref().digest, "")?;
        let house = self.0.clone();
        let change = Change::new("delete content", &scope.namespace, digest.as_str());
        let deleted = self.0.work.run(change, async move {
            let namespace = scope.namespace.clone();
            house.db.content(scope).delete(&digest).await?;
            house.announce(&namespace, "/content/delete", &ContentDelete { digest: digest.into() });
            Ok(())
        });
        deleted.await.map(Response::new)
    }

    type ReadStream = Messages<wire::ReadContentResponse>;

    async fn read(
        &self,
        request: Request<wire::ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let store = self.store(&request)?;
        let request = request.into_inner();
        let reader = reply(store.reader(&checked(&request.digest, &format!("{}: ", request.digest))?).await)?;
        let (start, end) = range(&request, reader.size())?;
        Ok(Response::new(Box::pin(pieces(reader, start, end))))
    }

    async fn status(
        &self,
        request: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        let store = self.store(&request)?;
        let reference = request.into_inner().r#ref;
        let found = store.status(&reference).await;
        let found = reply(found.context(|| format!("could not get status for ref {reference:?}")))?;
        Ok(Response::new(wire::StatusResponse { status: Some(convert::content_status_to_wire(found)) }))
    }

    async fn list_statuses(
        &self,
        request: Request<wire::ListStatusesRequest>,
    ) -> Result<Response<wire::ListStatusesResponse>, Status> {
        let store = self.store(&request)?;
        let found = reply(store.list_statuses(&request.get_ref().filters).await)?;
        let statuses = found.into_iter().map(convert::content_status_to_wire).collect();
        Ok(Response::new(wire::ListStatusesResponse { statuses }))
    }

    type WriteStream = Messages<wire::WriteContentResponse>;

    async fn write(
        &self,
        request: Request<Streaming<wire::WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let scope = scope(request.metadata())?;
        Ok(Response::new(Box::pin(ingest::write(self.0.clone(), scope, request.into_inner()))))
    }

    async fn abort(&self, request: Request<wire::AbortRequest>) -> Result<Response<()>, Status> {
        let scope = scope(request.metadata())?;
        let reference = request.into_inner().r#ref;
        let change = Change::new("abort ingest", &scope.namespace, reference.as_str());
        let store = self.0.db.content(scope);
        let aborted = self.0.work.run(change, async move { store.abort(&reference).await });
        aborted.await.map(Response::new)
    }
}

/// The part of a blob of `size` bytes that a request means. A negative offset is the start, a size of nothing the rest.
fn range(request: &wire::ReadContentRequest, size: u64) -> Result<(u64, u64), Status> {
    let start = u64::try_from(request.offset).unwrap_or(0);
    if start > size {
        return Err(status(&Error::out_of_range(format!("read past object length {size} bytes"))));
    }
    let end = match u64::try_from(request.size) {
        Ok(0) | Err(_) => size,
        Ok(len) => start.saturating_add(len).min(size),
    };
    Ok((start, end))
}

/// The bytes from `start` to `end` in messages; their offsets count from the first of these bytes.
fn pieces(
    reader: Box<dyn Reader>,
    start: u64,
    end: u64,
) -> impl Stream<Item = Result<wire::ReadContentResponse, Status>> {
    futures_util::stream::try_unfold((reader, start), move |(reader, at)| async move {
        let len = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
        if len == 0 {
            return Ok(None);
        }
        let data = reply(reader.read_at(at, len).await)?;
        if data.is_empty() {
            return Err(Status::data_loss(format!("blob ends at {at}, before its size of {end} bytes")));
        }
        let offset = i64::try_from(at - start).unwrap_or(i64::MAX);
        let next = at + data.len() as u64;
        Ok(Some((wire::ReadContentResponse { offset, data }, (reader, next))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range_of(offset: i64, size: i64) -> Result<(u64, u64), tonic::Code> {
        range(&wire::ReadContentRequest { digest: String::new(), offset, size }, 100).map_err(|e| e.code())
    }

    #[test]
    fn a_read_is_cut_at_the_end_and_refused_behind_it() {
        assert_eq!(range_of(0, 0), Ok((0, 100)));
        assert_eq!(range_of(-5, -1), Ok((0, 100)));
        assert_eq!(range_of(90, 50), Ok((90, 100)));
        assert_eq!(range_of(90, i64::MAX), Ok((90, 100)));
        assert_eq!(range_of(100, 0), Ok((100, 100)));
        assert_eq!(range_of(101, 0), Err(tonic::Code::OutOfRange));
    }
}
