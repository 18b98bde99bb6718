//! Log lines on stderr in containerd's form, so that what reads its logs reads ours:
//! `time="2026-11-21T07:35:12.638277296Z" level=info msg="starting containerd" version=v2.3.4`.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use types::{Error, Result};

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
        Ok(Self(match text {
            "trace" => LevelFilter::TRACE,
            "debug" => LevelFilter::DEBUG,
            "info" => LevelFilter::INFO,
            "warn" | "warning" => LevelFilter::WARN,
            // We have nothing below error: a fatal line is one that main prints before it leaves.
            "error" | "fatal" | "panic" => LevelFilter::ERROR,
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
        .with_writer(std::io::stderr)
        .fmt_fields(Pairs)
        .event_format(Lines(format));
    // Fails only if logging was started before, which leaves that in place.
    drop(tracing_subscriber::registry().with(targets).with(lines).try_init());
}

/// Writes one event a line.
struct Lines(Format);

/// Writes a span's fields, to be put behind those of its events.
struct Pairs;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let time = fixed_width(SystemTime::now());
        let level = level_name(*event.metadata().level());
        match self.0 {
            Format::Json => fields.json(&mut out, &time, level)?,
            Format::Text => {
                write!(out, "time=\"{time}\" level={level} msg=")?;
                quote(&mut out, &fields.message)?;
                for (key, value) in &fields.pairs {
                    write!(out, " {key}=")?;
                    quote(&mut out, value)?;
                }
                for span in ctx.event_scope().into_iter().flatten() {
                    if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                        out.write_str(fields)?;
                    }
                }
            }
        }
        out.write_char('\n')
    }
}

impl FormatFields<'_> for Pairs {
    fn format_fields<R: tracing_subscriber::field::RecordFields>(
        &self,
        mut out: Writer<'_>,
        from: R,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        from.record(&mut fields);
        for (key, value) in &fields.pairs {
            write!(out, " {key}=")?;
            quote(&mut out, value)?;
        }
        Ok(())
    }
}

/// An event's values as text.
#[derive(Default)]
struct Fields {
    message: String,
    pairs: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field.name(), format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.push(field.name(), value.to_string());
    }
}

impl Fields {
    fn push(&mut self, key: &'static str, value: String) {
        match key {
            "message" => self.message = value,
            key => self.pairs.push((key, value)),
        }
    }

    fn json(&self, out: &mut Writer<'_>, time: &str, level: &str) -> fmt::Result {
        let mut object = serde_json::Map::new();
        for (key, value) in &self.pairs {
            object.insert((*key).to_owned(), value.clone().into());
        }
        object.insert("level".into(), level.into());
        object.insert("msg".into(), self.message.clone().into());
        object.insert("time".into(), time.into());
        write!(out, "{}", serde_json::Value::Object(object))
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::TRACE => "trace",
        Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warning",
        Level::ERROR => "error",
    }
}

/// RFC 3339 with all nine digits of the fraction, as containerd's logs have it.
fn fixed_width(time: SystemTime) -> String {
    let (secs, nanos) = types::time::unix(time);
    let seconds = types::time::rfc3339(types::time::from_unix(secs, 0));
    format!("{}.{nanos:09}Z", seconds.trim_end_matches('Z'))
}

/// Quotes a value unless it is made of characters that need none, as logrus does.
fn quote(out: &mut Writer<'_>, value: &str) -> fmt::Result {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '/' | '@' | '^' | '+');
    if value.chars().all(plain) { out.write_str(value) } else { write!(out, "{value:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(value: &str) -> String {
        let mut text = String::new();
        quote(&mut Writer::new(&mut text), value).unwrap();
        text
    }

    #[test]
    fn values_are_quoted_as_logrus_quotes_them() {
        assert_eq!(quoted("io.containerd.content.v1/x"), "io.containerd.content.v1/x");
        assert_eq!(quoted("sha256:00"), "\"sha256:00\"");
        assert_eq!(quoted("a \"b\"\n"), r#""a \"b\"\n""#);
    }

    #[test]
    fn times_have_nine_digits() {
        assert_eq!(fixed_width(types::time::from_unix(0, 120)), "1970-01-01T00:00:00.000000120Z");
    }

    #[test]
    fn levels_are_upstreams() {
        assert!("debug".parse::<Threshold>().unwrap().debug());
        assert!(!"warn".parse::<Threshold>().unwrap().debug());
        assert!("loud".parse::<Threshold>().is_err());
    }
}
