//! Running a program with a deadline, and saying all about it when a check fails.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use std::os::unix::process::ExitStatusExt;

use crate::deadline;

/// A program that is about to run.
#[derive(Debug)]
pub struct Invocation {
    command: Command,
    input: Option<Vec<u8>>,
    limit: Duration,
}

/// A program that is running, with its output being collected.
#[derive(Debug)]
pub struct Running {
    child: Child,
    text: String,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
    limit: Duration,
}

/// A program that ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit code; 128 + the signal's number where a signal ended it.
    pub code: i32,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
    text: String,
}

impl Invocation {
    /// `command`, with no input and [`deadline::DEFAULT`].
    pub fn new(command: Command) -> Self {
        Self { command, input: None, limit: deadline::DEFAULT }
    }

    /// Feeds `bytes` to its standard input, then closes it.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.command.env(key, value);
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it does not start, or does not end in time; it is killed then.
    #[track_caller]
    pub fn run(self) -> Finished {
        self.start().finish()
    }

    /// Runs it to its end, which must be exit code 0; gives its standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        self.run().expect_code(0).stdout
    }

    /// Runs it to its end, which must not be exit code 0.
    #[track_caller]
    pub fn fails(self) -> Finished {
        let finished = self.run();
        assert!(finished.code != 0, "succeeded, but must not: {finished}");
        finished
    }

    /// Starts it.
    ///
    /// # Panics
    /// If the program cannot be executed.
    #[track_caller]
    pub fn start(mut self) -> Running {
        let text = format!("{:?}", self.command);
        let input = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        self.command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("{text}: {error}"));
        if let (Some(bytes), Some(mut stdin)) = (self.input, child.stdin.take()) {
            // A program that ends without reading makes this fail; the test judges by its output.
            thread::spawn(move || stdin.write_all(&bytes));
        }
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        Running { child, text, stdout, stderr, limit: self.limit }
    }
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .expect("signalling a child that was not waited for");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If that does not come in time; it is killed then.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let status = wait(&mut self.child, self.limit);
        // A grandchild may hold the pipes open; what is there within a second of the end is the output.
        let grace = Duration::from_secs(if status.is_some() { 5 } else { 1 });
        let stdout = text(&self.stdout, grace);
        let stderr = text(&self.stderr, grace);
        let code = status.map_or(-1, |s| s.code().unwrap_or_else(|| 128 + s.signal().unwrap_or(0)));
        let finished = Finished { code, stdout, stderr, text: self.text };
        assert!(status.is_some(), "did not end within {:?}: {finished}", self.limit);
        finished
    }
}

impl Finished {
    /// # Panics
    /// If the exit code is another.
    #[track_caller]
    #[must_use]
    pub fn expect_code(self, code: i32) -> Self {
        assert!(self.code == code, "exit code is not {code}: {self}");
        self
    }

    /// # Panics
    /// If neither output contains `words`.
    #[track_caller]
    pub fn says(&self, words: &str) {
        assert!(self.stdout.contains(words) || self.stderr.contains(words), "does not say {words:?}: {self}");
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}\nexit code: {}\n--- stdout\n{}\n--- stderr\n{}\n---",
            self.text, self.code, self.stdout, self.stderr
        )
    }
}

/// Waits for `child` for `limit` at most; kills it and answers `None` after that.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(500);
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait().expect("waiting for a child") {
            return Some(status);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    // It may have ended just now.
    let _ = child.kill();
    let _ = child.wait();
    None
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    let Some(mut pipe) = pipe else { return receiver };
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok(n @ 1..) = pipe.read(&mut buffer) {
            if sender.send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

fn text(chunks: &Receiver<Vec<u8>>, grace: Duration) -> String {
    let mut bytes = Vec::new();
    let end = Instant::now() + grace;
    while let Ok(chunk) = chunks.recv_timeout(end.saturating_duration_since(Instant::now())) {
        bytes.extend(chunk);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
