//! Running other programs: shown before they run, their failure an error that names them.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// cargo, as the caller's cargo named itself, in the checkout.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(crate::paths::repository());
    command
}

/// Runs `command` with the caller's streams but its input.
pub fn run(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", shown(command));
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("run {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs `command`; gives what it wrote to its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("run {}", shown(command)))?;
    if !done.status.success() {
        bail!("{} failed: {}", shown(command), done.status);
    }
    String::from_utf8(done.stdout).with_context(|| format!("read the output of {}", shown(command)))
}

/// Runs `command`; shows what it writes to its standard output, gives it, and whether it succeeded.
pub fn tee(command: &mut Command) -> Result<(String, bool)> {
    let shown = shown(command);
    eprintln!("$ {shown}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {shown}"))?;
    let stdout = child.stdout.take().context("its output is a pipe")?;
    let mut output = String::new();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.with_context(|| format!("read from {shown}"))?;
        let line = String::from_utf8_lossy(&line);
        println!("{}", line.trim_end_matches('\r'));
        output.push_str(line.trim_end_matches('\r'));
        output.push('\n');
    }
    let status = child.wait().with_context(|| format!("wait for {shown}"))?;
    Ok((output, status.success()))
}

/// The command line, for people.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
