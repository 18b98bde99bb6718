//! Bytes as they arrive.
//!
//! A connection that breaks or falls silent is taken up again where it ended, first with the same host, then with the others.
//! The clock of silence runs only while somebody waits for bytes: a caller that unpacks for minutes between two chunks
//! is not the host's fault.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use reqwest::Response;
use types::oci::image::Descriptor;
use types::{Result, ResultExt};

use crate::failure::{Failure, Kind, together};
use crate::fetch::Fetcher;
use crate::span::Span;
use crate::transport::origin;

/// The content of a blob, or of a range of it.
pub struct Body {
    fetcher: Fetcher,
    blob: Descriptor,
    /// What is still to come.
    rest: Span,
    size: Option<u64>,
    state: State,
    /// The host that answered last, among those that can be pulled from.
    number: usize,
    host: String,
    /// Breaks since the last time that there was progress worth the name.
    breaks: u32,
    /// All breaks.
    total_breaks: u32,
    /// Bytes since the last break.
    fresh: u64,
}

/// `Flowing` and `Broken` follow each other until it is `Done`, or there is no patience left.
enum State {
    /// Bytes come.
    Flowing(Flow),
    /// None come: connect again at this time.
    Broken(Instant),
    /// All came.
    Done,
}

struct Flow {
    response: Response,
    /// Bytes to throw away: a host that ignores ranges sends them again.
    skip: u64,
    /// How long somebody waited for the last few bytes.
    waited: Duration,
    /// How many those are.
    dripped: u64,
}

/// So many bytes after a break are progress: the budget of breaks is whole again.
const PROGRESS: u64 = 1 << 20;

/// Nobody's connection breaks that often.
const MOST_BREAKS: u32 = 1000;

/// Less than this in a period of silence's length is silence, too.
const DRIP: u64 = 1 << 10;

impl Body {
    pub(crate) fn new(fetcher: Fetcher, blob: Descriptor, span: Span) -> Self {
        Self {
            size: span.end.map(|end| end - span.start),
            rest: span,
            fetcher,
            blob,
            state: State::Broken(Instant::now()),
            number: 0,
            host: String::new(),
            breaks: 0,
            total_breaks: 0,
            fresh: 0,
        }
    }

    /// How many bytes it has, if that is known.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Who sends it: scheme, host and port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Opens the connection for what is still to come; nothing to come needs none.
    pub(crate) async fn connect(&mut self) -> Result<(), Vec<Failure>> {
        if self.is_complete() {
            self.state = State::Done;
            return Ok(());
        }
        let (answer, number) = self.fetcher.connect(&self.blob, self.rest, self.number).await?;
        let whole = answer.response.status() != StatusCode::PARTIAL_CONTENT;
        let skip = if whole { self.rest.start } else { 0 };
        self.number = number;
        self.host = origin(answer.response.url());
        self.state =
            State::Flowing(Flow { response: answer.response, skip, waited: Duration::ZERO, dripped: 0 });
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.rest.end == Some(self.rest.start)
    }

    /// The next bytes; none at the end. Dropping it half-way loses no bytes: call it again.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            let failures = match &self.state {
                State::Done => return Ok(None),
                State::Broken(until) => {
                    tokio::time::sleep_until((*until).into()).await;
                    match self.connect().await {
                        Ok(()) => continue,
                        Err(failures) => failures,
                    }
                }
                State::Flowing(_) => match self.next().await {
                    Ok(Some(chunk)) => return Ok(Some(chunk)),
                    Ok(None) => continue,
                    Err(failure) => vec![failure],
                },
            };
            self.broken(failures)
                .map_err(together)
                .context(|| format!("fetch {} at byte {}", self.blob.digest, self.rest.start))?;
        }
    }

    /// The next bytes of the flow; none if it did not bring any that were asked for, or ended as it should.
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let idle = self.fetcher.registry().settings().limits.idle;
        let State::Flowing(flow) = &mut self.state else { return Ok(None) };
        let before = Instant::now();
        let chunk = match tokio::time::timeout(idle, flow.response.chunk()).await {
            Err(_) => {
                return Err(Failure::new(Kind::Timeout, &self.host, format!("nothing came for {idle:?}")));
            }
            Ok(Err(e)) => return Err(Failure::transport(&self.host, e)),
            Ok(Ok(None)) => return self.ended(),
            Ok(Ok(Some(chunk))) => chunk,
        };
        let chunk_length = chunk.len() as u64;
        let drips = flow.drips(before.elapsed(), chunk_length, idle);
        let chunk = self.taken(chunk)?;
        if drips {
            // What came is kept, and is the last from this connection.
            self.broken(vec![Failure::new(
                Kind::Timeout,
                &self.host,
                format!("less than {DRIP} bytes came in {idle:?}"),
            )])
            .map_err(|mut failures| failures.remove(0))?;
        }
        Ok(chunk)
    }

    /// What of `chunk` was asked for.
    fn taken(&mut self, mut chunk: Bytes) -> Result<Option<Bytes>, Failure> {
        let State::Flowing(flow) = &mut self.state else { return Ok(None) };
        let skipped = flow.skip.min(chunk.len() as u64);
        flow.skip -= skipped;
        // Not larger than the chunk.
        let _ = chunk.split_to(usize::try_from(skipped).unwrap_or(chunk.len()));
        let length = chunk.len() as u64;
        if let Some(end) = self.rest.end
            && length > end - self.rest.start
        {
            let why = format!("sent more than the {} bytes of {}", self.blob.size, self.blob.digest);
            return Err(Failure::new(Kind::Invalid, &self.host, why));
        }
        self.rest.start += length;
        self.fresh += length;
        if self.fresh >= PROGRESS {
            self.breaks = 0;
        }
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    /// The host says that this is the end.
    fn ended(&mut self) -> Result<Option<Bytes>, Failure> {
        if let Some(end) = self.rest.end
            && self.rest.start < end
        {
            let why = format!("ended {} bytes too early", end - self.rest.start);
            return Err(Failure::new(Kind::Reset, &self.host, why));
        }
        self.state = State::Done;
        Ok(None)
    }

    /// Takes note that nothing comes any more: when to connect again, or that there is no patience left.
    fn broken(&mut self, failures: Vec<Failure>) -> Result<(), Vec<Failure>> {
        // A host that had the blob a moment ago and is not there now is likely to come back.
        let worth = |f: &Failure| f.is_transient() || f.kind == Kind::Connect;
        if self.is_complete() && failures.iter().any(worth) {
            // All is there: how the connection ended is nobody's business.
            self.state = State::Done;
            return Ok(());
        }
        let limits = &self.fetcher.registry().settings().limits;
        self.breaks += 1;
        self.total_breaks += 1;
        self.fresh = 0;
        let spent = self.breaks >= limits.attempts || self.total_breaks >= MOST_BREAKS;
        if spent || !failures.iter().any(worth) {
            return Err(failures);
        }
        let reason = failures.first().map(|f| format!("{}: {}", f.origin, f.reason)).unwrap_or_default();
        let offset = self.rest.start;
        tracing::debug!(digest = %self.blob.digest, %reason, offset, "transfer is taken up again");
        if self.breaks > 1 {
            self.number += 1;
        }
        self.state = State::Broken(Instant::now() + limits.wait(self.breaks, None));
        Ok(())
    }
}

impl Flow {
    /// Whether bytes only drip: too few in a long time of waiting. Time in which nobody waited does not count.
    fn drips(&mut self, waited: Duration, bytes: u64, idle: Duration) -> bool {
        self.waited += waited;
        self.dripped += bytes;
        if self.dripped >= DRIP {
            (self.waited, self.dripped) = (Duration::ZERO, 0);
        }
        self.waited > idle
    }
}
