//! Directories and streams of a container.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use types::output::{LogFile, UNKEPT};
use types::task::Stdio;
use types::{Result, ResultExt};

use super::Container;
use crate::cri::Cri;

/// Makes a directory that user namespaces can pass through, with those above it.
pub fn make_dir(dir: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o711).create(dir);
    made.context(|| format!("failed to create container directory {:?}", dir.display().to_string()))
}

/// Who writes what a container says to its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// Its shim.
    Shim,
    /// The daemon, from FIFOs.
    Daemon,
}

/// The streams of a container.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    /// What its task is told.
    pub stdio: Stdio,
    /// FIFOs among them.
    pub fifos: Vec<PathBuf>,
}

/// The streams of a container whose log is written by `writer`. FIFOs are yet to be made.
pub fn streams(cri: &Cri, container: &Container, writer: Writer) -> Streams {
    let config = &container.record.config;
    let fifo = |name: &str| {
        let dir = cri.dirs.container_state(container.id()).join("io");
        dir.join(format!("{}-{name}", container.id())).to_string_lossy().into_owned()
    };
    let output = |name: &str| match writer {
        Writer::Daemon => fifo(name),
        Writer::Shim if container.record.log_path.is_empty() => UNKEPT.to_owned(),
        Writer::Shim => {
            let max = cri.config.runtime.max_log_line.and_then(|max| i64::try_from(max).ok());
            LogFile::cri_uri(Path::new(&container.record.log_path), max.unwrap_or(-1))
        }
    };
    let stdio = Stdio {
        stdin: if config.stdin { fifo("stdin") } else { String::new() },
        stdout: output("stdout"),
        stderr: if config.tty { String::new() } else { output("stderr") },
        terminal: config.tty,
    };
    let all = [&stdio.stdin, &stdio.stdout, &stdio.stderr];
    let fifos = all.into_iter().filter(|path| path.starts_with('/')).map(PathBuf::from).collect();
    Streams { stdio, fifos }
}

/// Makes FIFOs. One that is there already is fine: a start that failed has left it.
pub fn make_fifos(fifos: &[PathBuf]) -> Result<()> {
    for fifo in fifos {
        let dir = fifo.parent().unwrap_or(Path::new("/"));
        make_dir(dir)?;
        match sys::fifo::make(fifo, 0o700) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.context(|| format!("make FIFO {}", fifo.display()))?,
        }
    }
    Ok(())
}
