//! Times as Go's ctr prints them.

use std::time::SystemTime;

/// `time.Time.String()` in UTC: `2026-11-21 07:43:33.1234 +0000 UTC`.
pub fn plain(time: SystemTime) -> String {
    let text = types::time::rfc3339(time).replace('T', " ");
    format!("{} +0000 UTC", text.trim_end_matches('Z'))
}

/// RFC 3339 in local time without a fraction, as tables show it.
pub fn local(time: SystemTime) -> String {
    let Ok(timestamp) = jiff::Timestamp::try_from(time) else { return types::time::rfc3339(time) };
    let zone = jiff::tz::TimeZone::system();
    let local = timestamp.to_zoned(zone);
    if local.offset().is_zero() {
        local.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    } else {
        local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }
}

/// A protobuf timestamp as Go's `%s` shows it.
pub fn proto(time: &api::Timestamp) -> String {
    let part = |name: &str, value: i64| (value != 0).then(|| format!("{name}:{value}"));
    let parts = [part("seconds", time.seconds), part("nanos", time.nanos.into())];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_time_prints_as_gos_string_method_does() {
        let time = types::time::from_unix(1_795_246_678, 668_070_000);
        assert_eq!(super::plain(time), "2026-11-21 07:37:58.66807 +0000 UTC");
    }
}
