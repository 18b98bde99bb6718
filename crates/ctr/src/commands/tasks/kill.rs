//! `ctr tasks kill`.

use clap::Args;
use types::{Error, Result};

use crate::cli::Globals;
use crate::client::Client;
use crate::commands::refused;
use crate::commands::run::container::STOP_SIGNAL_LABEL;
use crate::flags::Words;
use crate::process::Process;

/// `ctr tasks kill`.
#[derive(Args, Debug)]
pub struct Flags {
    /// Signal to send to the container
    #[arg(long, short, default_value = "")]
    signal: String,
    /// Process ID to kill
    #[arg(long, default_value = "")]
    exec_id: String,
    /// Send signal to all processes inside the container
    #[arg(long, short)]
    all: bool,
    #[command(flatten)]
    words: Words,
}

/// Sends a signal: the one that is named, or the one with which the image wants to be stopped.
pub async fn run(globals: &Globals, flags: Flags) -> Result<()> {
    let id = flags.words.first();
    if id.is_empty() {
        return refused("container id must be provided");
    }
    if flags.all && !flags.exec_id.is_empty() {
        return refused("specify an exec-id or all; not both");
    }
    let client = Client::open(globals)?;
    let container = client.container(id).await?;
    let named = if flags.signal.is_empty() {
        container.labels.get(STOP_SIGNAL_LABEL).map_or("SIGTERM", String::as_str)
    } else {
        &flags.signal
    };
    let signal = number(named)?;
    let stop = container.labels.get(STOP_SIGNAL_LABEL).is_some_and(|stop| number(stop).ok() == Some(signal));
    let process = Process { exec: flags.exec_id, ..Process::init(&client, id) };
    let ends = process.exec.is_empty() && (stop || ENDS.contains(&signal));
    let attached = if ends { process.attached(&container).await } else { None };
    if let Err(error) = process.kill(signal, flags.all).await {
        return Err(process.explain(error).await);
    }
    if let Some(attached) = attached {
        attached.remove().await;
    }
    Ok(())
}

/// INT, QUIT, ABRT, KILL, TERM: whoever sends one of these wants the container to end, and its networks with it.
const ENDS: [u32; 5] = [2, 3, 6, 9, 15];

/// `9`, `KILL`, `SIGKILL`, `RTMIN+3`.
fn number(text: &str) -> Result<u32> {
    let bad = || Error::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<u32>() {
        return if number == 0 { Err(bad()) } else { Ok(number) };
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |base: i64, rest: &str| {
        let offset = if rest.is_empty() { 0 } else { rest.parse::<i64>().ok()? };
        u32::try_from(base + offset).ok().filter(|number| (34..=64).contains(number))
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return offset(34, rest).ok_or_else(bad);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return offset(64, rest).ok_or_else(bad);
    }
    let found = NAMES.iter().position(|known| *known == name);
    let other = ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, number)| *number);
    found.and_then(|at| u32::try_from(at + 1).ok()).or(other).ok_or_else(bad)
}

/// From 1 on, as on x86 and ARM.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

const ALIASES: [(&str, u32); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_numbers_and_names() {
        for (text, wanted) in
            [("9", 9), ("kill", 9), ("SIGTERM", 15), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("sys", 31)]
        {
            assert_eq!(number(text).unwrap(), wanted, "{text}");
        }
        for bad in ["", "0", "-1", "SIG", "SIGNOPE", "RTMIN+99", "RTMINx"] {
            assert!(number(bad).is_err(), "{bad}");
        }
        assert_eq!(number("x").unwrap_err().to_string(), "invalid signal: x");
    }
}
