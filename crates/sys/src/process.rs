//! Processes: those that there are, programs started without copying our memory, helpers as a fork of it, and a new name for
//! ourselves.

#![allow(unsafe_code, reason = "clone, fork and the argument area have no safe wrapper")]

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use types::ResultExt;

use crate::pidfd::PidFd;

/// The numbers of all processes that `/proc` shows.
pub fn all() -> types::Result<impl Iterator<Item = u32>> {
    let entries = std::fs::read_dir("/proc").context(|| "read /proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// A program to be run.
pub struct Program<'a> {
    /// Its path; there is no search here.
    pub path: &'a CStr,
    /// Its arguments, the name first.
    pub args: &'a [CString],
    /// `NAME=value`.
    pub env: &'a [CString],
    /// Where it runs.
    pub dir: &'a CStr,
    /// Its standard input, output and error.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Its descriptors 3, 4 and 5, if it gets any.
    pub more: Option<[BorrowedFd<'a>; 3]>,
    /// What becomes of it when we end.
    pub bond: Bond,
}

/// What becomes of a program when the thread that started it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bond {
    /// It is killed.
    Dies,
    /// It goes on.
    Outlives,
}

/// What the child reads and writes between clone and exec. It shares our memory while we stand still.
struct Launch {
    path: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    dir: *const c_char,
    /// What becomes descriptor 0, 1, ...
    fds: [c_int; 6],
    count: usize,
    dies: bool,
    errno: c_int,
}

const STACK: usize = 32 << 10;

impl Program<'_> {
    /// Starts the program as vfork does: our memory is not copied, and we stand still until it has executed, which
    /// makes a failure to execute an error here. It leads a process group of its own, and starts with no signal blocked
    /// or ignored.
    pub fn spawn(&self) -> io::Result<PidFd> {
        let pointers = |strings: &[CString]| -> Vec<*const c_char> {
            strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (argv, envp) = (pointers(self.args), pointers(self.env));
        let [a, b, c] = self.stdio.map(|fd| fd.as_raw_fd());
        let more = self.more.map(|more| more.map(|fd| fd.as_raw_fd()));
        let [d, e, f] = more.unwrap_or_default();
        let mut launch = Launch {
            path: self.path.as_ptr(),
            argv: argv.as_ptr(),
            envp: envp.as_ptr(),
            dir: self.dir.as_ptr(),
            fds: [a, b, c, d, e, f],
            count: if more.is_some() { 6 } else { 3 },
            dies: self.bond == Bond::Dies,
            errno: 0,
        };
        let mut stack = vec![0u128; STACK / 16];
        let mut pidfd: c_int = -1;
        // SAFETY: the stack is ours, 16-byte aligned, and grows down from its end. With CLONE_VM and CLONE_VFORK the
        // child runs `exec_child` in our memory while we are suspended, so that `launch`, what it points to and the
        // stack outlive it; it only makes system calls, and writes to nothing but `launch.errno`. CLONE_PIDFD stores
        // a descriptor of ours at the place given.
        let pid = unsafe {
            libc::clone(
                exec_child,
                stack.as_mut_ptr().add(stack.len()).cast::<c_void>(),
                libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD,
                (&raw mut launch).cast::<c_void>(),
                &raw mut pidfd,
            )
        };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us.
        let child = PidFd::from_parts(unsafe { OwnedFd::from_raw_fd(pidfd) }, pid.unsigned_abs());
        // SAFETY: the child wrote, if at all, before we were resumed; a volatile read as the compiler knows no writer.
        match unsafe { (&raw const launch.errno).read_volatile() } {
            0 => Ok(child),
            errno => {
                child.collect_blocking()?;
                Err(io::Error::from_raw_os_error(errno))
            }
        }
    }
}

/// The child's side of [`Program::spawn`]: system calls only.
extern "C" fn exec_child(launch: *mut c_void) -> c_int {
    let launch = launch.cast::<Launch>();
    // SAFETY: `launch` is the parent's, which stands still; all pointers in it are valid C strings and null-terminated
    // lists. Nothing here allocates, takes a lock or unwinds.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        if (*launch).dies {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        }
        libc::setpgid(0, 0);
        let mut failed = libc::chdir((*launch).dir) < 0;
        // Sources that a later dup2 would overwrite are moved out of the way first.
        let mut sources = (*launch).fds;
        for source in sources.iter_mut().take((*launch).count) {
            if *source < 6 {
                *source = libc::fcntl(*source, libc::F_DUPFD_CLOEXEC, 6);
                failed |= *source < 0;
            }
        }
        for (target, source) in (0..).zip(sources).take((*launch).count) {
            failed = failed || libc::dup2(source, target) < 0;
        }
        if !failed {
            libc::execve((*launch).path, (*launch).argv, (*launch).envp);
        }
        (&raw mut (*launch).errno).write_volatile(*libc::__errno_location());
        libc::_exit(127)
    }
}

/// Which side of a [`fork`] this is.
pub enum Fork {
    /// The parent, with the child.
    Parent(PidFd),
    /// The child.
    Child,
}

/// Splits the process in two. Refused where other threads exist: what they hold would be held for ever in the child.
pub fn fork() -> io::Result<Fork> {
    // A directory has two links of its own and one for each directory in it, here: threads.
    if rustix::fs::stat("/proc/self/task")?.st_nlink != 3 {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "fork of a process with threads"));
    }
    // SAFETY: there is one thread, so the child's copy of every lock and of the allocator is consistent.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(PidFd::open(pid.unsigned_abs())?)),
    }
}

/// Ends the process at once: no destructors, no flushing of what a parent has buffered.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit does not return and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Ends the process as SIGPIPE does, which Rust programs ignore from their start.
pub fn end_by_broken_pipe() -> ! {
    // SAFETY: setting the default action and raising a signal touch no memory of ours.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::raise(libc::SIGPIPE);
    }
    // Where the signal is blocked: the code that a shell would have made of it.
    exit_now(128 + libc::SIGPIPE)
}

/// Ends the calling process when its parent ends.
pub fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?)
}

/// Has `signal` sent to the calling process when its parent ends.
pub fn signal_on_parent_end(signal: rustix::process::Signal) -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(signal))?)
}

/// Closes all descriptors but the standard streams and `kept`: for a fork that lives longer than the moment, as a pipe
/// that it holds by accident would never end.
///
/// Whatever owns one of the closed descriptors must not be dropped afterwards; a fork that leaves by [`exit_now`] drops
/// nothing.
pub fn close_others(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> =
        kept.iter().map(|fd| fd.as_raw_fd().unsigned_abs()).filter(|fd| *fd > 2).collect();
    kept.sort_unstable();
    kept.dedup();
    let mut first = 3;
    for fd in kept.into_iter().map(Some).chain([None]) {
        let last = fd.map_or(u32::MAX, |fd| fd - 1);
        if first <= last {
            close_range(first, last)?;
        }
        first = fd.unwrap_or(0) + 1;
    }
    Ok(())
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: closing touches no memory; that nobody uses the closed descriptors any more is what `close_others` asks of
    // its caller.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Any signal by number, the real-time ones included, which rustix's type does not name.
pub(crate) fn pidfd_signal(fd: BorrowedFd<'_>, signal: c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as it is borrowed, and no siginfo is given.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, std::ptr::null::<c_void>(), 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct pidfd_info` of Linux 6.15, as far as its exit code.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    /// pid, tgid, ppid, and four pairs of ids.
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`.
const INFO_EXIT: u64 = 1 << 3;
/// `PIDFD_GET_INFO`, with the size of what we know of the structure.
const GET_INFO: libc::Ioctl = 0xc000_ff0b | ((size_of::<PidfdInfo>() as libc::Ioctl) << 16);

/// The wait status of a process that has ended and was collected, where the kernel still knows.
pub(crate) fn exit_info(pidfd: BorrowedFd<'_>) -> Option<u32> {
    let mut info = PidfdInfo { mask: INFO_EXIT, ..Default::default() };
    // SAFETY: the descriptor is open as long as it is borrowed; the kernel writes no more than the size that the request
    // carries, which is that of `info`.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO, &raw mut info) };
    (result == 0 && info.mask & INFO_EXIT != 0).then(|| info.exit_code.cast_unsigned())
}

/// Replaces the command line that `ps` shows by `args`, as far as it fits in the room of the old one.
pub fn set_command_line(args: &[&OsStr]) -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Fields 48 and 49 are arg_start and arg_end; the name in field 2 may contain spaces, so count behind its end.
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let field = |n: usize| rest.split_ascii_whitespace().nth(n - 3).and_then(|f| f.parse::<usize>().ok());
    let (Some(start), Some(end)) = (field(48), field(49)) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mut text: Vec<u8> = args.iter().flat_map(|a| a.as_bytes().iter().copied().chain([0])).collect();
    if start == 0 || end <= start {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // The last byte stays zero: without it ps would read on into the environment.
    text.truncate(end - start - 1);
    text.resize(end - start, 0);
    // SAFETY: the kernel says that our argument strings lie between these addresses, on our own stack area and
    // writable. Nobody reads them through Rust references: std::env::args copies from them, and callers have done that.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), start as *mut u8, text.len()) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn run(path: &str, args: &[&str]) -> io::Result<(PidFd, String)> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let null = std::fs::File::open("/dev/null")?;
        let c = |s: &str| CString::new(s).unwrap();
        let args: Vec<_> = [path].iter().chain(args).map(|s| c(s)).collect();
        let child = Program {
            path: &c(path),
            args: &args,
            env: &[c("A=1")],
            dir: c"/",
            stdio: [null.as_fd(), writer.as_fd(), writer.as_fd()],
            more: Some([writer.as_fd(), null.as_fd(), writer.as_fd()]),
            bond: Bond::Dies,
        }
        .spawn()?;
        drop(writer);
        let text = io::read_to_string(std::fs::File::from(reader))?;
        Ok((child, text))
    }

    #[test]
    fn a_program_runs_with_its_arguments_environment_and_directory() {
        let (child, text) = run("/bin/sh", &["-c", "echo $0 $A; pwd >&3; echo five >&5; exit 5"]).unwrap();
        assert_eq!(text, "/bin/sh 1\n/\nfive\n");
        assert_eq!(child.collect_blocking().unwrap().status(), 5);
    }

    #[test]
    fn a_program_that_does_not_exist_is_an_error_at_once() {
        assert_eq!(run("/nonexistent", &[]).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_process_with_threads_is_not_forked() {
        // The test harness runs each test on a thread of its own.
        assert!(fork().is_err());
    }
}
