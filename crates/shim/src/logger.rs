//! Programs that take a process's output (`binary://`), started as upstream starts them.
//!
//! ```text
//!  descriptor 3   standard output of the process, or its terminal's
//!  descriptor 4   standard error
//!  descriptor 5   closed, perhaps after a byte, when the program is ready; only then is the process made
//!  environment    CONTAINER_ID, CONTAINER_NAMESPACE, nothing else
//! ```
//!
//! Between the process and the program there is a pipe of ours: a program that dies takes nothing with it. What it would
//! have read goes to the spool, and the program is started again and gets that first.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use sys::pidfd::PidFd;
use sys::process::Bond;
use types::output::Program;
use types::{Error, Result, ResultExt};

use crate::errno::Os;
use crate::io::{null, set_nonblocking};

/// How long to wait before a program that has died is started again; longer each time.
pub const FIRST_DELAY: Duration = Duration::from_secs(1);
/// The longest wait.
pub const LAST_DELAY: Duration = Duration::from_secs(60);
/// How long a program may take from the end of its input to its own, when it is told to end.
pub const GRACE: Duration = Duration::from_secs(12);

/// Whose output the program takes, as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The container's namespace.
    pub namespace: String,
    /// The container, not the process.
    pub container: String,
    /// Where the program runs.
    pub directory: std::path::PathBuf,
}

/// A program that was started.
pub struct Started {
    /// Its process.
    pub child: PidFd,
    /// What it reads on 3; non-blocking.
    pub stdout: OwnedFd,
    /// What it reads on 4; non-blocking.
    pub stderr: OwnedFd,
    /// What ends, perhaps after a byte, when it is ready; non-blocking.
    pub ready: OwnedFd,
}

/// Starts `program`.
pub fn start(program: &Program, subject: &Subject) -> Result<Started> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).os().context(|| "create a pipe");
    let ((out, stdout), (err, stderr), (ready, says)) = (pipe()?, pipe()?, pipe()?);
    for ours in [&stdout, &stderr, &ready] {
        set_nonblocking(ours)?;
    }
    let child = execute(program, subject, [out.as_fd(), err.as_fd(), says.as_fd()])?;
    Ok(Started { child, stdout, stderr, ready })
}

/// Starts it again, for the pipes that are still open, with what is in them: nobody waits for it to be ready.
pub fn start_again(
    program: &Program,
    subject: &Subject,
    pipes: [Option<BorrowedFd<'_>>; 2],
) -> Result<PidFd> {
    let (ended, _) = pipe_with(PipeFlags::CLOEXEC).os().context(|| "create a pipe")?;
    // The other end of a pipe whose reader has died, by the only name that it has.
    let reader = |pipe: Option<BorrowedFd<'_>>| -> Result<OwnedFd> {
        let Some(pipe) = pipe else { return ended.try_clone().context(|| "duplicate a pipe") };
        let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
        Ok(File::options().read(true).open(path).context(|| "open a pipe again")?.into())
    };
    let [out, err] = pipes.map(reader);
    let null = null()?;
    execute(program, subject, [out?.as_fd(), err?.as_fd(), null.as_fd()])
}

fn execute(program: &Program, subject: &Subject, fds: [BorrowedFd<'_>; 3]) -> Result<PidFd> {
    let null = null()?;
    let env = [("CONTAINER_ID", &subject.container), ("CONTAINER_NAMESPACE", &subject.namespace)];
    let env: Vec<OsString> = env.into_iter().map(|(name, value)| format!("{name}={value}").into()).collect();
    let args = [program.path.as_os_str()].into_iter().chain(program.args.iter().map(OsStr::new));
    let path = program.path.display();
    let program = sys::process::Program {
        path: &c_string(program.path.as_os_str())?,
        args: &args.map(c_string).collect::<Result<Vec<_>>>()?,
        env: &env.iter().map(|variable| c_string(variable)).collect::<Result<Vec<_>>>()?,
        dir: &c_string(existing(&subject.directory).as_os_str())?,
        stdio: [null.as_fd(), null.as_fd(), null.as_fd()],
        more: Some(fds),
        // What we leave behind when we are killed is still to be logged.
        bond: Bond::Outlives,
    };
    program.spawn().map_err(|error| {
        let why = types::error::os_text(&error);
        Error::unknown(format!("failed to start binary process: fork/exec {path}: {why}"))
    })
}

/// What a program said on descriptor 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Nothing yet.
    Nothing,
    /// That it is ready.
    Ready,
}

/// Looks whether it is ready.
pub fn listen(ready: &OwnedFd, program: &Program) -> Result<Said> {
    let mut byte = [0; 1];
    match rustix::io::read(ready, &mut byte) {
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(Said::Nothing),
        Ok(0) if program.says_ready => Err(Error::unknown(
            "logging binary did not call ready (it may have crashed or exited prematurely)",
        )),
        Ok(_) => Ok(Said::Ready),
        Err(e) => Err(Error::from(std::io::Error::from(e)).context("failed to read from logging binary")),
    }
}

fn c_string(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| Error::invalid(format!("{text:?} contains a zero byte")))
}

/// The bundle may be gone when a program is started again at the end.
fn existing(directory: &Path) -> &Path {
    if directory.is_dir() { directory } else { Path::new("/") }
}
