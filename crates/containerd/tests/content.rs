//! Content.Write's state machine, and reading back, as Go's clients use them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod daemon;

use api::containerd::services::content::v1 as wire;
use bytes::Bytes;
use daemon::{Home, KEEP, in_namespace, request};
use grpc::content::content_client::ContentClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use types::Digest;
use wire::WriteAction::{Commit, Stat, Write};

type Client = ContentClient<Channel>;

/// One open Write.
struct Session {
    requests: mpsc::Sender<wire::WriteContentRequest>,
    responses: Streaming<wire::WriteContentResponse>,
}

impl Session {
    async fn open(client: &mut Client) -> Self {
        let (requests, receiver) = mpsc::channel(8);
        let responses = client.write(request(ReceiverStream::new(receiver))).await.unwrap().into_inner();
        Self { requests, responses }
    }

    async fn send(
        &mut self,
        message: wire::WriteContentRequest,
    ) -> Result<wire::WriteContentResponse, Status> {
        self.requests.send(message).await.unwrap();
        self.responses.message().await.map(|response| response.expect("a response"))
    }
}

fn message(action: wire::WriteAction, reference: &str) -> wire::WriteContentRequest {
    wire::WriteContentRequest { action: action.into(), r#ref: reference.into(), ..Default::default() }
}

fn data(reference: &str, offset: i64, bytes: &'static [u8]) -> wire::WriteContentRequest {
    wire::WriteContentRequest { offset, data: Bytes::from_static(bytes), ..message(Write, reference) }
}

fn commit(total: i64, expected: &[u8], offset: i64) -> wire::WriteContentRequest {
    wire::WriteContentRequest { total, offset, expected: Digest::of(expected).into(), ..message(Commit, "") }
}

async fn client(daemon: &daemon::Daemon) -> Client {
    ContentClient::new(daemon.channel().await).max_decoding_message_size(16 << 20)
}

async fn read(client: &mut Client, digest: &Digest, offset: i64, size: i64) -> Result<Vec<u8>, Status> {
    let message = wire::ReadContentRequest { digest: digest.to_string(), offset, size };
    let mut stream = client.read(request(message)).await?.into_inner();
    let mut all = Vec::new();
    while let Some(piece) = stream.message().await? {
        assert_eq!(piece.offset, i64::try_from(all.len()).unwrap());
        all.extend_from_slice(&piece.data);
    }
    Ok(all)
}

#[tokio::test]
async fn an_ingest_is_written_resumed_committed_and_read_back() {
    let home = Home::new();
    home.configure(KEEP);
    let daemon = home.start().await;
    let mut client = client(&daemon).await;
    let mut session = Session::open(&mut client).await;
    let first = session.send(data("r", 0, b"hello ")).await.unwrap();
    assert_eq!((first.offset, first.digest), (6, Digest::of(b"hello ").to_string()));
    drop(session);

    // The next writer of the ref goes on where the first ended, once that has let go.
    let mut session = loop {
        let mut session = Session::open(&mut client).await;
        match session.send(message(Stat, "r")).await {
            Ok(stat) => {
                assert_eq!((stat.offset, stat.digest), (6, Digest::of(b"hello ").to_string()));
                assert!(stat.started_at.is_some() && stat.updated_at.is_some());
                break session;
            }
            Err(status) => assert_eq!(status.code(), Code::Unavailable),
        }
    };
    assert_eq!(session.send(data("r", 6, b"world")).await.unwrap().offset, 11);
    let labels = [("k".to_owned(), "v".to_owned())].into();
    let last = wire::WriteContentRequest { labels, ..commit(11, b"hello world", 11) };
    let done = session.send(last).await.unwrap();
    assert_eq!((done.action(), done.offset), (Commit, 11));
    assert!(session.responses.message().await.unwrap().is_none(), "commit ends the stream");

    let digest = Digest::of(b"hello world");
    let info = client.info(request(wire::InfoRequest { digest: digest.to_string() })).await.unwrap();
    let info = info.into_inner().info.unwrap();
    assert_eq!((info.size, info.labels.get("k").map(String::as_str)), (11, Some("v")));
    assert_eq!(read(&mut client, &digest, 0, 0).await.unwrap(), b"hello world");
    assert_eq!(read(&mut client, &digest, 6, 3).await.unwrap(), b"wor");
    assert_eq!(read(&mut client, &digest, 12, 0).await.unwrap_err().code(), Code::OutOfRange);
    let other = in_namespace("other", wire::InfoRequest { digest: digest.to_string() });
    assert_eq!(client.info(other).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_write_out_of_order_is_out_of_range_and_one_at_nought_starts_over() {
    let home = Home::new();
    home.configure(KEEP);
    let daemon = home.start().await;
    let mut client = client(&daemon).await;
    let mut session = Session::open(&mut client).await;
    session.send(data("r", 0, b"abc")).await.unwrap();
    let again = session.send(data("r", 0, b"xy")).await.unwrap();
    assert_eq!((again.offset, again.digest), (2, Digest::of(b"xy").to_string()));
    let status = session.send(data("r", 7, b"z")).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    assert_eq!(status.message(), "write @7 must occur at current offset 2");
}

#[tokio::test]
async fn the_first_message_needs_a_reference() {
    let home = Home::new();
    home.configure(KEEP);
    let daemon = home.start().await;
    let mut client = client(&daemon).await;
    let status = Session::open(&mut client).await.send(message(Stat, "")).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "first message must have a reference")
    );
}

#[tokio::test]
async fn a_second_writer_of_a_reference_is_told_to_wait() {
    let home = Home::new();
    home.configure(KEEP);
    let daemon = home.start().await;
    let mut client = client(&daemon).await;
    let mut first = Session::open(&mut client).await;
    first.send(message(Stat, "r")).await.unwrap();
    let status = Session::open(&mut client).await.send(message(Stat, "r")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_wrong_digest_or_size_is_never_committed() {
    let home = Home::new();
    home.configure(KEEP);
    let daemon = home.start().await;
    let mut client = client(&daemon).await;
    for wrong in [commit(3, b"else", 3), commit(4, b"abc", 3)] {
        let mut session = Session::open(&mut client).await;
        session.send(data("r", 0, b"abc")).await.unwrap();
        assert_eq!(session.send(wrong).await.unwrap_err().code(), Code::FailedPrecondition);
        let info = wire::InfoRequest { digest: Digest::of(b"abc").into() };
        assert_eq!(client.info(request(info)).await.unwrap_err().code(), Code::NotFound);
    }
}

#[tokio::test]
async fn what_is_there_already_is_said_and_its_ingest_dropped() {
    let home = Home::new();
    home.configure(KEEP);
    let daemon = home.start().await;
    let mut client = client(&daemon).await;
    let mut session = Session::open(&mut client).await;
    session.send(data("one", 0, b"abc")).await.unwrap();
    session.send(commit(3, b"abc", 3)).await.unwrap();
    let mut session = Session::open(&mut client).await;
    session.send(data("two", 0, b"abc")).await.unwrap();
    assert_eq!(session.send(commit(3, b"abc", 3)).await.unwrap_err().code(), Code::AlreadyExists);
    let left = client.list_statuses(request(wire::ListStatusesRequest::default())).await.unwrap();
    assert_eq!(left.into_inner().statuses, []);
    let expecting =
        wire::WriteContentRequest { expected: Digest::of(b"abc").into(), ..message(Stat, "three") };
    let status = Session::open(&mut client).await.send(expecting).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
}

#[tokio::test]
async fn an_abandoned_ingest_is_listed_and_can_be_aborted() {
    let home = Home::new();
    home.configure(KEEP);
    let daemon = home.start().await;
    let mut client = client(&daemon).await;
    let mut session = Session::open(&mut client).await;
    session.send(data("layer-x", 0, b"abc")).await.unwrap();
    let list = |filter: &str| request(wire::ListStatusesRequest { filters: vec![filter.into()] });
    let found = client.list_statuses(list("ref~=/^layer-/")).await.unwrap().into_inner().statuses;
    assert_eq!(
        found.iter().map(|status| (status.r#ref.as_str(), status.offset)).collect::<Vec<_>>(),
        [("layer-x", 3)]
    );
    assert_eq!(client.list_statuses(list("ref~=/^manifest-/")).await.unwrap().into_inner().statuses, []);
    drop(session);
    let abort = || request(wire::AbortRequest { r#ref: "layer-x".into() });
    while let Err(status) = client.abort(abort()).await {
        assert_eq!(status.code(), Code::Unavailable);
    }
    assert_eq!(client.abort(abort()).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn large_blobs_come_in_chunks_of_a_mebibyte() {
    let home = Home::new();
    home.configure(KEEP);
    let daemon = home.start().await;
    let mut client = client(&daemon).await;
    let blob = Bytes::from((0..5_000_000u32).map(|n| n.to_le_bytes()[0]).collect::<Vec<_>>());
    let mut session = Session::open(&mut client).await;
    let all = wire::WriteContentRequest { data: blob.clone(), ..message(Write, "r") };
    session.send(all).await.unwrap();
    session.send(commit(5_000_000, &blob, 5_000_000)).await.unwrap();
    assert_eq!(read(&mut client, &Digest::of(&blob), 0, 0).await.unwrap(), blob);
}
