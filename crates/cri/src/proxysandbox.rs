//! Sandboxes of other processes, for runtimes whose `sandboxer` is the name of a proxy plugin (`[proxy_plugins.NAME] type = "sandbox"`).
//! We make what is the pod's: files and networks, before the sandboxer is asked, which may want to find interfaces. It says where tasks
//! of the pod's containers are made.
//!
//! ```text
//!  Create  Start  -->  address of a task service  -->  containers      Wait     (again, as long as nobody answers)
//!  Stop  Shutdown                                                      Status   after a restart, and for who asks
//! ```
//!
//! A sandboxer that cannot be reached is not one whose sandboxes have ended: its pods stay, and what is asked of them fails by its name,
//! until it is back.

use std::time::{Duration, SystemTime};

use remote::RemoteController;
use types::container::RuntimeInfo;
use types::sandbox::{Making, Sandbox, Status};
use types::task::{Endpoint, Exit};
use types::{Any, Class, Error, Labels, Result, ResultExt, crash};

use crate::container::exits;
use crate::cri::{Cri, gone};
use crate::pod::{CREATING, EXTENSION};
use crate::podsandbox::{self, Made, Plan};
use crate::sandboxer::{Seen, Started};

/// How long to wait before a sandboxer is asked again: twice as long each time.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(128), Duration::from_secs(4));

/// The sandboxer of this name.
pub fn named<'a>(cri: &'a Cri, name: &str) -> Result<&'a RemoteController> {
    let text =
        || format!("failed to get sandbox controller by {name}: no proxy plugin of this name is configured");
    cri.sandboxers.get(name).ok_or_else(|| Error::precondition(text()))
}

/// Has the sandboxer make a sandbox.
pub async fn create(cri: &Cri, name: &str, plan: &Plan<'_>) -> Result<Made> {
    podsandbox::write_files(cri, plan).await?;
    let pod = plan.pod;
    let sandbox = Sandbox {
        id: pod.id.clone(),
        runtime: RuntimeInfo { name: plan.handler.runtime_type.clone(), options: plan.options.clone() },
        labels: Labels::from([("name".to_owned(), pod.name.clone())]),
        created_at: SystemTime::now(),
        updated_at: SystemTime::now(),
        extensions: [(EXTENSION.to_owned(), pod.to_any()?)].into(),
        sandboxer: name.to_owned(),
        ..Sandbox::default()
    };
    let options = Some(api::any::pack(&pod.config));
    let making = Making { options, netns: pod.netns.clone(), ..Making::default() };
    named(cri, name)?.create(sandbox, making).await?;
    crash::point("sandbox-created");
    Ok(Made { pid: 0, spec: Any::default(), labels: Labels::new(), created_at: SystemTime::now() })
}

/// Has it run the sandbox. What it answers is checked.
pub async fn start(cri: &Cri, name: &str, id: &str) -> Result<Started> {
    let mut started = named(cri, name)?.start(id).await?;
    let doing = || format!("sandboxer {name:?}: start");
    for (key, value) in &started.labels {
        types::labels::validate(key, value).context(doing)?;
    }
    // A label of ours.
    started.labels.remove(CREATING.0);
    let created_at = match started.created_at {
        SystemTime::UNIX_EPOCH => SystemTime::now(),
        told => told,
    };
    let endpoint = endpoint(started.endpoint).context(doing)?;
    Ok(Started { pid: started.pid, created_at, labels: started.labels, spec: started.spec, endpoint })
}

/// Has it end the sandbox. One that is not there has ended.
pub async fn end(cri: &Cri, name: &str, id: &str) -> Result<()> {
    gone(named(cri, name)?.stop(id, None).await)
}

/// Has it remove the sandbox.
pub async fn shut_down(cri: &Cri, name: &str, id: &str) -> Result<()> {
    gone(named(cri, name)?.shutdown(id).await)
}

/// Waits for the end of the sandbox. A sandboxer that is away is asked again; one that does not know has lost it. Cancel safe.
pub async fn wait(cri: &Cri, name: &str, id: &str) -> Result<Exit> {
    let sandboxer = named(cri, name)?;
    let mut pause = BACKOFF.0;
    loop {
        match sandboxer.wait(id).await {
            Err(error) if error.class() == Class::Unavailable => {}
            Err(error) if error.is_not_found() => return Err(error),
            Err(error) => {
                tracing::error!(id, %error, "nobody knows how a sandbox has ended");
                return Ok(exits::unknown());
            }
            Ok(exit) => return Ok(exit),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// What it says of the sandbox.
pub async fn look(cri: &Cri, name: &str, id: &str) -> Result<Seen> {
    let status = named(cri, name)?.status(id, false).await?;
    if status.is_ready() {
        let endpoint = endpoint(status.endpoint).context(|| format!("sandboxer {name:?}: status"))?;
        return Ok(Seen::Running { pid: status.pid, endpoint });
    }
    // How it has ended only those know who wait for it; for one that has, that takes no time.
    Ok(Seen::Ended(Some(Exit { status: 0, at: status.exited_at })))
}

/// All that it says of the sandbox; none if it does not know it.
pub async fn status(cri: &Cri, name: &str, id: &str, verbose: bool) -> Result<Option<Status>> {
    match named(cri, name)?.status(id, verbose).await {
        Err(error) if error.is_not_found() => Ok(None),
        status => status.map(Some).context(|| "failed to query controller status"),
    }
}

/// Tells it that the record of the sandbox has changed. Not all know the call.
pub async fn update(cri: &Cri, name: &str, record: Sandbox) -> Result<()> {
    let id = record.id.clone();
    match named(cri, name)?.update(&id, record, vec!["extensions".to_owned()]).await {
        Err(error) if error.class() == Class::Unimplemented => Ok(()),
        updated => updated.context(|| "failed to update sandbox controller"),
    }
}

/// Where its tasks are made, if it says so: checked.
fn endpoint(told: Endpoint) -> Result<Option<Endpoint>> {
    if told.address.is_empty() {
        return Ok(None);
    }
    ::runtime::check_endpoint(&told).map(|()| Some(told))
}
