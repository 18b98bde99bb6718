//! What the gRPC library says by itself, in the words and codes of grpc-go, by which clients know it: a message that is too
//! large is ResourceExhausted, a method that is not there is told by name, and a call whose deadline passes ends with
//! DeadlineExceeded (tonic says Cancelled, and clients that wait for the reply see whichever comes first).

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Code, Status};
use tower::{Layer, Service};

/// Puts [`Reworded`] around the routes.
#[derive(Clone, Debug)]
pub struct Words {
    /// The services that are served.
    pub services: Arc<[&'static str]>,
}

impl<S> Layer<S> for Words {
    type Service = Reworded<S>;

    fn layer(&self, inner: S) -> Reworded<S> {
        Reworded { words: self.clone(), inner }
    }
}

/// A service whose errors of the library are told in other words.
#[derive(Clone, Debug)]
pub struct Reworded<S> {
    words: Words,
    inner: S,
}

impl<S, Q, B> Service<Request<Q>> for Reworded<S>
where
    S: Service<Request<Q>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Default + Unpin,
{
    type Response = Response<Trailing<B>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let absent = self.words.absent(request.uri().path());
        let limit = request.headers().get("grpc-timeout").and_then(|limit| timeout(limit.to_str().ok()?));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut response = match limit {
                None => answer.await?,
                Some(limit) => match tokio::time::timeout(limit, answer).await {
                    Ok(answered) => answered?,
                    Err(_) => Status::deadline_exceeded("context deadline exceeded").into_http(),
                },
            };
            reword(response.headers_mut(), Some(&absent));
            Ok(response.map(Trailing))
        })
    }
}

const STATUS: &str = "grpc-status";

/// The time that a call may take: up to eight digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let at = text.len().checked_sub(1).filter(|at| (1..=8).contains(at) && text.is_ascii())?;
    let (digits, unit) = text.split_at(at);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

impl Words {
    /// What is said of a path that leads nowhere.
    fn absent(&self, path: &str) -> String {
        let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) else {
            return format!("malformed method name: {path:?}");
        };
        match self.services.contains(&service) {
            true => format!("unknown method {method} for service {service}"),
            false => format!("unknown service {service}"),
        }
    }
}

/// A body whose trailers may need other words.
#[derive(Debug)]
pub struct Trailing<B>(B);

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Trailing<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut frame = ready!(Pin::new(&mut self.0).poll_frame(cx));
        if let Some(trailers) = frame.as_mut().and_then(|frame| frame.as_mut().ok()?.trailers_mut()) {
            reword(trailers, None);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Changes a status that the library made. `absent` is what to say of a method that is not there.
fn reword(headers: &mut HeaderMap, absent: Option<&str>) {
    let code = headers.get(STATUS).map(|code| code.as_bytes().to_owned());
    let status = match code.as_deref() {
        Some(b"11") => Status::from_header_map(headers).and_then(|status| too_large(status.message())),
        Some(b"12") if !headers.contains_key("grpc-message") => absent.map(Status::unimplemented),
        _ => None,
    };
    // A text of ours is a header's text once it is encoded; what could not be would stay as it was.
    if let Some(status) = status {
        drop(status.add_header(headers));
    }
}

/// The words of grpc-go for a message above the limit.
fn too_large(said: &str) -> Option<Status> {
    let (doing, rest) = match said.strip_prefix("Error, decoded message length too large: found ") {
        Some(rest) => ("received message", rest),
        None => {
            ("trying to send message", said.strip_prefix("Error, encoded message length too large: found ")?)
        }
    };
    let (found, limit) = rest.strip_suffix(" bytes")?.split_once(" bytes, the limit is: ")?;
    Some(Status::new(Code::ResourceExhausted, format!("grpc: {doing} larger than max ({found} vs. {limit})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_librarys_own_words_are_changed() {
        let told = |status: &Status| {
            let mut headers = HeaderMap::new();
            status.add_header(&mut headers).unwrap();
            reword(&mut headers, Some("unknown service x"));
            let status = Status::from_header_map(&headers).unwrap();
            (status.code(), status.message().to_owned())
        };
        let large = "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes";
        let wanted = (Code::ResourceExhausted, "grpc: received message larger than max (9 vs. 4)".to_owned());
        assert_eq!(told(&Status::out_of_range(large)), wanted);
        let ours = Status::out_of_range("write @5 must occur at current offset 2");
        assert_eq!(told(&ours), (Code::OutOfRange, ours.message().to_owned()));
        assert_eq!(told(&Status::unimplemented("")), (Code::Unimplemented, "unknown service x".to_owned()));
        assert_eq!(told(&Status::unimplemented("y")), (Code::Unimplemented, "y".to_owned()));
    }

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        assert_eq!(timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(timeout("5m"), Some(Duration::from_millis(5)));
        for bad in ["", "5", "m", "-5m", "5x", "123456789S", "5\u{e4}"] {
            assert_eq!(timeout(bad), None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_call_whose_deadline_passes_says_so() {
        type Answer = Result<Response<tonic::body::Body>, Infallible>;
        let inner = tower::service_fn(|_: Request<()>| std::future::pending::<Answer>());
        let mut service = Words { services: [].into() }.layer(inner);
        let request = Request::builder().uri("/a.B/C").header("grpc-timeout", "1m").body(()).unwrap();
        let answer = service.call(request).await.unwrap();
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!((status.code(), status.message()), (Code::DeadlineExceeded, "context deadline exceeded"));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let words = Words { services: ["a.B"].into() };
        let absent = |path| words.absent(path);
        assert_eq!(absent("/a.B/C"), "unknown method C for service a.B");
        assert_eq!(absent("/x.Y/Z"), "unknown service x.Y");
        assert_eq!(absent("x"), "malformed method name: \"x\"");
    }
}
