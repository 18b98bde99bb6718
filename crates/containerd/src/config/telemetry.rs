//! What the daemon tells about itself: metrics, the debug socket, ids of traces in log lines.

use super::section::Section;

/// Where the daemon can be observed. Everything is off by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// `host:port` that serves `/v1/metrics`; empty is nowhere.
    pub metrics: String,
    /// Latencies of gRPC calls by method, too.
    pub histogram: bool,
    /// No metrics of containers.
    pub no_prometheus: bool,
    /// The debug socket.
    pub debug: Debug,
    /// Log lines carry the id of the trace that they belong to.
    pub trace_id: bool,
}

/// The debug socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Debug {
    /// A path, or `host:port`; empty is nowhere.
    pub address: String,
    /// Its owner, if it is a path.
    pub uid: u32,
    /// Its group, if it is a path.
    pub gid: u32,
}

const METRICS: &str = "io.containerd.server.v1.metrics";
const DEBUG: &str = "io.containerd.server.v1.debug";
const GRPC: &str = "io.containerd.metrics.v1.grpc-prometheus";
const CGROUPS: &str = "io.containerd.monitor.task.v1.cgroups";
/// Sections whose keys have become the `OTEL_*` environment.
const OLD: [(&str, &[&str]); 2] = [
    ("io.containerd.tracing.processor.v1.otlp", &["endpoint", "protocol"]),
    ("io.containerd.internal.v1.tracing", &["service_name"]),
];

/// Takes the sections of the plugins that tell about the daemon.
pub fn read(plugins: &mut Section, trace_id: bool) -> Telemetry {
    for (uri, keys) in OLD {
        let mut section = plugins.section(uri);
        let set = keys.iter().filter(|key| !section.string(key, "").is_empty()).count();
        if set + section.rest().len() > 0 {
            section.warn(format!("{uri} is ignored: use the OTLP environment variables (OTEL_*) instead"));
        }
    }
    let mut debug = plugins.section(DEBUG);
    Telemetry {
        metrics: plugins.section(METRICS).string("address", ""),
        histogram: plugins.section(GRPC).boolean("grpc_histogram"),
        no_prometheus: plugins.section(CGROUPS).boolean("no_prometheus"),
        debug: Debug {
            address: debug.string("address", ""),
            uid: debug.integer("uid", 0),
            gid: debug.integer("gid", 0),
        },
        trace_id,
    }
}
