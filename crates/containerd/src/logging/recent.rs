//! The last lines of the log, kept in memory for whoever asks what has happened: where stderr goes is not ours to know.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// How many bytes are kept.
const KEPT: usize = 64 << 10;

static RECENT: Mutex<VecDeque<u8>> = Mutex::new(VecDeque::new());

/// The last whole lines.
pub fn recent() -> String {
    let recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes: Vec<u8> = recent.iter().copied().collect();
    let text = String::from_utf8_lossy(&bytes);
    match text.split_once('\n') {
        // The first line has lost its beginning.
        Some((_, rest)) if bytes.len() == KEPT => rest.to_owned(),
        _ => text.into_owned(),
    }
}

fn keep(line: &[u8]) {
    let line = line.get(line.len().saturating_sub(KEPT)..).unwrap_or_default();
    let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    let excess = (recent.len() + line.len()).saturating_sub(KEPT);
    recent.drain(..excess);
    recent.extend(line);
}

/// Writes to stderr, and keeps what it writes.
#[derive(Clone, Copy, Debug)]
pub struct Kept;

impl Write for Kept {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        keep(line);
        io::stderr().write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Kept {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_whole_and_no_more_than_is_allowed() {
        for n in 0..20_000 {
            keep(format!("line {n}\n").as_bytes());
        }
        let kept = recent();
        assert!(kept.len() < KEPT && kept.len() > KEPT - 20, "{}", kept.len());
        assert!(kept.starts_with("line ") && kept.ends_with("line 19999\n"));
        keep(&vec![b'x'; KEPT + 5]);
        assert!(recent().len() <= KEPT);
    }
}
