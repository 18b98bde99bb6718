//! A pull is visible while it runs: in the log, as event, in the metrics and in the dump, and when it has ended, too.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use containerd_tests::archive::{Image, Packing, base_layer};
use containerd_tests::binaries::{self, beyond_upstream};
use containerd_tests::{Daemon, eventually};
use registry::fake::{Fake, Fault, When};

/// A page of the daemon's.
fn page(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn a_slow_pull_is_seen_by_everybody_who_looks() {
    if beyond_upstream("upstream shows a pull to its client alone") {
        return;
    }
    let metrics = free_port();
    let section = format!("[metrics]\naddress = {metrics:?}\n");
    let daemon = Daemon::prepare(binaries::tested(), binaries::suite()).configured(&section);
    daemon.launch();
    let registry = Fake::start();
    let name = Image::named("x").layer(&base_layer(), Packing::Gzip).publish(&registry, "x", "1");
    let events = daemon.ctr(&["events", "topic==\"/containerd-rs/pull\""]).start();
    registry
        .fault(When::path("/blobs/").method("GET").after(1), Fault::Stall(100_000, Duration::from_secs(5)));
    let pull = daemon.ctr(&["images", "pull", &name]).start();
    eventually("the log tells of the pull", || {
        daemon.log().lines().any(|line| line.contains("pulling image") && line.contains(&name))
    });
    let line = daemon.log().lines().find(|line| line.contains("pulling image")).unwrap().to_owned();
    for field in ["bytes=", "total=", "bytes_per_second=", "layers=1", "digest=\"sha256:"] {
        assert!(line.contains(field), "{field} is not in {line}");
    }
    assert!(page(&metrics, "/v1/metrics").contains("\ncontainerd_transfer_pulls_in_progress 1\n"));
    events.await_output(&format!("\"event\":\"pulling\",\"name\":\"{name}\""));
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(daemon.pid().unwrap()).unwrap(),
        rustix::process::Signal::USR1,
    )
    .unwrap();
    let dump = daemon.state().join(format!("containerd.{}.stacks.log", daemon.pid().unwrap()));
    eventually("the dump tells of the pull", || {
        std::fs::read_to_string(&dump)
            .is_ok_and(|text| text.contains("pulls under way: 1") && text.contains(&name))
    });
    assert_eq!(pull.finish().code, 0);
    events.await_output(&format!("\"event\":\"pulled\",\"name\":\"{name}\""));
    assert!(daemon.log().contains("pulled image"));
    let page = page(&metrics, "/v1/metrics");
    for sample in [
        "containerd_transfer_pulls_in_progress 0",
        "containerd_transfer_pulls_total{status=\"success\"} 1",
        "containerd_transfer_pull_seconds_count 1",
    ] {
        assert!(page.lines().any(|line| line == sample), "{sample} is not in\n{page}");
    }
    events.signal(rustix::process::Signal::TERM);
    events.finish();
    let missing = registry.reference("x", "2");
    daemon.ctr(&["images", "pull", &missing]).fails();
    let failures = "\ncontainerd_transfer_pull_failures_total{reason=\"not_found\"} 1\n";
    assert!(self::page(&metrics, "/v1/metrics").contains(failures));
}
