//! Sandboxes that shims make by themselves, for runtimes whose `sandboxer` is `shim`. We make what is the pod's: files, networks,
//! and a spec, for shims that want one.

use std::time::{Duration, SystemTime};

use runtime::CreateSandbox;
use types::task::Exit;
use types::{Labels, Result, ResultExt};

use crate::cri::{Cri, gone};
use crate::podsandbox::{self, Made, Plan};
use crate::sandboxer::{Seen, Started};

/// How long a sandbox may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// Has the shim make a sandbox.
pub async fn create(cri: &Cri, plan: &Plan<'_>) -> Result<Made> {
    let spec = podsandbox::builtin_spec(cri, plan).await?;
    plan.namespace_made().await?;
    let pod = plan.pod;
    let runtime = match plan.handler.runtime_path.as_str() {
        "" => plan.handler.runtime_type.clone(),
        path => path.to_owned(),
    };
    let create = CreateSandbox {
        spec: Some(spec.clone()),
        runtime,
        runtime_options: plan.options.clone(),
        rootfs: Vec::new(),
        options: Some(api::any::pack(&pod.config)),
        netns: pod.netns.clone(),
        annotations: pod.config.annotations.clone(),
    };
    cri.runtime.create_sandbox(&cri.namespace, &pod.id, create).await?;
    types::crash::point("sandbox-created");
    Ok(Made { pid: 0, spec, labels: Labels::new(), created_at: SystemTime::now() })
}

/// Has it run the sandbox.
pub async fn start(cri: &Cri, id: &str) -> Result<Started> {
    let started = cri.runtime.start_sandbox(&cri.namespace, id).await?;
    Ok(Started::plain(started.pid, started.created_at))
}

/// Has it end the sandbox. One that is not there has ended.
pub async fn end(cri: &Cri, id: &str) -> Result<()> {
    cri.runtime.stop_sandbox(&cri.namespace, id, Some(GRACE)).await
}

/// Has it forget the sandbox, and go.
pub async fn shut_down(cri: &Cri, id: &str) -> Result<()> {
    gone(cri.runtime.shutdown_sandbox(&cri.namespace, id).await).context(|| "shut down the sandbox")
}

/// What it says of the sandbox.
pub async fn look(cri: &Cri, id: &str) -> Result<Seen> {
    let status = cri.runtime.sandbox_status(&cri.namespace, id, false).await?;
    if status.is_ready() {
        return Ok(Seen::Running { pid: status.pid, endpoint: None });
    }
    // How it has ended only those know who wait for it; for one that has, that takes no time.
    Ok(Seen::Ended(Some(Exit { status: 0, at: status.exited_at })))
}
