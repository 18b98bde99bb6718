//! A container, handed over.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::containerd::runc::v1::Options;
use api::containerdrs::shim::v1 as wire;
use prost::Message;
use sys::cgroup::Groups;
use types::mount::Mount;
use types::{Error, Result};

use super::death::Death;
use super::{Driver, Live};
use crate::handover::Kept;
use crate::io::{PipeOwner, Stdio};
use crate::runtime::Runtime;
use crate::state::State;
use crate::terminal::Terminals;

/// Whether a container that was written down means something to us.
pub fn check(container: &wire::Container) -> Result<()> {
    options(container)?;
    State::read_back(container).map(drop)
}

fn options(container: &wire::Container) -> Result<Options> {
    Options::decode(container.options.as_slice()).map_err(|e| Error::invalid(format!("decode options: {e}")))
}

fn write_down_mount(mount: &Mount) -> wire::Mount {
    let Mount { kind, source, target, options } = mount.clone();
    wire::Mount { r#type: kind, source, target, options }
}

fn read_back_mount(mount: wire::Mount) -> Mount {
    Mount { kind: mount.r#type, source: mount.source, target: mount.target, options: mount.options }
}

impl Live {
    fn write_down<'a>(&'a self, process: &mut wire::Process, kept: &mut Kept<'a>) {
        // Its owner's name is known, and its streams are under way.
        let Self { owner: _, stdio, plan: _, console, stdin_closed, child } = self;
        let Stdio { stdin, stdout, stderr, terminal } = stdio.clone();
        (process.stdin, process.stdout, process.stderr, process.terminal) = (stdin, stdout, stderr, terminal);
        process.console = console.as_ref().map(|fd| kept.add(fd));
        process.stdin_closed = *stdin_closed;
        process.child = child.unwrap_or(0);
    }

    fn read_back(container: &str, process: &wire::Process, terminals: &Terminals) -> Self {
        let stdio = Stdio {
            stdin: process.stdin.clone(),
            stdout: process.stdout.clone(),
            stderr: process.stderr.clone(),
            terminal: process.terminal,
        };
        let mut live = Self::new(container, &process.exec, stdio);
        live.console = terminals.of(&live.owner);
        live.stdin_closed = process.stdin_closed;
        live.child = Some(process.child).filter(|serial| *serial != 0);
        live
    }
}

impl Driver {
    /// Whether nothing is under way that ends by itself.
    pub fn is_quiet(&self) -> bool {
        let planned = self.processes.values().any(|live| live.plan.is_some());
        let checkpoint = self.checkpoint.is_some() || self.checkpointed.is_some();
        !planned && !checkpoint && self.failed.is_none() && !self.given_up && self.state.is_quiet()
    }

    /// All of it.
    pub fn write_down<'a>(&'a self, kept: &mut Kept<'a>) -> wire::Container {
        let Self {
            id: _,
            bundle,
            runtime,
            state,
            rootfs,
            mounts,
            pipe_owner,
            restore,
            groups,
            death,
            processes,
            // Of an operation, or of one that is being made.
            checkpoint: _,
            checkpointed: _,
            failed: _,
            given_up: _,
            gone: _,
        } = self;
        let PipeOwner { uid, gid } = *pipe_owner;
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let mut container = wire::Container {
            bundle: text(bundle),
            options: runtime.options().encode_to_vec(),
            rootfs: rootfs.as_ref().map(text),
            mounts: mounts.iter().map(write_down_mount).collect(),
            uid,
            gid,
            restore: restore.clone(),
            groups: groups.as_ref().map(|groups| groups.lines().to_owned()).unwrap_or_default(),
            ..wire::Container::default()
        };
        state.write_down(&mut container);
        death.write_down(&mut container);
        for process in &mut container.processes {
            if let Some(live) = processes.get(&process.exec) {
                live.write_down(process, kept);
            }
        }
        container
    }

    /// The same, back.
    pub fn read_back(container: wire::Container, namespace: &str, terminals: &Terminals) -> Result<Self> {
        let (id, bundle) = (container.id.clone(), PathBuf::from(&container.bundle));
        let mut processes = BTreeMap::new();
        for process in &container.processes {
            processes.insert(process.exec.clone(), Live::read_back(&id, process, terminals));
        }
        Ok(Self {
            runtime: Runtime::new(options(&container)?, namespace, &id, &bundle),
            state: State::read_back(&container)?,
            id,
            bundle,
            rootfs: container.rootfs.map(PathBuf::from),
            mounts: container.mounts.into_iter().map(read_back_mount).collect(),
            pipe_owner: PipeOwner { uid: container.uid, gid: container.gid },
            restore: container.restore,
            groups: Some(container.groups).filter(|lines| !lines.is_empty()).map(Groups::told),
            checkpoint: None,
            checkpointed: None,
            death: Death::read_back(container.timeline, container.timeline_omitted, container.ended),
            processes,
            failed: None,
            given_up: false,
            gone: false,
        })
    }
}
