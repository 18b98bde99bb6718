//! Pause, resume, update, checkpoint, and what a container uses.

use api::containerd::runc::v1::CheckpointOptions;
use api::containerd::task::v3::CheckpointTaskRequest;
use types::{Error, Result};

use super::Driver;
use crate::call::Call;
use crate::children::Work;
use crate::context::Context;
use crate::effect::{Checkpoint, Control};
use crate::json::Parser;
use crate::runtime::{Failure, make_work, tidy_checkpoint};
use crate::state::Input;
use crate::stats;

impl Driver {
    pub(super) fn control(&mut self, cx: &mut Context, what: Control) -> Result<()> {
        let run = match what {
            Control::Pause => self.runtime.pause(),
            Control::Resume => self.runtime.resume(),
            Control::Update(resources) => self.runtime.update(&resources),
            Control::Checkpoint(checkpoint) => {
                let work = self.runtime.criu_work(&checkpoint);
                self.offload(cx, Work::CheckpointPlace, || make_work(&work).map(|()| Vec::new()))?;
                self.checkpoint = Some(checkpoint);
                return Ok(());
            }
        };
        self.track(cx, run?)
    }

    /// There is a place for CRIU to work in: the runtime writes the checkpoint.
    pub(super) fn checkpoint_begins(&mut self, cx: &mut Context) {
        let Some(checkpoint) = &self.checkpoint else { return };
        let begun = self.runtime.checkpoint(checkpoint).and_then(|run| self.track(cx, run));
        if let Err(error) = begun {
            self.checkpoint = None;
            self.feed(cx, Input::Controlled(Err(error)));
        }
    }

    /// The runtime has written a checkpoint, or could not: its traces are seen to before that is told.
    pub(super) fn checkpoint_ended(&mut self, cx: &mut Context, outcome: Result<(), Failure>) {
        let Some(checkpoint) = self.checkpoint.take() else { return };
        let (work, log) = (self.runtime.criu_work(&checkpoint), self.runtime.dump_log());
        let failed = outcome.is_err();
        let told = |failure: Failure| {
            let status = failure.status();
            let first = status.lines().next().unwrap_or_default();
            Error::unknown(format!("{first} path= {}", log.display()))
        };
        self.checkpointed = Some(outcome.map_err(told));
        let is_ours = checkpoint.work.is_empty();
        let begun = self.offload(cx, Work::Checkpoint, || {
            tidy_checkpoint(&work, Some(log.as_path()).filter(|_| failed), is_ours).map(|()| Vec::new())
        });
        if let Err(error) = begun {
            self.checkpoint_tidied(cx, Err(error));
        }
    }

    pub(super) fn checkpoint_tidied(&mut self, cx: &mut Context, tidied: Result<()>) {
        if let Err(error) = tidied {
            cx.log.error(&error.to_string(), &self.id);
        }
        let result = self.checkpointed.take().unwrap_or(Ok(()));
        self.feed(cx, Input::Controlled(result));
    }

    /// Measures what the container uses, for `call`.
    pub fn stats(&self, cx: &mut Context, call: Call) -> Result<()> {
        let Some(groups) = self.groups.clone() else {
            return Err(Error::not_found("cgroup does not exist: not found"));
        };
        self.offload(cx, Work::Stats(call), move || stats::measure(&groups))
    }
}

/// Limits as a client gives them: resources of the runtime specification, as JSON.
pub fn update(resources: Option<api::ProtoAny>) -> Result<Control> {
    let resources = resources.map(|any| any.value).unwrap_or_default();
    Parser::new(resources.as_slice()).skip()?;
    Ok(Control::Update(resources))
}

/// A checkpoint as a client wants it.
pub fn checkpoint(request: CheckpointTaskRequest) -> Result<Control> {
    let options: CheckpointOptions = match request.options {
        Some(any) => api::any::unpack(&api::any::from_wire(any))?,
        None => CheckpointOptions::default(),
    };
    let switches = [
        (options.open_tcp, "--tcp-established"),
        (options.external_unix_sockets, "--ext-unix-sk"),
        (options.terminal, "--shell-job"),
        (options.file_locks, "--file-locks"),
    ];
    let mut flags: Vec<String> =
        switches.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag.to_owned()).collect();
    for namespace in options.empty_namespaces {
        flags.extend([String::from("--empty-ns"), namespace]);
    }
    let (image, work, exit) = (request.path, options.work_path, options.exit);
    Ok(Control::Checkpoint(Checkpoint { image, work, exit, flags }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_json() {
        let any = |text: &str| Some(api::ProtoAny { type_url: "t".into(), value: text.into() });
        assert_eq!(update(any("{\"pids\":{}}")).unwrap(), Control::Update(b"{\"pids\":{}}".to_vec()));
        assert!(update(any("{\"pids\":")).is_err());
        assert!(update(None).is_err());
    }

    #[test]
    fn the_options_of_a_checkpoint_are_flags_in_upstreams_order() {
        let options = CheckpointOptions {
            terminal: true,
            open_tcp: true,
            exit: true,
            empty_namespaces: vec!["network".into()],
            work_path: "/w".into(),
            ..Default::default()
        };
        let options = Some(api::any::to_wire(api::any::pack(&options)));
        let request = CheckpointTaskRequest { id: "c".into(), path: "/image".into(), options };
        let Control::Checkpoint(wanted) = checkpoint(request).unwrap() else { panic!("another control") };
        assert_eq!((wanted.image.as_str(), wanted.work.as_str(), wanted.exit), ("/image", "/w", true));
        assert_eq!(wanted.flags, ["--tcp-established", "--shell-job", "--empty-ns", "network"]);
    }
}
