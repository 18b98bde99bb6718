//! The distribution's API.

use bytes::Bytes;
use http::Method;
use types::Digest;

use super::faults::{Fault, Reply, ranged};
use super::wire::Incoming;
use super::{State, auth, lock, upload};

/// The answer to `request`, before it suffers.
pub fn answer(state: &State, request: &Incoming, faults: &[Fault]) -> Reply {
    let path = request.path.as_str();
    if path == "/token" {
        return auth::token(state, &request.headers, &request.query, &request.form());
    }
    if let Some(bytes) = lock(&state.store).files.get(path).cloned() {
        return content(Reply::new(200, bytes), request, faults);
    }
    let Some(rest) = path.strip_prefix("/v2/") else { return Reply::error(404, "NOT_FOUND") };
    if rest.is_empty() {
        return auth::check(state, &request.headers, "", "").unwrap_or_else(|| Reply::new(200, "{}"));
    }
    let Some((repository, kind, object)) = split(rest) else { return Reply::error(404, "NAME_UNKNOWN") };
    let reading = request.method == Method::GET || request.method == Method::HEAD;
    let action = if reading { "pull" } else { "push" };
    if let Some(challenge) = auth::check(state, &request.headers, repository, action) {
        return challenge;
    }
    match kind {
        "manifests" if reading => manifest(state, request, repository, object),
        "manifests" => upload::manifest(state, request, repository, object),
        "uploads" => upload::blob(state, request, repository, object),
        "blobs" if reading => blob(state, (request, faults), repository, object),
        "referrers" if !state.setup.no_referrers => referrers(state, request, repository, object),
        "tags" => {
            let tags = lock(&state.store).tags(repository);
            Reply::new(200, serde_json::json!({"name": repository, "tags": tags}).to_string())
        }
        _ => Reply::error(404, "UNSUPPORTED"),
    }
}

/// Repository, endpoint and object of a path below `/v2/`.
fn split(rest: &str) -> Option<(&str, &'static str, &str)> {
    const KINDS: [(&str, &str); 5] = [
        ("/blobs/uploads/", "uploads"),
        ("/blobs/", "blobs"),
        ("/manifests/", "manifests"),
        ("/referrers/", "referrers"),
        ("/tags/", "tags"),
    ];
    KINDS.iter().find_map(|(separator, kind)| {
        let (repository, object) = rest.rsplit_once(separator)?;
        Some((repository, *kind, object))
    })
}

fn manifest(state: &State, request: &Incoming, repository: &str, object: &str) -> Reply {
    let Some((media_type, bytes)) = lock(&state.store).manifest(repository, object) else {
        return Reply::error(404, "MANIFEST_UNKNOWN");
    };
    let digest = Digest::of(&bytes).to_string();
    let reply = Reply::new(200, bytes).header("content-type", &media_type);
    content(reply.header("docker-content-digest", &digest), request, &[])
}

fn blob(state: &State, (request, faults): (&Incoming, &[Fault]), repository: &str, object: &str) -> Reply {
    let Some(bytes) = lock(&state.store).blob(repository, object) else {
        return Reply::error(404, "BLOB_UNKNOWN");
    };
    let reply = Reply::new(200, bytes).header("content-type", "application/octet-stream");
    content(reply.header("docker-content-digest", object), request, faults)
}

fn referrers(state: &State, request: &Incoming, repository: &str, object: &str) -> Reply {
    let kind = request.query.iter().find(|(key, _)| key == "artifactType").map(|(_, value)| value.as_str());
    let index = lock(&state.store).referrers(repository, object, kind);
    let body = serde_json::to_vec(&index).unwrap_or_default();
    Reply::new(200, Bytes::from(body)).header("content-type", "application/vnd.oci.image.index.v1+json")
}

/// Content with ranges.
fn content(reply: Reply, request: &Incoming, faults: &[Fault]) -> Reply {
    if faults.iter().any(|fault| matches!(fault, Fault::IgnoreRange)) {
        return reply;
    }
    ranged(reply, &request.headers)
}
