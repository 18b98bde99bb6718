//! Running a program with a deadline, and saying all about it when a check fails.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
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
    stdout: Collected,
    stderr: Collected,
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
    /// `command`, with no input and [`deadline::default`].
    pub fn new(command: Command) -> Self {
        Self { command, input: None, limit: deadline::default() }
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
        let stdout = Collected::from(child.stdout.take());
        let stderr = Collected::from(child.stderr.take());
        Running { child, text, stdout, stderr, limit: self.limit }
    }
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to its standard output so far.
    pub fn output(&self) -> String {
        self.stdout.text()
    }

    /// Waits until its standard output contains `words`.
    ///
    /// # Panics
    /// If that does not happen in time.
    #[track_caller]
    pub fn await_output(&self, words: &str) {
        deadline::eventually(&format!("{} writes {words:?}", self.text), || self.output().contains(words));
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
        let grace = deadline::patient(Duration::from_secs(if status.is_some() { 5 } else { 1 }));
        let stdout = self.stdout.complete(grace);
        let stderr = self.stderr.complete(grace);
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

/// What came out of a pipe so far, and the thread that reads it.
#[derive(Debug)]
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Collected {
    fn from(pipe: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let Some(mut pipe) = pipe else { return };
            let mut buffer = vec![0; 65_536];
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                sink.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..n]);
            }
        });
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// A grandchild may hold the pipe open; what is there after `grace` is the output.
    fn complete(&self, grace: Duration) -> String {
        let start = Instant::now();
        while !self.reader.is_finished() && start.elapsed() < grace {
            thread::sleep(Duration::from_millis(1));
        }
        self.text()
    }
}
