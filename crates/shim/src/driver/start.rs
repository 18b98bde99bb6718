//! A process that the runtime has made: finding it, watching over it and its groups; and init out of a checkpoint.

use sys::cgroup::{Groups, Mode, missing_controllers, mode};
use sys::pidfd::PidFd;
use types::{Error, Result, ResultExt};

use super::Driver;
use crate::children::{Purpose, Work};
use crate::context::Context;
use crate::state::Input;

impl Driver {
    /// The runtime has made the container: init waits to be started.
    pub(super) fn created(&mut self, cx: &mut Context) {
        let pid = match self.begin_process(cx, "") {
            Ok(pid) => pid,
            Err(error) => return self.abort_create(cx, error),
        };
        self.watch_groups(cx, pid);
        if !self.delegates(cx, pid) {
            self.feed(cx, Input::Created(Ok(pid)));
        }
    }

    /// Finds out where init is counted, and watches over its memory: from now on, as it may run out at once.
    fn watch_groups(&mut self, cx: &mut Context, pid: u32) {
        let groups = match Groups::of(pid) {
            Ok(groups) => groups,
            Err(error) => return cx.log.error(&format!("loading cgroup for {pid}: {error}"), &self.id),
        };
        if let Err(error) = cx.watches.add(&self.id, &groups, &cx.epoll) {
            cx.log.error(&format!("failed to watch oom events: {error}"), &self.id);
        }
        self.groups = Some(groups);
    }

    /// Begins to give init's group all controllers, if it has not got them. Whether it did.
    fn delegates(&self, cx: &mut Context, pid: u32) -> bool {
        let Some(group) = self.groups.as_ref().filter(|_| mode() == Mode::Unified).and_then(Groups::unified)
        else {
            return false;
        };
        let missing = match missing_controllers(&group) {
            Ok(missing) if missing.is_empty() => return false,
            Ok(missing) => missing,
            Err(error) => {
                cx.log.error(&format!("failed to get controllers: {error}"), &self.id);
                return false;
            }
        };
        let begun = self.offload(cx, Work::Controllers(pid), move || {
            // As upstream: what a parent refuses may be there all the same, so the last one decides.
            let mut last = Ok(());
            for one in missing {
                last = one.write().context(|| format!("write {}", one.group.display()));
            }
            last.map(|()| Vec::new())
        });
        begun.is_ok()
    }

    /// Begins to start init out of its checkpoint.
    pub(super) fn start_restored(&mut self, cx: &mut Context) -> Result<()> {
        let Some(plan) = self.processes.get_mut("").and_then(|live| live.plan.as_mut()) else {
            return Err(Error::unknown("the streams of a restore that failed are gone"));
        };
        let begun = self.runtime.restore(&self.restore, plan.streams(), plan.console());
        plan.launched();
        begun.and_then(|run| self.track(cx, run))
    }

    /// The runtime has started init out of its checkpoint.
    pub(super) fn restored(&mut self, cx: &mut Context) -> Result<u32> {
        let pid = self.begin_process(cx, "")?;
        self.watch_groups(cx, pid);
        Ok(pid)
    }

    /// The runtime has made a process: finds it, watches over it, moves its streams.
    pub(super) fn begin_process(&mut self, cx: &mut Context, exec: &str) -> Result<u32> {
        let pid = self.runtime.read_pid(exec)?;
        let process = PidFd::open(pid).context(|| format!("open process {pid}"))?;
        if !process.is_child() {
            return Err(Error::internal(format!(
                "process {pid} of the runtime's pid file is no child of the shim"
            )));
        }
        let Some(live) = self.processes.get_mut(exec) else {
            return Err(Error::internal("a process without a plan"));
        };
        let purpose = Purpose::Process { container: self.id.clone(), exec: exec.to_owned() };
        live.child = Some(cx.track(process, purpose)?);
        if let Some(plan) = live.plan.take() {
            let (flows, console) = plan.begin()?;
            live.console = console;
            for mut flow in flows {
                flow.keeper = flow.keeper.filter(|_| !live.stdin_closed);
                cx.streams.add(&live.owner, flow, &cx.epoll).context(|| "failed to start io copy")?;
            }
        }
        Ok(pid)
    }
}
