use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::ttrpc::{HEADER, Header, Kind, MAX_MESSAGE, Response};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use types::events::Exchange;
use types::{Class, Error, Namespace, Result};

use super::*;

fn namespace() -> Namespace {
    "default".parse().unwrap()
}

/// A server that echoes, sleeps, fails and answers too much.
fn pair() -> Client {
    let (ours, theirs) = UnixStream::pair().unwrap();
    tokio::spawn(serve_connection(theirs, |request: Request| async move {
        match request.method.as_str() {
            "Echo" => Ok(request.payload),
            "Late" => {
                tokio::time::sleep(Duration::from_millis(u64::from(request.payload[0]))).await;
                Ok(request.payload)
            }
            "Namespace" => Ok(request.metadata[0].1.clone().into_bytes()),
            "Huge" => Ok(vec![0; MAX_MESSAGE + 1]),
            "Never" => std::future::pending().await,
            _ => Err(Error::not_found("no such thing")),
        }
    }));
    Client::new(ours)
}

async fn call(client: &Client, method: &str, payload: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let namespace = namespace();
    client.call(Call { service: "test", method, namespace: &namespace, timeout: None }, payload).await
}

#[tokio::test]
async fn a_call_brings_its_answer_and_carries_the_namespace() {
    let client = pair();
    assert_eq!(call(&client, "Echo", b"hello".to_vec()).await.unwrap(), b"hello");
    assert_eq!(call(&client, "Namespace", vec![]).await.unwrap(), b"default");
    assert!(call(&client, "Other", vec![]).await.unwrap_err().is_not_found());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_at_a_time_keep_their_answers_apart() {
    let client = Arc::new(pair());
    let wrong = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..1000_u32 {
        let (client, wrong) = (Arc::clone(&client), Arc::clone(&wrong));
        tasks.spawn(async move {
            // Answers come back in another order than the calls went.
            let mut payload = vec![u8::try_from(i % 50).unwrap()];
            payload.extend_from_slice(&i.to_be_bytes());
            payload.resize(1 + usize::try_from(i).unwrap() * 7 % 9000 + 4, 7);
            if call(&client, "Late", payload.clone()).await.unwrap() != payload {
                wrong.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(wrong.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_call_without_an_answer_ends_at_its_deadline_and_the_next_one_works() {
    let client = pair();
    let namespace = namespace();
    let timeout = Some(Duration::from_millis(20));
    let never = Call { service: "test", method: "Never", namespace: &namespace, timeout };
    let failure = client.call(never, vec![]).await.unwrap_err();
    // Who notices first is open: the peer was told the limit too.
    assert_eq!(Error::from(failure).class(), Class::DeadlineExceeded);
    assert_eq!(call(&client, "Echo", vec![1]).await.unwrap(), [1]);
}

#[tokio::test]
async fn messages_over_the_limit_fail_alone() {
    let client = pair();
    let failure = call(&client, "Echo", vec![0; MAX_MESSAGE + 1]).await.unwrap_err();
    assert_eq!(Error::from(failure).class(), Class::ResourceExhausted);
    let failure = call(&client, "Huge", vec![]).await.unwrap_err();
    assert_eq!(Error::from(failure).class(), Class::ResourceExhausted);
    let large = vec![7; MAX_MESSAGE - 200];
    assert_eq!(call(&client, "Echo", large.clone()).await.unwrap(), large);
}

#[tokio::test]
async fn a_vanished_peer_ends_all_calls_and_closes_the_client() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let client = Arc::new(Client::new(ours));
    let waiting = tokio::spawn({
        let client = Arc::clone(&client);
        async move { call(&client, "Never", vec![]).await }
    });
    while client.shared_calls() == 0 {
        tokio::task::yield_now().await;
    }
    drop(theirs);
    assert!(matches!(waiting.await.unwrap(), Err(Failure::Closed)));
    client.closed().await;
    assert!(client.is_closed());
    assert!(matches!(call(&client, "Echo", vec![]).await, Err(Failure::Closed)));
}

#[tokio::test]
async fn a_cancelled_call_is_forgotten_and_its_late_answer_ignored() {
    let client = pair();
    let cancelled = tokio::time::timeout(Duration::from_millis(5), call(&client, "Late", vec![50])).await;
    assert!(cancelled.is_err());
    assert_eq!(client.shared_calls(), 0);
    assert_eq!(call(&client, "Late", vec![60]).await.unwrap(), [60]);
}

#[tokio::test]
async fn nonsense_from_the_server_fails_that_call_alone() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let client = Client::new(ours);
    let answering = tokio::spawn(async move {
        for garbage in [true, false] {
            let mut header = [0; HEADER];
            theirs.read_exact(&mut header).await.unwrap();
            let header = Header::decode(&header);
            let mut body = vec![0; header.length];
            theirs.read_exact(&mut body).await.unwrap();
            let unknown = Header { length: 3, stream: 99, kind: Kind::Other(77), flags: 0 };
            theirs.write_all(&unknown.encode()).await.unwrap();
            theirs.write_all(b"???").await.unwrap();
            let message = if garbage { vec![0xff; 7] } else { Response::default().encode_to_vec() };
            let answer = Header { length: message.len(), kind: Kind::Response, ..header };
            theirs.write_all(&answer.encode()).await.unwrap();
            theirs.write_all(&message).await.unwrap();
        }
        theirs
    });
    assert!(matches!(call(&client, "Echo", vec![]).await, Err(Failure::Answer(_))));
    assert!(call(&client, "Echo", vec![]).await.unwrap().is_empty());
    drop(answering.await.unwrap());
}

/// Sends raw frames to a server and returns the codes of its answers.
async fn answers_to(frames: &[(u32, Kind, Vec<u8>)]) -> Vec<(u32, i32)> {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    tokio::spawn(serve_connection(theirs, |request: Request| async move { Ok(request.payload) }));
    let mut answers = Vec::new();
    for (stream, kind, message) in frames {
        let header = Header { length: message.len(), stream: *stream, kind: *kind, flags: 0 };
        ours.write_all(&header.encode()).await.unwrap();
        ours.write_all(message).await.unwrap();
        if *kind != Kind::Request {
            continue;
        }
        let mut header = [0; HEADER];
        ours.read_exact(&mut header).await.unwrap();
        let header = Header::decode(&header);
        let mut body = vec![0; header.length];
        ours.read_exact(&mut body).await.unwrap();
        let code = Response::decode(body.as_slice()).unwrap().status.map_or(0, |status| status.code);
        answers.push((header.stream, code));
    }
    answers
}

#[tokio::test]
async fn malformed_frames_are_answered_and_the_connection_goes_on() {
    let good = api::ttrpc::Request { service: "s".into(), method: "m".into(), ..Default::default() };
    let good = good.encode_to_vec();
    let answers = answers_to(&[
        (1, Kind::Request, vec![0xff; 9]),
        (2, Kind::Request, good.clone()),
        (3, Kind::Data, vec![1, 2, 3]),
        (5, Kind::Request, vec![0; MAX_MESSAGE + 1]),
        (4, Kind::Other(200), vec![9; 100]),
        (7, Kind::Request, good.clone()),
        (7, Kind::Request, good),
    ])
    .await;
    assert_eq!(answers, [(1, 3), (2, 3), (5, 8), (7, 0), (7, 3)]);
}

#[tokio::test]
async fn forwarded_events_are_published_in_order() {
    use api::containerd::services::events::ttrpc::v1::ForwardRequest;
    let exchange = Exchange::new();
    let mut subscription = exchange.subscribe();
    let (ours, theirs) = UnixStream::pair().unwrap();
    tokio::spawn(serve_connection(theirs, forward_events(exchange)));
    let client = Arc::new(Client::new(ours));
    let namespace = namespace();
    let forward = |topic: String| ForwardRequest {
        envelope: Some(api::containerd::types::Envelope {
            timestamp: None,
            namespace: "default".into(),
            topic,
            event: None,
        }),
    };
    let service = "containerd.services.events.ttrpc.v1.Events";
    let call = Call { service, method: "Forward", namespace: &namespace, timeout: None };
    let topics: Vec<_> = (0..100).map(|i| format!("/tasks/n{i}")).collect();
    let sent: Vec<_> =
        topics.iter().map(|topic| client.call(call, forward(topic.clone()).encode_to_vec())).collect();
    for call in sent {
        call.await.unwrap();
    }
    for topic in &topics {
        assert_eq!(&subscription.next().await.unwrap().topic, topic);
    }
    let bad = client.call(call, forward("no-slash".into()).encode_to_vec()).await.unwrap_err();
    assert_eq!(Error::from(bad).class(), Class::InvalidArgument);
}

#[tokio::test]
async fn a_shim_hears_that_its_event_was_taken_when_a_subscriber_that_keeps_up_has_it() {
    use api::containerd::services::events::ttrpc::v1::ForwardRequest;
    let exchange = Exchange::new();
    let mut reads = exchange.catch_up();
    let (ours, theirs) = UnixStream::pair().unwrap();
    tokio::spawn(serve_connection(theirs, forward_events(exchange.clone())));
    let (client, namespace) = (Client::new(ours), namespace());
    let forward = |topic: &str| {
        let (namespace, topic) = ("default".to_owned(), topic.to_owned());
        let envelope = api::containerd::types::Envelope { timestamp: None, namespace, topic, event: None };
        ForwardRequest { envelope: Some(envelope) }.encode_to_vec()
    };
    let service = "containerd.services.events.ttrpc.v1.Events";
    let call = Call { service, method: "Forward", namespace: &namespace, timeout: None };
    let mut told = std::pin::pin!(client.call(call, forward("/tasks/one")));
    assert!(tokio::time::timeout(Duration::from_millis(50), told.as_mut()).await.is_err());
    assert_eq!(reads.next().await.unwrap().topic, "/tasks/one");
    // It has it in its hands, and may die with them.
    assert!(tokio::time::timeout(Duration::from_millis(50), told.as_mut()).await.is_err());
    assert!(tokio::time::timeout(Duration::ZERO, reads.next()).await.is_err());
    told.await.unwrap();
    // Whoever does not read is not waited for.
    for topic in ["/tasks/two", "/tasks/three", "/tasks/four"] {
        client.call(call, forward(topic)).await.unwrap();
    }
    drop(reads);
    client.call(call, forward("/tasks/five")).await.unwrap();
}
