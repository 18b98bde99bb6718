//! `/v1/metrics`: what Prometheus scrapes, with the names, types and labels of containerd 2.3.
//!
//! ```text
//!  container_*   the shims are asked when the page is asked for      containers.rs, cgroup1.rs, cgroup2.rs
//!  containerd_*  build, garbage collection                           here, collections.rs
//!  containerd_transfer_*  pulls and pushes                           crate::transfers::counts
//!  containerd_cri_*       pods, containers, networks                 cri.rs
//!  grpc_*        counted by the layer around the routes              grpc.rs, crate::calls
//!  process_*     /proc/self                                          process.rs
//!  promhttp_*    this page itself                                    here
//! ```
//!
//! Nothing here runs while nobody asks. There are no families about a Go runtime (`go_*`): there is none.

mod cgroup1;
mod cgroup2;
mod collections;
mod containers;
mod cri;
mod grpc;
mod latencies;
mod nri;
mod process;
mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use tracing::info;
use types::{Result, version};

pub use collections::Collections;
pub use cri::Pods;
pub use latencies::Latencies;
pub use text::{Kind, Page as Text};

use crate::config::Config;
use crate::pages::{self, Door, Page};
use crate::services::House;

/// The type of the page, as Go's handler calls it.
const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// What the page is made of.
struct Sources {
    house: House,
    /// How long a shim may take; none is asked if absent.
    stats: Option<Duration>,
    histogram: bool,
    /// Whether Kubernetes is served.
    cri: bool,
    served: AtomicU64,
    being_served: AtomicU64,
}

/// Listens where the configuration says, if it does. The page is served until the process ends.
pub async fn start(config: &Config, house: &House, cri: bool) -> Result<()> {
    let telemetry = &config.telemetry;
    let disabled = |uri: &str| config.disabled.iter().any(|disabled| disabled == uri);
    if telemetry.metrics.is_empty() || disabled("io.containerd.server.v1.metrics") {
        return Ok(());
    }
    let unmeasured = telemetry.no_prometheus || disabled("io.containerd.monitor.task.v1.cgroups");
    let door = Door::tcp(&telemetry.metrics).await?;
    info!(address = door.address(), "serving metrics");
    let sources = Arc::new(Sources {
        house: house.clone(),
        stats: (!unmeasured).then_some(config.shims.stats),
        histogram: telemetry.histogram,
        cri,
        served: AtomicU64::new(0),
        being_served: AtomicU64::new(0),
    });
    tokio::spawn(door.serve(move |request| answer(Arc::clone(&sources), request)));
    Ok(())
}

async fn answer(sources: Arc<Sources>, request: Request<Incoming>) -> Page {
    if request.uri().path() != "/v1/metrics" {
        return pages::missing();
    }
    sources.being_served.fetch_add(1, Ordering::Relaxed);
    // Counted down also if the client goes away.
    let served = Served(&sources);
    let page = write(&sources).await;
    sources.served.fetch_add(1, Ordering::Relaxed);
    drop(served);
    pages::typed(StatusCode::OK, TYPE, page)
}

struct Served<'a>(&'a Sources);

impl Drop for Served<'_> {
    fn drop(&mut self) {
        self.0.being_served.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn write(sources: &Sources) -> String {
    let mut page = text::Page::default();
    if let Some(limit) = sources.stats {
        containers::write(&mut page, &sources.house, limit).await;
    }
    page.family("containerd_build_info_total", Kind::Counter, "Which containerd this is.");
    let labels = [("revision", version::REVISION), ("version", version::VERSION)];
    page.sample("containerd_build_info_total", &labels, 1);
    sources.house.collections.write(&mut page);
    sources.house.transfers.counts().write(&mut page);
    if sources.cri {
        sources.house.pods.write(&mut page);
    }
    grpc::write(&mut page, &sources.house.calls, sources.histogram);
    process::write(&mut page);
    const NOW: &str = "promhttp_metric_handler_requests_in_flight";
    page.single(NOW, Kind::Gauge, "Pages being written.", sources.being_served.load(Ordering::Relaxed));
    const TOTAL: &str = "promhttp_metric_handler_requests_total";
    page.family(TOTAL, Kind::Counter, "Pages written by status.");
    for (code, count) in [("200", sources.served.load(Ordering::Relaxed)), ("500", 0), ("503", 0)] {
        page.sample(TOTAL, &[("code", code)], count);
    }
    page.finish()
}
