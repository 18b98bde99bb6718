//! The program of a pod's sandbox: it holds the namespaces, collects whoever has lost its parent, and ends when it is told to.
//!
//! ```text
//!  containerd-shim-runc-v2 pause       or under the name `pause`, as a container executes it
//!  containerd-shim-runc-v2 pause -v    says whether this program can do it in a container, and ends
//! ```
//!
//! There is one in each pod: nothing of the shim is set up for it. `runtime::pause` tells how a sandbox is made with it.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitOptions, wait};
use sys::reaper::Signals;
use types::version;

const NAME: &str = "pause";

/// What a command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// To pause.
    Pause,
    /// Only whether that is possible.
    Word,
}

/// Whether, and how, a command line asks for this.
pub fn wanted(mut args: impl Iterator<Item = OsString>) -> Option<Wanted> {
    let by_name = Path::new(&args.next()?).file_name() == Some(OsStr::new(NAME));
    if !by_name && args.next()? != NAME {
        return None;
    }
    Some(if args.next().is_some_and(|flag| flag == "-v") { Wanted::Word } else { Wanted::Pause })
}

/// Does it.
pub fn run(wanted: Wanted) -> ExitCode {
    match wanted {
        Wanted::Word if !cfg!(target_feature = "crt-static") => {
            eprintln!("this program is linked dynamically: a container has no libraries for it");
            ExitCode::FAILURE
        }
        Wanted::Word => {
            println!("{NAME} {} {}", version::PACKAGE, version::VERSION);
            ExitCode::SUCCESS
        }
        Wanted::Pause => pause().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
    }
}

/// Collects children until a signal says that it is over.
fn pause() -> std::io::Result<()> {
    let signals = Signals::new(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT])?;
    // What it took to come here is not needed again.
    sys::memory::settle();
    loop {
        // Some may have ended before anybody listened.
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        match poll(&mut [PollFd::new(&signals, PollFlags::IN)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        while let Some(signal) = signals.next()? {
            if signal != libc::SIGCHLD {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(args: &[&str]) -> Option<Wanted> {
        wanted(args.iter().map(OsString::from))
    }

    #[test]
    fn it_is_asked_for_by_name_or_by_the_first_word() {
        assert_eq!(asked(&["/pause"]), Some(Wanted::Pause));
        assert_eq!(asked(&["/x/containerd-shim-runc-v2", "pause"]), Some(Wanted::Pause));
        assert_eq!(asked(&["/x/containerd-shim-runc-v2", "pause", "-v"]), Some(Wanted::Word));
        assert_eq!(asked(&["/pause", "-v"]), Some(Wanted::Word));
        assert_eq!(asked(&["containerd-shim-runc-v2", "-namespace", "pause", "start"]), None);
        assert_eq!(asked(&["containerd-shim-runc-v2"]), None);
        assert_eq!(asked(&[]), None);
    }
}
