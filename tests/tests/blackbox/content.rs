//! Blobs by digest: written once, verified before they count, read back whole.

use containerd_tests::Daemon;
use containerd_tests::archive::hex;
use tonic::Code;

/// A blob of its own for each test, held by a lease of its own.
struct Blob {
    lease: String,
    data: Vec<u8>,
    digest: String,
}

impl Blob {
    fn new(daemon: &Daemon, text: &str) -> Self {
        let data = text.repeat(10_000).into_bytes();
        let digest = format!("sha256:{}", hex(&data));
        let lease = daemon.id("blob");
        daemon.api().create_lease(&lease).unwrap();
        Self { lease, data, digest }
    }

    fn write(&self, daemon: &Daemon, reference: &str) -> Result<(), Code> {
        daemon.api().ingest(reference, &self.data, &self.digest, Some(&self.lease))
    }
}

#[test]
fn a_blob_is_read_back_as_it_was_written() {
    let daemon = Daemon::shared();
    let blob = Blob::new(&daemon, "read back\n");
    blob.write(&daemon, "ref-read-back").unwrap();
    assert_eq!(daemon.ctr(&["content", "get", &blob.digest]).ok().as_bytes(), blob.data);
    let list = daemon.ctr(&["content", "list"]).ok();
    assert!(list.lines().any(|line| line.starts_with(&blob.digest)), "{list}");
}

#[test]
fn a_blob_lies_where_upstream_keeps_it() {
    let daemon = Daemon::shared();
    let blob = Blob::new(&daemon, "layout\n");
    blob.write(&daemon, "ref-layout").unwrap();
    let path =
        daemon.root().join("io.containerd.content.v1.content/blobs").join(blob.digest.replace(':', "/"));
    assert_eq!(std::fs::read(path).unwrap(), blob.data);
}

#[test]
fn a_blob_that_is_there_is_not_written_again() {
    let daemon = Daemon::shared();
    let blob = Blob::new(&daemon, "twice\n");
    blob.write(&daemon, "ref-twice").unwrap();
    assert_eq!(blob.write(&daemon, "ref-twice"), Err(Code::AlreadyExists));
}

#[test]
fn a_wrong_digest_is_refused_and_nothing_is_stored() {
    let daemon = Daemon::shared();
    let mut blob = Blob::new(&daemon, "wrong\n");
    blob.data[0] ^= 1;
    assert_eq!(blob.write(&daemon, "ref-wrong"), Err(Code::FailedPrecondition));
    daemon.ctr(&["content", "get", &blob.digest]).fails().says("not found");
}

#[test]
fn an_absent_blob_is_not_found() {
    let daemon = Daemon::shared();
    let digest = format!("sha256:{}", hex(b"never written"));
    daemon.ctr(&["content", "get", &digest]).fails().says("not found");
    daemon.ctr(&["content", "get", "no-digest"]).fails();
}

#[test]
fn a_removed_blob_is_gone() {
    let daemon = Daemon::shared();
    let blob = Blob::new(&daemon, "removed\n");
    blob.write(&daemon, "ref-removed").unwrap();
    daemon.ctr(&["content", "delete", &blob.digest]).ok();
    daemon.ctr(&["content", "get", &blob.digest]).fails().says("not found");
}

#[test]
fn a_blob_of_one_namespace_is_not_seen_in_another() {
    let daemon = Daemon::shared();
    let blob = Blob::new(&daemon, "namespaced\n");
    blob.write(&daemon, "ref-namespaced").unwrap();
    let other = format!("{}-content", daemon.namespace());
    daemon.ctr(&["--namespace", &other, "content", "get", &blob.digest]).fails().says("not found");
}
