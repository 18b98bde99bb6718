//! Calls that concern the container as a whole: pause, resume, update, checkpoint, restore.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use sys::pidfd::PidFd;
use types::{Result, ResultExt};

use super::external::{Run, Runtime, Streams, Task, is_crun};
use crate::effect::Checkpoint;
use crate::io::ConsoleSocket;
use crate::offload::memory_file;

impl Runtime {
    /// `pause`: its processes stand still.
    pub fn pause(&self) -> Result<(PidFd, Run)> {
        self.simple(Task::Pause, "pause")
    }

    /// `resume`: they go on.
    pub fn resume(&self) -> Result<(PidFd, Run)> {
        self.simple(Task::Resume, "resume")
    }

    /// `resume`, of a container that ended while it was paused.
    pub fn thaw(&self) -> Result<(PidFd, Run)> {
        self.simple(Task::Thaw, "resume")
    }

    fn simple(&self, task: Task, command: &str) -> Result<(PidFd, Run)> {
        self.run(task, &[OsStr::new(command), OsStr::new(self.id())], Streams::Captured)
    }

    /// `update`: limits, as JSON on standard input.
    pub fn update(&self, resources: &[u8]) -> Result<(PidFd, Run)> {
        let mut input = memory_file("resources")?;
        let written = input.write_all(resources).and_then(|()| input.rewind());
        written.context(|| "write resources for the runtime")?;
        let args = ["update", "--resources=-", self.id()].map(OsStr::new);
        self.run(Task::Update, &args, Streams::Fed(&input))
    }

    /// `checkpoint`: the processes, on disk.
    pub fn checkpoint(&self, checkpoint: &Checkpoint) -> Result<(PidFd, Run)> {
        let work = self.criu_work(checkpoint);
        let mut args = vec![OsStr::new("checkpoint")];
        if !checkpoint.image.is_empty() {
            args.extend([OsStr::new("--image-path"), OsStr::new(&checkpoint.image)]);
        }
        args.extend([OsStr::new("--work-path"), work.as_os_str()]);
        args.extend(checkpoint.flags.iter().map(OsStr::new));
        if !checkpoint.exit {
            args.push(OsStr::new("--leave-running"));
        }
        args.push(OsStr::new(self.id()));
        self.run(Task::Checkpoint, &args, Streams::Captured)
    }

    /// Where CRIU works at a checkpoint.
    pub fn criu_work(&self, checkpoint: &Checkpoint) -> PathBuf {
        match checkpoint.work.as_str() {
            "" => self.bundle().join("work/criu-work"),
            work => PathBuf::from(work),
        }
    }

    /// Where CRIU's log of a checkpoint that failed is kept.
    pub fn dump_log(&self) -> PathBuf {
        self.bundle().join("criu-dump.log")
    }

    /// `restore`: the container with its processes, out of the image in the directory `image`.
    pub fn restore(
        &self,
        image: &str,
        streams: Streams<'_>,
        console: Option<&ConsoleSocket>,
    ) -> Result<(PidFd, Run)> {
        let options = self.options();
        let (pid_file, own) = (self.pid_file(""), self.bundle().join("work"));
        let work = match options.criu_work_path.as_str() {
            "" => own.as_path(),
            work => Path::new(work),
        };
        let mut args = vec![OsStr::new("restore"), OsStr::new("--image-path"), OsStr::new(image)];
        args.extend([OsStr::new("--work-path"), work.as_os_str(), OsStr::new("--detach")]);
        args.extend([OsStr::new("--pid-file"), pid_file.as_os_str()]);
        if let Some(socket) = console {
            args.extend([OsStr::new("--console-socket"), socket.path.as_os_str()]);
        }
        // crun's restore knows neither flag, and never becomes a subreaper.
        if !is_crun(self.command()) {
            if options.no_pivot_root {
                args.push(OsStr::new("--no-pivot"));
            }
            // Its processes become our children, not the runtime's.
            args.push(OsStr::new("--no-subreaper"));
        }
        args.extend([OsStr::new("--bundle"), self.bundle().as_os_str(), OsStr::new(self.id())]);
        self.run(Task::Restore, &args, streams)
    }
}

/// Makes the directory in which CRIU works: runc does so itself, crun wants it to be there.
pub fn make_work(work: &Path) -> Result<()> {
    match rustix::fs::mkdir(work, rustix::fs::Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(e) => Err(std::io::Error::from(e)).context(|| format!("mkdir {}", work.display())),
    }
}

/// Keeps the log of a checkpoint that failed, and removes the directory in which CRIU worked if it is ours.
pub fn tidy_checkpoint(work: &Path, log: Option<&Path>, is_ours: bool) -> Result<()> {
    if let Some(log) = log {
        let copied = File::open(work.join("dump.log"))
            .and_then(|mut from| std::io::copy(&mut from, &mut File::create(log)?).map(drop));
        copied.context(|| format!("keep CRIU's log as {}", log.display()))?;
    }
    if !is_ours {
        return Ok(());
    }
    match std::fs::remove_dir_all(work) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).context(|| format!("remove {}", work.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_may_be_there_and_its_parent_must_be() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("work");
        make_work(&work).unwrap();
        make_work(&work).unwrap();
        assert!(make_work(&work.join("a/b")).is_err());
    }

    #[test]
    fn only_a_directory_of_ours_is_removed_and_the_log_is_kept_when_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let (work, log) = (dir.path().join("work"), dir.path().join("log"));
        std::fs::create_dir(&work).unwrap();
        std::fs::write(work.join("dump.log"), "why").unwrap();
        tidy_checkpoint(&work, None, false).unwrap();
        assert!(work.exists() && !log.exists());
        tidy_checkpoint(&work, Some(&log), true).unwrap();
        assert!(!work.exists());
        assert_eq!(std::fs::read(&log).unwrap(), b"why");
        assert!(tidy_checkpoint(&work, Some(&log), true).is_err());
    }
}
