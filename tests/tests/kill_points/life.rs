//! A container's life as its client leads it, and what must be true of it at each moment.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::containerd::services::snapshots::v1::Kind;
use api::containerd::v1::types::Status as TaskStatus;
use containerd_tests::binaries::{self, Suite};
use containerd_tests::rpc::{self, Blob, Labels};
use containerd_tests::{Daemon, Ledger, Rpc, eventually, eventually_within, proc};
use tonic::{Code, Status};

const LEASE: &str = "lease";
const IMAGE: &str = "example.org/kill:points";
const LAYER: &str = "layer";
const ID: &str = "c1";
const SIGKILL: u32 = 9;

/// What the client does, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Lease,
    Blob,
    Image,
    Extract,
    Layer,
    Snapshot,
    Container,
    Create,
    Start,
    Kill,
    DeleteTask,
    DeleteContainer,
    DeleteSnapshot,
    DeleteImage,
    DeleteBlob,
    DeleteLayer,
    DeleteLease,
}

impl Step {
    pub const ALL: &[Self] = &[
        Self::Lease,
        Self::Blob,
        Self::Image,
        Self::Extract,
        Self::Layer,
        Self::Snapshot,
        Self::Container,
        Self::Create,
        Self::Start,
        Self::Kill,
        Self::DeleteTask,
        Self::DeleteContainer,
        Self::DeleteSnapshot,
        Self::DeleteImage,
        Self::DeleteBlob,
        Self::DeleteLayer,
        Self::DeleteLease,
    ];

    /// What a call may be answered that was cut off and is made again, if not that it succeeded.
    fn done_before(self) -> Code {
        match self {
            Self::Lease | Self::Blob | Self::Image | Self::Extract | Self::Layer => Code::AlreadyExists,
            Self::Snapshot | Self::Container | Self::Create => Code::AlreadyExists,
            Self::Start => Code::FailedPrecondition,
            Self::Kill | Self::DeleteTask | Self::DeleteContainer | Self::DeleteSnapshot => Code::NotFound,
            Self::DeleteImage | Self::DeleteBlob | Self::DeleteLayer | Self::DeleteLease => Code::NotFound,
        }
    }
}

/// One life, and the daemon that will die in the middle of it.
pub struct Life {
    point: String,
    daemon: Daemon,
    before: Ledger,
    blobs_before: BTreeSet<PathBuf>,
    rpc: Rpc,
    runtime: tokio::runtime::Runtime,
    blob: Blob,
    pid: u32,
    acknowledged: Option<Step>,
}

impl Life {
    /// A daemon that will kill itself at `point`.
    pub fn begin(point: &str) -> Self {
        let daemon = Daemon::prepare(binaries::debug(), Suite::Ours).with_own_sockets();
        daemon.launch();
        let (before, blobs_before) = (Ledger::take(&daemon), blobs(&daemon));
        daemon.kill();
        daemon.launch_with(&[("CONTAINERD_RS_CRASH_AT", point)]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let rpc = connect(&runtime, &daemon);
        Self {
            point: point.to_owned(),
            daemon,
            before,
            blobs_before,
            rpc,
            runtime,
            blob: Blob::new("a blob"),
            pid: 0,
            acknowledged: None,
        }
    }

    /// Takes a step.
    pub fn attempt(&mut self, step: Step) -> Result<(), Status> {
        let Self { runtime, rpc, daemon, blob, .. } = self;
        let namespace = daemon.namespace().to_owned();
        let unleased = rpc.unleased();
        match step {
            Step::Lease => runtime.block_on(unleased.create_lease(LEASE)),
            Step::Blob => runtime.block_on(rpc.write("ref", blob)),
            Step::Image => runtime.block_on(rpc.create_image(IMAGE, &blob.digest, blob.data.len())),
            Step::Extract => runtime
                .block_on(rpc.prepare("extract", "", Labels::new()))
                .map(|mounts| fill(&mounts[0].source)),
            Step::Layer => runtime.block_on(rpc.commit(LAYER, "extract", Labels::new())),
            Step::Snapshot => runtime.block_on(rpc.prepare(ID, LAYER, Labels::new())).map(drop),
            Step::Container => {
                let spec = rpc::spec(&namespace, ID, &["sleep", "1000"]);
                runtime.block_on(rpc.create_container(ID, spec))
            }
            Step::Create => {
                let mounts = runtime.block_on(rpc.mounts(ID))?;
                runtime.block_on(rpc.create_task(ID, mounts)).map(drop)
            }
            Step::Start => runtime.block_on(rpc.start(ID, "")),
            Step::Kill => runtime.block_on(rpc.kill(ID, "", SIGKILL)),
            Step::DeleteTask => {
                assert_eq!(runtime.block_on(rpc.wait(ID, ""))?, 128 + SIGKILL);
                runtime.block_on(rpc.delete_task(ID)).map(|status| assert_eq!(status, 128 + SIGKILL))
            }
            Step::DeleteContainer => runtime.block_on(rpc.delete_container(ID)),
            Step::DeleteSnapshot => runtime.block_on(rpc.remove_snapshot(ID)),
            Step::DeleteImage => runtime.block_on(rpc.delete_image(IMAGE, false)),
            Step::DeleteBlob => runtime.block_on(rpc.delete_blob(&blob.digest)),
            Step::DeleteLayer => runtime.block_on(rpc.remove_snapshot(LAYER)),
            Step::DeleteLease => runtime.block_on(unleased.delete_lease(LEASE, false)),
        }
    }

    /// The step was cut off by the daemon's death at the point, not by anything else.
    pub fn expect_kill(&self, status: &Status) {
        let what = format!("{}: the daemon ends, and the call with it: {status:?}", self.point);
        eventually_within(Duration::from_secs(20), &what, || self.daemon.ended().is_some());
        assert_eq!(self.daemon.ended().and_then(|status| status.signal()), Some(9), "{}", self.point);
    }

    /// Another daemon on the same directories, which does not die.
    pub fn restart(&mut self) {
        self.daemon.launch();
        self.rpc = connect(&self.runtime, &self.daemon);
        self.point.push_str(", restarted");
    }

    /// Takes the step that was cut off.
    pub fn attempt_again(&mut self, step: Step) {
        match self.attempt(step) {
            Ok(()) => {}
            Err(status) if status.code() == step.done_before() => {}
            Err(status) => panic!("{}: {step:?} again: {status:?}", self.point),
        }
        if step == Step::Extract {
            let mounts = self.runtime.block_on(self.rpc.mounts("extract")).unwrap();
            fill(&mounts[0].source);
        }
    }

    /// The step is done: from now on it must be true.
    pub fn acknowledge(&mut self, step: Step) {
        self.acknowledged = Some(step);
        if step == Step::Create {
            self.pid = self.runtime.block_on(self.rpc.task(ID, "")).unwrap().pid;
        }
        self.check_acknowledged();
    }

    /// What was acknowledged is there, and what was deleted is not. The step that follows may or may not have been
    /// taken.
    pub fn check_acknowledged(&self) {
        let Some(done) = self.acknowledged else { return };
        let (runtime, rpc) = (&self.runtime, &self.rpc);
        let life = |made: Step, deleted: Step, found: &dyn Fn() -> Result<(), Status>| {
            let found = || found().map_err(|status| status.code());
            if made <= done && done < before(deleted) {
                assert_eq!(found(), Ok(()), "{}: after {done:?} {made:?} is lost", self.point);
            } else if deleted <= done {
                assert_eq!(found(), Err(Code::NotFound), "{}: after {done:?} {made:?} is back", self.point);
            }
        };
        life(Step::Lease, Step::DeleteLease, &|| {
            let there = self.daemon.api().leases().iter().any(|lease| lease == LEASE);
            there.then_some(()).ok_or_else(|| Status::not_found("lease"))
        });
        life(Step::Blob, Step::DeleteBlob, &|| {
            runtime.block_on(rpc.read(&self.blob.digest)).map(|data| assert_eq!(data, self.blob.data))
        });
        life(Step::Image, Step::DeleteImage, &|| {
            runtime.block_on(rpc.image(IMAGE)).map(|digest| assert_eq!(digest, self.blob.digest))
        });
        life(Step::Layer, Step::DeleteLayer, &|| {
            let info = runtime.block_on(rpc.stat(LAYER))?;
            assert_eq!(info.kind(), Kind::Committed);
            Ok(())
        });
        life(Step::Snapshot, Step::DeleteSnapshot, &|| {
            assert_eq!(runtime.block_on(rpc.stat(ID))?.parent, LAYER);
            runtime.block_on(rpc.mounts(ID)).map(drop)
        });
        life(Step::Container, Step::DeleteContainer, &|| runtime.block_on(rpc.container(ID)));
        life(Step::Create, Step::DeleteTask, &|| self.check_task(done));
    }

    /// The task is where the life has led it.
    fn check_task(&self, done: Step) -> Result<(), Status> {
        let mut failed = None;
        eventually(&format!("{}: the task is as after {done:?}", self.point), || {
            let process = match self.runtime.block_on(self.rpc.task(ID, "")) {
                Ok(process) => process,
                Err(status) => {
                    failed = Some(status);
                    return true;
                }
            };
            assert_eq!(process.pid, self.pid, "{}: another process", self.point);
            match done {
                Step::Start => process.status() == TaskStatus::Running,
                Step::Kill => process.status() == TaskStatus::Stopped,
                // The start that was cut off may have come this far.
                _ => matches!(process.status(), TaskStatus::Created | TaskStatus::Running),
            }
        });
        failed.map_or(Ok(()), Err)
    }

    /// Nobody asks for anything: what was half done is completed or taken back by the daemon alone.
    pub fn await_whole_or_nothing(&self) {
        eventually(&format!("{}: the task is whole, or nothing is left of it", self.point), || {
            match self.runtime.block_on(self.rpc.task(ID, "")) {
                Ok(process) => {
                    process.status() != TaskStatus::Unknown && proc::alive(process.pid.cast_signed())
                }
                Err(status) => {
                    assert_eq!(status.code(), Code::NotFound, "{status:?}");
                    self.remains().is_empty()
                }
            }
        });
    }

    /// Processes, mounts, cgroups and directories of the task.
    fn remains(&self) -> Vec<String> {
        let namespace = self.daemon.namespace();
        let processes = proc::shims(namespace).into_iter().chain(proc::contained(namespace));
        let mut remains: Vec<String> = processes.map(|process| process.cmdline).collect();
        remains
            .extend(proc::mounts_below(&self.daemon.state()).iter().map(|path| path.display().to_string()));
        remains.extend(
            proc::cgroups(namespace)
                .iter()
                .filter(|dir| dir.ends_with(ID))
                .map(|dir| dir.display().to_string()),
        );
        let tasks = Path::new("io.containerd.runtime.v2.task").join(namespace);
        for dir in [self.daemon.state().join(&tasks), self.daemon.root().join(&tasks)] {
            remains.extend(files(&dir).map(|path| path.display().to_string()));
        }
        remains
    }

    /// The life is over: the daemon was killed once, and nothing is left.
    pub fn end(self) {
        assert!(self.point.ends_with(", restarted"), "{}: the point was never reached", self.point);
        Ledger::check(&self.before, &self.daemon);
        eventually(&format!("{}: no blob is left", self.point), || blobs(&self.daemon) == self.blobs_before);
        assert_eq!(self.daemon.ended(), None, "{}: the daemon ended once more", self.point);
    }
}

/// Each daemon has a connection of its own: an old one would tell of the death before.
fn connect(runtime: &tokio::runtime::Runtime, daemon: &Daemon) -> Rpc {
    runtime.block_on(async { Rpc::new(&daemon.address(), daemon.namespace()) }).leased(LEASE)
}

/// The step in front of another.
fn before(step: Step) -> Step {
    Step::ALL[Step::ALL.iter().position(|other| *other == step).unwrap() - 1]
}

/// Puts a busybox into a layer.
fn fill(dir: &str) {
    let root = Path::new(dir);
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::create_dir_all(root.join("proc")).unwrap();
    std::fs::copy(binaries::busybox(), root.join("bin/sleep")).unwrap();
}

fn blobs(daemon: &Daemon) -> BTreeSet<PathBuf> {
    files(&daemon.root().join("io.containerd.content.v1.content/blobs/sha256")).collect()
}

fn files(dir: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}
