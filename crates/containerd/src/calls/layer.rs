//! The tower layer through which every call goes.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument;

use super::body::{Received, Sent};
use super::methods::{Flow, Method};
use super::{Calls, Flight};
use crate::traces;

/// Puts [`Observed`] around the routes.
#[derive(Clone, Debug)]
pub struct Observe {
    calls: Calls,
}

impl Observe {
    /// Tells `calls` about every call.
    pub fn new(calls: Calls) -> Self {
        Self { calls }
    }
}

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { observe: self.clone(), inner }
    }
}

/// A service whose calls are observed.
#[derive(Clone, Debug)]
pub struct Observed<S> {
    observe: Observe,
    inner: S,
}

impl<S> Service<Request<Body>> for Observed<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = Call::begin(&self.observe, &request);
        let request = match call.tally {
            Tally(Some((_, Method { flow: Flow::BidiStream, .. }))) => {
                let tally = call.tally.clone();
                request.map(|body| Body::new(Received::new(body, tally)))
            }
            _ => request,
        };
        let log = call.span.as_ref().map_or_else(tracing::Span::none, traces::Span::log_span);
        let answer = self.inner.call(request).instrument(log);
        Box::pin(async move {
            // Nothing of ours is looked at again after a panic; what handlers share is made for that.
            let response = match AssertUnwindSafe(answer).catch_unwind().await {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_) => Status::internal("the operation panicked").into_http(),
            };
            Ok(call.answered(response))
        })
    }
}

/// Where to count a call's messages; nowhere, if its service is not served.
#[derive(Clone, Debug)]
pub struct Tally(Option<(Calls, Method)>);

impl Tally {
    /// Messages have come.
    pub fn received(&self, messages: u64) {
        if let Self(Some((calls, method))) = self {
            calls.counters(*method).received.fetch_add(messages, super::Ordering::Relaxed);
        }
    }

    /// Messages have gone.
    pub fn sent(&self, messages: u64) {
        if let Self(Some((calls, method))) = self {
            calls.counters(*method).sent.fetch_add(messages, super::Ordering::Relaxed);
        }
    }
}

/// A call from its headers to its trailers. Dropped before: its caller has gone away, or its time is over.
#[derive(Debug)]
pub struct Call {
    calls: Calls,
    tally: Tally,
    flight: u64,
    begun: Instant,
    limit: Option<Duration>,
    span: Option<traces::Span>,
    over: bool,
}

impl Call {
    fn begin(observe: &Observe, request: &Request<Body>) -> Self {
        let calls = observe.calls.clone();
        let begun = Instant::now();
        let flight = calls.take_off(Flight {
            path: request.uri().path().into(),
            namespace: namespace(request.headers()),
            since: begun,
        });
        let method = calls.method(request.uri().path());
        let tally = Tally(method.map(|method| (calls.clone(), method)));
        if let Some(method) = method {
            super::add(&calls.counters(method).started);
            if method.flow != Flow::BidiStream {
                tally.received(1);
            }
        }
        let span = calls.0.tracer.get().map(|tracer| tracer.begin(request.uri().path(), request.headers()));
        Self { calls, tally, flight, begun, limit: limit(request.headers()), span, over: false }
    }

    /// Where its messages are counted.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Whether there may be any number of replies.
    pub fn streams(&self) -> bool {
        matches!(self.tally, Tally(Some((_, Method { flow: Flow::BidiStream | Flow::ServerStream, .. }))))
    }

    /// The handler has answered: with a failure, which ends the call, or with a body, which will.
    fn answered(self, response: Response<Body>) -> Response<Body> {
        let call = if response.headers().contains_key(Status::GRPC_STATUS) {
            self.end(response.headers());
            None
        } else {
            Some(self)
        };
        response.map(|body| Body::new(Sent::new(body, call)))
    }

    /// The call ends with what headers or trailers say.
    pub fn end(self, headers: &HeaderMap) {
        let code =
            headers.get(Status::GRPC_STATUS).map_or(Code::Unknown, |code| Code::from_bytes(code.as_bytes()));
        let message =
            headers.get(Status::GRPC_MESSAGE).and_then(|text| text.to_str().ok()).unwrap_or_default();
        self.end_with(code, message);
    }

    /// The call ends.
    pub fn end_with(mut self, code: Code, message: &str) {
        self.close(code, message);
    }

    fn close(&mut self, code: Code, message: &str) {
        self.over = true;
        self.calls.land(self.flight);
        if let Tally(Some((calls, method))) = &self.tally {
            calls.counters(*method).ended(code, self.begun.elapsed());
            if method.flow == Flow::Unary {
                self.tally.sent(1);
            }
        }
        if let Some(span) = self.span.take() {
            span.end(code, message);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.over {
            let late = self.limit.is_some_and(|limit| self.begun.elapsed() >= limit);
            self.close(if late { Code::DeadlineExceeded } else { Code::Cancelled }, "");
        }
    }
}

fn namespace(headers: &HeaderMap) -> Box<str> {
    match headers.get("containerd-namespace").map(HeaderValue::to_str) {
        None => "".into(),
        Some(Ok(text)) => text.into(),
        Some(Err(_)) => headers["containerd-namespace"].as_bytes().escape_ascii().to_string().into(),
    }
}

/// How long the caller will wait: up to eight digits and a unit.
fn limit(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = digits.parse::<u64>().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    const VERSION: &str = "/containerd.services.version.v1.Version/Version";

    fn request(path: &str, timeout: Option<&str>) -> Request<Body> {
        let mut request = Request::builder().uri(path).header("containerd-namespace", "ns");
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        request.body(Body::empty()).unwrap()
    }

    fn calls() -> Calls {
        let calls = Calls::new();
        calls.serves("containerd.services.version.v1.Version");
        calls
    }

    /// Lets one call be answered by `answer`, which is dropped unfinished if it is pending.
    async fn one<F>(calls: &Calls, request: Request<Body>, answer: F)
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let mut answer = Some(answer);
        let inner =
            tower::service_fn(move |_: Request<Body>| answer.take().unwrap().map(Ok::<_, Infallible>));
        let mut observed = Observe::new(calls.clone()).layer(inner);
        let call = observed.call(request);
        assert_eq!(calls.under_way().len(), 1);
        drop(tokio::time::timeout(Duration::from_millis(20), call).await);
        assert!(calls.under_way().is_empty(), "a call that is over is still listed");
    }

    fn ended(calls: &Calls, code: Code) -> u64 {
        let (_, counters) = calls.counted().next().unwrap();
        counters.handled[code as usize].load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_call_is_counted_by_the_code_that_it_ends_with() {
        let calls = calls();
        one(&calls, request(VERSION, None), async { Status::not_found("x").into_http() }).await;
        assert_eq!(ended(&calls, Code::NotFound), 1);
        one(&calls, request(VERSION, None), async { panic!("a handler's mistake") }).await;
        assert_eq!(ended(&calls, Code::Internal), 1);
        one(&calls, request(VERSION, None), futures_util::future::pending()).await;
        assert_eq!(ended(&calls, Code::Cancelled), 1);
        one(&calls, request(VERSION, Some("1n")), futures_util::future::pending()).await;
        assert_eq!(ended(&calls, Code::DeadlineExceeded), 1);
        let (_, counters) = calls.counted().next().unwrap();
        assert_eq!(counters.started.load(Ordering::Relaxed), 4);
        assert_eq!(counters.sent.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn a_call_to_nobody_is_listed_but_not_counted() {
        let calls = calls();
        one(&calls, request("/no.Such/Call", None), async { Status::unimplemented("").into_http() }).await;
        assert_eq!(calls.counted().count(), 1);
        assert_eq!(ended(&calls, Code::Unimplemented), 0);
    }

    proptest::proptest! {
        #[test]
        fn no_limit_breaks_the_reader(text in "[0-9]{0,10}[HMSmun]?|[ -~]*") {
            let limit = limit(request("/", Some(&text)).headers());
            proptest::prop_assert!(limit.is_none() || text.len() <= 9);
        }
    }

    #[test]
    fn a_callers_limit_is_read_with_its_unit() {
        let limit = |text: &str| limit(request("/", Some(text)).headers());
        assert_eq!(limit("250m"), Some(Duration::from_millis(250)));
        assert_eq!(limit("2H"), Some(Duration::from_secs(7200)));
        for odd in ["", "5", "S", "123456789S", "-1S", "1x", "1\u{b5}"] {
            assert!(odd.is_ascii() && limit(odd).is_none() || !odd.is_ascii(), "{odd}");
        }
    }
}
