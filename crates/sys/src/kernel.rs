//! What the running kernel must offer: an older one is refused by name of what it lacks, before anything is touched.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, getpid, pidfd_open, waitid};
use types::{Error, Result};

/// The oldest kernel that this is made for.
const OLDEST: &str = "5.10";

/// A system call that we cannot do without.
struct Call {
    name: &'static str,
    /// The first Linux that has it.
    since: &'static str,
    /// Makes the call to no effect.
    probe: fn() -> rustix::io::Result<()>,
}

const CALLS: [Call; 3] = [
    Call {
        name: "pidfd_open(2)",
        since: "5.3",
        probe: || pidfd_open(getpid(), PidfdFlags::empty()).map(drop),
    },
    Call { name: "waitid(2) with P_PIDFD", since: "5.4", probe: wait_for_myself },
    Call {
        name: "openat2(2)",
        since: "5.6",
        probe: || {
            openat2(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty()).map(drop)
        },
    },
];

/// Fails if the kernel lacks a system call that containers here cannot do without.
pub fn require() -> Result<()> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    check(&CALLS, &release)
}

fn check(calls: &[Call], release: &str) -> Result<()> {
    for Call { name, since, probe } in calls {
        match probe() {
            Ok(()) => {}
            Err(Errno::NOSYS) => {
                return Err(Error::unimplemented(format!(
                    "this kernel ({release}) lacks {name}, which Linux has since {since}: containerd-rs needs Linux {OLDEST} \
                     or newer"
                )));
            }
            Err(errno) => {
                // Forbidden, most likely: the same to us, but not for want of a kernel.
                let error = Error::from(io::Error::from(errno));
                return Err(error.context(format!("try {name}, which containerd-rs cannot do without")));
            }
        }
    }
    Ok(())
}

/// What a kernel may offer beyond what is needed, and what is worse without it.
const EXTRAS: [(Call, &str); 6] = [
    (
        Call { name: "memfd_create(2)", since: "3.17", probe: || memory_file().map(drop) },
        "the shim keeps what a runtime says in memory",
    ),
    (
        Call { name: "fsopen(2) of overlay", since: "5.2", probe: open_overlay },
        "overlayfs is mounted by the old call, with fewer layers",
    ),
    (
        Call { name: "fsconfig(2) with lowerdir+", since: "6.5", probe: append_layer },
        "chains of many layers are named by short paths",
    ),
    (
        Call { name: "open_tree(2), mount_setattr(2)", since: "5.12", probe: clone_mount },
        "no idmapped mounts: layers are copied for user namespaces",
    ),
    (
        Call { name: "splice(2) between pipes", since: "2.6.17", probe: splice_pipes },
        "output is copied through the shim",
    ),
    (
        Call { name: "PIDFD_GET_INFO", since: "6.15", probe: exit_by_descriptor },
        "the exit code of a container whose shim was killed is estimated",
    ),
];

/// One thing that a kernel has or lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The call.
    pub name: &'static str,
    /// The first Linux that has it.
    pub since: &'static str,
    /// What is worse without it; none if nothing works without it.
    pub without: Option<&'static str>,
    /// Why it cannot be used; none if it can.
    pub missing: Option<String>,
}

/// Tries every call that we use and that some kernel lacks. Changes nothing.
pub fn survey() -> Vec<Feature> {
    let needed = CALLS.iter().map(|call| (call, None));
    let extras = EXTRAS.iter().map(|(call, without)| (call, Some(*without)));
    let feature = |(call, without): (&Call, Option<&'static str>)| Feature {
        name: call.name,
        since: call.since,
        without,
        missing: (call.probe)().err().map(|errno| io::Error::from(errno).to_string()),
    };
    needed.chain(extras).map(feature).collect()
}

fn memory_file() -> rustix::io::Result<OwnedFd> {
    rustix::fs::memfd_create("containerd-probe", rustix::fs::MemfdFlags::CLOEXEC)
}

fn overlay() -> rustix::io::Result<OwnedFd> {
    rustix::mount::fsopen("overlay", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC)
}

fn open_overlay() -> rustix::io::Result<()> {
    overlay().map(drop)
}

/// An older kernel takes any name at first, so trying says nothing.
fn append_layer() -> rustix::io::Result<()> {
    overlay()?;
    since((6, 5))
}

fn clone_mount() -> rustix::io::Result<()> {
    use rustix::mount::OpenTreeFlags;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(CWD, "/", flags).map(drop)
}

fn splice_pipes() -> rustix::io::Result<()> {
    use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
    let ((reader, writer), (_end, into)) = (pipe_with(PipeFlags::CLOEXEC)?, pipe_with(PipeFlags::CLOEXEC)?);
    rustix::io::write(&writer, b"x")?;
    splice(&reader, None, &into, None, 1, SpliceFlags::NONBLOCK).map(drop)
}

/// Asked of a process that has ended; of others it says nothing.
fn exit_by_descriptor() -> rustix::io::Result<()> {
    since((6, 15))
}

fn since(wanted: (u32, u32)) -> rustix::io::Result<()> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= wanted { Ok(()) } else { Err(Errno::NOSYS) }
}

/// Asks for the end of this process, which is no child of its own.
fn wait_for_myself() -> rustix::io::Result<()> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::PidFd(std::os::fd::AsFd::as_fd(&own)), options) {
        Ok(_) | Err(Errno::CHILD) => Ok(()),
        // A kernel that does not know the kind of id.
        Err(Errno::INVAL) => Err(Errno::NOSYS),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_all() {
        require().unwrap();
    }

    #[test]
    fn the_survey_tells_what_is_needed_first_and_what_is_worse_without_the_rest() {
        let survey = survey();
        assert!(
            survey.iter().take(CALLS.len()).all(|f| f.without.is_none() && f.missing.is_none()),
            "{survey:?}"
        );
        assert!(survey.iter().skip(CALLS.len()).all(|f| f.without.is_some()));
        assert_eq!(survey.len(), CALLS.len() + EXTRAS.len());
    }

    #[test]
    fn a_call_that_is_missing_or_forbidden_is_named() {
        let old = Call { name: "future(2)", since: "9.1", probe: || Err(Errno::NOSYS) };
        let error = check(&[old], "4.19.0").unwrap_err().to_string();
        for word in ["4.19.0", "future(2)", "9.1", OLDEST] {
            assert!(error.contains(word), "{error}");
        }
        let forbidden = Call { name: "future(2)", since: "9.1", probe: || Err(Errno::PERM) };
        assert!(check(&[forbidden], "6.1.0").unwrap_err().to_string().contains("future(2)"));
    }
}
