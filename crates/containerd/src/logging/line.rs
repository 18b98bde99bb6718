//! One event, one line, as logrus writes it: time, level, message, then the fields by name; or all of them by name in JSON.

use std::fmt;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::Format;
use super::redact::redact;

/// Writes events, and the fields of spans behind those of the events in them.
pub struct Lines(pub Format);

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
            Format::Text => {
                write!(out, "time=\"{time}\" level={level} msg=")?;
                text(&mut out, &redact(&fields.message))?;
            }
            Format::Json => {
                out.write_char('{')?;
                let message = std::mem::take(&mut fields.message);
                fields.pairs.push(("level", Value::Text(level.to_owned())));
                fields.pairs.push(("msg", Value::Text(message)));
                fields.pairs.push(("time", Value::Text(time)));
            }
        }
        fields.write(self.0, &mut out)?;
        for span in ctx.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                if self.0 == Format::Json && !fields.is_empty() {
                    out.write_char(',')?;
                }
                out.write_str(fields)?;
            }
        }
        out.write_str(if self.0 == Format::Json { "}\n" } else { "\n" })
    }
}

impl FormatFields<'_> for Lines {
    fn format_fields<R: RecordFields>(&self, mut out: Writer<'_>, from: R) -> fmt::Result {
        let mut fields = Fields::default();
        from.record(&mut fields);
        fields.write(self.0, &mut out)
    }
}

/// An event's values.
#[derive(Default)]
struct Fields {
    message: String,
    pairs: Vec<(&'static str, Value)>,
}

enum Value {
    /// To be quoted where the form wants it.
    Text(String),
    /// A number or truth value.
    Bare(String),
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, Value::Text(value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, Value::Text(format!("{value:?}")));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.push(field, Value::Text(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::Bare(value.to_string()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::Bare(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::Bare(value.to_string()));
    }
}

impl Fields {
    fn push(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Text(text)) => self.message = text,
            // A raw identifier's name.
            (name, value) => self.pairs.push((name.trim_start_matches("r#"), value)),
        }
    }

    /// Writes them by name, with a space in front of each, or a comma between two.
    fn write(&mut self, format: Format, out: &mut Writer<'_>) -> fmt::Result {
        self.pairs.sort_by_key(|(key, _)| *key);
        for (place, (key, value)) in self.pairs.iter().enumerate() {
            match (format, value) {
                (Format::Text, Value::Bare(bare)) => write!(out, " {key}={bare}")?,
                (Format::Text, Value::Text(value)) => {
                    write!(out, " {key}=")?;
                    text(out, &redact(value))?;
                }
                (Format::Json, value) => {
                    if place > 0 {
                        out.write_char(',')?;
                    }
                    write!(out, "{}:", serde_json::Value::from(*key))?;
                    match value {
                        Value::Bare(bare) => out.write_str(bare)?,
                        Value::Text(value) => write!(out, "{}", serde_json::Value::from(&*redact(value)))?,
                    }
                }
            }
        }
        Ok(())
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

/// Writes a value, in Go's quotes unless it is made of characters that need none.
fn text(out: &mut Writer<'_>, value: &str) -> fmt::Result {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '/' | '@' | '^' | '+');
    if value.chars().all(plain) {
        return out.write_str(value);
    }
    out.write_char('"')?;
    for c in value.chars() {
        match c {
            '"' | '\\' => write!(out, "\\{c}")?,
            '\n' => out.write_str("\\n")?,
            '\t' => out.write_str("\\t")?,
            '\r' => out.write_str("\\r")?,
            // What a terminal would act upon.
            c if c.is_ascii_control() => write!(out, "\\x{:02x}", u32::from(c))?,
            c if c != '\'' && c.escape_debug().len() > 1 => match u32::from(c) {
                short @ ..=0xffff => write!(out, "\\u{short:04x}")?,
                long => write!(out, "\\U{long:08x}")?,
            },
            c => out.write_char(c)?,
        }
    }
    out.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    fn quoted(value: &str) -> String {
        let mut out = String::new();
        text(&mut Writer::new(&mut out), value).unwrap();
        out
    }

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What `say` logs, without the time.
    fn logged(format: Format, say: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .fmt_fields(Lines(format))
            .event_format(Lines(format));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), say);
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let time = text.find("20").unwrap();
        text.replacen(&text[time..time + 30], "T", 1)
    }

    #[test]
    fn values_are_quoted_as_logrus_quotes_them() {
        assert_eq!(quoted("io.containerd.content.v1/x"), "io.containerd.content.v1/x");
        assert_eq!(quoted("sha256:00"), "\"sha256:00\"");
        assert_eq!(quoted("a \"b\"\n"), r#""a \"b\"\n""#);
        assert_eq!(quoted("it's \u{1b}[31m \u{202e} \u{e9}"), "\"it's \\x1b[31m \\u202e \u{e9}\"");
        assert_eq!(quoted(""), "");
    }

    #[test]
    fn fields_stand_by_name_behind_the_message() {
        let say = || tracing::info!(zone = "z", count = 3u64, r#type = "t", ok = true, "did {}", "it");
        assert_eq!(
            logged(Format::Text, say),
            "time=\"T\" level=info msg=\"did it\" count=3 ok=true type=t zone=z\n"
        );
        assert_eq!(
            logged(Format::Json, say),
            "{\"count\":3,\"level\":\"info\",\"msg\":\"did it\",\"ok\":true,\"time\":\"T\",\"type\":\"t\",\"zone\":\"z\"}\n"
        );
    }

    #[test]
    fn fields_of_a_span_are_in_the_lines_within_it() {
        let say = || tracing::error_span!("call", trace_id = "ab").in_scope(|| tracing::warn!("w"));
        assert_eq!(logged(Format::Text, say), "time=\"T\" level=warning msg=w trace_id=ab\n");
        assert_eq!(
            logged(Format::Json, say),
            "{\"level\":\"warning\",\"msg\":\"w\",\"time\":\"T\",\"trace_id\":\"ab\"}\n"
        );
    }

    #[test]
    fn credentials_of_urls_are_in_no_line() {
        let say = || tracing::info!(url = "https://me:S3CRET@h/x?sig=S3CRET", "get https://me:S3CRET@h/");
        for format in [Format::Text, Format::Json] {
            let line = logged(format, say);
            assert!(!line.contains("S3CRET") && line.contains("h/x"), "{line}");
        }
    }

    #[test]
    fn times_have_nine_digits() {
        assert_eq!(fixed_width(types::time::from_unix(0, 120)), "1970-01-01T00:00:00.000000120Z");
    }
}
