//! An OCI runtime that is executed, with the command line of runc.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use api::containerd::runc::v1::Options;
use sys::pidfd::{Ended, PidFd};
use sys::process::{Bond, Program};
use types::error::os_text;
use types::{Error, Result, ResultExt};

use crate::call::Call;
use crate::io::{Captured, ConsoleSocket};
use crate::offload::memory_file;
use crate::runtime::Failure;

/// Where runc keeps its state, without a root in the options.
pub const ROOT: &str = "/run/containerd/runc";

/// The runtime of one container.
pub struct Runtime {
    options: Options,
    root: PathBuf,
    bundle: PathBuf,
    id: String,
}

/// What a call is for, and what it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Make the container.
    Create,
    /// Start its init.
    Start,
    /// Start an exec.
    Exec(String),
    /// Send a signal, and answer the call.
    Kill(Call),
    /// Kill all processes that outlived init.
    KillAll,
    /// List the processes, and answer the call.
    Pids(Call),
    /// Freeze it.
    Pause,
    /// Let it go on.
    Resume,
    /// Let it go on although it has ended: nothing of it may stay frozen.
    Thaw,
    /// Give it other limits.
    Update,
    /// Write it to disk.
    Checkpoint,
    /// Make it, and start it, as it was written.
    Restore,
    /// Forget the container.
    Delete,
    /// Forget what there is of a container whose making was ended.
    Discard,
}

impl Task {
    /// Whether a pid file will name a new child of ours.
    pub fn names_a_process(&self) -> bool {
        match self {
            Self::Create | Self::Restore | Self::Exec(_) => true,
            Self::Start | Self::Kill(_) | Self::KillAll | Self::Pids(_) | Self::Delete | Self::Discard => {
                false
            }
            Self::Pause | Self::Resume | Self::Thaw | Self::Update | Self::Checkpoint => false,
        }
    }
}

/// A call that is under way.
pub struct Run {
    /// What it is for.
    pub task: Task,
    command: String,
    log: PathBuf,
    /// Where the log ended before the call: what stands there is about others.
    log_start: u64,
    output: Option<File>,
}

/// The streams of a call.
pub enum Streams<'a> {
    /// Those of the container's process.
    Given([BorrowedFd<'a>; 3]),
    /// None: what the runtime says is captured.
    Captured,
    /// As that, but it reads this.
    Fed(&'a File),
}

impl Runtime {
    /// The runtime that `options` choose, for the container `id` in `bundle`.
    pub fn new(options: Options, namespace: &str, id: &str, bundle: &Path) -> Self {
        let root = if options.root.is_empty() { ROOT } else { &options.root };
        let root = Path::new(root).join(namespace);
        Self { options, root, bundle: bundle.to_owned(), id: id.to_owned() }
    }

    /// `create`: the container with its init, which waits for [`Runtime::start`].
    pub fn create(&self, streams: Streams<'_>, console: Option<&ConsoleSocket>) -> Result<(PidFd, Run)> {
        let pid_file = self.pid_file("");
        let mut args = vec![OsStr::new("create"), OsStr::new("--bundle"), self.bundle.as_os_str()];
        args.extend([OsStr::new("--pid-file"), pid_file.as_os_str()]);
        if let Some(socket) = console {
            args.extend([OsStr::new("--console-socket"), socket.path.as_os_str()]);
        }
        if self.options.no_pivot_root {
            args.push(OsStr::new("--no-pivot"));
        }
        if self.options.no_new_keyring {
            args.push(OsStr::new("--no-new-keyring"));
        }
        args.push(OsStr::new(&self.id));
        self.run(Task::Create, &args, streams)
    }

    /// `start`: what `create` left waiting.
    pub fn start(&self) -> Result<(PidFd, Run)> {
        self.run(Task::Start, &[OsStr::new("start"), OsStr::new(&self.id)], Streams::Captured)
    }

    /// `exec` of what stands in the process file.
    pub fn exec(
        &self,
        exec: &str,
        streams: Streams<'_>,
        console: Option<&ConsoleSocket>,
    ) -> Result<(PidFd, Run)> {
        let (process, pid_file) = (self.process_file(exec), self.pid_file(exec));
        let mut args = vec![OsStr::new("exec"), OsStr::new("--process"), process.as_os_str()];
        if let Some(socket) = console {
            args.extend([OsStr::new("--console-socket"), socket.path.as_os_str()]);
        }
        args.extend([OsStr::new("--detach"), OsStr::new("--pid-file"), pid_file.as_os_str()]);
        args.push(OsStr::new(&self.id));
        self.run(Task::Exec(exec.to_owned()), &args, streams)
    }

    /// `kill`: a signal to init, or to all processes.
    pub fn kill(&self, task: Task, signal: u32, all: bool) -> Result<(PidFd, Run)> {
        let signal = signal.to_string();
        let mut args = vec![OsStr::new("kill")];
        if all {
            args.push(OsStr::new("--all"));
        }
        args.extend([OsStr::new(&self.id), OsStr::new(&signal)]);
        self.run(task, &args, Streams::Captured)
    }

    /// `ps`: the numbers of the processes, as JSON.
    pub fn ps(&self, call: Call) -> Result<(PidFd, Run)> {
        let args = ["ps", "--format", "json", &self.id].map(OsStr::new);
        self.run(Task::Pids(call), &args, Streams::Captured)
    }

    /// `delete`: the container has ended, or never ran.
    pub fn delete(&self) -> Result<(PidFd, Run)> {
        self.run(Task::Delete, &[OsStr::new("delete"), OsStr::new(&self.id)], Streams::Captured)
    }

    /// `delete --force`: whatever it does.
    pub fn delete_by_force(&self, task: Task) -> Result<(PidFd, Run)> {
        let args = ["delete", "--force", &self.id].map(OsStr::new);
        self.run(task, &args, Streams::Captured)
    }

    /// Where the runtime writes the number of a process, init's for an empty `exec`.
    pub fn pid_file(&self, exec: &str) -> PathBuf {
        match exec {
            "" => self.bundle.join("init.pid"),
            // An exec may be called init.
            "init" => self.bundle.join("init.exec.pid"),
            _ => self.bundle.join(format!("{exec}.pid")),
        }
    }

    /// Where an exec's process is described for the runtime.
    pub fn process_file(&self, exec: &str) -> PathBuf {
        self.bundle.join(format!("{exec}.process.json"))
    }

    /// Where the runtime logs. Execs run side by side, and each must find its own error.
    pub fn log_file(&self, exec: &str) -> PathBuf {
        match exec {
            "" => self.bundle.join("log.json"),
            _ => self.bundle.join(format!("{exec}.log.json")),
        }
    }

    /// Reads a number that the runtime has written.
    pub fn read_pid(&self, exec: &str) -> Result<u32> {
        let what = if exec.is_empty() { "container" } else { "exec" };
        let text = std::fs::read_to_string(self.pid_file(exec))
            .context(|| format!("failed to retrieve OCI runtime {what} pid"))?;
        let pid = text.trim().parse().ok().filter(|pid| *pid > 1);
        pid.ok_or_else(|| Error::unknown(format!("failed to retrieve OCI runtime {what} pid: {text:?}")))
    }

    /// Whether its `kill` of a container that runs is a signal to the process that we know, and nothing else. What bears another name may
    /// have its containers elsewhere.
    pub fn only_sends_signals(&self) -> bool {
        let name = Path::new(self.command()).file_name();
        ["runc", "crun"].iter().any(|known| name == Some(OsStr::new(known)))
    }

    /// The command that is executed.
    pub(super) fn command(&self) -> &str {
        if self.options.binary_name.is_empty() { "runc" } else { &self.options.binary_name }
    }

    /// The container.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Its bundle.
    pub(super) fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// How it is to be run.
    pub fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn run(&self, task: Task, args: &[&OsStr], streams: Streams<'_>) -> Result<(PidFd, Run)> {
        let log = self.log_file(if let Task::Exec(exec) = &task { exec } else { "" });
        let mut all: Vec<&OsStr> = vec![OsStr::new(self.command())];
        all.extend([OsStr::new("--root"), self.root.as_os_str()]);
        all.extend([OsStr::new("--log"), log.as_os_str(), OsStr::new("--log-format"), OsStr::new("json")]);
        if self.options.systemd_cgroup {
            all.push(OsStr::new("--systemd-cgroup"));
        }
        all.extend(args);
        let log_start = std::fs::metadata(&log).map_or(0, |m| m.len());
        let mut run =
            Run { task, command: self.command().to_owned(), log: log.clone(), log_start, output: None };
        let spawned = match streams {
            Streams::Given(stdio) => spawn(self.command(), &all, &self.bundle, stdio),
            Streams::Captured | Streams::Fed(_) => {
                let output = run.output.insert(memory_file("runtime-output")?);
                let captured = Captured::new(output)?;
                let mut stdio = captured.stdio();
                if let Streams::Fed(input) = streams {
                    stdio[0] = input.as_fd();
                }
                spawn(self.command(), &all, &self.bundle, stdio)
            }
        };
        match spawned {
            Ok(child) => Ok((child, run)),
            Err(error) => Err(run.not_executed(&error.to_string())),
        }
    }
}

impl Run {
    /// What came of the call.
    pub fn outcome(&self, ended: Ended) -> Result<(), Failure> {
        if ended.is_success() { Ok(()) } else { Err(Failure::new(self, ended)) }
    }

    fn not_executed(&self, why: &str) -> Error {
        Failure::not_executed(self, why).into_error(&self.task)
    }

    /// The name of the command.
    pub(super) fn command(&self) -> &str {
        &self.command
    }

    /// The log of the call, and where the call's part of it begins.
    pub(super) fn log(&self) -> (&Path, u64) {
        (&self.log, self.log_start)
    }

    /// What the runtime said, where that was captured.
    pub fn output(&self) -> Option<&File> {
        self.output.as_ref()
    }
}

/// Whether a command is crun, by its name.
pub fn is_crun(command: &str) -> bool {
    Path::new(command).file_name().is_some_and(|name| name.as_bytes().starts_with(b"crun"))
}

/// Executes `command` with `args`, as Go's exec does: found in PATH, with our environment.
pub fn spawn(command: &str, args: &[&OsStr], dir: &Path, stdio: [BorrowedFd<'_>; 3]) -> Result<PidFd> {
    let c_string = |text: &OsStr| {
        CString::new(text.as_bytes()).map_err(|_| Error::invalid(format!("{text:?} contains a zero byte")))
    };
    let path = find(command)?;
    let args = args.iter().map(|a| c_string(a)).collect::<Result<Vec<_>>>()?;
    let env = std::env::vars_os()
        // runc would tell systemd that the daemon is ready.
        .filter(|(name, _)| name != "NOTIFY_SOCKET")
        .map(|(name, value)| {
            let mut variable = name.into_vec();
            variable.push(b'=');
            variable.extend(value.into_vec());
            c_string(&OsString::from_vec(variable))
        })
        .collect::<Result<Vec<_>>>()?;
    let program = Program {
        path: &c_string(path.as_os_str())?,
        args: &args,
        env: &env,
        dir: &c_string(dir.as_os_str())?,
        stdio,
        more: None,
        bond: Bond::Dies,
    };
    program.spawn().map_err(|e| {
        let what = format!("fork/exec {}: {}", path.display(), os_text(&e));
        Error::from(e).class_of(what)
    })
}

/// Keeps the class, replaces the words.
trait ClassOf {
    fn class_of(self, message: String) -> Error;
}

impl ClassOf for Error {
    fn class_of(self, message: String) -> Error {
        Error::new(self.class(), message)
    }
}

fn find(command: &str) -> Result<PathBuf> {
    if command.contains('/') {
        return Ok(PathBuf::from(command));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let executable =
        |path: &PathBuf| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    std::env::split_paths(&path)
        .map(|dir| dir.join(command))
        .find(executable)
        .ok_or_else(|| Error::not_found(format!("exec: {command:?}: executable file not found in $PATH")))
}
