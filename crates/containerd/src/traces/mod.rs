//! Traces: a span for each gRPC call, sent to a collector over OTLP. Off unless the environment names one.
//!
//! ```text
//!  headers of a call --> sampled? --> span --> queue (bounded; full: lost) --> batch --> POST, or call
//! ```
//!
//! Small on purpose: the `opentelemetry` crates bring a second metrics and logging stack, and break every few months; what
//! is needed of OTLP is eight messages (wire.rs). Names and attributes are those of Go's otelgrpc. There are no spans below
//! a call yet, and no log lines as events of spans.

mod context;
mod export;
mod settings;
mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::HeaderMap;
use rand::RngCore;
use tokio::sync::{mpsc, oneshot};
use tonic::Code;
use tracing::{info, warn};

use crate::calls::Calls;
use crate::config::Config;
use crate::logging::redact;
use context::{Parent, SpanId, TraceId, hex};
use settings::{Sampler, Settings};

/// How long the end of the daemon may wait for its last spans.
const LAST: Duration = Duration::from_secs(1);

/// Makes spans. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Tracer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sampler: Sampler,
    queue: mpsc::Sender<Order>,
    /// Where the calls come in.
    address: String,
    /// Log lines carry the trace's id.
    log: bool,
}

/// What the exporter is told.
enum Order {
    /// Send this, with others.
    Span(Box<wire::Span>),
    /// Send what there is, now.
    Flush(oneshot::Sender<()>),
}

/// A call that may be recorded.
#[derive(Debug)]
pub struct Span {
    tracer: Tracer,
    trace: TraceId,
    id: SpanId,
    parent: Option<Parent>,
    sampled: bool,
    /// `service/method`.
    name: String,
    begun: (SystemTime, Instant),
}

/// Traces calls if the environment asks for it. A mistake there is logged: it is no reason not to run containers.
pub fn start(config: &Config, calls: &Calls) {
    let parts = ["io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"];
    if config.disabled.iter().any(|uri| parts.contains(&uri.as_str())) {
        return;
    }
    match Settings::read(|name| std::env::var(name).ok()) {
        Ok(None) => {}
        Ok(Some(settings)) => {
            let address = config.grpc.address.to_string_lossy().into_owned();
            calls.trace(Tracer::new(settings, address, config.telemetry.trace_id));
            info!("sending traces");
        }
        Err(error) => warn!(%error, "no traces are sent"),
    }
}

/// Sends the spans that are waiting, before the daemon ends.
pub async fn stop(calls: &Calls) {
    if let Some(tracer) = calls.tracer() {
        tracer.flush(LAST).await;
    }
}

impl Tracer {
    /// Sends spans as `settings` say. Calls come in at `address`; `log` puts ids into log lines.
    fn new(settings: Settings, address: String, log: bool) -> Self {
        let (queue, orders) = mpsc::channel(settings.queue);
        let sampler = settings.sampler;
        tokio::spawn(export::run(settings, orders));
        Self(Arc::new(Inner { sampler, queue, address, log }))
    }

    /// A call has come.
    pub fn begin(&self, path: &str, headers: &HeaderMap) -> Span {
        let parent = Parent::read(headers);
        let trace = parent.as_ref().map_or_else(random, |parent| parent.trace);
        Span {
            tracer: self.clone(),
            trace,
            id: random(),
            sampled: sampled(self.0.sampler, trace, parent.as_ref()),
            parent,
            name: path.trim_start_matches('/').to_owned(),
            begun: (SystemTime::now(), Instant::now()),
        }
    }

    /// Sends what is waiting, as far as that is done within `limit`.
    async fn flush(&self, limit: Duration) {
        let (done, wait) = oneshot::channel();
        let flush = async {
            // Without an exporter there is nothing to send.
            if self.0.queue.send(Order::Flush(done)).await.is_ok() {
                drop(wait.await);
            }
        };
        drop(tokio::time::timeout(limit, flush).await);
    }
}

/// As Go's SDK decides: the second half of the id, as a part of 2^63.
fn sampled(sampler: Sampler, trace: TraceId, parent: Option<&Parent>) -> bool {
    if let Some(parent) = parent.filter(|_| sampler.parent) {
        return parent.sampled;
    }
    let [.., a, b, c, d, e, f, g, h] = trace;
    let place = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
    sampler.ratio >= 1.0 || (place as f64) < sampler.ratio * (1u64 << 63) as f64
}

/// Never all zero.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    while bytes == [0; N] {
        rand::rng().fill_bytes(&mut bytes);
    }
    bytes
}

impl Span {
    /// What the handler's log lines are put into.
    pub fn log_span(&self) -> tracing::Span {
        match self.tracer.0.log {
            // Of the least verbose level, so that it is there whatever the threshold.
            true => tracing::error_span!("call", trace_id = hex(&self.trace)),
            false => tracing::Span::none(),
        }
    }

    /// The call has ended. `message` is as it stands in the trailers.
    pub fn end(self, code: Code, message: &str) {
        if !self.sampled {
            return;
        }
        // The clock may have been set meanwhile.
        let end = self.begun.0 + self.begun.1.elapsed();
        let failed = matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        );
        let span = wire::Span {
            trace_id: self.trace.to_vec(),
            span_id: self.id.to_vec(),
            parent_span_id: self.parent.as_ref().map(|parent| parent.span.to_vec()).unwrap_or_default(),
            kind: wire::SERVER,
            start_time_unix_nano: nanoseconds(self.begun.0),
            end_time_unix_nano: nanoseconds(end),
            attributes: vec![
                wire::text("rpc.method", &self.name),
                wire::text("rpc.system.name", "grpc"),
                wire::text("server.address", &self.tracer.0.address),
                wire::text("rpc.response.status_code", canonical(code)),
            ],
            status: failed.then(|| wire::Status { message: unescaped(message), code: wire::ERROR }),
            flags: 1 | 1 << 8 | u32::from(self.parent.is_some()) << 9,
            trace_state: self.parent.map(|parent| parent.state).unwrap_or_default(),
            name: self.name,
        };
        // A full queue loses spans rather than holding up calls.
        drop(self.tracer.0.queue.try_send(Order::Span(Box::new(span))));
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A message of a trailer, where `%41` is `A`, without credentials.
fn unescaped(message: &str) -> String {
    let text = settings::unescape(message).unwrap_or_else(|| message.to_owned());
    redact(&text).into_owned()
}

/// A code as gRPC's specification writes it.
fn canonical(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_decides_unless_told_otherwise() {
        let parent = |sampled| Parent { trace: [1; 16], span: [1; 8], sampled, state: String::new() };
        let by_parent = Sampler { parent: true, ratio: 0.0 };
        assert!(sampled(by_parent, [1; 16], Some(&parent(true))));
        assert!(!sampled(by_parent, [1; 16], None));
        let always = Sampler { parent: false, ratio: 1.0 };
        assert!(sampled(always, [255; 16], Some(&parent(false))));
    }

    #[test]
    fn a_ratio_takes_the_low_ids() {
        let quarter = Sampler { parent: false, ratio: 0.25 };
        let id = |high: u8| [0, 0, 0, 0, 0, 0, 0, 0, high, 0, 0, 0, 0, 0, 0, 0];
        assert!(sampled(quarter, id(0x3f), None) && !sampled(quarter, id(0x40), None));
    }
}
