//! The shim's log: lines from the FIFO in its bundle into the daemon's log.

use std::path::Path;

use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use types::{Result, ResultExt};

use crate::bundle::Bundle;
use crate::key::TaskKey;

/// The longest line that is kept whole.
const LINE: usize = 16 * 1024;
/// How much is read at a time, and how often in one turn: as much as a FIFO holds, so that what was written before the
/// end is read to its end, and a shim that never stops writing keeps no thread of ours.
const READ: usize = 4096;
const READS: usize = 16;

/// Copies until dropped; what was written before that is copied still.
#[derive(Debug)]
pub(crate) struct ShimLog {
    _stop: oneshot::Sender<()>,
}

impl ShimLog {
    /// Opens the FIFO of `bundle`, made if it is not there, and copies from now on.
    ///
    /// It is opened for reading and writing, so that the shim's end may come and go, and so that a shim which opens
    /// it for writing never waits for us.
    pub(crate) fn open(bundle: &Bundle, key: &TaskKey) -> Result<Self> {
        let path = bundle.make_log()?;
        let fifo = open(&path).context(|| format!("open shim log pipe {path:?}"))?;
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(copy(fifo, key.clone(), stopped));
        Ok(Self { _stop: stop })
    }
}

fn open(path: &Path) -> std::io::Result<pipe::Receiver> {
    pipe::OpenOptions::new().read_write(true).open_receiver(path)
}

async fn copy(fifo: pipe::Receiver, key: TaskKey, mut stopped: oneshot::Receiver<()>) {
    let mut lines = Vec::new();
    loop {
        let last = tokio::select! {
            ready = fifo.readable() => ready.is_err(),
            _ = &mut stopped => true,
        };
        read_some(&fifo, &mut lines, &key);
        if last {
            return print(&mut lines, &key, true);
        }
        tokio::task::yield_now().await;
    }
}

fn read_some(fifo: &pipe::Receiver, lines: &mut Vec<u8>, key: &TaskKey) {
    let mut buffer = [0; READ];
    for _ in 0..READS {
        let Ok(read @ 1..) = fifo.try_read(&mut buffer) else { return };
        lines.extend_from_slice(buffer.get(..read).unwrap_or_default());
        print(lines, key, false);
    }
}

/// Prints and removes whole lines; with `all`, the rest too.
fn print(lines: &mut Vec<u8>, key: &TaskKey, all: bool) {
    let whole = match lines.iter().rposition(|byte| *byte == b'\n') {
        Some(end) if !all && lines.len() - end <= LINE => end + 1,
        None if !all && lines.len() <= LINE => return,
        _ => lines.len(),
    };
    for line in lines.drain(..whole).as_slice().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line = String::from_utf8_lossy(line);
        let (namespace, id) = (key.namespace(), key.id());
        let (level, text) = level(&line);
        match level {
            "error" | "fatal" | "panic" => tracing::error!(target: "shim", %namespace, id, "shim: {text}"),
            "warning" | "warn" => tracing::warn!(target: "shim", %namespace, id, "shim: {text}"),
            "debug" | "trace" => tracing::debug!(target: "shim", %namespace, id, "shim: {text}"),
            _ => tracing::info!(target: "shim", %namespace, id, "shim: {text}"),
        }
    }
}

/// The level as logrus writes it, in text or JSON, and what the daemon's own line does not say already.
fn level(line: &str) -> (&str, &str) {
    if let Some((_, rest)) = line.split_once("level=").filter(|(before, _)| before.starts_with("time=")) {
        return rest.split_once(' ').unwrap_or((rest, ""));
    }
    let level = line.split_once("\"level\":\"").and_then(|(_, rest)| rest.split('"').next());
    (level.unwrap_or_default(), line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_in_both_formats() {
        assert_eq!(level(r#"time="2026" level=error msg="x""#), ("error", r#"msg="x""#));
        assert_eq!(
            level(r#"{"level":"warning","msg":"x"}"#),
            ("warning", r#"{"level":"warning","msg":"x"}"#)
        );
        assert_eq!(level("panic: oops"), ("", "panic: oops"));
    }

    #[tokio::test]
    async fn a_shim_that_never_stops_writing_keeps_no_thread_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        sys::fifo::make(&path, 0o700).unwrap();
        let fifo = open(&path).unwrap();
        let mut writer = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        // It ends when the last reader is gone.
        let shim =
            std::thread::spawn(
                move || while std::io::Write::write_all(&mut writer, &[b'\n'; 4096]).is_ok() {},
            );
        let (stop, stopped) = oneshot::channel();
        let key = TaskKey::new(&"default".parse().unwrap(), "c1").unwrap();
        let copying = tokio::spawn(copy(fifo, key, stopped));
        // The runtime has one thread: it comes back here only if the copy lets go of it.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        drop(stop);
        copying.await.unwrap();
        shim.join().unwrap();
    }

    #[test]
    fn lines_are_kept_whole_and_a_line_without_an_end_is_bounded() {
        let key = TaskKey::new(&"default".parse().unwrap(), "c1").unwrap();
        let mut lines = b"one\ntwo\nthr".to_vec();
        print(&mut lines, &key, false);
        assert_eq!(lines, b"thr");
        lines = vec![b'x'; LINE + 1];
        print(&mut lines, &key, false);
        assert!(lines.is_empty());
    }
}
