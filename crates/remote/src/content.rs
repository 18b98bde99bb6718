//! A content store over gRPC.
//!
//! A large write is pipelined: up to [`WINDOW`] of its chunks are on their way before the first answer is awaited. When
//! `write` returns all of them were answered, so that what was written is there for others and for a later resume.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::containerd::services::content::v1 as wire;
use api::{FieldMask, convert};
use async_trait::async_trait;
use bytes::Bytes;
use content::store::{Reader, Store, Writer, WriterOptions};
use grpc::content::content_client::ContentClient;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use types::content::{Info, Status};
use types::fields::FieldPaths;
use types::filters::Filters;
use types::{Class, Digest, Error, Labels, Result};

use crate::connection::{Connection, MAX_MESSAGE, Transport};
use crate::status::from_status;

/// Writes on their way before an answer is awaited.
const WINDOW: usize = 4;
/// A reference stays locked until the server has heard that its writer was dropped: so long an open is tried again.
const LOCKED: Duration = Duration::from_millis(64);
/// The most bytes that go into one message.
const CHUNK: usize = 1 << 20;

/// The content store of another process.
#[derive(Clone)]
pub struct RemoteStore {
    client: ContentClient<Transport>,
}

impl RemoteStore {
    /// The one behind `connection`, in its scope.
    pub fn new(connection: &Connection) -> Self {
        Self { client: ContentClient::new(connection.transport()).max_decoding_message_size(MAX_MESSAGE) }
    }

    /// A whole blob of at most `limit` bytes in one call: for manifests and configs.
    pub async fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let mut chunks = self.stream(digest, 0).await?;
        let mut all = Vec::new();
        while let Some(chunk) = chunks.message().await.map_err(from_status)? {
            all.extend_from_slice(&chunk.data);
            if all.len() as u64 > limit {
                return Err(Error::invalid(format!(
                    "content {digest} is larger than the {limit} bytes allowed here"
                )));
            }
        }
        Ok(all)
    }

    async fn stream(&self, digest: &Digest, offset: u64) -> Result<Streaming<wire::ReadContentResponse>> {
        let offset = i64::try_from(offset).map_err(|_| Error::out_of_range("read offset is too large"))?;
        let request = wire::ReadContentRequest { digest: digest.to_string(), offset, size: 0 };
        Ok(self.client.clone().read(request).await.map_err(from_status)?.into_inner())
    }
}

fn present(info: Option<wire::Info>) -> Result<Info> {
    convert::content_info(info.ok_or_else(|| Error::internal("content service answered no info"))?)
}

#[async_trait]
impl Store for RemoteStore {
    async fn info(&self, digest: &Digest) -> Result<Info> {
        let request = wire::InfoRequest { digest: digest.to_string() };
        present(self.client.clone().info(request).await.map_err(from_status)?.into_inner().info)
    }

    async fn update(&self, info: Info, fields: &FieldPaths) -> Result<Info> {
        let request = wire::UpdateRequest {
            info: Some(convert::content_info_to_wire(info)),
            update_mask: Some(FieldMask { paths: fields.0.clone() }),
        };
        present(self.client.clone().update(request).await.map_err(from_status)?.into_inner().info)
    }

    async fn walk(&self, filters: &Filters, each: &mut (dyn FnMut(Info) -> Result<()> + Send)) -> Result<()> {
        let request = wire::ListContentRequest { filters: filters.texts().to_vec() };
        let mut pages = self.client.clone().list(request).await.map_err(from_status)?.into_inner();
        while let Some(page) = pages.message().await.map_err(from_status)? {
            for info in page.info {
                each(convert::content_info(info)?)?;
            }
        }
        Ok(())
    }

    async fn delete(&self, digest: &Digest) -> Result<()> {
        let request = wire::DeleteContentRequest { digest: digest.to_string() };
        self.client.clone().delete(request).await.map_err(from_status)?;
        Ok(())
    }

    async fn reader(&self, digest: &Digest) -> Result<Box<dyn Reader>> {
        let info = self.info(digest).await?;
        Ok(Box::new(RemoteReader {
            store: self.clone(),
            digest: digest.clone(),
            size: info.size,
            open: Arc::new(Mutex::new(None)),
        }))
    }

    async fn status(&self, reference: &str) -> Result<Status> {
        let request = wire::StatusRequest { r#ref: reference.into() };
        let status = self.client.clone().status(request).await.map_err(from_status)?.into_inner().status;
        convert::content_status(status.ok_or_else(|| Error::internal("content service answered no status"))?)
    }

    async fn list_statuses(&self, filters: &[String]) -> Result<Vec<Status>> {
        let request = wire::ListStatusesRequest { filters: filters.to_vec() };
        let statuses =
            self.client.clone().list_statuses(request).await.map_err(from_status)?.into_inner().statuses;
        statuses.into_iter().map(convert::content_status).collect()
    }

    async fn abort(&self, reference: &str) -> Result<()> {
        let request = wire::AbortRequest { r#ref: reference.into() };
        self.client.clone().abort(request).await.map_err(from_status)?;
        Ok(())
    }

    async fn writer(&self, options: WriterOptions) -> Result<Box<dyn Writer>> {
        let mut wait = Duration::from_millis(1);
        loop {
            match RemoteWriter::open(self, options.clone()).await {
                Err(error) if error.class() == Class::Unavailable && wait < LOCKED => {}
                opened => return Ok(Box::new(opened?)),
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    }
}

/// A blob that is read in order is read by one call, which stays open in between.
struct RemoteReader {
    store: RemoteStore,
    digest: Digest,
    size: u64,
    open: Arc<Mutex<Option<Open>>>,
}

struct Open {
    chunks: Streaming<wire::ReadContentResponse>,
    offset: u64,
    rest: Bytes,
}

#[async_trait]
impl Reader for RemoteReader {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        if offset >= self.size {
            return Ok(Bytes::new());
        }
        let mut slot = self.open.lock().await;
        let mut open = match slot.take() {
            Some(open) if open.offset == offset => open,
            _ => Open { chunks: self.store.stream(&self.digest, offset).await?, offset, rest: Bytes::new() },
        };
        while open.rest.is_empty() {
            match open.chunks.message().await.map_err(from_status)? {
                Some(chunk) => open.rest = chunk.data,
                None => return Ok(Bytes::new()),
            }
        }
        let data = open.rest.split_to(len.min(open.rest.len()));
        open.offset += data.len() as u64;
        *slot = Some(open);
        Ok(data)
    }
}

struct RemoteWriter {
    options: WriterOptions,
    requests: mpsc::Sender<wire::WriteContentRequest>,
    responses: Streaming<wire::WriteContentResponse>,
    /// Requests that are not answered yet.
    waiting: usize,
    offset: u64,
    /// Truncated, which the server hears of with the next write or commit.
    truncated: bool,
    committed: bool,
    started_at: SystemTime,
    /// When the last bytes were sent, which is not after they were written.
    sent_at: SystemTime,
    digest: String,
    last: Option<wire::WriteContentResponse>,
}

impl RemoteWriter {
    async fn open(store: &RemoteStore, options: WriterOptions) -> Result<Self> {
        let (requests, receiver) = mpsc::channel(WINDOW);
        let stat = wire::WriteContentRequest {
            action: wire::WriteAction::Stat.into(),
            r#ref: options.reference.clone(),
            total: options.total.cast_signed(),
            expected: options.expected.as_ref().map(ToString::to_string).unwrap_or_default(),
            ..Default::default()
        };
        // The server answers with headers only once it has heard of the reference.
        requests.send(stat).await.map_err(|_| Error::internal("write stream is closed"))?;
        let responses = store
            .client
            .clone()
            .write(ReceiverStream::new(receiver))
            .await
            .map_err(from_status)?
            .into_inner();
        let mut writer = Self {
            options,
            requests,
            responses,
            waiting: 1,
            offset: 0,
            truncated: false,
            committed: false,
            started_at: SystemTime::now(),
            sent_at: SystemTime::now(),
            digest: String::new(),
            last: None,
        };
        writer.settle(0).await?;
        if let Some(started) = writer.last.as_ref().and_then(|last| last.started_at) {
            writer.started_at = convert::time(Some(started));
        }
        writer.offset = writer.last.as_ref().map_or(0, |last| last.offset.unsigned_abs());
        Ok(writer)
    }

    async fn send(&mut self, request: wire::WriteContentRequest) -> Result<()> {
        if self.committed {
            return Err(Error::precondition(format!("writer of {} is committed", self.options.reference)));
        }
        if self.requests.send(request).await.is_err() {
            // The server ended the call; why, is what it answers last.
            self.settle(0).await?;
            return Err(Error::unavailable(format!("write to {}: stream is closed", self.options.reference)));
        }
        self.waiting += 1;
        Ok(())
    }

    /// Awaits answers until at most `waiting` are missing.
    async fn settle(&mut self, waiting: usize) -> Result<()> {
        while self.waiting > waiting {
            let Some(answer) = self.responses.message().await.map_err(from_status)? else {
                return Err(Error::unavailable(format!("write to {}: stream ended", self.options.reference)));
            };
            self.waiting -= 1;
            if !answer.digest.is_empty() {
                self.digest.clone_from(&answer.digest);
            }
            self.last = Some(answer);
        }
        Ok(())
    }

    async fn stat(&mut self) -> Result<wire::WriteContentResponse> {
        self.send(wire::WriteContentRequest { action: wire::WriteAction::Stat.into(), ..Default::default() })
            .await?;
        self.settle(0).await?;
        self.last.clone().ok_or_else(|| Error::internal("content service answered nothing"))
    }
}

#[async_trait]
impl Writer for RemoteWriter {
    async fn write(&mut self, mut data: Bytes) -> Result<()> {
        while !data.is_empty() {
            let chunk = data.split_to(CHUNK.min(data.len()));
            let offset = self.offset;
            self.sent_at = SystemTime::now();
            self.offset += chunk.len() as u64;
            self.send(wire::WriteContentRequest {
                action: wire::WriteAction::Write.into(),
                offset: offset.cast_signed(),
                data: chunk,
                ..Default::default()
            })
            .await?;
            self.settle(WINDOW - 1).await?;
        }
        self.truncated &= self.offset == 0;
        self.settle(0).await
    }

    async fn status(&self) -> Result<Status> {
        let last = self.last.clone().unwrap_or_default();
        Ok(Status {
            reference: self.options.reference.clone(),
            offset: self.offset,
            total: self.options.total,
            expected: self.options.expected.clone(),
            started_at: self.started_at,
            // Servers tell the times only when they are asked for the state.
            updated_at: last.updated_at.map_or(self.sent_at, |time| convert::time(Some(time))),
        })
    }

    async fn digest(&mut self) -> Result<Digest> {
        if self.truncated {
            return Ok(Digest::of(b""));
        }
        self.stat().await?;
        if self.digest.is_empty() { Ok(Digest::of(b"")) } else { self.digest.parse() }
    }

    async fn truncate(&mut self, size: u64) -> Result<()> {
        if size != 0 {
            return Err(Error::unimplemented("truncate to other than nothing: not implemented"));
        }
        self.offset = 0;
        self.truncated = true;
        Ok(())
    }

    async fn commit(&mut self, size: u64, expected: Option<Digest>, labels: Labels) -> Result<()> {
        self.settle(0).await?;
        self.send(wire::WriteContentRequest {
            action: wire::WriteAction::Commit.into(),
            total: size.cast_signed(),
            offset: self.offset.cast_signed(),
            expected: expected.as_ref().map(ToString::to_string).unwrap_or_default(),
            labels,
            ..Default::default()
        })
        .await?;
        self.settle(0).await?;
        self.committed = true;
        let last = self.last.clone().unwrap_or_default();
        if size != 0 && last.offset.unsigned_abs() != size {
            return Err(Error::precondition(format!("unexpected size: {} != {size}", last.offset)));
        }
        // The server has checked it, and may tell the digest by another algorithm; one of the same must be the same.
        let told: Option<Digest> = last.digest.parse().ok();
        if let (Some(expected), Some(told)) = (expected, told)
            && expected.algorithm() == told.algorithm()
            && expected != told
        {
            return Err(Error::precondition(format!("unexpected digest: {told} != {expected}")));
        }
        Ok(())
    }
}
