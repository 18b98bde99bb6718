//! Log lines for the daemon, through the FIFO `log` in the bundle, in the form that it expects (logrus' text).
//!
//! Nobody may be reading, and the shim must not care: a line that cannot be written at once is dropped.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::json;

/// The log of this shim.
pub struct Log {
    path: PathBuf,
    fifo: Option<OwnedFd>,
    debug: bool,
}

impl Log {
    /// A log to `bundle`'s FIFO.
    pub fn new(bundle: &Path, debug: bool) -> Self {
        Self { path: bundle.join("log"), fifo: None, debug }
    }

    /// For people who look for a fault.
    pub fn debug(&mut self, message: &str, about: &str) {
        if self.debug {
            self.write("debug", message, about);
        }
    }

    /// What somebody asked for.
    pub fn info(&mut self, message: &str, about: &str) {
        self.write("info", message, about);
    }

    /// Something failed that no caller is told of.
    pub fn warn(&mut self, message: &str, about: &str) {
        self.write("warning", message, about);
    }

    /// Something failed that matters.
    pub fn error(&mut self, message: &str, about: &str) {
        self.write("error", message, about);
    }

    fn write(&mut self, level: &str, message: &str, about: &str) {
        if self.fifo.is_none() {
            self.fifo = sys::fifo::open_writer_if_read(&self.path).ok().flatten();
        }
        let Some(fifo) = &self.fifo else { return };
        let mut line =
            format!("time=\"{}\" level={level} msg=", types::time::rfc3339(std::time::SystemTime::now()));
        json::quote(message, &mut line);
        line.push_str(" about=");
        json::quote(about, &mut line);
        line.push_str(" runtime=io.containerd.runc.v2\n");
        if let Err(rustix::io::Errno::PIPE) = rustix::io::write(fifo, line.as_bytes()) {
            self.fifo = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn lines_reach_a_reader_and_are_dropped_without_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::new(dir.path(), false);
        log.warn("no fifo", "x");
        sys::fifo::make(&path, 0o600).unwrap();
        log.warn("no reader", "x");
        let (reader, keeper) = sys::fifo::open_reader(&path).unwrap();
        log.warn("a \"b\"", "c1");
        log.debug("hidden", "c1");
        drop((log, keeper));
        let mut text = String::new();
        std::fs::File::from(reader).read_to_string(&mut text).unwrap();
        assert!(text.contains(r#"level=warning msg="a \"b\"" about="c1""#), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}
