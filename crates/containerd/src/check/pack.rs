//! `--bundle FILE`: what somebody who is asked for help wants to see, in one archive for root alone, without credentials.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use diff::tar::{Entry, Kind, Time, Writer};
use flate2::Compression;
use flate2::write::GzEncoder;
use toml::{Table, Value};
use types::{Result, ResultExt, version};

use crate::cli::Flags;
use crate::config;
use crate::logging::redact;

use super::Evidence;
use super::report::Report;

/// What stands in place of a secret.
const BLOT: &str = "[REDACTED]";
/// Keys of a configuration whose values are nobody else's business, or whose names end so.
const SECRET: [&str; 8] =
    ["auth", "password", "token", "secret", "username", "identitytoken", "env", "header"];
/// How many lines of the journal are packed where the daemon cannot be asked for its last ones.
const LINES: &str = "2000";
/// The kernel's files that tell of the machine.
const MACHINE: [&str; 9] = [
    "/proc/version",
    "/proc/cmdline",
    "/proc/meminfo",
    "/proc/loadavg",
    "/proc/mounts",
    "/proc/filesystems",
    "/proc/cgroups",
    "/proc/pressure/memory",
    "/etc/os-release",
];

/// Writes the archive. A file that is there is left alone.
pub fn pack(path: &Path, flags: &Flags, report: &Report, evidence: &Evidence) -> Result<()> {
    let doing = || format!("write {}", path.display());
    let file = File::options().write(true).create_new(true).mode(0o600).open(path).context(doing)?;
    let packed = write(file, flags, report, evidence);
    if packed.is_err() {
        // It is ours, and of no use.
        drop(std::fs::remove_file(path));
    }
    packed.context(doing)
}

fn write(file: File, flags: &Flags, report: &Report, evidence: &Evidence) -> Result<()> {
    let mut archive = Writer::new(GzEncoder::new(file, Compression::default()));
    let mut add = |name: &str, text: &str| add(&mut archive, name, text);
    add("version.txt", &format!("{} {} {}\n", version::PACKAGE, version::VERSION, version::REVISION))?;
    add("check.txt", &report.text())?;
    add("check.json", &report.json())?;
    add("config.toml", &configuration(flags))?;
    add("log.txt", &log(evidence))?;
    add("stacks.txt", &redact(&evidence.dump))?;
    for path in MACHINE {
        let name = format!("machine/{}", path.trim_start_matches('/').replace('/', "-"));
        add(&name, &redact(&std::fs::read_to_string(path).unwrap_or_default()))?;
    }
    archive.finish()?.finish()?.sync_all()?;
    Ok(())
}

fn add(archive: &mut Writer<GzEncoder<File>>, name: &str, text: &str) -> Result<()> {
    let now = types::time::unix(std::time::SystemTime::now()).0;
    let entry = Entry {
        name: format!("containerd-check/{name}").into_bytes(),
        mode: 0o600,
        size: text.len() as u64,
        mtime: Time { secs: now, nanos: 0 },
        ..Entry::new(Kind::File)
    };
    archive.entry(&entry)?;
    archive.body(text.as_bytes())
}

/// The daemon's last lines; where it cannot be asked, the journal's.
fn log(evidence: &Evidence) -> String {
    if !evidence.log.is_empty() {
        return redact(&evidence.log).into_owned();
    }
    let mut journal = Command::new("journalctl");
    journal.args(["-u", "containerd", "-n", LINES, "--no-pager", "-o", "short-iso"]);
    match journal.stdin(Stdio::null()).stderr(Stdio::null()).output() {
        Ok(output) => redact(&String::from_utf8_lossy(&output.stdout)).into_owned(),
        Err(error) => format!("no daemon answers, and there is no journal: {error}\n"),
    }
}

/// The configuration as it is meant, without secrets.
fn configuration(flags: &Flags) -> String {
    let printed = config::print(flags);
    match printed.and_then(|(text, _)| {
        let table: Table = text.parse().map_err(|e| types::Error::internal(format!("{e}")))?;
        toml::to_string(&blotted(table)).map_err(|e| types::Error::internal(format!("{e}")))
    }) {
        Ok(text) => redact(&text).into_owned(),
        Err(error) => format!("# {}\n", redact(&error.to_string())),
    }
}

fn blotted(table: Table) -> Table {
    let blot = |(key, value): (String, Value)| {
        let secret = SECRET.iter().any(|secret| key.to_ascii_lowercase().ends_with(secret));
        let value = match value {
            Value::Table(below) if !secret => Value::Table(blotted(below)),
            Value::Array(items) if !secret => Value::Array(items.into_iter().map(blotted_item).collect()),
            Value::String(text) if secret && text.is_empty() => Value::String(text),
            Value::Array(items) if secret && items.is_empty() => Value::Array(items),
            Value::Table(below) if secret && below.is_empty() => Value::Table(below),
            _ if secret => Value::String(BLOT.to_owned()),
            value => value,
        };
        (key, value)
    };
    table.into_iter().map(blot).collect()
}

fn blotted_item(item: Value) -> Value {
    match item {
        Value::Table(below) => Value::Table(blotted(below)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_credential_of_a_configuration_is_packed() {
        let text = "[plugins.r.configs.h.auth]\nusername = 'NAME'\npassword = 'WORD'\nidentitytoken = ''\n\
                    [plugins.m]\nenv = ['KEY=WORD']\nurl = 'https://u:WORD@h/x?sig=WORD'\nlist = [{ token = 'WORD' }]\n\
                    [plugins.x.header]\nauthorization = 'Basic WORD'\n";
        let clean = toml::to_string(&blotted(text.parse().unwrap())).unwrap();
        let clean = redact(&clean);
        assert!(!clean.contains("WORD") && !clean.contains("NAME"), "{clean}");
        assert!(clean.contains(BLOT), "{clean}");
    }
}
