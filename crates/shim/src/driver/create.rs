//! Create: mount the root filesystem, let the runtime make the container, or take back what was done.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use api::containerd::runc::v1::Options;
use api::containerd::task::v3::CreateTaskRequest;
use types::mount::Mount;
use types::{Error, Result, ResultExt};

use super::{Driver, Live};
use crate::call::Call;
use crate::children::Work;
use crate::context::Context;
use crate::io::{PipeOwner, Plan, Stdio};
use crate::options;
use crate::runtime::Runtime;
use crate::spec::Facts;
use crate::state::{Input, Policy, State};

/// A container to be made, checked.
pub struct Request {
    id: String,
    bundle: PathBuf,
    mounts: Vec<Mount>,
    stdio: Stdio,
    options: Options,
}

impl Request {
    /// Checks a request of the wire.
    pub fn check(request: CreateTaskRequest) -> Result<Self> {
        check_name(&request.id, "container id")?;
        let bundle = PathBuf::from(&request.bundle);
        if !bundle.is_absolute() || bundle.components().any(|c| c == Component::ParentDir) {
            return Err(Error::invalid(format!("bundle {:?} is no absolute path", request.bundle)));
        }
        if !request.checkpoint.is_empty() {
            return Err(Error::unimplemented("create from a checkpoint: not implemented"));
        }
        let (stdin, stdout, stderr) = (request.stdin, request.stdout, request.stderr);
        Ok(Self {
            id: request.id,
            bundle,
            mounts: request.rootfs.into_iter().map(api::convert::mount).collect(),
            stdio: Stdio { stdin, stdout, stderr, terminal: request.terminal },
            options: options::unpack(request.options)?,
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
        let Request { id, bundle, mounts, stdio, options } = request;
        let facts = Facts::read(&bundle)?;
        options::save(&options, &bundle)?;
        let policy = Policy {
            kill_all_on_exit: !facts.private_pids,
            // A hook would run at another time than with upstream; a shared namespace has processes to be killed first.
            eager_removal: !facts.poststop && facts.private_pids,
        };
        let pipe_owner = PipeOwner { uid: options.io_uid, gid: options.io_gid };
        let mut init = Live::new(&id, "", stdio);
        init.plan = Some(
            Plan::open(&init.stdio, pipe_owner, &cx.console_path())
                .context(|| "failed to create init process I/O")?,
        );
        let rootfs = make_rootfs(&bundle, &mounts)?;
        let driver = Self {
            runtime: Runtime::new(options, &cx.namespace, &id, &bundle),
            state: State::new(id.clone(), policy, call),
            id,
            bundle,
            rootfs,
            mounts,
            pipe_owner,
            processes: BTreeMap::from([(String::new(), init)]),
            failed: None,
            gone: false,
        };
        Ok(driver)
    }

    /// Takes the first step of making it.
    pub fn begin(&mut self, cx: &mut Context) {
        let Some(rootfs) = self.rootfs.clone() else {
            self.launch(cx);
            return;
        };
        let mounts = self.mounts.clone();
        let begun = self.offload(cx, Work::Mount, move || sys::mount::mount_all(&mounts, &rootfs));
        if let Err(error) = begun {
            self.rootfs = None;
            self.abort_create(cx, error);
        }
    }

    /// The root filesystem is in place: lets the runtime make the container.
    pub(super) fn launch(&mut self, cx: &mut Context) {
        let Some(plan) = self.processes.get_mut("").and_then(|live| live.plan.as_mut()) else { return };
        let begun = self.runtime.create(plan.streams(), plan.console());
        plan.launched();
        if let Err(error) = begun.and_then(|run| self.track(cx, run)) {
            self.abort_create(cx, error);
        }
    }

    /// It could not be made: unmounts, then says so.
    pub(super) fn abort_create(&mut self, cx: &mut Context, error: Error) {
        if let Some(live) = self.processes.get_mut("") {
            live.plan = None;
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
