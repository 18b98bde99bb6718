//! Content.Write: one stream, one ingest.
//!
//! ```text
//!  first message (needs ref) --> writer opened, ref locked
//!     STAT   --> where the ingest stands
//!     WRITE  --> checks the offset (0 with data present starts over), appends
//!     COMMIT --> as WRITE, then size and digest are checked and the blob is there; ends the stream
//!  end of the client's messages --> the ingest stays for the next writer of that ref
//! ```
//!
//! An error ends the stream and keeps the ingest, but for AlreadyExists, which drops it. The stream ends with its client;
//! only the commit itself is run to its end.

use std::sync::Arc;

use api::containerd::events::ContentCreate;
use api::containerd::services::content::v1 as wire;
use api::convert;
use content::{Store, Writer, WriterOptions};
use futures_util::Stream;
use tonic::{Status, Streaming};
use types::{Digest, Error, Labels, Result, Scope};

use super::House;
use super::reply::status;
use crate::work::Change;

/// Blobs of at least this many bytes leave memory behind that is worth giving back.
const LARGE: u64 = 4 << 20;

/// Answers the messages of one Write.
pub fn write(
    house: House,
    scope: Scope,
    requests: Streaming<wire::WriteContentRequest>,
) -> impl Stream<Item = Result<wire::WriteContentResponse, Status>> {
    let store = house.db.content(scope.clone());
    let session = Session { house, scope, store, requests, ingest: None };
    futures_util::stream::try_unfold(Some(session), |session| async move {
        let Some(mut session) = session else { return Ok(None) };
        let Some(request) = session.requests.message().await? else { return Ok(None) };
        let commit = request.action() == wire::WriteAction::Commit;
        let response = session.answer(request).await?;
        Ok(Some((response, (!commit).then_some(session))))
    })
}

struct Session {
    house: House,
    scope: Scope,
    store: Arc<dyn Store>,
    requests: Streaming<wire::WriteContentRequest>,
    ingest: Option<Ingest>,
}

/// An open ingest and what its client has said about it so far.
struct Ingest {
    reference: String,
    writer: Box<dyn Writer>,
    offset: u64,
    total: u64,
    expected: Option<Digest>,
}

impl Session {
    async fn answer(
        &mut self,
        request: wire::WriteContentRequest,
    ) -> Result<wire::WriteContentResponse, Status> {
        let mut ingest = match self.ingest.take() {
            Some(ingest) => ingest,
            None => open(&*self.store, &request).await?,
        };
        if !request.expected.is_empty() {
            let expected = request.expected.parse().map_err(|e| status(&e))?;
            if self.store.info(&expected).await.is_ok() {
                return Err(self.exists_already(ingest, &expected).await);
            }
            ingest.expected = Some(expected);
        }
        if let Some(total) = u64::try_from(request.total).ok().filter(|total| *total > 0) {
            ingest.total = total;
        }
        let answered = match request.action() {
            wire::WriteAction::Stat => stat(&mut ingest).await,
            wire::WriteAction::Write => append(&mut ingest, &request).await,
            wire::WriteAction::Commit => {
                append(&mut ingest, &request).await.map_err(|e| status(&e))?;
                return self.commit(ingest, request).await;
            }
        };
        self.ingest = Some(ingest);
        answered.map_err(|e| status(&e))
    }

    /// Somebody else was first: this ingest is of no use any more.
    async fn exists_already(&self, ingest: Ingest, expected: &Digest) -> Status {
        drop(ingest.writer);
        if let Err(error) = self.store.abort(&ingest.reference).await {
            tracing::warn!(%error, reference = ingest.reference, "failed to abort write");
        }
        status(&Error::already_exists(format!("blob with expected digest {expected} exists")))
    }

    async fn commit(
        &self,
        mut ingest: Ingest,
        request: wire::WriteContentRequest,
    ) -> Result<wire::WriteContentResponse, Status> {
        let digest = ingest.writer.digest().await.map_err(|e| status(&e))?;
        let (house, namespace) = (self.house.clone(), self.scope.namespace.clone());
        let change = Change::new("commit content", &namespace, digest.as_str());
        let labels: Labels = request.labels;
        let committed = self.house.work.run(change, async move {
            ingest.writer.commit(ingest.total, ingest.expected, labels).await?;
            let size = i64::try_from(ingest.offset).unwrap_or(i64::MAX);
            let event = ContentCreate { digest: digest.clone().into(), size };
            house.announce(&namespace, "/content/create", &event);
            Ok((digest, ingest.offset))
        });
        let (digest, offset) = committed.await?;
        if offset >= LARGE {
            self.house.work.trim();
        }
        Ok(response(wire::WriteAction::Commit, offset, &digest))
    }
}

async fn open(store: &dyn Store, request: &wire::WriteContentRequest) -> Result<Ingest, Status> {
    if request.r#ref.is_empty() {
        return Err(Status::invalid_argument("first message must have a reference"));
    }
    let expected = match request.expected.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|e| status(&e))?),
    };
    let total = u64::try_from(request.total).unwrap_or(0);
    let options = WriterOptions { reference: request.r#ref.clone(), total, expected: expected.clone() };
    let writer = store.writer(options).await.map_err(|e| status(&e))?;
    let offset = writer.status().await.map_err(|e| status(&e))?.offset;
    Ok(Ingest { reference: request.r#ref.clone(), writer, offset, total, expected })
}

async fn stat(ingest: &mut Ingest) -> Result<wire::WriteContentResponse> {
    let stands = ingest.writer.status().await?;
    let digest = ingest.writer.digest().await?;
    Ok(wire::WriteContentResponse {
        started_at: convert::timestamp(stands.started_at),
        updated_at: convert::timestamp(stands.updated_at),
        total: i64::try_from(ingest.total).unwrap_or(i64::MAX),
        ..response(wire::WriteAction::Stat, stands.offset, &digest)
    })
}

async fn append(
    ingest: &mut Ingest,
    request: &wire::WriteContentRequest,
) -> Result<wire::WriteContentResponse> {
    if request.offset == 0 && ingest.offset > 0 {
        ingest.writer.truncate(0).await?;
        ingest.offset = 0;
    } else if u64::try_from(request.offset) != Ok(ingest.offset) {
        return Err(Error::out_of_range(format!(
            "write @{} must occur at current offset {}",
            request.offset, ingest.offset
        )));
    }
    if !request.data.is_empty() {
        ingest.writer.write(request.data.clone()).await?;
        ingest.offset += request.data.len() as u64;
    }
    let digest = ingest.writer.digest().await?;
    Ok(response(wire::WriteAction::Write, ingest.offset, &digest))
}

fn response(action: wire::WriteAction, offset: u64, digest: &Digest) -> wire::WriteContentResponse {
    wire::WriteContentResponse {
        action: action.into(),
        offset: i64::try_from(offset).unwrap_or(i64::MAX),
        digest: digest.to_string(),
        ..Default::default()
    }
}
