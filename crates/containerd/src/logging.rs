//! Log lines on stderr in containerd's form, so that what reads its logs reads ours:
//! `time="2026-11-21T07:35:12.638277296Z" level=info msg="starting containerd" version=v2.3.4`.
//!
//! What is below the threshold costs a comparison: nothing is formatted for it. Credentials in URLs are blotted out in every
//! value, whoever wrote it ([`mod@redact`]); environments, specs, labels and opaque values are not logged at all.

mod line;
mod recent;
mod redact;

use std::str::FromStr;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use types::{Error, Result};

use line::Lines;
pub use recent::recent;
pub use redact::redact;

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `key=value` pairs.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The least severe level that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold(LevelFilter);

impl Default for Threshold {
    fn default() -> Self {
        Self(LevelFilter::INFO)
    }
}

impl Threshold {
    /// Whether debug lines are written; shims are told too.
    pub fn debug(self) -> bool {
        self.0 >= LevelFilter::DEBUG
    }
}

impl FromStr for Threshold {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(Self(match &*text.to_ascii_lowercase() {
            "trace" => LevelFilter::TRACE,
            "debug" => LevelFilter::DEBUG,
            "info" => LevelFilter::INFO,
            "warn" | "warning" => LevelFilter::WARN,
            "error" => LevelFilter::ERROR,
            // Nothing of ours is worse than an error, but for what main prints before it leaves.
            "fatal" | "panic" => LevelFilter::OFF,
            _ => return Err(Error::invalid(format!("not a valid log level: {text:?}"))),
        }))
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "" | "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(Error::invalid(format!("unsupported log format: {text:?}"))),
        }
    }
}

/// Starts logging, once in the life of the process.
pub fn start(threshold: Threshold, format: Format) {
    // The HTTP stack logs every frame at debug, which nobody who debugs containers wants to read.
    let targets = Targets::new().with_default(threshold.0).with_targets(
        ["h2", "hyper", "hyper_util", "tonic", "tower"].map(|quiet| (quiet, LevelFilter::WARN)),
    );
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(recent::Kept)
        // A reader of stderr that goes away must not end the daemon: reporting that there would panic.
        .log_internal_errors(false)
        .fmt_fields(Lines(format))
        .event_format(Lines(format));
    // Fails only if logging was started before, which leaves that in place.
    drop(tracing_subscriber::registry().with(targets).with(lines).try_init());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_upstreams() {
        assert!("debug".parse::<Threshold>().unwrap().debug());
        assert!("TRACE".parse::<Threshold>().unwrap().debug());
        assert!(!"warn".parse::<Threshold>().unwrap().debug());
        assert_eq!("panic".parse::<Threshold>().unwrap().0, LevelFilter::OFF);
        assert!("loud".parse::<Threshold>().is_err());
    }
}
