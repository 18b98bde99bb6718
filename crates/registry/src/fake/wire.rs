//! Connections: requests in, answers out as badly as they were told to.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use http::{HeaderMap, Method, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::faults::{Delivery, Fault, Reply};
use super::tls::Server;
use super::{Seen, State, lock, serve};

/// A request with all of its body.
pub struct Incoming {
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: String,
    /// Its query, decoded.
    pub query: Vec<(String, String)>,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Incoming {
    /// The body as a form.
    pub fn form(&self) -> Vec<(String, String)> {
        pairs(std::str::from_utf8(&self.body).unwrap_or_default())
    }
}

/// A query or a form, decoded.
fn pairs(text: &str) -> Vec<(String, String)> {
    let url = reqwest::Url::parse(&format!("http://fake/?{text}"));
    url.map(|url| url.query_pairs().into_owned().collect()).unwrap_or_default()
}

/// Takes connections until it is told to stop.
pub async fn serve(
    listener: std::net::TcpListener,
    tls: Option<Server>,
    state: Arc<State>,
    stopped: oneshot::Receiver<()>,
) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let acceptor = tls.map(|tls| tls.acceptor);
    let accepting = async {
        while let Ok((stream, _)) = listener.accept().await {
            let (state, acceptor) = (state.clone(), acceptor.clone());
            let reset = Arc::new(AtomicBool::new(false));
            let stream = Resettable { stream, reset: reset.clone() };
            tokio::spawn(async move {
                match acceptor {
                    None => connection(TokioIo::new(stream), state, reset).await,
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            connection(TokioIo::new(stream), state, reset).await;
                        }
                    }
                }
            });
        }
    };
    tokio::select! {
        () = accepting => {}
        _ = stopped => {}
    }
}

async fn connection<I>(io: I, state: Arc<State>, reset: Arc<AtomicBool>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let (state, reset) = (state.clone(), reset.clone());
        async move { Ok::<_, Infallible>(respond(&state, request, reset).await) }
    });
    // A connection that ends badly is what was wanted.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
}

type Outgoing = StreamBody<BoxStream<'static, io::Result<Frame<Bytes>>>>;

/// The most of a request's body that is kept to be looked at.
const KEPT: usize = 4 << 10;

async fn respond(
    state: &State,
    request: hyper::Request<hyper::body::Incoming>,
    reset: Arc<AtomicBool>,
) -> Response<Outgoing> {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let faults: Vec<Fault> = {
        let mut rules = lock(&state.rules);
        rules.iter_mut().filter_map(|rule| rule.applies(head.method.as_str(), &target)).collect()
    };
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    lock(&state.seen).push(Seen {
        method: head.method.to_string(),
        target,
        headers: head.headers.clone(),
        body: body.slice(..body.len().min(KEPT)),
    });
    for fault in &faults {
        if let Fault::Hang(time) = fault {
            tokio::time::sleep(*time).await;
        }
    }
    let incoming = Incoming {
        path: head.uri.path().to_owned(),
        query: pairs(head.uri.query().unwrap_or_default()),
        method: head.method,
        headers: head.headers,
        body,
    };
    let honest = serve::answer(state, &incoming, &faults);
    let reply = faults.into_iter().fold(honest, Reply::suffer);
    send(reply, incoming.method == Method::HEAD, (reset, state.served.clone()))
}

fn send(reply: Reply, head_only: bool, wires: Wires) -> Response<Outgoing> {
    let Reply { status, headers, body, delivery } = reply;
    let pieces = if head_only { stream::empty().boxed() } else { pieces(body, delivery, wires) };
    let mut response = Response::new(StreamBody::new(pieces));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Whether the connection ends by a reset, and how many bytes went out.
type Wires = (Arc<AtomicBool>, Arc<AtomicU64>);

enum Step {
    Send(Bytes),
    Wait(Duration),
    End(bool),
}

/// The body in pieces, as its delivery wants it.
fn pieces(
    body: Bytes,
    delivery: Delivery,
    (reset, served): Wires,
) -> BoxStream<'static, io::Result<Frame<Bytes>>> {
    let steps = stream::iter(steps(body, &delivery)).chain(zeros(delivery.extra));
    let frames = steps.filter_map(move |step| {
        let (reset, served) = (reset.clone(), served.clone());
        async move {
            match step {
                Step::Send(bytes) => {
                    served.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    Some(Ok(Frame::data(bytes)))
                }
                Step::Wait(time) => {
                    tokio::time::sleep(time).await;
                    None
                }
                Step::End(hard) => {
                    // What was sent so far leaves the buffers first.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    reset.store(hard, Ordering::Relaxed);
                    Some(Err(io::Error::other("as ordered")))
                }
            }
        }
    });
    frames.boxed()
}

fn steps(mut body: Bytes, delivery: &Delivery) -> Vec<Step> {
    let mut steps = Vec::new();
    let end = delivery.end.map(|(bytes, hard)| (usize::try_from(bytes).unwrap_or(usize::MAX), hard));
    if let Some((bytes, _)) = end {
        body.truncate(bytes);
    }
    let mut stall = delivery.stall;
    let piece = delivery.slow.map_or(64 << 10, |(bytes, _)| usize::try_from(bytes).unwrap_or(1));
    let mut sent = 0_u64;
    while !body.is_empty() {
        let mut length = piece.min(body.len());
        if let Some((at, pause)) = stall {
            if at == sent {
                steps.push(Step::Wait(pause));
                stall = None;
            } else if at > sent {
                length = length.min(usize::try_from(at - sent).unwrap_or(length));
            }
        }
        sent += length as u64;
        steps.push(Step::Send(body.split_to(length)));
        if let Some((_, pause)) = delivery.slow {
            steps.push(Step::Wait(pause));
        }
    }
    if let Some((_, hard)) = end {
        steps.push(Step::End(hard));
    }
    steps
}

fn zeros(count: u64) -> impl futures_util::Stream<Item = Step> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    stream::unfold(count, |left| async move {
        let length = left.min(ZEROS.len() as u64);
        let rest = if left == u64::MAX { left } else { left - length };
        let piece = ZEROS.get(..usize::try_from(length).unwrap_or(0))?;
        (length > 0).then(|| (Step::Send(Bytes::from_static(piece)), rest))
    })
}

/// A connection that can be ended by a reset.
struct Resettable {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Resettable {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Resettable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Resettable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
