//! `/v1/metrics`: names, types, labels and counts of containerd 2.3, held against a list, and against that containerd
//! itself where it is at hand.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod daemon;
mod operations;
mod scrape;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use daemon::{Daemon, Home, PATIENCE};
use operations::Task;
use rustix::process::{Pid, Signal, kill_process};
use scrape::{Page, scrape};
use tokio::net::TcpStream;

/// The sections that put the page somewhere. The port is chosen by the kernel where `port` is 0.
fn sections(port: u16) -> String {
    format!(
        "[plugins.'io.containerd.server.v1.metrics']\naddress = '127.0.0.1:{port}'\n\
         [plugins.'io.containerd.metrics.v1.grpc-prometheus']\ngrpc_histogram = true\n"
    )
}

/// Where our daemon says that the page is, soon after it has bound its main socket.
async fn address(home: &Home) -> String {
    let begun = Instant::now();
    loop {
        let log = home.log();
        let line = log.lines().find(|line| line.contains("serving metrics") && line.ends_with('"'));
        if let Some((_, address)) = line.and_then(|line| line.split_once("address=\"")) {
            return address.trim_end_matches('"').to_owned();
        }
        assert!(begun.elapsed() < PATIENCE, "no page of metrics: {log}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn ours(home: &Home) -> (Daemon, String) {
    home.configure(&sections(0));
    let daemon = home.start().await;
    let address = address(home).await;
    (daemon, address)
}

#[tokio::test]
async fn names_types_and_labels_are_upstreams() {
    let home = Home::new();
    let (daemon, address) = ours(&home).await;
    operations::records(&daemon).await;
    let page = scrape(&address).await;
    for line in include_str!("scrape/names.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut fields = line.split(' ');
        let (name, kind) = (fields.next().unwrap(), fields.next().unwrap());
        assert_eq!(page.types.get(name).map(String::as_str), Some(kind), "{name}");
        let labels: Vec<_> = fields.next().into_iter().flat_map(|labels| labels.split(',')).collect();
        let series = if kind == "histogram" { format!("{name}_bucket") } else { name.to_owned() };
        assert_eq!(page.label_sets(&series).into_iter().collect::<Vec<_>>(), [labels], "{name}");
    }
    assert!(page.families(&["go_"]).is_empty(), "there is no Go runtime here");
}

#[tokio::test]
async fn calls_are_counted_by_method_and_code() {
    let home = Home::new();
    let (daemon, address) = ours(&home).await;
    operations::records(&daemon).await;
    let page = scrape(&address).await;
    let containers = ("grpc_service", "containerd.services.containers.v1.Containers");
    let counted = |name: &str, method: &str| {
        page.value(name, &[("grpc_method", method), containers, ("grpc_type", "unary")]).unwrap()
    };
    assert_eq!(counted("grpc_server_started_total", "Create"), 3.0);
    assert_eq!(counted("grpc_server_msg_received_total", "Create"), 3.0);
    assert_eq!(counted("grpc_server_msg_sent_total", "Create"), 3.0);
    assert_eq!(counted("grpc_server_handling_seconds_count", "Create"), 3.0);
    let ended = |code: &str| {
        let labels = [("grpc_code", code), ("grpc_method", "Create"), containers, ("grpc_type", "unary")];
        page.value("grpc_server_handled_total", &labels).unwrap()
    };
    assert_eq!((ended("OK"), ended("AlreadyExists"), ended("Canceled")), (2.0, 1.0, 0.0));
}

#[tokio::test]
async fn only_the_page_is_at_the_address_and_it_is_off_unless_configured() {
    let home = Home::new();
    let (_daemon, address) = ours(&home).await;
    for path in ["/", "/metrics", "/v1/metrics/", "/debug/pprof/"] {
        let (head, _) = scrape::get(TcpStream::connect(&address).await.unwrap(), path).await;
        assert!(head.starts_with("HTTP/1.1 404 "), "{path}: {head}");
    }
    let home = Home::new();
    let _daemon = home.start().await;
    assert!(!home.log().contains("serving"), "{}", home.log());
    let home = Home::new();
    home.configure(&sections(0));
    let config = std::fs::read_to_string(home.path("config.toml")).unwrap();
    let off = format!("disabled_plugins = ['io.containerd.server.v1.metrics']\n{config}");
    std::fs::write(home.path("config.toml"), off).unwrap();
    let _daemon = home.start().await;
    assert!(!home.log().contains("serving"), "{}", home.log());
}

#[tokio::test]
async fn an_address_that_is_taken_ends_the_daemon_with_a_word() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let home = Home::new();
    home.configure(&sections(taken.local_addr().unwrap().port()));
    let output = home.command().output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains(&taken.local_addr().unwrap().to_string()), "{text}");
}

/// A directory with containerd 2.x written in Go and its shim, if there is one.
fn peer() -> Option<PathBuf> {
    let dir = std::env::var_os("PEER_DIR").map(PathBuf::from);
    let Some(dir) = dir else {
        println!("skipped: PEER_DIR does not name a directory with upstream's containerd");
        return None;
    };
    let version = Command::new(dir.join("containerd")).arg("--version").output().unwrap().stdout;
    let version = String::from_utf8_lossy(&version).into_owned();
    if !version.contains(" 2.") && !version.contains(" v2.") {
        println!("skipped: PEER_DIR has no containerd 2: {}", version.trim());
        return None;
    }
    Some(dir)
}

/// `command` finds upstream's shim first.
fn with_shim<'a>(command: &'a mut Command, dir: &Path) -> &'a mut Command {
    let inherited = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{inherited}:/usr/local/sbin:/usr/sbin:/sbin", dir.display()))
}

fn log(home: &Home) -> std::fs::File {
    std::fs::File::options().create(true).append(true).open(home.path("log")).unwrap()
}

/// Go's daemon with its page at a port that was free a moment ago.
async fn go(home: &Home, dir: &Path) -> (Daemon, String) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    home.configure(&format!(
        "{}[plugins.'io.containerd.server.v1.ttrpc']\naddress = {:?}\n",
        sections(free.port()),
        home.path("s.ttrpc")
    ));
    let mut command = Command::new(dir.join("containerd"));
    command.arg("-c").arg(home.path("config.toml")).stderr(log(home));
    let daemon = home.launch(with_shim(&mut command, dir)).await;
    let begun = Instant::now();
    while TcpStream::connect(free).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "no page of metrics: {}", home.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (daemon, free.to_string())
}

/// Twenty operations on records, then a container that runs while its daemon is scraped.
async fn observed(home: &Home, mut daemon: Daemon, address: &str) -> Page {
    operations::records(&daemon).await;
    let task = Task::start(&daemon, home, "t").await;
    let page = scrape(address).await;
    task.end(&daemon).await;
    daemon.signal(Signal::TERM);
    daemon.ended().await;
    page
}

/// Whether none of a process's threads runs any more.
fn stopped(pid: Pid) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).unwrap();
    threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat"))).all(|stat| {
        stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
    })
}

#[tokio::test]
async fn a_shim_that_hangs_costs_its_own_numbers_only() {
    let Some(dir) = peer() else { return };
    let home = Home::new();
    home.configure(&format!(
        "{}[timeouts]\n'io.containerd.timeout.metrics.shimstats' = '500ms'\n",
        sections(0)
    ));
    let daemon = home.launch(with_shim(home.command().stderr(log(&home)), &dir)).await;
    let address = address(&home).await;
    let (good, hung) = (Task::start(&daemon, &home, "good").await, Task::start(&daemon, &home, "hung").await);
    let measured = |page: &Page| {
        let ids = page.samples.keys().filter(|(name, _)| name == "container_pids_current");
        ids.map(|(_, labels)| labels["container_id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(measured(&scrape(&address).await), ["good", "hung"]);
    let shim = hung.shim().unwrap();
    kill_process(shim, Signal::STOP).unwrap();
    let begun = Instant::now();
    while !stopped(shim) {
        assert!(begun.elapsed() < PATIENCE, "the shim goes on");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let begun = Instant::now();
    let page = scrape(&address).await;
    let took = begun.elapsed();
    kill_process(shim, Signal::CONT).unwrap();
    assert_eq!(measured(&page), ["good"]);
    assert!(took < Duration::from_secs(10), "the page took {took:?}");
    for task in [good, hung] {
        task.end(&daemon).await;
    }
}

#[tokio::test]
async fn both_daemons_tell_the_same_after_the_same_operations() {
    let Some(dir) = peer() else { return };
    let home = Home::new();
    home.configure(&sections(0));
    let daemon = home.launch(with_shim(home.command().stderr(log(&home)), &dir)).await;
    let address = address(&home).await;
    let ours = observed(&home, daemon, &address).await;
    let home = Home::new();
    let (daemon, address) = go(&home, &dir).await;
    let theirs = observed(&home, daemon, &address).await;

    let prefixes = ["container_", "containerd_build", "containerd_gc", "grpc_", "process_", "promhttp_"];
    assert_eq!(ours.families(&prefixes), theirs.families(&prefixes));
    assert!(ours.families(&["container_"]).len() > 40, "the container was not measured");
    for name in ours.families(&prefixes).keys() {
        assert_eq!(ours.label_sets(name), theirs.label_sets(name), "{name}");
    }
    let served = |page: &Page, service: &str| {
        let of_service = |(name, labels): &(String, scrape::Labels)| {
            name == "grpc_server_started_total" && labels["grpc_service"] == service
        };
        page.samples.keys().any(of_service)
    };
    let mut compared = 0;
    for ((name, labels), value) in &theirs.samples {
        let Some(service) = labels.get("grpc_service").filter(|service| served(&ours, service)) else {
            continue;
        };
        let here = ours.samples.get(&(name.clone(), labels.clone()));
        assert!(here.is_some(), "{name}{labels:?} is not there");
        // How long calls take differs. Go sends the last message of Content.Write twice, and counts the end of the
        // client's stream as one more.
        let exact = ["grpc_server_started_total", "grpc_server_handled_total"].contains(&&**name);
        let messages = name.starts_with("grpc_server_msg_") && labels["grpc_type"] != "bidi_stream";
        if exact || messages {
            assert_eq!(here, Some(value), "{name}{labels:?} of {service}");
            compared += 1;
        }
    }
    assert!(compared > 1000, "only {compared} numbers were compared");
}
