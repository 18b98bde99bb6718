//! The families of gRPC calls, `grpc_server_*`.
//!
//! Every method of every service on the routes is there from the start, with a zero for each code, as by upstream: a
//! query for a rate finds the series before the first failure.

use std::sync::atomic::{AtomicU64, Ordering};

use tonic::Code;

use super::text::{Kind, Page};
use crate::calls::methods::Method;
use crate::calls::{BOUNDS, Calls, Counters, code_name};

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
        let [name, service, flow] = labels(&method);
        let mut below = 0;
        for (bound, count) in BOUNDS.iter().zip(&counters.took) {
            below += count.load(Ordering::Relaxed);
            let bound = seconds(*bound);
            page.sample(&format!("{NAME}_bucket"), &[name, service, flow, ("le", &bound)], below);
        }
        let count: u64 = counters.handled.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        page.sample(&format!("{NAME}_bucket"), &[name, service, flow, ("le", "+Inf")], count.max(below));
        let sum = super::seconds(counters.nanoseconds.load(Ordering::Relaxed));
        page.sample(&format!("{NAME}_sum"), &[name, service, flow], sum);
        page.sample(&format!("{NAME}_count"), &[name, service, flow], count.max(below));
    }
}

/// A bound as the label `le` has it.
pub fn seconds(milliseconds: u64) -> String {
    match milliseconds % 1000 {
        0 => (milliseconds / 1000).to_string(),
        rest => format!("{}.{rest:03}", milliseconds / 1000).trim_end_matches('0').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_as_go_writes_them() {
        let bounds: Vec<_> = BOUNDS.iter().map(|bound| seconds(*bound)).collect();
        let go = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10"];
        assert_eq!(bounds, go);
    }

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
