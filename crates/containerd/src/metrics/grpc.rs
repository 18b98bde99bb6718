//! The families of gRPC calls, `grpc_server_*`.
//!
//! Every method of every service on the routes is there from the start, with a zero for each code, as by upstream: a
//! query for a rate finds the series before the first failure.

use std::sync::atomic::{AtomicU64, Ordering};

use tonic::Code;

use super::text::{Kind, Page};
use crate::calls::methods::Method;
use crate::calls::{Calls, Counters, code_name};

/// Writes the families; latencies only where wanted.
pub fn write(page: &mut Page, calls: &Calls, histogram: bool) {
    handled(page, calls);
    if histogram {
        latencies(page, calls);
    }
    plain(page, calls, "grpc_server_msg_received_total", "Messages received by method.", |c| &c.received);
    plain(page, calls, "grpc_server_msg_sent_total", "Messages sent by method.", |c| &c.sent);
    plain(page, calls, "grpc_server_started_total", "Calls begun by method.", |c| &c.started);
}

fn labels(method: &Method) -> [(&'static str, &'static str); 3] {
    [("grpc_method", method.name), ("grpc_service", method.service), ("grpc_type", method.flow.name())]
}

fn plain(page: &mut Page, calls: &Calls, name: &str, help: &str, counter: fn(&Counters) -> &AtomicU64) {
    page.family(name, Kind::Counter, help);
    for (method, counters) in calls.counted() {
        page.sample(name, &labels(&method), counter(counters).load(Ordering::Relaxed));
    }
}

fn handled(page: &mut Page, calls: &Calls) {
    const NAME: &str = "grpc_server_handled_total";
    page.family(NAME, Kind::Counter, "Calls ended by method and code.");
    for (method, counters) in calls.counted() {
        let [name, service, flow] = labels(&method);
        for (code, count) in (0..).map(Code::from_i32).map(code_name).zip(&counters.handled) {
            page.sample(NAME, &[("grpc_code", code), name, service, flow], count.load(Ordering::Relaxed));
        }
    }
}

fn latencies(page: &mut Page, calls: &Calls) {
    const NAME: &str = "grpc_server_handling_seconds";
    page.family(NAME, Kind::Histogram, "Seconds that calls took by method.");
    for (method, counters) in calls.counted() {
        counters.took.write(page, NAME, &labels(&method));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_every_code_from_the_start() {
        let calls = Calls::new();
        calls.serves("containerd.services.version.v1.Version");
        let mut page = Page::default();
        write(&mut page, &calls, true);
        let text = page.finish();
        let count = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(count("grpc_server_handled_total{"), 17);
        assert_eq!(count("grpc_server_started_total{"), 1);
        assert_eq!(count("grpc_server_handling_seconds_bucket{"), 12);
        assert!(text.contains(
            "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Version\",\
             grpc_service=\"containerd.services.version.v1.Version\",grpc_type=\"unary\"} 0\n"
        ));
    }
}
