//! The sandbox controller `podsandbox`, as clients of containerd's own API have it: sandboxes of pods are looked at, waited for and
//! ended. They are made and removed with their pods, which no client of that API can do.

use std::sync::Arc;
use std::time::SystemTime;

use types::sandbox::{Metrics as SandboxMetrics, Status as SandboxStatus};
use types::task::Exit;
use types::{Error, Namespace, Result};

use crate::cri::Cri;
use crate::pod::{Pod, State, teardown};
use crate::runtime::{list_pod_sandbox, pod_sandbox_status};
use crate::sandboxer::Sandboxer;

impl Cri {
    /// What is known of a sandbox; `verbose` says more, for people.
    pub async fn sandbox_status(
        &self,
        namespace: &Namespace,
        id: &str,
        verbose: bool,
    ) -> Result<SandboxStatus> {
        let pod = self.sandbox(namespace, id)?;
        let status = pod.status();
        let info = if verbose { pod_sandbox_status::info(self, &pod).await? } else { Default::default() };
        Ok(SandboxStatus {
            pid: status.pid,
            state: list_pod_sandbox::state(status.state).as_str_name().to_owned(),
            info,
            created_at: status.created_at,
            exited_at: status.exited_at.unwrap_or(SystemTime::UNIX_EPOCH),
            extra: None,
            endpoint: Default::default(),
        })
    }

    /// Waits for the end of a sandbox. Cancel safe.
    pub async fn wait_sandbox(&self, namespace: &Namespace, id: &str) -> Result<Exit> {
        let pod = self.sandbox(namespace, id)?;
        if pod.status().state != State::NotReady {
            match pod.sandboxer.wait(self, id).await {
                // Whoever watches was quicker, and has it in the pod's status.
                Err(error) if error.is_not_found() => {}
                exit => return exit,
            }
        }
        let status = pod.status();
        Ok(Exit { status: status.exit_status, at: status.exited_at.unwrap_or_else(SystemTime::now) })
    }

    /// Ends a sandbox; the pod's networks stay until the pod is stopped. One that has ended is fine. Not cancel safe.
    pub async fn stop_sandbox(&self, namespace: &Namespace, id: &str) -> Result<()> {
        let pod = self.sandbox(namespace, id)?;
        teardown::end(self, &pod).await
    }

    /// What a sandbox uses.
    pub async fn sandbox_metrics(&self, namespace: &Namespace, id: &str) -> Result<SandboxMetrics> {
        self.sandbox(namespace, id)?;
        let data = self.runtime.stats(namespace, id).await?;
        Ok(SandboxMetrics { at: SystemTime::now(), data })
    }

    /// The pod of a sandbox that this controller has made.
    fn sandbox(&self, namespace: &Namespace, id: &str) -> Result<Arc<Pod>> {
        self.check_recovered()?;
        let ours = |pod: &Arc<Pod>| pod.id() == id && pod.sandboxer == Sandboxer::Podsandbox;
        let pod = self.pods.find(id)?.filter(ours).filter(|_| *namespace == self.namespace);
        pod.ok_or_else(|| Error::not_found(format!("unable to find sandbox {id:?}: not found")))
    }
}
