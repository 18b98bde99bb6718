//! What the daemon counts of the CRI: how long its calls took that went well, what network plugins and pulls did. Names are
//! upstream's; nothing is counted here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use types::Result;

use crate::cri::Cri;
use crate::pod;

/// Something that has happened.
#[derive(Clone, Debug)]
pub enum Observed {
    /// A step went well.
    Took {
        /// Such as `container_create`.
        what: &'static str,
        /// The runtime's type, where it makes a difference.
        runtime: Option<String>,
        /// How long it took.
        took: Duration,
    },
    /// Network plugins were asked.
    Network {
        /// Such as `set_up_pod`.
        operation: &'static str,
        /// How long it took.
        took: Duration,
        /// Whether it went well.
        well: bool,
    },
    /// An NRI plugin was asked something, or comes or goes.
    Plugin(::nri::Observed),
    /// Events of containers that nobody will hear any more.
    EventsDropped(usize),
    /// A pull has begun.
    PullBegun,
    /// A pull has ended.
    PullEnded {
        /// Bytes of the image and how long it took, if it went well.
        brought: Option<(u64, Duration)>,
    },
}

/// Who counts.
pub type Observe = Arc<dyn Fn(Observed) + Send + Sync>;

/// The name of a call that is timed.
fn timed(call: &str) -> Option<&'static str> {
    Some(match call {
        "create_container" => "container_create",
        "start_container" => "container_start",
        "stop_container" => "container_stop",
        "remove_container" => "container_remove",
        "checkpoint_container" => "container_checkpoint",
        "remove_pod_sandbox" => "sandbox_remove",
        "list_containers" => "container_list",
        "list_pod_sandbox" => "sandbox_list",
        _ => return None,
    })
}

/// A call that is being timed.
pub struct Timer {
    what: &'static str,
    runtime: Option<String>,
    begun: Instant,
}

impl Timer {
    /// Begins, if the call is one that is timed. `id` is its pod or container.
    pub fn begin(cri: &Cri, call: &'static str, id: &str) -> Option<Self> {
        let what = timed(call)?;
        let labelled = !what.ends_with("_list");
        Some(Self { what, runtime: labelled.then(|| runtime(cri, id)), begun: Instant::now() })
    }

    /// The call went well.
    pub fn end(self, cri: &Cri) {
        let Self { what, runtime, begun } = self;
        (cri.doors.observe)(Observed::Took { what, runtime, took: begun.elapsed() });
    }
}

/// The type of the runtime of a pod or container; the default one's if it is not known (any more).
fn runtime(cri: &Cri, id: &str) -> String {
    let pod = match cri.containers.find(id) {
        Ok(Some(container)) => cri.pods.find(&container.record.pod),
        _ => cri.pods.find(id),
    };
    let pod = pod.ok().flatten();
    let (config, name) = match &pod {
        Some(pod) => (pod.record.config.clone(), pod.record.runtime_handler.as_str()),
        None => (api::cri::PodSandboxConfig::default(), ""),
    };
    pod::handler(cri, &config, name).map(|handler| handler.runtime_type.clone()).unwrap_or_default()
}

/// Times a step of a pod with a runtime.
pub async fn step<T>(
    cri: &Cri,
    (what, runtime): (&'static str, Option<&str>),
    step: impl Future<Output = Result<T>>,
) -> Result<T> {
    let begun = Instant::now();
    let done = step.await;
    if done.is_ok() {
        let runtime = runtime.map(str::to_owned);
        (cri.doors.observe)(Observed::Took { what, runtime, took: begun.elapsed() });
    }
    done
}

/// Times what network plugins do: as a step of the pod `what`, too, if it went well.
pub async fn network<T>(
    cri: &Cri,
    (what, operation): (&'static str, &'static str),
    step: impl Future<Output = Result<T>>,
) -> Result<T> {
    let begun = Instant::now();
    let done = self::step(cri, (what, None), step).await;
    (cri.doors.observe)(Observed::Network { operation, took: begun.elapsed(), well: done.is_ok() });
    done
}
