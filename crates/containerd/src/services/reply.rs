//! Between the wire and the house: in whose name a call is made, and how a failure is told.

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use types::filters::Filters;
use types::{Error, Namespace, Result, Scope};

/// The header that names the namespace.
const NAMESPACE: &str = "containerd-namespace";
/// The same, as ttrpc clients that speak gRPC send it.
const NAMESPACE_TTRPC: &str = api::ttrpc::NAMESPACE;
/// The header that names the lease which holds what the call creates.
const LEASE: &str = "containerd-lease";

/// A failure for the wire: the code of its class, and its text.
pub fn status(error: &Error) -> Status {
    Status::new(Code::from_i32(api::status::code(error.class())), error.to_string())
}

/// A result for the wire.
pub fn reply<T>(result: Result<T>) -> Result<T, Status> {
    result.map_err(|error| status(&error))
}

/// The filters of a list of records: of these, upstream says what class of error it is once more.
pub fn filters(texts: &[String]) -> Result<Filters, Status> {
    let once_more = |error: Error| Error::invalid(format!("{error}: invalid argument"));
    reply(Filters::parse(texts).map_err(once_more))
}

/// A required part of a request.
pub fn required<T>(part: Option<T>, what: &str) -> Result<T, Status> {
    part.ok_or_else(|| Status::invalid_argument(format!("{what} is required: invalid argument")))
}

/// How many items a stream of lists sends at a time, as upstream.
pub const CHUNK: usize = 100;

/// What a stream of lists sends at a time.
pub fn chunks<T>(all: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut all = all.into_iter();
    std::iter::from_fn(move || {
        let chunk: Vec<T> = all.by_ref().take(CHUNK).collect();
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Reads much of the database, away from the threads that answer everybody.
pub async fn read<T: Send + 'static>(look: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T, Status> {
    let read = tokio::task::spawn_blocking(look).await;
    reply(read.unwrap_or_else(|_| Err(Error::internal("the reading of a list panicked"))))
}

/// The namespace of a call.
pub fn namespace(headers: &MetadataMap) -> Result<Namespace, Status> {
    let text = text(headers, NAMESPACE)?.or(text(headers, NAMESPACE_TTRPC)?);
    match text {
        Some(text) => reply(text.parse()),
        None => Err(Status::failed_precondition("namespace is required: failed precondition")),
    }
}

/// The namespace of a call, and its lease.
pub fn scope(headers: &MetadataMap) -> Result<Scope, Status> {
    let lease = text(headers, LEASE)?.map(str::to_owned);
    Ok(Scope { namespace: namespace(headers)?, lease })
}

fn text<'a>(headers: &'a MetadataMap, key: &str) -> Result<Option<&'a str>, Status> {
    let Some(value) = headers.get(key) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Status::invalid_argument(format!("header {key} is not text")))?;
    Ok((!text.is_empty()).then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> MetadataMap {
        let mut map = MetadataMap::new();
        for (key, value) in pairs {
            map.insert(*key, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn a_call_without_namespace_is_refused_in_upstreams_words() {
        for none in [headers(&[]), headers(&[(NAMESPACE, "")])] {
            let status = namespace(&none).unwrap_err();
            assert_eq!(status.code(), Code::FailedPrecondition);
            assert_eq!(status.message(), "namespace is required: failed precondition");
        }
        assert_eq!(namespace(&headers(&[(NAMESPACE, "a/b")])).unwrap_err().code(), Code::InvalidArgument);
    }

    #[test]
    fn the_lease_is_part_of_the_scope() {
        let scope = scope(&headers(&[(NAMESPACE, "a"), (LEASE, "l")])).unwrap();
        assert_eq!((scope.namespace.as_str(), scope.lease.as_deref()), ("a", Some("l")));
    }
}
