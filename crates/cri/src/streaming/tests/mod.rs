//! The server as clients see it, with fake processes and pods behind it.

mod client;

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::spdy::Event;
use super::*;
use client::{Spdy, WebSocket, refused, upgrade};

/// A server that runs until it is dropped.
struct Server {
    streaming: Arc<Streaming>,
    /// How often a handler has seen that its client is gone.
    gone: Arc<(AtomicUsize, Notify)>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn new() -> Self {
        Self::with(config::Streaming::default()).await
    }

    async fn with(config: config::Streaming) -> Self {
        let streaming = Arc::new(Streaming::bind(&config).await.unwrap());
        let gone = Arc::new((AtomicUsize::new(0), Notify::new()));
        let (server, told) = (Arc::clone(&streaming), Arc::clone(&gone));
        let task = tokio::spawn(async move { server.run(handlers(told)).await });
        Self { streaming, gone, task }
    }

    /// A URL for a process that does what its first argument says.
    fn exec(&self, args: &[&str], tty: bool) -> String {
        let request = ExecRequest {
            container_id: "c".to_owned(),
            cmd: args.iter().map(|arg| (*arg).to_owned()).collect(),
            tty,
            stdin: true,
            stdout: true,
            stderr: !tty,
        };
        self.streaming.exec(request).unwrap()
    }

    fn forward(&self, port: Vec<i32>) -> String {
        let request = PortForwardRequest { pod_sandbox_id: "p".to_owned(), port };
        self.streaming.port_forward(request).unwrap()
    }

    async fn all_gone(&self, count: usize) {
        let all = async {
            while self.gone.0.load(Ordering::SeqCst) < count {
                self.gone.1.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), all).await.unwrap();
    }
}

fn handlers(told: Arc<(AtomicUsize, Notify)>) -> Handlers {
    Handlers {
        exec: Box::new(move |request, streams| Box::pin(process(request.cmd, streams, Arc::clone(&told)))),
        attach: Box::new(|_, streams| {
            Box::pin(async move {
                let out = streams.stdout.unwrap();
                out.send("attached".into()).await?;
                out.finish().await;
                Ok(())
            })
        }),
        forward: Box::new(|_, port, mut input, output| {
            Box::pin(async move {
                if port == 1 {
                    output.reset().await;
                    return Err(Error::unavailable("nobody is there"));
                }
                output.send(format!("{port}:").into()).await?;
                while let Some(bytes) = input.next().await {
                    output.send(bytes).await?;
                }
                output.finish().await;
                Ok(())
            })
        }),
    }
}

async fn process(args: Vec<String>, streams: Streams, told: Arc<(AtomicUsize, Notify)>) -> Result<u32> {
    let Streams { stdin, stdout, stderr, resize, mut gone } = streams;
    let (mut stdin, stdout) = (stdin.unwrap(), stdout.unwrap());
    match args[0].as_str() {
        "cat" => {
            while let Some(bytes) = stdin.next().await {
                stdout.send(bytes).await?;
            }
            stdout.finish().await;
            Ok(0)
        }
        "exit" => {
            stdout.send("out".into()).await?;
            stderr.unwrap().send("err".into()).await?;
            Ok(args[1].parse().unwrap())
        }
        "size" => {
            let (columns, rows) = resize.unwrap().next().await.unwrap();
            stdout.send(format!("{columns}x{rows}").into()).await?;
            Ok(0)
        }
        "stay" => {
            gone.wait().await;
            told.0.fetch_add(1, Ordering::SeqCst);
            told.1.notify_one();
            Ok(0)
        }
        other => Err(Error::not_found(format!("exec {other}"))),
    }
}

const V4: &str = "v4.channel.k8s.io";

#[tokio::test]
async fn spdy_carries_every_byte_both_ways_and_half_closes() {
    let server = Server::new().await;
    let mut client = Spdy::exec(&server.exec(&["cat"], false), V4, &["stdin", "stdout", "stderr"]).await;
    let sent: Vec<u8> = (0..20_000_000_u32).map(|i| (i * 7 / 3) as u8).collect();
    let heard = client.talk("stdin", &sent).await;
    assert!(heard["stdout"] == sent);
    assert_eq!(heard["stderr"], b"");
    assert_eq!(heard["error"], br#"{"status":"Success"}"#);
}

#[tokio::test]
async fn how_a_process_ended_is_told_in_the_words_of_the_version() {
    let server = Server::new().await;
    for version in [V4, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"] {
        let url = server.exec(&["exit", "3"], false);
        let mut client = Spdy::exec(&url, version, &["stdin", "stdout", "stderr"]).await;
        let heard = client.hear().await;
        assert_eq!((&heard["stdout"][..], &heard["stderr"][..]), (&b"out"[..], &b"err"[..]));
        let error = String::from_utf8_lossy(&heard["error"]).into_owned();
        let text =
            "command terminated with non-zero exit code: error executing command [exit 3], exit code 3";
        if version == V4 {
            assert!(error.contains(r#""causes":[{"reason":"ExitCode","message":"3"}]"#), "{error}");
        } else {
            assert_eq!(error, text);
        }
    }
    let mut client = Spdy::exec(&server.exec(&["no"], false), V4, &["stdin", "stdout", "stderr"]).await;
    let error = String::from_utf8_lossy(&client.hear().await["error"]).into_owned();
    let text =
        "Internal error occurred: error executing command in container: failed to exec in container: exec no";
    assert!(error.contains(text), "{error}");
}

#[tokio::test]
async fn terminals_have_sizes() {
    let server = Server::new().await;
    let mut client = Spdy::exec(&server.exec(&["size"], true), V4, &["stdin", "stdout", "resize"]).await;
    let heard = client.talk("resize", br#"{"Width":0,"Height":0}{"Width":120,"Height":40}"#).await;
    assert_eq!(heard["stdout"], b"120x40");
    let mut client = WebSocket::open(&server.exec(&["size"], true), "v5.channel.k8s.io").await;
    client.message(&[b"\x04", &br#"{"Width":7,"Height":9}"#[..]].concat()).await;
    assert_eq!(client.hear().await[&1], b"7x9");
}

#[tokio::test]
async fn attach_is_served_as_exec_is() {
    let server = Server::new().await;
    let request = AttachRequest { container_id: "c".to_owned(), stdout: true, ..Default::default() };
    let mut client = Spdy::exec(&server.streaming.attach(request).unwrap(), V4, &["stdout"]).await;
    let heard = client.hear().await;
    assert_eq!(
        (&heard["stdout"][..], &heard["error"][..]),
        (&b"attached"[..], &br#"{"status":"Success"}"#[..])
    );
}

#[tokio::test]
async fn websockets_carry_every_byte_and_version_5_half_closes() {
    let server = Server::new().await;
    let sent: Vec<u8> = (0..5_000_000_u32).map(|i| (i * 7 / 3) as u8).collect();
    let mut client = WebSocket::open(&server.exec(&["cat"], false), "v5.channel.k8s.io").await;
    for piece in sent.chunks(70_000) {
        client.message(&[&[0], piece].concat()).await;
        // Or both sides would wait for each other.
        client.take(piece.len()).await;
    }
    client.message(&[255, 0]).await;
    let heard = client.hear().await;
    assert!(heard[&1] == sent);
    assert_eq!(heard[&3], br#"{"status":"Success"}"#);
}

#[tokio::test]
async fn websockets_of_old_versions_are_understood() {
    let server = Server::new().await;
    for protocol in ["", "channel.k8s.io", "v4.channel.k8s.io"] {
        let mut client = WebSocket::open(&server.exec(&["exit", "9"], false), protocol).await;
        let heard = client.hear().await;
        assert_eq!((&heard[&1][..], &heard[&2][..]), (&b"out"[..], &b"err"[..]));
        assert_eq!(heard[&3].starts_with(b"{"), protocol.starts_with('v'));
    }
    for protocol in ["base64.channel.k8s.io", "v4.base64.channel.k8s.io"] {
        let mut client = WebSocket::open(&server.exec(&["exit", "9"], false), protocol).await;
        assert_eq!(client.hear().await[&b'1'], b"b3V0");
    }
}

#[tokio::test]
async fn ports_are_pairs_of_streams() {
    let server = Server::new().await;
    let mut client = Spdy::open(&server.forward(vec![]), "portforward.k8s.io").await;
    let pair = |request, kind, port| [("streamtype", kind), ("port", port), ("requestid", request)];
    let errors =
        [client.stream(&pair("a", "error", "80")).await, client.stream(&pair("b", "error", "1")).await];
    let data = [client.stream(&pair("b", "data", "1")).await, client.stream(&pair("a", "data", "80")).await];
    // Of an old client.
    let old = client.stream(&[("streamtype", "error"), ("port", "8080")]).await;
    let old = [old, client.stream(&[("streamtype", "data"), ("port", "8080")]).await];
    // Streams that cannot be.
    let bad = [client.stream(&[("streamtype", "data")]).await, client.stream(&pair("c", "x", "80")).await];
    client.data(data[1], b"hello", true).await;
    client.data(old[1], b"again", true).await;
    let mut reset = Vec::new();
    while !(client.ended(&[errors[0], errors[1], data[1], old[0], old[1]]) && reset.len() == 3) {
        if let Some(Event::Reset { stream }) = client.next().await {
            reset.push(stream);
        }
    }
    let why = "error forwarding port 1 to pod p, uid : nobody is there";
    assert_eq!(client.heard(errors[1]), why.as_bytes());
    assert_eq!((client.heard(data[1]), client.heard(errors[0])), (&b"80:hello"[..], &b""[..]));
    assert_eq!(client.heard(old[1]), b"8080:again");
    reset.retain(|stream| !bad.contains(stream));
    assert_eq!(reset, [data[0]]);
}

#[tokio::test]
async fn ports_are_forwarded_through_websockets() {
    let server = Server::new().await;
    for protocol in ["", "v4.channel.k8s.io"] {
        let mut client = WebSocket::open(&server.forward(vec![80, 1]), protocol).await;
        client.message(b"\0hello").await;
        client.message(b"\x02nobody").await;
        client.take_of(0, b"P\x0080:hello").await;
        client.take_of(3, b"\x01\0error forwarding port 1 to pod p, uid : nobody is there").await;
    }
    let mut client = Spdy::open(&server.forward(vec![]), "SPDY/3.1+portforward.k8s.io").await;
    let pair = |kind| [("streamtype", kind), ("port", "80"), ("requestid", "0")];
    let error = client.stream(&pair("error")).await;
    let data = client.stream(&pair("data")).await;
    client.data(data, b"hello", true).await;
    while !client.ended(&[error, data]) {
        client.next().await.unwrap();
    }
    assert_eq!((client.heard(data), client.heard(error)), (&b"80:hello"[..], &b""[..]));
}

#[tokio::test]
async fn over_spdy_clients_of_today_which_offer_version_5_first_get_version_4() {
    let server = Server::new().await;
    let version = "x-stream-protocol-version";
    let spdy = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
    // Each in a header of its own, as client-go sends them. Kubernetes' servers have version 5 for WebSockets alone.
    let offered = ["v5.channel.k8s.io", V4, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
    let offered = offered.map(|known| (version, known));
    let (head, ..) = upgrade("POST", &server.exec(&["cat"], false), &[&spdy[..], &offered].concat()).await;
    assert!(head.starts_with("http/1.1 101 ") && head.contains(&format!("{version}: {V4}\r\n")), "{head}");
    let only = [&spdy[..], &offered[..1]].concat();
    assert_eq!(refused(&upgrade("POST", &server.exec(&["cat"], false), &only).await.0), 403);
}

#[tokio::test]
async fn what_cannot_be_is_refused_as_kubernetes_server_does() {
    let server = Server::new().await;
    let version = "x-stream-protocol-version";
    let spdy = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
    let ask = async |method: &str, url: &str, more: &[(&str, &str)]| {
        refused(&upgrade(method, url, &[&spdy[..], more].concat()).await.0)
    };
    let exec = || server.exec(&["cat"], false);
    let base = exec().rsplit_once("/exec/").unwrap().0.to_owned();
    for path in ["/exec/abcdefgh", "/exec", "/exec/a/b", "/", "/metrics"] {
        assert_eq!(ask("POST", &format!("{base}{path}"), &[(version, V4)]).await, 404, "{path}");
    }
    assert_eq!(ask("POST", &exec().replace("/exec/", "/attach/"), &[(version, V4)]).await, 404);
    assert_eq!(ask("PUT", &exec(), &[(version, V4)]).await, 405);
    assert_eq!(ask("POST", &exec(), &[]).await, 400);
    assert_eq!(ask("POST", &exec(), &[(version, " , ")]).await, 400);
    let url = exec();
    let (head, ..) = upgrade("POST", &url, &[&spdy[..], &[(version, "v9.channel.k8s.io")]].concat()).await;
    assert_eq!(refused(&head), 403);
    assert!(head.contains("x-accepted-stream-protocol-versions: v2.channel.k8s.io"), "{head}");
    // The token is used up.
    assert_eq!(ask("POST", &url, &[(version, V4)]).await, 404);
    let (head, ..) = upgrade("GET", &exec(), &[(version, V4)]).await;
    assert_eq!(refused(&head), 400);
    let socket = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")];
    assert_eq!(refused(&upgrade("GET", &exec(), &socket).await.0), 400);
    let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let unknown = [&socket[..], &[key, ("sec-websocket-protocol", "chat")]].concat();
    assert_eq!(refused(&upgrade("GET", &exec(), &unknown).await.0), 403);
    assert_eq!(refused(&upgrade("POST", &exec(), &[&socket[..], &[key]].concat()).await.0), 405);
}

#[tokio::test]
async fn who_goes_away_is_missed() {
    let server = Server::new().await;
    let streams = ["stdin", "stdout", "stderr"];
    drop(Spdy::exec(&server.exec(&["stay"], false), V4, &streams).await);
    server.all_gone(1).await;
    drop(WebSocket::open(&server.exec(&["stay"], false), "v5.channel.k8s.io").await);
    server.all_gone(2).await;
    // Also when nothing is read from it any more.
    let mut client = Spdy::exec(&server.exec(&["stay"], false), V4, &streams).await;
    let (mut stuffed, piece) = (0, [0; 60_000]);
    while tokio::time::timeout(Duration::from_millis(300), client.say("stdin", &piece)).await.is_ok() {
        stuffed += piece.len();
    }
    assert!(stuffed < 32 << 20, "{stuffed}");
    drop(client);
    server.all_gone(3).await;
}

#[tokio::test]
async fn who_says_nonsense_is_shut_out() {
    let server = Server::new().await;
    let streams = ["stdin", "stdout", "stderr"];
    let mut client = Spdy::exec(&server.exec(&["stay"], false), V4, &streams).await;
    client.raw(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]).await;
    server.all_gone(1).await;
    let mut client = WebSocket::open(&server.exec(&["stay"], false), "v5.channel.k8s.io").await;
    client.raw(&[0xff; 64]).await;
    server.all_gone(2).await;
}

#[tokio::test]
async fn who_says_nothing_for_too_long_is_let_go() {
    let config = config::Streaming { idle: Duration::from_millis(300), ..Default::default() };
    let server = Server::with(config).await;
    let url = server.exec(&["stay"], false);
    let mut client = Spdy::exec(&url, V4, &["stdin", "stdout", "stderr"]).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        client.say("stdin", b"x").await;
    }
    let start = tokio::time::Instant::now();
    while client.next().await.is_some() {}
    assert!(start.elapsed() > Duration::from_millis(200));
}

#[tokio::test]
async fn streams_are_encrypted_if_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let (certificate_file, key_file) = (dir.path().join("c"), dir.path().join("k"));
    std::fs::write(&certificate_file, certificate.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let config =
        config::Streaming { tls: true, certificate: certificate_file, key: key_file, ..Default::default() };
    let server = Server::with(config).await;
    let url = server.exec(&["cat"], false);
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let mut client =
        Spdy::exec_tls(&url, certificate.der().clone(), V4, &["stdin", "stdout", "stderr"]).await;
    let sent = vec![7; 3_000_000];
    assert!(client.talk("stdin", &sent).await["stdout"] == sent);
}

#[tokio::test]
async fn requests_that_cannot_be_get_no_url() {
    let server = Server::new().await;
    let exec = |container: &str, tty, streams: [bool; 3]| {
        let [stdin, stdout, stderr] = streams;
        let container_id = container.to_owned();
        let request = ExecRequest { container_id, cmd: vec![], tty, stdin, stdout, stderr };
        server.streaming.exec(request).unwrap_err().to_string()
    };
    assert_eq!(exec("", false, [true; 3]), "missing required container_id");
    assert_eq!(exec("c", true, [true; 3]), "tty and stderr cannot both be true");
    assert_eq!(exec("c", false, [false; 3]), "one of stdin, stdout, or stderr must be set");
    let none = server.streaming.port_forward(PortForwardRequest::default()).unwrap_err();
    assert_eq!(none.to_string(), "missing required pod_sandbox_id");
}
