//! The debug socket, which a shim that logs more (`-debug`) has beside its own: what upstream's serves under `/debug`, as far as
//! it has a meaning here. `ctr shim --id ID pprof` reads it.
//!
//! | path | here |
//! | --- | --- |
//! | `/debug/pprof/` | an index |
//! | `/debug/pprof/goroutine`, `threadcreate` | all that is going on ([`Shim::dump`]); SIGUSR1 logs the same |
//! | `/debug/pprof/heap`, `allocs` | memory by the kernel's account |
//! | `/debug/pprof/cmdline` | the command line |
//! | `/debug/vars` | numbers as JSON |
//! | `/debug/pprof/{profile,trace,block,mutex,symbol}` | 501: `perf` does that from outside |
//!
//! A fork answers: it has everything as it was at that moment, may wait for a slow reader, and leaves nothing in our memory.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use api::containerdrs::shim::v1 as wire;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use sys::epoll::{Epoll, Ready};
use sys::handover::Inherited;
use sys::process::{Fork, die_with_parent, exit_now, fork};
use types::{Error, Result, ResultExt, version};

use crate::address::{self, Claim, Socket};
use crate::children::Purpose;
use crate::errno::Os;
use crate::handover::Kept;
use crate::json::{self, Object, list};
use crate::shim::Shim;
use crate::timers::Deadline;
use crate::token::{Kind, Token};

/// How long an answer may take, however slow its reader.
const LIMIT: Duration = Duration::from_secs(10);
/// No request is longer.
const REQUEST: usize = 8 << 10;

const INDEX: &str = "/debug/pprof/\n\n\
    goroutine     containers, calls of the runtime, streams, events, deadlines\n\
    heap          memory\n\
    threadcreate  as goroutine\n\
    cmdline       the command line\n\n\
    /debug/vars   numbers as JSON\n\n\
    There are no samples of a running program here: use perf record -g -p PID.\n";

/// The socket, listening.
pub struct Door {
    listener: OwnedFd,
    /// To be removed when nobody listens any more.
    pub socket: Socket,
}

impl Door {
    /// Listens at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        match address::claim(path)? {
            Claim::Ours(listener, socket) => Ok(Self { listener, socket }),
            Claim::Taken => Err(Error::already_exists(format!("{} is served already", path.display()))),
        }
    }

    /// Has the loop tell of those who come.
    pub fn watch(&self, epoll: &Epoll) -> Result<()> {
        let token = Token { kind: Kind::Debugger, serial: 0 }.pack();
        epoll.add(&self.listener, token, Ready::IN).context(|| "watch the debug socket")
    }

    /// Puts it into `state`, for another program.
    pub fn write_down<'a>(&'a self, state: &mut wire::State, kept: &mut Kept<'a>) {
        let Self { listener, socket } = self;
        state.debug_listener = Some(kept.add(listener));
        state.debug_socket = Some(socket.write_down());
    }

    /// That of `state`, if there is one.
    pub fn read_back(state: &mut wire::State, inherited: &mut Inherited) -> Result<Option<Self>> {
        let (Some(fd), Some(place)) = (state.debug_listener, state.debug_socket.take()) else {
            return Ok(None);
        };
        Ok(Some(Self { listener: inherited.take(fd)?, socket: Socket::read_back(place) }))
    }
}

/// A page, as HTTP has it.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    status: &'static str,
    kind: &'static str,
    body: String,
}

impl Page {
    fn text(status: &'static str, body: impl Into<String>) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: body.into() }
    }
}

impl Shim {
    /// Somebody wants to know.
    pub fn debugger_came(&mut self) {
        let Some(door) = &self.debug else { return };
        let came = match accept_with(&door.listener, SocketFlags::CLOEXEC) {
            Ok(connection) => self.show(File::from(connection)),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(()),
            Err(e) => {
                // Asking again at once would spin; whoever debugs finds the door closed.
                door.socket.remove();
                self.debug = None;
                Err(std::io::Error::from(e)).context(|| "accept a debugger")
            }
        };
        if let Err(error) = came {
            self.cx.log.error(&error.to_string(), "shim");
        }
    }

    /// Has a fork answer what is asked on `connection`.
    fn show(&mut self, connection: File) -> Result<()> {
        let peer = rustix::net::sockopt::socket_peercred(&connection).os().context(|| "who debugs")?;
        if peer.uid != rustix::process::geteuid() {
            return Ok(());
        }
        match fork().context(|| "fork")? {
            Fork::Parent(child) => {
                let serial = self.cx.track(child, Purpose::Abandoned)?;
                self.cx.timers.set(LIMIT, Deadline::Kill(serial));
                Ok(())
            }
            Fork::Child => {
                let answered = die_with_parent().and_then(|()| answer(connection, |path| self.page(path)));
                exit_now(i32::from(answered.is_err()))
            }
        }
    }

    fn page(&self, path: &str) -> Page {
        let path = path.split('?').next().unwrap_or_default();
        let Some(profile) = path.strip_prefix("/debug/pprof/") else {
            return match path {
                "/debug/vars" => {
                    Page { kind: "application/json; charset=utf-8", ..Page::text("200 OK", self.vars()) }
                }
                _ => Page::text("404 Not Found", "404 page not found\n"),
            };
        };
        match profile {
            "" => Page::text("200 OK", INDEX),
            "goroutine" | "threadcreate" => Page::text("200 OK", self.dump()),
            "heap" | "allocs" => Page::text("200 OK", of_shim("smaps_rollup")),
            "cmdline" => Page::text("200 OK", of_shim("cmdline")),
            "profile" | "trace" | "block" | "mutex" | "symbol" => {
                Page::text("501 Not Implemented", "not implemented: use perf record -g -p PID\n")
            }
            _ => Page::text("404 Not Found", "Unknown profile\n"),
        }
    }

    /// All that is going on, for people. Nothing in it is a container's environment or output.
    pub fn dump(&self) -> String {
        let state = self.write_down_parts(&mut Kept::default());
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write_dump(&state, &mut out);
        out
    }

    fn write_dump(&self, state: &wire::State, out: &mut String) -> std::fmt::Result {
        let settings = &self.settings;
        let (namespace, id) = (&settings.namespace, &settings.id);
        writeln!(out, "shim {} {} of {namespace}/{id}", version::VERSION, version::REVISION)?;
        writeln!(out, "daemon {}, events to {:?}", settings.grpc_address, settings.ttrpc_address)?;
        for container in self.containers() {
            writeln!(out, "\ncontainer {:#?}", container.state())?;
        }
        writeln!(out, "\nchildren:")?;
        for (serial, pid, purpose) in self.cx.children.all() {
            writeln!(out, "  {serial}: process {pid}, {purpose}")?;
        }
        writeln!(out, "\nstreams:")?;
        state.streams.iter().try_for_each(|stream| write_stream(stream, out))?;
        writeln!(out, "\nclients:")?;
        for client in &state.clients {
            let wire = client.wire.clone().unwrap_or_default();
            writeln!(
                out,
                "  {}: {} bytes read, {} to be sent",
                client.id,
                wire.input.len(),
                wire.output.len()
            )?;
        }
        writeln!(out, "\nevents:")?;
        if let Some(events) = &state.publisher {
            let (attempts, delay) = (events.attempts, events.delay_ms);
            let connected = if events.wire.is_some() { "connected" } else { "not connected" };
            writeln!(
                out,
                "  {connected}, attempt {attempts}, next after {delay} ms, on its way {:?}",
                events.in_flight
            )?;
            for journal in &events.journals {
                let (bytes, unwritten) = (journal.tail.saturating_sub(journal.head), journal.unwritten.len());
                writeln!(out, "  {}: {bytes} bytes untold, {unwritten} events in memory", journal.path)?;
            }
        }
        writeln!(out, "\ndeadlines:")?;
        for (left, deadline) in self.cx.timers.all() {
            writeln!(out, "  in {left:?}: {deadline:?}")?;
        }
        Ok(())
    }

    /// Numbers for programs.
    fn vars(&self) -> String {
        let state = self.write_down_parts(&mut Kept::default());
        let command = of_shim("cmdline");
        let words = command.trim_end_matches('\0').split('\0').map(|word| {
            let mut quoted = String::new();
            json::quote(word, &mut quoted);
            quoted
        });
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let untold = |journal: &wire::Journal| journal.tail.saturating_sub(journal.head);
        let mut object = Object::new();
        object.raw("cmdline", &list(words));
        object.text("version", version::VERSION);
        object.text("revision", version::REVISION);
        object.number("containers", count(state.containers.len()));
        object.number("processes", count(state.containers.iter().map(|c| c.processes.len()).sum()));
        object.number("children", count(state.children.len()));
        object.number("streams", count(state.streams.len()));
        object.number("clients", count(state.clients.len()));
        object.number("deadlines", count(self.cx.timers.all().count()));
        object.number("untold_bytes", state.publisher.iter().flat_map(|p| &p.journals).map(untold).sum());
        object.raw("memory", &memory(&of_shim("smaps_rollup")));
        object.finish() + "\n"
    }
}

fn write_stream(stream: &wire::Stream, out: &mut String) -> std::fmt::Result {
    let (owner, sink) = (stream.owner.clone().unwrap_or_default(), stream.sink.clone().unwrap_or_default());
    let process = if owner.exec.is_empty() { "init" } else { &owner.exec };
    let to = match (stream.input, sink.kind, sink.error) {
        (true, ..) => "standard input".to_owned(),
        (_, _, _) if !sink.path.is_empty() => sink.path,
        (_, _, true) => "a program, as error".to_owned(),
        (_, _, false) => "a program".to_owned(),
    };
    write!(
        out,
        "  {}: {} {process} to {to}, {} bytes in memory",
        stream.serial,
        owner.container,
        stream.pending.len()
    )?;
    if let Some(spool) = &stream.waiting {
        write!(out, ", waits in {}", spool.path)?;
    }
    if stream.carrier != 0 {
        write!(out, ", carried by child {}", stream.carrier)?;
    }
    let ended = if stream.ended { ", ended" } else { "" };
    writeln!(out, "{ended}")
}

/// What `/proc` says of the shim, whose child this is.
fn of_shim(file: &str) -> String {
    let parent = rustix::process::getppid().map_or(0, rustix::process::Pid::as_raw_pid);
    std::fs::read(format!("/proc/{parent}/{file}"))
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// The lines of `smaps_rollup` with a number of kilobytes.
fn memory(rollup: &str) -> String {
    let mut object = Object::new();
    for line in rollup.lines() {
        if let Some((name, rest)) = line.split_once(':')
            && let Some(kilobytes) = rest.trim().strip_suffix(" kB").and_then(|n| n.parse::<u64>().ok())
        {
            object.number(name, kilobytes * 1024);
        }
    }
    object.finish()
}

/// Reads a request and writes the page for it.
fn answer(mut connection: impl Read + Write, page: impl FnOnce(&str) -> Page) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut piece = [0; 512];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match connection.read(&mut piece)? {
            0 => return Ok(()),
            _ if request.len() > REQUEST => return Ok(()),
            read => request.extend_from_slice(piece.get(..read).unwrap_or_default()),
        }
    }
    let line =
        String::from_utf8_lossy(request.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
    let Page { status, kind, body } = match line.split(' ').collect::<Vec<_>>()[..] {
        ["GET", path, ..] => page(path),
        _ => Page::text("405 Method Not Allowed", "Method Not Allowed\n"),
    };
    let head = format!(
        "HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes())?;
    connection.write_all(body.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn asked(request: &str) -> String {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(request.as_bytes()).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        answer(ours, |path| Page::text("200 OK", path)).unwrap();
        let mut said = String::new();
        // What was not read resets the connection.
        let _ = theirs.read_to_string(&mut said);
        said
    }

    #[test]
    fn a_request_is_answered_and_what_is_none_is_not() {
        let answer = asked("GET /debug/vars HTTP/1.1\r\nHost: d\r\n\r\n");
        assert!(
            answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\n/debug/vars"),
            "{answer}"
        );
        assert!(asked("POST /debug/vars HTTP/1.1\r\n\r\n").starts_with("HTTP/1.0 405 "));
        assert_eq!(asked("GET /debug/vars HT"), "");
        assert_eq!(asked(&"x".repeat(3 * REQUEST)), "");
    }

    #[test]
    fn numbers_of_kilobytes_become_bytes() {
        let rollup = "00-ff ---p 0 00:00 0  [rollup]\nRss:     12 kB\nPss_Dirty:   3 kB\n";
        assert_eq!(memory(rollup), r#"{"Rss":12288,"Pss_Dirty":3072}"#);
    }
}
