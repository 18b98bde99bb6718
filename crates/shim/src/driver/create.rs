//! Create: mount the root filesystem, let the runtime make the container, or take back what was done.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use api::containerd::runc::v1::Options;
use api::containerd::task::v3::CreateTaskRequest;
use types::mount::Mount;
use types::{Class, Error, Result};

use super::{Driver, Live};
use crate::call::Call;
use crate::children::{Interrupt, Purpose, Work};
use crate::context::Context;
use crate::io::{PipeOwner, Place, Plan, Stdio};
use crate::logger::Said;
use crate::options;
use crate::runtime::{Runtime, Task};
use crate::spec;
use crate::spec::Facts;
use crate::state::{Input, Policy, State};
use crate::timers::Deadline;

/// How long a runtime whose hooks were killed may take to clean up after itself.
const GRACE: Duration = Duration::from_secs(2);

/// A container to be made, checked.
pub struct Request {
    id: String,
    bundle: PathBuf,
    mounts: Vec<Mount>,
    stdio: Stdio,
    options: Options,
    /// The image that it is made out of, or empty.
    restore: String,
}

impl Request {
    /// Checks a request of the wire.
    pub fn check(request: CreateTaskRequest) -> Result<Self> {
        check_name(&request.id, "container id")?;
        let bundle = PathBuf::from(&request.bundle);
        if !bundle.is_absolute() || bundle.components().any(|c| c == Component::ParentDir) {
            return Err(Error::invalid(format!("bundle {:?} is no absolute path", request.bundle)));
        }
        let (stdin, stdout, stderr) = (request.stdin, request.stdout, request.stderr);
        Ok(Self {
            id: request.id,
            bundle,
            mounts: request.rootfs.into_iter().map(api::convert::mount).collect(),
            stdio: Stdio { stdin, stdout, stderr, terminal: request.terminal },
            options: options::unpack(request.options)?,
            restore: request.checkpoint,
        })
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// Ids become file names in the bundle.
pub fn check_name(id: &str, what: &str) -> Result<()> {
    let unsafe_name = id.is_empty() || id.len() > 200 || id.starts_with('.') || id.contains(['/', '\0']);
    if unsafe_name { Err(Error::invalid(format!("invalid {what} {id:?}"))) } else { Ok(()) }
}

impl Driver {
    /// Begins to make a container for `call`.
    pub fn create(cx: &mut Context, request: Request, call: Call) -> Result<Self> {
        let Request { id, bundle, mounts, stdio, options, restore } = request;
        let facts = Facts::read(&bundle)?;
        options::save(&options, &bundle)?;
        spec::suit(&options.binary_name, &bundle)?;
        let policy = Policy {
            kill_all_on_exit: !facts.private_pids,
            // A hook would run at another time than with upstream. What shares a namespace is killed before the exit is told.
            eager_removal: !facts.poststop,
            restored: !restore.is_empty(),
        };
        let pipe_owner = PipeOwner { uid: options.io_uid, gid: options.io_gid };
        let mut init = Live::new(&id, "", stdio);
        let console = cx.console_path();
        let place = Place {
            namespace: &cx.namespace,
            process: (&id, ""),
            bundle: &bundle,
            console: &console,
            owner: pipe_owner,
        };
        let plan = Plan::open(&init.stdio, &place).map_err(of_streams)?;
        cx.adopt_logger(&init.owner, init.plan.insert(plan))?;
        let rootfs = make_rootfs(&bundle, &mounts)?;
        let driver = Self {
            runtime: Runtime::new(options, &cx.namespace, &id, &bundle),
            state: State::new(id.clone(), policy, call),
            id,
            bundle,
            rootfs,
            mounts,
            pipe_owner,
            restore,
            groups: None,
            checkpoint: None,
            checkpointed: None,
            death: super::death::Death::default(),
            processes: BTreeMap::from([(String::new(), init)]),
            failed: None,
            given_up: false,
            gone: false,
        };
        Ok(driver)
    }

    /// Takes the first step of making it.
    pub fn begin(&mut self, cx: &mut Context) {
        if self.awaits_logger("") {
            return;
        }
        let Some(rootfs) = self.rootfs.clone() else {
            self.launch(cx);
            return;
        };
        let mounts = self.mounts.clone();
        let begun = self
            .offload(cx, Work::Mount, move || sys::mount::mount_all(&mounts, &rootfs).map(|()| Vec::new()));
        if let Err(error) = begun {
            self.rootfs = None;
            self.abort_create(cx, error);
        }
    }

    /// The root filesystem is in place: lets the runtime make the container.
    pub(super) fn launch(&mut self, cx: &mut Context) {
        if !self.restore.is_empty() {
            // The runtime makes it when it is started.
            return self.feed(cx, Input::Created(Ok(0)));
        }
        let Some(plan) = self.processes.get_mut("").and_then(|live| live.plan.as_mut()) else { return };
        let begun = self.runtime.create(plan.streams(), plan.console());
        plan.launched();
        if let Err(error) = begun.and_then(|run| self.track(cx, run)) {
            self.abort_create(cx, error);
        }
    }

    /// Whether a process is made only when what takes its output is ready.
    pub fn awaits_logger(&self, exec: &str) -> bool {
        let plan = self.processes.get(exec).and_then(|live| live.plan.as_ref());
        plan.is_some_and(|plan| plan.awaits().is_some())
    }

    /// The program that takes a process's output is ready, or not there any more: the process is made, or is not.
    pub fn logger_said(&mut self, cx: &mut Context, exec: &str) {
        if !self.awaits_logger(exec) {
            return;
        }
        let Some(plan) = self.processes.get_mut(exec).and_then(|live| live.plan.as_mut()) else { return };
        let said = plan.logger_said();
        if let Ok(Said::Nothing) = said {
            return;
        }
        match (exec, said) {
            ("", Ok(_)) => self.begin(cx),
            ("", Err(error)) => self.abort_create(cx, of_streams(error)),
            (exec, said) => {
                let begun = said.and_then(|_| self.launch_exec(cx, exec));
                if let Err(error) = begun {
                    if let Some(live) = self.processes.get_mut(exec) {
                        live.plan = None;
                        cx.abandon(&live.owner);
                    }
                    let result = Err(of_streams(error));
                    self.feed(cx, Input::Started { exec: exec.to_owned(), result });
                }
            }
        }
    }

    /// Whether its making was ended, but still goes on.
    pub fn is_given_up(&self) -> bool {
        self.given_up && !self.is_made()
    }

    /// Ends the making of it: a hook, a mount or the runtime may hang. Done again it is done by force.
    pub fn give_up(&mut self, cx: &mut Context) {
        let how = if self.given_up { Interrupt::Group } else { Interrupt::Hooks };
        self.given_up = true;
        if how == Interrupt::Hooks {
            cx.timers.set(GRACE, Deadline::GiveUp(self.id.clone()));
        }
        if self.awaits_logger("") {
            return self.abort_create(cx, ended());
        }
        let Some(forked) = cx.children.interrupt(&self.id, how) else { return };
        if let Some(Purpose::Offload { work, .. }) = cx.children.abandon(forked) {
            cx.timers.clear(&Deadline::Offload(forked));
            let error = Error::unknown(format!("{} of the root filesystem was ended", work.name()));
            self.offload_ended(cx, work, Err(error));
        }
    }

    /// The runtime was killed at its work: what it made so far, perhaps a container, goes.
    pub(super) fn discard(&mut self, cx: &mut Context, made: Result<()>) {
        let error = made.err().unwrap_or_else(ended);
        let begun = self.runtime.delete_by_force(Task::Discard).and_then(|run| self.track(cx, run));
        match begun {
            Ok(()) => self.failed = Some(error),
            Err(left) => {
                cx.log.error(&left.to_string(), &self.id);
                self.abort_create(cx, error);
            }
        }
    }

    pub(super) fn discarded(&mut self, cx: &mut Context, outcome: Result<()>) {
        if let Err(left) = outcome {
            cx.log.error(&left.to_string(), &self.id);
        }
        let error = self.failed.take().unwrap_or_else(ended);
        self.abort_create(cx, error);
    }

    /// It could not be made: unmounts, then says so.
    pub(super) fn abort_create(&mut self, cx: &mut Context, error: Error) {
        let error = of_parts(error);
        if let Some(live) = self.processes.get_mut("") {
            live.plan = None;
            cx.abandon(&live.owner);
        }
        if self.rootfs.is_some() {
            match self.unmount(cx, Work::Discard) {
                Ok(()) => {
                    self.failed = Some(error);
                    return;
                }
                Err(left) => cx.log.warn(&format!("failed to cleanup rootfs mount: {left}"), &self.id),
            }
        }
        self.feed(cx, Input::Created(Err(error)));
    }
}

/// Why a process cannot have its streams.
pub(super) fn of_streams(error: Error) -> Error {
    of_parts(error.context("failed to create init process I/O"))
}

/// That a container or exec is not there, or there already, is said of it alone, and never of a file or a program that it needs.
fn of_parts(error: Error) -> Error {
    if matches!(error.class(), Class::NotFound | Class::AlreadyExists) {
        return Error::unknown(error.to_string());
    }
    error
}

fn ended() -> Error {
    Error::unknown("the container was ended while it was being created")
}

fn make_rootfs(bundle: &Path, mounts: &[Mount]) -> Result<Option<PathBuf>> {
    if mounts.is_empty() {
        return Ok(None);
    }
    let rootfs = bundle.join("rootfs");
    match rustix::fs::mkdir(&rootfs, rustix::fs::Mode::from_raw_mode(0o711)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(Some(rootfs)),
        Err(e) => Err(Error::from(std::io::Error::from(e)).context(format!("mkdir {}", rootfs.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_leave_the_bundle_is_no_name() {
        for bad in ["", ".", "..", "a/b", "/a", ".x", "a\0b"] {
            assert!(check_name(bad, "id").is_err(), "{bad:?}");
        }
        assert!(check_name("c1_x.y-z", "id").is_ok());
    }

    #[test]
    fn a_bundle_is_an_absolute_path() {
        let request =
            |bundle: &str| CreateTaskRequest { id: "c".into(), bundle: bundle.into(), ..Default::default() };
        assert!(Request::check(request("b")).is_err());
        assert!(Request::check(request("/a/../b")).is_err());
        assert!(Request::check(request("/a/b")).is_ok());
    }
}
