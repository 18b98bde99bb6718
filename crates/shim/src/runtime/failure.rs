//! What a failed runtime call means, in upstream's words: clients, dockerd and the kubelet show them to people.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use sys::pidfd::Ended;
use types::error::os_text;
use types::{Error, Result};

use crate::json::Parser;
use crate::runtime::{Run, Task};

/// A call that failed.
#[derive(Debug)]
pub struct Failure {
    /// The last error in the runtime's log, or why there is none.
    logged: Result<String, String>,
    /// How it ended, and what it said.
    status: String,
}

/// Of what a runtime says at most so much becomes part of an error.
const SAID: u64 = 16 << 10;

impl Failure {
    /// The failure of `run`, which has `ended`.
    pub(super) fn new(run: &Run, ended: Ended) -> Self {
        let status = match (run.output().map(said), ended) {
            (Some(text), ended) => format!("{}: {text}", unsuccessful(run, ended)),
            (None, ended) => unsuccessful(run, ended),
        };
        Self { logged: logged(run), status }
    }

    /// The failure of a call whose command could not be executed.
    pub(super) fn not_executed(run: &Run, why: &str) -> Self {
        Self { logged: logged(run), status: why.to_owned() }
    }

    /// As the error of a call for `task`.
    pub fn into_error(self, task: &Task) -> Error {
        match task {
            Task::Create => self.with("OCI runtime create failed"),
            Task::Start => self.with("OCI runtime start failed"),
            Task::Exec(_) => self.with("OCI runtime exec failed"),
            Task::KillAll => self.with("OCI runtime killall failed"),
            Task::Delete | Task::Discard => self.with("failed to delete task"),
            Task::Kill(_) => self.of_kill(),
            Task::Pause => self.with("OCI runtime pause failed"),
            Task::Resume | Task::Thaw => self.with("OCI runtime resume failed"),
            Task::Restore => self.with("OCI runtime restore failed"),
            Task::Pids(_) | Task::Update | Task::Checkpoint => Error::unknown(self.status),
        }
    }

    /// How it ended, and what it said.
    pub fn status(&self) -> &str {
        &self.status
    }

    /// Whether the runtime says that there is no such container: deleting it has succeeded before.
    pub fn is_absence(&self) -> bool {
        // crun's words: it forgets a container with the checkpoint that ends it.
        let gone = self.status.contains("cannot open directory") && self.status.contains("No such file");
        gone || self.status.contains("does not exist")
    }

    fn with(self, what: &str) -> Error {
        Error::unknown(match self.logged {
            Err(why) => format!("{what}: unable to retrieve OCI runtime error ({why}): {}", self.status),
            Ok(message) if message.is_empty() => format!("{what}: {}", self.status),
            Ok(message) => format!("{what}: {message}"),
        })
    }

    fn of_kill(self) -> Error {
        let lower = self.status.to_lowercase();
        let finished = ["os: process already finished", "container not running", "no such process"];
        if finished.iter().any(|words| lower.contains(words)) {
            Error::not_found("process already finished: not found")
        } else if self.is_absence() {
            Error::not_found("no such container: not found")
        } else {
            Error::unknown(format!("unknown error after kill: {}", self.status))
        }
    }
}

fn unsuccessful(run: &Run, ended: Ended) -> String {
    format!("{} did not terminate successfully: {}", run.command(), describe(ended))
}

fn describe(ended: Ended) -> String {
    match ended {
        Ended::Code(code) => format!("exit status {code}"),
        Ended::Signal(signal) => format!("exit status {}", 128 + signal),
    }
}

fn said(mut output: &File) -> String {
    let mut text = Vec::new();
    let read = output.seek(SeekFrom::Start(0)).and_then(|_| output.take(SAID).read_to_end(&mut text));
    if read.is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The last error that the call logged, empty if it logged none.
fn logged(run: &Run) -> Result<String, String> {
    let (path, start) = run.log();
    let mut file = File::open(path).map_err(|e| format!("open {}: {}", path.display(), os_text(&e)))?;
    file.seek(SeekFrom::Start(start)).map_err(|e| e.to_string())?;
    last_error(file, path)
}

fn last_error(log: impl Read, path: &Path) -> Result<String, String> {
    let mut last = String::new();
    let mut parser = Parser::new(log);
    let failed = |e: Error| format!("{}: {e}", path.display());
    while parser.peek().map_err(failed)?.is_some() {
        let (mut level, mut message) = (String::new(), String::new());
        parser
            .object(|p, key| match key {
                "level" => p.string().map(|text| level = text),
                "msg" => p.string().map(|text| message = text),
                _ => p.skip(),
            })
            .map_err(failed)?;
        if level == "error" {
            last = message.trim().to_owned();
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Class;

    fn failure(logged: Result<&str, &str>, status: &str) -> Failure {
        Failure { logged: logged.map(str::to_owned).map_err(str::to_owned), status: status.into() }
    }

    #[test]
    fn the_last_error_of_the_log_is_what_people_see() {
        let log = br#"{"level":"error","msg":"first","time":"t"}
            {"level":"error","msg":" runc create failed: \"x\": executable file not found in $PATH\n","time":"t"}
            {"level":"warning","msg":"later","time":"t"}"#;
        let message = last_error(&log[..], Path::new("log.json")).unwrap();
        let error = failure(Ok(&message), "exit status 1").into_error(&Task::Create);
        assert_eq!(
            error.to_string(),
            "OCI runtime create failed: runc create failed: \"x\": executable file not found in $PATH"
        );
        assert!(last_error(&b"{\"level\":"[..], Path::new("log.json")).is_err());
    }

    #[test]
    fn without_a_logged_error_the_status_is_told() {
        let error =
            failure(Ok(""), "runc did not terminate successfully: exit status 2").into_error(&Task::Create);
        assert_eq!(
            error.to_string(),
            "OCI runtime create failed: runc did not terminate successfully: exit status 2"
        );
        let error = failure(Err("open log.json: no such file or directory"), "exec: \"x\": not found");
        assert_eq!(
            error.into_error(&Task::Start).to_string(),
            "OCI runtime start failed: unable to retrieve OCI runtime error (open log.json: no such file or \
             directory): exec: \"x\": not found"
        );
    }

    #[test]
    fn each_runtime_has_its_words_for_a_container_that_is_not_there() {
        let is_absence = |status: &str| failure(Ok(""), status).is_absence();
        assert!(is_absence("exit status 1: container does not exist"));
        assert!(is_absence("exit status 1: cannot open directory `/run/r/c`: No such file or directory"));
        assert!(!is_absence("exit status 1: cannot open directory `/run/r/c`: Permission denied"));
    }

    #[test]
    fn a_signal_that_comes_too_late_is_not_found() {
        let kill = |status: &str| {
            let call = crate::call::Call { client: 1, stream: 1 };
            let error = failure(Ok(""), status).into_error(&Task::Kill(call));
            (error.class(), error.to_string())
        };
        let finished = (Class::NotFound, String::from("process already finished: not found"));
        assert_eq!(kill("exit status 1: container not running"), finished);
        assert_eq!(kill("exit status 1: No such process"), finished);
        assert_eq!(kill("exit status 1: container does not exist").1, "no such container: not found");
        assert_eq!(
            kill("exit status 1: odd"),
            (Class::Unknown, "unknown error after kill: exit status 1: odd".into())
        );
    }
}
