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
use crate::fetch::{Fetcher, Span};
use crate::transport::origin;

/// The content of a blob, or of a range of it.
pub struct Body {
    fetcher: Fetcher,
    blob: Descriptor,
    /// What is still to come.
    rest: Span,
    size: Option<u64>,
    current: Option<Current>,
    /// Whether all of it came.
    done: bool,
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

struct Current {
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
            current: None,
            done: false,
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
            self.done = true;
            return Ok(());
        }
        let (answer, number) = self.fetcher.connect(&self.blob, self.rest, self.number).await?;
        let whole = answer.response.status() != StatusCode::PARTIAL_CONTENT;
        let skip = if whole { self.rest.start } else { 0 };
        self.number = number;
        self.host = origin(answer.response.url());
        self.current = Some(Current { response: answer.response, skip, waited: Duration::ZERO, dripped: 0 });
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.rest.end == Some(self.rest.start)
    }

    /// The next bytes; none at the end. Dropping it half-way loses no bytes: call it again.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        while !self.done {
            let failure = match self.next().await {
                Ok(chunk) => return Ok(chunk),
                // All is there: how the connection ended is nobody's business.
                Err(failure) if self.is_complete() && failure.is_transient() => break,
                Err(failure) => failure,
            };
            let doing = format!("fetch {} at byte {}", self.blob.digest, self.rest.start);
            self.resume(failure).await.map_err(together).context(|| doing)?;
        }
        self.done = true;
        self.current = None;
        Ok(None)
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let idle = self.fetcher.registry().settings().limits.idle;
        loop {
            let Some(current) = &mut self.current else {
                // Somebody dropped a call while the connection was made again.
                return Err(Failure::new(Kind::Reset, &self.host, "connection broke"));
            };
            let before = Instant::now();
            let chunk = match tokio::time::timeout(idle, current.response.chunk()).await {
                Err(_) => {
                    return Err(Failure::new(
                        Kind::Timeout,
                        &self.host,
                        format!("nothing came for {idle:?}"),
                    ));
                }
                Ok(Err(e)) => return Err(Failure::transport(&self.host, e)),
                Ok(Ok(None)) => return self.ended(),
                Ok(Ok(Some(chunk))) => chunk,
            };
            if current.drips(before.elapsed(), chunk.len() as u64, idle) {
                let why = format!("less than {DRIP} bytes came in {idle:?}");
                return Err(Failure::new(Kind::Timeout, &self.host, why));
            }
            if let Some(chunk) = self.taken(chunk)? {
                return Ok(Some(chunk));
            }
        }
    }

    /// What of `chunk` was asked for.
    fn taken(&mut self, mut chunk: Bytes) -> Result<Option<Bytes>, Failure> {
        let Some(current) = &mut self.current else { return Ok(None) };
        let skipped = current.skip.min(chunk.len() as u64);
        current.skip -= skipped;
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
        self.done = true;
        Ok(None)
    }

    /// Takes it up again where it ended, or gives up.
    async fn resume(&mut self, failure: Failure) -> Result<(), Vec<Failure>> {
        let limits = self.fetcher.registry().settings().limits.clone();
        let mut failures = vec![failure];
        self.current = None;
        self.fresh = 0;
        loop {
            self.breaks += 1;
            self.total_breaks += 1;
            // A host that had the blob a moment ago and is not there now is likely to come back.
            let worth = |f: &Failure| f.is_transient() || f.kind == Kind::Connect;
            let spent = self.breaks >= limits.attempts || self.total_breaks >= MOST_BREAKS;
            if spent || !failures.iter().any(worth) {
                return Err(failures);
            }
            let reason = failures.first().map(|f| format!("{}: {}", f.origin, f.reason)).unwrap_or_default();
            tracing::debug!(digest = %self.blob.digest, %reason, offset = self.rest.start, "transfer is taken up again");
            tokio::time::sleep(limits.wait(self.breaks, None)).await;
            if self.breaks > 1 {
                self.number += 1;
            }
            match self.connect().await {
                Ok(()) => return Ok(()),
                Err(more) => failures = more,
            }
        }
    }
}

impl Current {
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
