//! Uploads: POST, PATCH and PUT of blobs, mounts, PUT of manifests.

use bytes::Bytes;
use http::Method;
use http::header::CONTENT_TYPE;
use types::Digest;

use super::faults::Reply;
use super::wire::Incoming;
use super::{State, lock};

fn query<'a>(request: &'a Incoming, name: &str) -> Option<&'a str> {
    request.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// A request below `blobs/uploads/`.
pub fn blob(state: &State, request: &Incoming, repository: &str, id: &str) -> Reply {
    match request.method {
        Method::POST => begin(state, request, repository),
        Method::PATCH => {
            let mut store = lock(&state.store);
            let Some(upload) = store.uploads.get_mut(id) else {
                return Reply::error(404, "BLOB_UPLOAD_UNKNOWN");
            };
            upload.extend_from_slice(&request.body);
            let range = format!("0-{}", upload.len().saturating_sub(1));
            Reply::new(202, "").header("location", &location(repository, id)).header("range", &range)
        }
        Method::PUT => finish(state, request, repository, id),
        _ => Reply::error(405, "UNSUPPORTED"),
    }
}

fn location(repository: &str, id: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}?_state=a%2Bb")
}

fn begin(state: &State, request: &Incoming, repository: &str) -> Reply {
    let mut store = lock(&state.store);
    if let (Some(digest), Some(from)) = (query(request, "mount"), query(request, "from"))
        && let Some(bytes) = store.blob(from, digest)
    {
        store.add_blob(repository, bytes);
        return created(repository, digest);
    }
    store.upload_count += 1;
    let id = format!("upload-{}", store.upload_count);
    store.uploads.insert(id.clone(), Vec::new());
    Reply::new(202, "").header("location", &location(repository, &id)).header("range", "0-0")
}

fn finish(state: &State, request: &Incoming, repository: &str, id: &str) -> Reply {
    let mut store = lock(&state.store);
    let Some(mut upload) = store.uploads.remove(id) else { return Reply::error(404, "BLOB_UPLOAD_UNKNOWN") };
    upload.extend_from_slice(&request.body);
    let upload = Bytes::from(upload);
    let wanted = query(request, "digest").unwrap_or_default();
    if query(request, "_state") != Some("a+b") || Digest::of(&upload).as_str() != wanted {
        return Reply::error(400, "DIGEST_INVALID");
    }
    store.add_blob(repository, upload);
    created(repository, wanted)
}

fn created(repository: &str, digest: &str) -> Reply {
    let location = format!("/v2/{repository}/blobs/{digest}");
    Reply::new(201, "").header("location", &location).header("docker-content-digest", digest)
}

/// PUT of a manifest under a tag or its digest.
pub fn manifest(state: &State, request: &Incoming, repository: &str, object: &str) -> Reply {
    let media_type = request.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let digest = Digest::of(&request.body).to_string();
    let tag = (object != digest).then_some(object);
    if tag.is_some_and(|tag| tag.contains(':')) {
        return Reply::error(400, "DIGEST_INVALID");
    }
    let mut store = lock(&state.store);
    if let Some(missing) = missing(&store, repository, &request.body) {
        return Reply::error(400, "MANIFEST_BLOB_UNKNOWN").header("x-missing", &missing);
    }
    store.add_manifest(repository, tag, media_type, request.body.clone());
    let location = format!("/v2/{repository}/manifests/{digest}");
    Reply::new(201, "").header("location", &location).header("docker-content-digest", &digest)
}

/// What a manifest refers to and the repository does not have.
fn missing(store: &super::store::Store, repository: &str, body: &[u8]) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(body).ok()?;
    let list = |key: &str| document.get(key).and_then(|v| v.as_array()).cloned().unwrap_or_default();
    let blobs = list("layers").into_iter().chain(document.get("config").cloned());
    let digest = |value: &serde_json::Value| value.get("digest").and_then(|d| d.as_str()).map(str::to_owned);
    let foreign = |value: &serde_json::Value| value.get("urls").is_some();
    let mut blobs = blobs.filter(|b| !foreign(b)).filter_map(|b| digest(&b));
    let mut manifests = list("manifests").into_iter().filter_map(|m| digest(&m));
    blobs
        .find(|d| store.blob(repository, d).is_none())
        .or_else(|| manifests.find(|d| store.manifest(repository, d).is_none()))
}
