//! The running shim goes on as another program: `ctr shims upgrade`.
//!
//! ```text
//!  request --> trial: the new program reads our state in a child, and says who it is; we serve on meanwhile
//!          --> quiet: new requests are parked, runtime calls and forked work come to their end
//!          --> the state goes into a file in memory, descriptors stay open by number, execve
//!          --> the new program puts it together again, answers the request and those that were parked
//! ```
//!
//! Process number, children, control group, session and the socket stay; so do connections, with what is half read or half
//! written, parked Waits, unsent events, terminals. Whatever fails before the execution leaves the old program serving, and it
//! says why. Each part of the shim writes and reads its own piece (`*/handover.rs`), by a pattern that names every field: a
//! field that is forgotten does not compile. What lasts for moments only is not written, as nothing is handed over then.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::{Duration, Instant};

use api::containerdrs::shim::v1 as wire;
use prost::Message;
use sys::handover::{Inherited, execute, keep, keep_not};
use sys::pidfd::{Ended, PidFd};
use sys::process::{Bond, Program};
use types::{Error, Result, ResultExt, version};

use crate::call::Call;
use crate::children::Purpose;
use crate::flags::Flags;
use crate::io::null;
use crate::offload::memory_file;
use crate::serve::Settings;
use crate::shim::Shim;
use crate::timers::Deadline;

/// The form of the state that is written, and the newest that is understood.
pub const VERSION: u32 = 1;
/// How long the new program may take to read our state.
const TRIAL: Duration = Duration::from_secs(5);
/// How long runtime calls and forked work may take to come to their end, while requests wait.
const QUIET: Duration = Duration::from_secs(3);
/// The value of the flag `-handover` for a trial; else it is the number of a descriptor.
const TRY: &str = "trial";

/// A replacement that is under way.
pub struct Upgrade {
    call: Call,
    binary: CString,
    stage: Stage,
}

enum Stage {
    /// The new program reads our state.
    Trial { report: File },
    /// It can. Since then requests wait.
    Quieting { since: Instant, parked: Vec<(Call, Result<api::ttrpc::Request>)> },
}

/// The descriptors that are handed over.
#[derive(Default)]
pub struct Kept<'a> {
    ours: Vec<BorrowedFd<'a>>,
    copies: Vec<OwnedFd>,
    /// Why there is a copy missing, if there is.
    failed: Option<io::Error>,
}

impl<'a> Kept<'a> {
    /// One more; its number.
    pub fn add(&mut self, fd: &'a impl AsFd) -> i32 {
        self.ours.push(fd.as_fd());
        fd.as_fd().as_raw_fd()
    }

    /// A copy of one that has another place in the state as well, as a number is taken only once; its number.
    pub fn add_copy(&mut self, fd: &impl AsFd) -> i32 {
        match fd.as_fd().try_clone_to_owned() {
            Ok(copy) => {
                let number = copy.as_raw_fd();
                self.copies.push(copy);
                number
            }
            Err(error) => {
                self.failed = Some(error);
                -1
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.ours.iter().copied().chain(self.copies.iter().map(AsFd::as_fd))
    }
}

/// A call on the wire.
pub fn write_down_call(call: Call) -> wire::Call {
    wire::Call { client: call.client, stream: call.stream }
}

/// The same, back.
pub fn read_back_call(call: wire::Call) -> Call {
    Call { client: call.client, stream: call.stream }
}

/// A part that must be there.
pub fn required<T>(part: Option<T>, what: &str) -> Result<T> {
    part.ok_or_else(|| Error::invalid(format!("the state that was handed over has no {what}")))
}

impl Shim {
    /// Begins to go on as `binary`, for `call`.
    pub fn upgrade(&mut self, call: Call, binary: &str) -> Result<()> {
        if self.upgrade.is_some() {
            return Err(Error::unavailable("the shim is being replaced already: unavailable"));
        }
        if self.is_ending() {
            return Err(Error::precondition("the shim is about to end: failed precondition"));
        }
        let path = Path::new(binary);
        if !path.is_absolute() || !path.is_file() {
            return Err(Error::not_found(format!("{binary:?} is no absolute path of a program: not found")));
        }
        let path = c_string(path.as_os_str())?;
        let state = self.write_down(call, &mut Kept::default());
        let (child, report) = start_trial(&path, &state)?;
        let serial = self.cx.track(child, Purpose::Trial)?;
        self.cx.timers.set(TRIAL, Deadline::Trial(serial));
        self.upgrade = Some(Upgrade { call, binary: path, stage: Stage::Trial { report } });
        Ok(())
    }

    /// The new program has read our state, or could not.
    pub fn trial_ended(&mut self, ended: Ended) {
        let Some(upgrade) = &mut self.upgrade else { return };
        let Stage::Trial { report } = &mut upgrade.stage else { return };
        let mut said = String::new();
        let read = report.seek(SeekFrom::Start(0)).and_then(|_| report.take(4096).read_to_string(&mut said));
        if read.is_ok() && ended.is_success() && said.starts_with(version::PACKAGE) {
            upgrade.stage = Stage::Quieting { since: Instant::now(), parked: Vec::new() };
            self.cx.timers.set(QUIET, Deadline::Handover);
        } else {
            let said = said.trim();
            let why =
                format!("the new program cannot go on with our state (status {}): {said}", ended.status());
            self.upgrade_failed(Error::precondition(format!("{why}: failed precondition")));
        }
    }

    /// The new program takes too long to read our state.
    pub fn trial_hangs(&mut self) {
        self.upgrade_failed(Error::deadline(format!(
            "the new program did not read our state within {TRIAL:?}"
        )));
    }

    /// Something that must end before takes too long.
    pub fn handover_expired(&mut self) {
        if matches!(&self.upgrade, Some(Upgrade { stage: Stage::Quieting { .. }, .. })) {
            let why = format!("a runtime call is under way for more than {QUIET:?}: unavailable");
            self.upgrade_failed(Error::unavailable(why));
        }
    }

    /// Goes on as it was: says why, and takes up what was parked.
    fn upgrade_failed(&mut self, error: Error) {
        let Some(upgrade) = self.upgrade.take() else { return };
        self.cx.log.warn(&format!("the shim is not replaced: {error}"), "shim");
        self.cx.reply(upgrade.call, Err(error));
        self.cx.timers.clear(&Deadline::Handover);
        if let Stage::Quieting { parked, .. } = upgrade.stage {
            for (call, request) in parked {
                self.request(call, request);
            }
        }
    }

    /// Keeps a request for later if the shim is about to go on as another program. Whether it did.
    pub fn park(&mut self, call: Call, request: &Result<api::ttrpc::Request>) -> bool {
        let Some(Upgrade { stage: Stage::Quieting { parked, .. }, .. }) = &mut self.upgrade else {
            return false;
        };
        let request = match request {
            Ok(request) => Ok(request.clone()),
            Err(error) => Err(Error::new(error.class(), error.to_string())),
        };
        parked.push((call, request));
        true
    }

    /// Goes on as the new program, if there is one and nothing is under way.
    pub fn hand_over_if_quiet(&mut self) {
        if matches!(&self.upgrade, Some(Upgrade { stage: Stage::Quieting { .. }, .. })) && self.is_quiet() {
            let error = self.hand_over();
            self.upgrade_failed(error);
        }
    }

    /// Executes the new program. Returns only if that fails.
    fn hand_over(&self) -> Error {
        let Some(Upgrade { call, binary, .. }) = &self.upgrade else {
            return Error::internal("nothing to go on as");
        };
        let mut kept = Kept::default();
        let state = self.write_down(*call, &mut kept);
        if let Some(error) = kept.failed.take() {
            return Error::from(error).context("duplicate what is handed over");
        }
        let handed = state_file(&state).and_then(|file| {
            for fd in kept.all().chain([file.as_fd()]) {
                keep(fd)?;
            }
            let error =
                execute(binary, &arguments(&self.settings, &file.as_raw_fd().to_string())?, &environment()?);
            for fd in kept.all() {
                keep_not(fd)?;
            }
            Err::<(), _>(Error::from(error).context(format!("execute {binary:?}")))
        });
        handed.err().unwrap_or_else(|| Error::internal("execve returned"))
    }

    /// All that the shim is.
    fn write_down<'a>(&'a self, call: Call, kept: &mut Kept<'a>) -> wire::State {
        let (parked, begun) = match &self.upgrade {
            Some(Upgrade { stage: Stage::Quieting { since, parked }, .. }) => {
                (parked.as_slice(), Some(*since))
            }
            Some(Upgrade { stage: Stage::Trial { .. }, .. }) | None => (&[][..], None),
        };
        let mut state = self.write_down_parts(kept);
        state.version = VERSION;
        state.writer = format!("{} {}", version::VERSION, version::REVISION);
        state.parked =
            parked.iter().filter_map(|(call, request)| write_down_request(*call, request)).collect();
        state.upgrade = Some(write_down_call(call));
        state.begun = begun.map_or(0, |since| {
            monotonic().saturating_sub(u64::try_from(since.elapsed().as_nanos()).unwrap_or(0))
        });
        state
    }

    /// Takes up what the program before could not finish.
    fn take_up(&mut self, parked: Vec<wire::Parked>, upgrade: Option<wire::Call>, begun: u64) {
        if let Some(call) = upgrade {
            let microseconds = monotonic().saturating_sub(begun) / 1000;
            let (version, revision) = (version::VERSION.to_owned(), version::REVISION.to_owned());
            let answer = wire::UpgradeResponse { version, revision, microseconds };
            self.cx.reply(read_back_call(call), Ok(answer.encode_to_vec()));
        }
        for parked in parked {
            let call = read_back_call(parked.call.unwrap_or_default());
            let pair = |pair: wire::Pair| api::ttrpc::KeyValue { key: pair.key, value: pair.value };
            let request = api::ttrpc::Request {
                service: parked.service,
                method: parked.method,
                payload: parked.payload,
                timeout_nano: parked.timeout_nano,
                metadata: parked.metadata.into_iter().map(pair).collect(),
            };
            self.request(call, Ok(request));
        }
    }
}

/// A request that was parked. One that could not be read is answered by its client's next attempt alone.
fn write_down_request(call: Call, request: &Result<api::ttrpc::Request>) -> Option<wire::Parked> {
    let request = request.as_ref().ok()?;
    let pair = |pair: &api::ttrpc::KeyValue| wire::Pair { key: pair.key.clone(), value: pair.value.clone() };
    Some(wire::Parked {
        call: Some(write_down_call(call)),
        service: request.service.clone(),
        method: request.method.clone(),
        payload: request.payload.clone(),
        timeout_nano: request.timeout_nano,
        metadata: request.metadata.iter().map(pair).collect(),
    })
}

/// Nanoseconds on a clock that goes on across an execution.
fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

fn c_string(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| Error::invalid(format!("{text:?} contains a zero byte")))
}

/// The command line of a shim, as it has always looked, and what the new program is to do.
fn arguments(settings: &Settings, handover: &str) -> Result<Vec<CString>> {
    let mut words = settings.command_line();
    words.extend(["-handover".to_owned(), handover.to_owned()]);
    words.iter().map(|word| c_string(word.as_ref())).collect()
}

fn environment() -> Result<Vec<CString>> {
    std::env::vars_os()
        .map(|(name, value)| {
            let mut variable = name.into_vec();
            variable.push(b'=');
            variable.extend(value.into_vec());
            c_string(OsStr::from_bytes(&variable))
        })
        .collect()
}

fn state_file(state: &wire::State) -> Result<File> {
    let mut file = memory_file("shim-state")?;
    file.write_all(&state.encode_to_vec()).context(|| "write the state")?;
    file.seek(SeekFrom::Start(0)).context(|| "write the state")?;
    Ok(file)
}

/// Lets the new program read the state in a child, which says who it is.
fn start_trial(binary: &CString, state: &wire::State) -> Result<(PidFd, File)> {
    let (state, report) = (state_file(state)?, memory_file("shim-trial")?);
    let words = ["containerd-shim-runc-v2", "-handover", TRY];
    let args = words.iter().map(|word| c_string(word.as_ref())).collect::<Result<Vec<_>>>()?;
    let stdio = [state.as_fd(), report.as_fd(), report.as_fd()];
    let program = Program {
        path: binary,
        args: &args,
        env: &environment()?,
        dir: c"/",
        stdio,
        more: None,
        bond: Bond::Dies,
    };
    let child = program.spawn().context(|| format!("execute {binary:?}"))?;
    Ok((child, report))
}

/// The new program's side: a trial, or the rest of a shim's life.
pub fn go_on(flags: &Flags) -> Result<()> {
    if flags.handover == TRY {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).context(|| "read the state")?;
        check(&decode(&bytes)?)?;
        println!("{} {} {}", version::PACKAGE, version::VERSION, version::REVISION);
        return Ok(());
    }
    // First of all: what is open now is ours.
    let mut inherited = Inherited::collect().context(|| "take what was handed over")?;
    let number = flags.handover.parse().map_err(|_| Error::invalid("-handover: expected a descriptor"))?;
    let mut bytes = Vec::new();
    File::from(inherited.take(number)?).read_to_end(&mut bytes).context(|| "read the state")?;
    let mut state = decode(&bytes)?;
    let (parked, upgrade, begun) = (std::mem::take(&mut state.parked), state.upgrade.take(), state.begun);
    crate::serve::go_on(state, inherited, |shim| shim.take_up(parked, upgrade, begun))
}

/// Reads a state that this program understands.
pub fn decode(bytes: &[u8]) -> Result<wire::State> {
    let state = wire::State::decode(bytes).map_err(|e| Error::invalid(format!("decode the state: {e}")))?;
    match state.version {
        1..=VERSION => Ok(state),
        other => Err(Error::unimplemented(format!(
            "state of version {other}: this program understands 1 to {VERSION}: not implemented"
        ))),
    }
}

/// Whether everything in it means something to us, as far as that can be said without its descriptors.
fn check(state: &wire::State) -> Result<()> {
    required(state.settings.as_ref(), "settings")?;
    required(state.socket.as_ref(), "socket")?;
    required(state.publisher.as_ref(), "publisher")?;
    state.streams.iter().try_for_each(crate::streams::check)?;
    state.children.iter().try_for_each(crate::children::check)?;
    state.containers.iter().try_for_each(crate::driver::check)?;
    null().map(drop)
}

#[cfg(test)]
mod tests;
