//! `ctr pprof`: what a debug socket says about its program. Go's names; our daemon answers those of them that mean
//! something for it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::{Args, Subcommand};
use types::error::os_text;
use types::{Error, Result};

use super::print;
use crate::go;

/// `ctr pprof`.
#[derive(Args, Debug)]
pub struct Flags {
    /// Socket path for containerd's debug server
    #[arg(long, short, default_value = "/run/containerd/debug.sock")]
    debug_socket: String,
    #[command(subcommand)]
    profile: Profile,
}

/// What to ask for.
#[derive(Subcommand, Debug)]
pub enum Profile {
    /// Goroutine blocking profile
    Block(Format),
    /// Dump goroutine stack dump
    Goroutines {
        /// Debug pprof args
        #[arg(long, default_value_t = 2)]
        debug: u64,
        #[arg(hide = true)]
        extra: Vec<String>,
    },
    /// Dump heap profile
    Heap(Format),
    /// CPU profile
    #[command(name = "profile")]
    Cpu {
        /// Duration for collection (seconds)
        #[arg(long, short, value_parser = go::duration::parse, default_value = "30s")]
        seconds: Duration,
        #[command(flatten)]
        format: Format,
    },
    /// Goroutine thread creating profile
    Threadcreate(Format),
    /// Collect execution trace
    Trace {
        /// Trace time (seconds)
        #[arg(long, short, value_parser = go::duration::parse, default_value = "5s")]
        seconds: Duration,
        #[command(flatten)]
        format: Format,
    },
}

/// How the answer is wanted.
#[derive(Args, Debug)]
pub struct Format {
    /// Debug pprof args
    #[arg(long, default_value_t = 0)]
    debug: u64,
    #[arg(hide = true)]
    extra: Vec<String>,
}

impl Profile {
    fn path(&self) -> String {
        let timed = |name: &str, seconds: &Duration, format: &Format| {
            format!("{name}?seconds={}&debug={}", seconds.as_secs_f64(), format.debug)
        };
        let plain = |name: &str, debug: u64| format!("{name}?debug={debug}");
        let query = match self {
            Self::Block(format) => plain("block", format.debug),
            Self::Goroutines { debug, .. } => plain("goroutine", *debug),
            Self::Heap(format) => plain("heap", format.debug),
            Self::Cpu { seconds, format } => timed("profile", seconds, format),
            Self::Threadcreate(format) => plain("threadcreate", format.debug),
            Self::Trace { seconds, format } => timed("trace", seconds, format),
        };
        format!("/debug/pprof/{query}")
    }
}

/// Prints what the daemon's debug socket answers.
pub fn run(flags: &Flags) -> Result<()> {
    get(&flags.debug_socket, &flags.profile)
}

/// Prints what the server at `socket` answers.
pub fn get(socket: &str, profile: &Profile) -> Result<()> {
    let path = profile.path();
    let failed = |doing: &str, error: std::io::Error| {
        let why = format!("Get \"http://.{path}\": {doing}: {}", os_text(&error));
        Error::unavailable(why)
    };
    let dialled = |e| failed(&format!("dial unix {socket}: connect"), e);
    let mut stream = UnixStream::connect(socket).map_err(dialled)?;
    // 1.0, so that the answer comes in one piece and ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: .\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|e| failed("write", e))?;
    let mut answer = BufReader::new(stream);
    let status = head(&mut answer).map_err(|e| failed("read", e))?;
    if status.split(' ').next() != Some("200") {
        return Err(Error::unknown(format!("http get failed with status: {status}")));
    }
    let mut buffer = vec![0; 64 << 10];
    loop {
        match answer.read(&mut buffer).map_err(|e| failed("read", e))? {
            0 => return Ok(()),
            read => print(&buffer[..read])?,
        }
    }
}

/// Reads up to the body; answers the status.
fn head(answer: &mut impl BufRead) -> std::io::Result<String> {
    let mut first = String::new();
    let mut answer = answer.take(64 << 10);
    answer.read_line(&mut first)?;
    let mut line = String::new();
    loop {
        line.clear();
        if answer.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim_end().is_empty() {
            break;
        }
    }
    Ok(first.trim_end().split_once(' ').map_or(String::new(), |(_, status)| status.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_gos_server() {
        let format = Format { debug: 1, extra: Vec::new() };
        assert_eq!(Profile::Heap(format).path(), "/debug/pprof/heap?debug=1");
        let seconds = Duration::from_millis(1500);
        let format = Format { debug: 0, extra: Vec::new() };
        let profile = Profile::Trace { seconds, format };
        assert_eq!(profile.path(), "/debug/pprof/trace?seconds=1.5&debug=0");
    }

    #[test]
    fn the_head_ends_at_an_empty_line() {
        let mut answer = &b"HTTP/1.0 404 Not Found\r\nA: b\r\n\r\nbody"[..];
        assert_eq!(head(&mut answer).unwrap(), "404 Not Found");
        assert_eq!(answer, b"body");
        assert!(head(&mut &b"HTTP/1.0 200 OK\r\n"[..]).is_err());
    }
}
