//! Containers that are to run, whatever happens to their processes (`io.containerd.monitor.container.v1.restart`).
//!
//! What a container's task should be stands in its labels, and nowhere else:
//!
//! ```text
//!  containerd.io/restart.status              running or stopped
//!  containerd.io/restart.policy              always (also without the label), no, on-failure[:N], unless-stopped
//!  containerd.io/restart.count               how often it was started again; kept here
//!  containerd.io/restart.loguri              where the output of the next process goes
//!  containerd.io/restart.explicitly-stopped  somebody stopped it: for unless-stopped
//! ```
//!
//! [`verdict`] decides, [`Tasks::run_again`] and [`Tasks::end`] do it. When somebody looks is the front door's to say.

use std::ops::ControlFlow;
use std::str::FromStr;
use std::time::Duration;

use metadata::Db;
use runtime::Signal;
use serde::Deserialize;
use types::container::Container;
use types::fields::FieldPaths;
use types::filters::Filters;
use types::labels::Labels;
use types::task::{Process, Status, Stdio};
use types::view::value;
use types::{Any, Error, Namespace, Result, ResultExt, Scope};

use crate::{Create, Tasks};

/// What the task should be. A container without it is nobody's concern here.
pub const STATUS: &str = "containerd.io/restart.status";
const POLICY: &str = "containerd.io/restart.policy";
const COUNT: &str = "containerd.io/restart.count";
const LOG_URI: &str = "containerd.io/restart.loguri";
const EXPLICITLY_STOPPED: &str = "containerd.io/restart.explicitly-stopped";

const KILL: Signal = Signal { number: 9, all: true };
/// How long a process may take to die of SIGKILL.
const DEATH: Duration = Duration::from_secs(10);

/// What is to be done about a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing, until something happens to it.
    Settled,
    /// Nothing now, but it may be another thing soon.
    Later,
    /// Its task is to be made anew.
    Start,
    /// Its task is to be ended.
    Stop,
}

/// What a container's task is at the moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// `None`: there is none.
    task: Option<Status>,
    exit: u32,
    /// Its record is so new that its client may be about to make or start the task.
    fresh: bool,
}

impl Found {
    /// The task of a container that was created or changed as long ago as `fresh` says.
    pub fn new(task: Option<&Process>, fresh: bool) -> Self {
        let exit = task.and_then(|task| task.exit).map_or(0, |exit| exit.status);
        Self { task: task.map(|task| task.status), exit, fresh }
    }
}

/// What the labels want for what was found. Labels that mean nothing are an error, as upstream.
pub fn verdict(labels: &Labels, found: Found) -> Result<Verdict> {
    match (labels.get(STATUS).map(String::as_str), found.task) {
        (Some("running"), Some(Status::Running | Status::Paused | Status::Pausing)) => Ok(Verdict::Settled),
        // A shim that does not answer cannot be asked to end it either.
        (Some("running"), Some(Status::Unknown)) => Ok(Verdict::Later),
        (Some("running"), None | Some(Status::Created)) if found.fresh => Ok(Verdict::Later),
        (Some("running"), None | Some(Status::Created | Status::Stopped)) => {
            Ok(if restarts(labels, found.exit)? { Verdict::Start } else { Verdict::Settled })
        }
        (Some("stopped"), None | Some(Status::Stopped)) => Ok(Verdict::Settled),
        (Some("stopped"), Some(_)) => Ok(Verdict::Stop),
        _ => Ok(Verdict::Settled),
    }
}

fn restarts(labels: &Labels, exit: u32) -> Result<bool> {
    let label = |key| labels.get(key).map_or("", String::as_str);
    Ok(match label(POLICY).parse()? {
        Policy::Always => true,
        Policy::No => false,
        Policy::OnFailure { most } => {
            let count = match label(COUNT) {
                "" => 0,
                text => text.parse::<i64>().map_err(|e| Error::invalid(format!("{COUNT} {text:?}: {e}")))?,
            };
            exit != 0 && (most == 0 || count < most)
        }
        // Go's words for true.
        Policy::UnlessStopped => {
            !matches!(label(EXPLICITLY_STOPPED), "1" | "t" | "T" | "true" | "TRUE" | "True")
        }
    })
}

/// When a process that has ended is started again.
#[derive(Debug, PartialEq, Eq)]
enum Policy {
    Always,
    No,
    /// At most so many times; 0 is without end.
    OnFailure {
        most: i64,
    },
    UnlessStopped,
}

impl FromStr for Policy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, count) = text.split_once(':').map_or((text, None), |(name, count)| (name, Some(count)));
        let policy = match (name, count) {
            ("on-failure", None) => return Ok(Self::OnFailure { most: 0 }),
            ("on-failure", Some(count)) => {
                let most = count.parse();
                let most = most.map_err(|_| Error::invalid(format!("invalid max retry count: {count}")))?;
                return Ok(Self::OnFailure { most });
            }
            ("" | "always", _) => Self::Always,
            ("no", _) => Self::No,
            ("unless-stopped", _) => Self::UnlessStopped,
            _ => return Err(Error::invalid(format!("restart policy {text:?} not supported"))),
        };
        match count {
            None => Ok(policy),
            Some(_) => Err(Error::invalid(format!("restart policy {name:?} not support max retry count"))),
        }
    }
}

/// The containers that say what their tasks should be, by namespace and id.
pub fn watched(db: &Db) -> Result<Vec<(Namespace, String)>> {
    let mut found = Vec::new();
    for (namespace, _) in db.namespaces().list()? {
        db.containers(&namespace).list(&Filters::default(), "", &mut |container| {
            if value(&container.labels, STATUS).is_some() {
                found.push((namespace.clone(), container.id.to_owned()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(found)
}

impl Tasks {
    /// Counts a restart in the container's labels, and answers with the record.
    pub async fn count_restart(&self, namespace: &Namespace, mut container: Container) -> Result<Container> {
        let before = container.labels.get(COUNT).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
        container.labels.insert(COUNT.to_owned(), (before + 1).to_string());
        let mask = FieldPaths(vec![format!("labels.{COUNT}")]);
        self.db.containers(namespace).update(container, &mask).await
    }

    /// Ends what there is of a container's task, and runs it anew. If that fails, there is none. Not cancel safe.
    pub async fn run_again(&self, namespace: &Namespace, container: &Container) -> Result<()> {
        let stdio = stdio(container)?;
        let id = container.id.as_str();
        self.end(namespace, id).await?;
        let rootfs = match container.snapshot_key.as_str() {
            "" => Vec::new(),
            key => {
                let scope = Scope::new(namespace.clone());
                self.db.snapshotter(scope, &container.snapshotter)?.mounts(key).await?
            }
        };
        self.create(namespace, Create { id: id.to_owned(), rootfs, stdio, ..Create::default() }).await?;
        if let Err(error) = self.start(namespace, id, "").await {
            self.end(namespace, id).await?;
            return Err(error);
        }
        Ok(())
    }

    /// Kills the container's task, if there is one, and removes it. Not cancel safe.
    pub async fn end(&self, namespace: &Namespace, id: &str) -> Result<()> {
        let killed = self.kill(namespace, id, "", KILL).await;
        if killed.is_ok() {
            let died = tokio::time::timeout(DEATH, self.wait(namespace, id, "")).await;
            died.map_err(|_| Error::unavailable(format!("task {id} does not die of SIGKILL")))?.map(drop)?;
        }
        // One that has ended before cannot be killed, but removed.
        match self.delete(namespace, id).await {
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(killed.err().unwrap_or(error)),
            Ok(_) => Ok(()),
        }
    }
}

/// Where the output of a container goes that nobody holds the other end of.
fn stdio(container: &Container) -> Result<Stdio> {
    let terminal =
        has_terminal(container.spec.as_ref()).context(|| format!("container {:?}", container.id))?;
    let Some(uri) = container.labels.get(LOG_URI).filter(|uri| !uri.is_empty()) else {
        return Ok(Stdio::default());
    };
    let stderr = if terminal { String::new() } else { uri.clone() };
    Ok(Stdio { stdin: String::new(), stdout: uri.clone(), stderr, terminal })
}

fn has_terminal(spec: Option<&Any>) -> Result<bool> {
    #[derive(Deserialize)]
    struct Spec {
        process: Option<Terminal>,
    }
    #[derive(Deserialize)]
    struct Terminal {
        #[serde(default)]
        terminal: bool,
    }
    let spec = spec.ok_or_else(|| Error::precondition("there is no specification"))?;
    let spec: Spec = serde_json::from_slice(&spec.value)
        .map_err(|e| Error::invalid(format!("read the specification: {e}")))?;
    Ok(spec.process.is_some_and(|process| process.terminal))
}

#[cfg(test)]
mod tests {
    use types::Class;
    use types::task::Exit;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| (format!("containerd.io/restart.{key}"), (*value).to_owned()))
            .collect()
    }

    fn ended(code: u32) -> Found {
        Found { task: Some(Status::Stopped), exit: code, fresh: false }
    }

    fn is(status: Status) -> Found {
        Found { task: Some(status), ..Found::default() }
    }

    #[test]
    fn what_ended_and_is_to_run_is_started_as_its_policy_says() {
        let with = |policy, extra: &[(&str, &str)], code| {
            let pairs = [&[("status", "running"), ("policy", policy)], extra].concat();
            verdict(&labels(&pairs), ended(code)).unwrap()
        };
        for policy in ["", "always", "unless-stopped"] {
            assert_eq!(with(policy, &[], 0), Verdict::Start, "{policy}");
        }
        assert_eq!(with("no", &[], 1), Verdict::Settled);
        assert_eq!(with("on-failure", &[], 0), Verdict::Settled);
        assert_eq!(with("on-failure", &[], 1), Verdict::Start);
        assert_eq!(with("on-failure:2", &[("count", "1")], 1), Verdict::Start);
        assert_eq!(with("on-failure:2", &[("count", "2")], 1), Verdict::Settled);
        assert_eq!(with("unless-stopped", &[("explicitly-stopped", "true")], 1), Verdict::Settled);
        assert_eq!(with("unless-stopped", &[("explicitly-stopped", "false")], 1), Verdict::Start);
    }

    #[test]
    fn labels_that_mean_nothing_are_told() {
        for (policy, count) in
            [("sometimes", ""), ("always:3", ""), ("on-failure:x", ""), ("on-failure:1", "x")]
        {
            let labels = labels(&[("status", "running"), ("policy", policy), ("count", count)]);
            assert_eq!(verdict(&labels, ended(1)).unwrap_err().class(), Class::InvalidArgument, "{policy}");
        }
    }

    #[test]
    fn what_runs_or_is_paused_is_left_alone() {
        let wanted = labels(&[("status", "running")]);
        for status in [Status::Running, Status::Paused, Status::Pausing] {
            assert_eq!(verdict(&wanted, is(status)).unwrap(), Verdict::Settled, "{status:?}");
        }
        assert_eq!(verdict(&wanted, is(Status::Unknown)).unwrap(), Verdict::Later);
    }

    #[test]
    fn a_client_that_is_about_to_start_its_task_is_not_overtaken() {
        let wanted = labels(&[("status", "running")]);
        for task in [None, Some(Status::Created)] {
            let found = Found { task, exit: 0, fresh: true };
            assert_eq!(verdict(&wanted, found).unwrap(), Verdict::Later, "{task:?}");
            assert_eq!(
                verdict(&wanted, Found { fresh: false, ..found }).unwrap(),
                Verdict::Start,
                "{task:?}"
            );
        }
        let stopped = Found { fresh: true, ..ended(0) };
        assert_eq!(verdict(&wanted, stopped).unwrap(), Verdict::Start);
    }

    #[test]
    fn what_is_to_be_stopped_is_ended_once() {
        let wanted = labels(&[("status", "stopped")]);
        for status in [Status::Created, Status::Running, Status::Paused, Status::Unknown] {
            assert_eq!(verdict(&wanted, is(status)).unwrap(), Verdict::Stop, "{status:?}");
        }
        assert_eq!(verdict(&wanted, ended(0)).unwrap(), Verdict::Settled);
        assert_eq!(verdict(&wanted, Found::default()).unwrap(), Verdict::Settled);
        assert_eq!(verdict(&labels(&[]), is(Status::Running)).unwrap(), Verdict::Settled);
    }

    #[test]
    fn the_exit_code_is_the_processes() {
        let exit = Exit { status: 7, at: std::time::SystemTime::UNIX_EPOCH };
        let process = Process {
            container: "c".into(),
            exec: String::new(),
            pid: 1,
            status: Status::Stopped,
            stdio: Stdio::default(),
            exit: Some(exit),
        };
        assert_eq!(Found::new(Some(&process), false).exit, 7);
    }

    #[test]
    fn a_terminal_has_one_output() {
        let terminal = Any::new("Spec", *br#"{"process":{"terminal":true,"args":["x"]}}"#);
        assert!(has_terminal(Some(&terminal)).unwrap());
        assert!(!has_terminal(Some(&Any::new("Spec", *b"{}"))).unwrap());
        assert!(has_terminal(None).is_err() && has_terminal(Some(&Any::new("Spec", *b"["))).is_err());
    }
}
