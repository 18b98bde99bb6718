//! A program on a terminal of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::Winsize;

use crate::{command, deadline};

/// The master's end, and the program on the other.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    master: File,
    seen: Arc<Mutex<String>>,
}

impl Terminal {
    /// Starts `command` with a new terminal of this size as its three standard streams.
    ///
    /// # Panics
    /// If there are no terminals, or the program cannot be executed.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        let (master, slave) = open(columns, rows).expect("a pseudo-terminal");
        let clone = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("duplicate a descriptor"));
        let child = command
            .stdin(clone(&slave))
            .stdout(clone(&slave))
            .stderr(clone(&slave))
            .env("TERM", "xterm")
            .spawn()
            .expect("start the program on the terminal");
        drop(slave);
        let master = File::from(master);
        let seen = Arc::new(Mutex::new(String::new()));
        let (mut reader, sink) = (master.try_clone().expect("duplicate a descriptor"), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                sink.lock().expect("no reader panics").push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        Self { child, master, seen }
    }

    /// Types `text`.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("write to the terminal");
    }

    /// Waits until the screen has shown `text`.
    #[track_caller]
    pub fn expect(&self, text: &str) {
        let start = std::time::Instant::now();
        while !self.screen().contains(text) {
            assert!(
                start.elapsed() < deadline::default(),
                "the terminal does not show {text:?}, but {:?}",
                self.screen()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// All that the screen has shown.
    pub fn screen(&self) -> String {
        self.seen.lock().expect("no reader panics").clone()
    }

    /// Changes the size, as a user who pulls at the window; the program is told with SIGWINCH.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub fn resize(&self, columns: u16, rows: u16) {
        rustix::termios::tcsetwinsize(&self.master, size(columns, rows)).expect("resize the terminal");
        // The kernel tells the foreground process group; the program has no controlling terminal here.
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::WINCH).expect("signal the program");
    }

    /// Waits for the program's end; gives its exit code.
    ///
    /// # Panics
    /// If it does not end in time.
    #[track_caller]
    pub fn finish(mut self) -> i32 {
        let status = command::wait(&mut self.child, deadline::default());
        let status =
            status.unwrap_or_else(|| panic!("the program on the terminal goes on; {:?}", self.screen()));
        status.code().unwrap_or(-1)
    }
}

fn open(columns: u16, rows: u16) -> std::io::Result<(OwnedFd, OwnedFd)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let slave = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty())?;
    rustix::termios::tcsetwinsize(&master, size(columns, rows))?;
    Ok((master, slave))
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
