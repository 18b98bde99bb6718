//! Streams and transfers by their messages: windows, ids, leases, and pairs that nobody knows.

use api::containerd::services::leases::v1 as leases;
use api::containerd::services::streaming::v1::StreamInit;
use api::containerd::services::transfer::v1::{TransferOptions, TransferRequest};
use api::containerd::types::transfer::{
    ContainerPath, Data, ImageExportStream, ImageImportStream, ImageStore, WindowUpdate,
};
use api::{ProtoAny, any};
use containerd_tests::binaries::beyond_upstream;
use containerd_tests::{Api, Daemon};
use grpc::leases::leases_client::LeasesClient;
use grpc::streaming::streaming_client::StreamingClient;
use grpc::transfer::transfer_client::TransferClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Response, Status, Streaming};

/// More than any window.
const BYTES: usize = 700_000;

struct Stream {
    sender: mpsc::Sender<ProtoAny>,
    received: Streaming<ProtoAny>,
}

macro_rules! packed {
    ($message:expr) => {
        any::to_wire(any::pack(&$message))
    };
}

async fn open(api: &Api, id: &str, lease: Option<&str>) -> Result<Stream, Status> {
    let (sender, messages) = mpsc::channel(1);
    sender.try_send(packed!(StreamInit { id: id.to_owned() })).unwrap();
    let mut request = api.request(ReceiverStream::new(messages));
    if let Some(lease) = lease {
        request.metadata_mut().insert("containerd-lease", MetadataValue::try_from(lease).unwrap());
    }
    let mut received = StreamingClient::new(api.channel()).stream(request).await?.into_inner();
    let ready = received.message().await?.ok_or_else(|| Status::aborted("closed at once"))?;
    assert_eq!((ready.type_url.as_str(), ready.value.len()), ("google.protobuf.Empty", 0));
    Ok(Stream { sender, received })
}

async fn transfer(api: &Api, source: ProtoAny, destination: ProtoAny) -> Result<(), Status> {
    let request = TransferRequest {
        source: Some(source),
        destination: Some(destination),
        options: Some(TransferOptions::default()),
    };
    TransferClient::new(api.channel()).transfer(api.request(request)).await.map(drop)
}

/// Sends exactly what was asked for.
async fn send(stream: Stream, bytes: &[u8]) -> Result<(), Status> {
    let Stream { sender, mut received } = stream;
    let (mut at, mut window) = (0, 0);
    while at < bytes.len() {
        if window == 0 {
            let message = received.message().await?.ok_or_else(|| Status::aborted("no more windows"))?;
            let WindowUpdate { update } = any::unpack(&any::from_wire(message)).unwrap();
            window = usize::try_from(update).unwrap();
            continue;
        }
        let end = bytes.len().min(at + window.min(30_000));
        window -= end - at;
        sender.send(packed!(Data { data: bytes[at..end].to_vec().into() })).await.unwrap();
        at = end;
    }
    drop(sender);
    while received.message().await?.is_some() {}
    Ok(())
}

/// Grants little at a time, and checks that no more is ever sent.
async fn receive(mut stream: Stream) -> Result<Vec<u8>, Status> {
    const GRANTED: usize = 50_000;
    let (mut all, mut window) = (Vec::new(), 0);
    loop {
        if window < GRANTED {
            let update = i32::try_from(GRANTED).unwrap();
            drop(stream.sender.send(packed!(WindowUpdate { update })).await);
            window += GRANTED;
        }
        if all.len() == BYTES {
            return Ok(all);
        }
        let message = stream.received.message().await?.ok_or_else(|| Status::aborted("it ends early"))?;
        let Data { data } = any::unpack(&any::from_wire(message)).unwrap();
        assert!(data.len() <= window, "{} bytes, {window} were granted", data.len());
        window -= data.len();
        all.extend_from_slice(&data);
    }
}

/// A daemon that has transfers; 1.6 has none.
fn daemon() -> Option<Daemon> {
    let daemon = Daemon::start();
    let api = daemon.api();
    let there = api.call(async { open(&api, "probe", None).await.map(|_| Response::new(())) });
    if there == Err(Code::Unimplemented) {
        eprintln!("skipped: this containerd has no streams");
        return None;
    }
    there.unwrap();
    Some(daemon)
}

#[test]
fn bytes_go_in_and_out_within_their_windows() {
    let Some(daemon) = daemon() else { return };
    let api = daemon.api();
    let bytes: Vec<u8> = (0..BYTES).map(|at| (at % 251) as u8).collect();
    let echoed = api.call(async {
        let (to, from) = (open(&api, "in", None).await?, open(&api, "out", None).await?);
        let source = packed!(ImageImportStream { stream: "in".into(), ..Default::default() });
        let destination = packed!(ImageExportStream { stream: "out".into(), ..Default::default() });
        let done = tokio::try_join!(transfer(&api, source, destination), send(to, &bytes), receive(from));
        done.map(|((), (), received)| Response::new(received))
    });
    assert!(echoed.unwrap() == bytes);
}

#[test]
fn an_id_is_one_streams_alone_and_free_again_when_it_has_gone() {
    let Some(daemon) = daemon() else { return };
    let api = daemon.api();
    let twice = api.call(async {
        let first = open(&api, "mine", None).await?;
        assert!(open(&api, "mine", None).await.is_err());
        drop(first);
        // The daemon hears of it a moment later.
        while open(&api, "mine", None).await.is_err() {
            tokio::task::yield_now().await;
        }
        Ok(Response::new(()))
    });
    if !beyond_upstream("the id of a stream that nobody took is free again") {
        twice.unwrap();
    }
}

#[test]
fn a_stream_goes_with_its_lease() {
    if beyond_upstream("a lease that is deleted takes its streams along") {
        return;
    }
    let Some(daemon) = daemon() else { return };
    let api = daemon.api();
    api.create_lease("holds").unwrap();
    let ended = api.call(async {
        let mut stream = open(&api, "leased", Some("holds")).await?;
        let request = leases::DeleteRequest { id: "holds".into(), sync: true };
        LeasesClient::new(api.channel()).delete(api.request(request)).await?;
        Ok(Response::new(stream.received.message().await?))
    });
    assert_eq!(ended.unwrap(), None);
}

#[test]
fn what_cannot_be_transferred_is_refused_by_name() {
    let Some(daemon) = daemon() else { return };
    let api = daemon.api();
    let (path, store) = (packed!(ContainerPath::default()), packed!(ImageStore::default()));
    let refused = api.call(async {
        let refused = transfer(&api, path, store.clone()).await.unwrap_err();
        assert!(refused.message().contains("containerd.types.transfer.ContainerPath"), "{refused}");
        Err::<Response<()>, _>(refused)
    });
    assert_eq!(refused, Err(Code::Unimplemented));
    let import = packed!(ImageImportStream { stream: "nobody opened it".into(), ..Default::default() });
    let missing = api.call(async { transfer(&api, import, store).await.map(Response::new) });
    assert_eq!(missing, Err(Code::NotFound));
}
