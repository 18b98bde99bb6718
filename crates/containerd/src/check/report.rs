//! What was found, and how it is told.

use std::fmt::Write;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// To be looked at; containers work.
    Warning,
    /// Something does not work, or will not.
    Problem,
}

/// What it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// System calls.
    Kernel,
    /// Control groups.
    Cgroup,
    /// AppArmor, SELinux, seccomp.
    Lsm,
    /// The OCI runtime.
    Runtime,
    /// Disk and memory filesystems.
    Space,
    /// Files of the configuration.
    Config,
    /// The daemon's process.
    Daemon,
    /// Calls that take long.
    Calls,
    /// Shims.
    Shims,
    /// What belongs to nobody.
    Ledger,
}

impl Area {
    fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Cgroup => "cgroup",
            Self::Lsm => "lsm",
            Self::Runtime => "runtime",
            Self::Space => "space",
            Self::Config => "config",
            Self::Daemon => "daemon",
            Self::Calls => "calls",
            Self::Shims => "shims",
            Self::Ledger => "ledger",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is about.
    pub area: Area,
    /// In the ledger, what is left: zombie, mount, netns, cgroup, socket, fifo, file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<&'static str>,
    /// For people.
    pub message: String,
    /// What removes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// All of it, in the order in which it was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// As it should be.
    pub fn ok(&mut self, area: Area, message: impl Into<String>) {
        self.add(Level::Ok, area, message);
    }

    /// To be looked at.
    pub fn warning(&mut self, area: Area, message: impl Into<String>) {
        self.add(Level::Warning, area, message);
    }

    /// Does not work, or will not.
    pub fn problem(&mut self, area: Area, message: impl Into<String>) {
        self.add(Level::Problem, area, message);
    }

    fn add(&mut self, level: Level, area: Area, message: impl Into<String>) {
        self.findings.push(Finding { level, area, row: None, message: message.into(), command: None });
    }

    /// A row of the ledger: what is left, and what removes it.
    pub fn left(&mut self, row: &'static str, message: impl Into<String>, command: String) {
        let (level, area, message) = (Level::Warning, Area::Ledger, message.into());
        self.findings.push(Finding { level, area, row: Some(row), message, command: Some(command) });
    }

    /// The worst of it.
    pub fn level(&self) -> Level {
        self.findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }

    /// 0, 1 or 2.
    pub fn exit(&self) -> u8 {
        match self.level() {
            Level::Ok => 0,
            Level::Warning => 1,
            Level::Problem => 2,
        }
    }

    /// For people: a line a finding, with the command that helps below it.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for finding in &self.findings {
            let level = match finding.level {
                Level::Ok => "ok",
                Level::Warning => "warning",
                Level::Problem => "problem",
            };
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{level:<8} {:<8} {}", finding.area.name(), finding.message);
            if let Some(command) = &finding.command {
                let _ = writeln!(out, "{:18}{command}", "");
            }
        }
        out
    }

    /// For programs.
    pub fn json(&self) -> String {
        let value =
            serde_json::json!({ "level": self.level(), "exit": self.exit(), "findings": self.findings });
        format!("{value:#}\n")
    }
}

/// A word as a shell takes it.
pub fn quoted(word: impl AsRef<std::ffi::OsStr>) -> String {
    let word = word.as_ref().to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@%,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_exit_code() {
        let mut report = Report::default();
        assert_eq!(report.exit(), 0);
        report.ok(Area::Kernel, "fine");
        assert_eq!(report.exit(), 0);
        report.left("socket", "/run/x is nobody's", "rm /run/x".into());
        assert_eq!(report.exit(), 1);
        report.problem(Area::Space, "full");
        assert_eq!(report.exit(), 2);
        assert!(
            report.text().contains("warning  ledger   /run/x is nobody's\n                  rm /run/x\n")
        );
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!((json["level"].as_str(), json["exit"].as_u64()), (Some("problem"), Some(2)));
        assert_eq!(json["findings"][1]["row"], "socket");
        assert_eq!(json["findings"][1]["command"], "rm /run/x");
    }

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        assert_eq!(quoted("/run/a-b_c.d"), "/run/a-b_c.d");
        assert_eq!(quoted("/a b;rm"), "'/a b;rm'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
