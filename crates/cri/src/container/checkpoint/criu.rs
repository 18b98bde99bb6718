//! CRIU, which writes and reads processes: a program that may be there.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use types::{Error, Result, ResultExt};

/// The first version that can write what is in a pod: 3.16.
const LEAST: u32 = 31600;

/// Refuses a machine without CRIU, or with too old a one. It blocks.
pub fn check() -> Result<()> {
    let path =
        find().ok_or_else(|| Error::precondition("criu binary not found in shim path or system PATH"))?;
    let told = Command::new(&path).arg("--version").stdin(Stdio::null()).output();
    let told = told.context(|| "failed to retrieve criu version")?;
    let text = String::from_utf8_lossy(&told.stdout);
    match version(&text) {
        None => {
            Err(Error::unknown(format!("failed to retrieve criu version: {:?} says none", path.display())))
        }
        Some(version) if version < LEAST => Err(Error::precondition(format!(
            "checkpoint/restore requires at least CRIU {LEAST}, current version is {version}"
        ))),
        Some(_) => Ok(()),
    }
}

fn find() -> Option<PathBuf> {
    let dirs = std::env::var_os("PATH")?;
    std::env::split_paths(&dirs).map(|dir| dir.join("criu")).find(|path| path.is_file())
}

/// `Version: 4.1.1` as 40101.
fn version(text: &str) -> Option<u32> {
    let numbers = text.lines().find_map(|line| line.strip_prefix("Version:"))?.trim();
    let mut parts = numbers.split('.').map(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part.get(..digits).and_then(|digits| digits.parse::<u32>().ok()).filter(|number| *number < 100)
    });
    let mut next = || parts.next().flatten();
    Some(next()? * 10000 + next().unwrap_or(0) * 100 + next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        assert_eq!(version("Version: 4.1.1\n"), Some(40101));
        assert_eq!(version("Version: 3.16\nGitID: v3.16\n"), Some(31600));
        assert_eq!(version("Version: 4.2-dirty"), Some(40200));
        assert_eq!(version("criu: not found"), None);
    }
}
