//! RFC 3339 with nanoseconds, as Go prints it: trailing zeros of the fraction are cut.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Formats `time` in UTC as Go's `time.RFC3339Nano`, e.g. `2026-11-21T07:06:05.1234Z`.
pub fn rfc3339(time: SystemTime) -> String {
    let (secs, nanos) = unix(time);
    let (days, second) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let mut text = format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60
    );
    if nanos != 0 {
        let fraction = format!(".{nanos:09}");
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Parses what [`rfc3339`] and Go write, with a zone (`Z`, `+02:00`).
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let mark = |at: usize, marks: &[u8]| {
        text.as_bytes().get(at).is_some_and(|byte| marks.contains(byte)).then_some(())
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    for (at, marks) in [(4, b"-".as_slice()), (7, b"-"), (10, b"Tt"), (13, b":"), (16, b":")] {
        mark(at, marks)?;
    }
    let in_range =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    let rest = text.get(19..).filter(|_| in_range)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?),
        None => ("", rest),
    };
    let nanos: u32 = format!("{:0<9}", fraction.get(..fraction.len().min(9))?).parse().ok()?;
    let offset = match zone.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let at = text.len() - zone.len();
            let seconds = number(at + 1, at + 3)? * 3600 + number(at + 4, at + 6)? * 60;
            if *sign == b'+' { seconds } else { -seconds }
        }
        _ => return None,
    };
    Some(from_unix(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset, nanos))
}

/// Seconds and nanoseconds since the Unix epoch; nanoseconds are never negative.
pub fn unix(time: SystemTime) -> (i64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let secs = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => (-secs, 0),
                nanos => (-secs - 1, 1_000_000_000 - nanos),
            }
        }
    }
}

/// Nanoseconds since the Unix epoch, as Kubernetes tells times.
pub fn nanoseconds(time: SystemTime) -> i64 {
    let (secs, nanos) = unix(time);
    secs.saturating_mul(1_000_000_000).saturating_add(i64::from(nanos))
}

/// The inverse of [`unix`]; a time that the system cannot represent becomes the epoch.
pub fn from_unix(secs: i64, nanos: u32) -> SystemTime {
    let whole = if secs >= 0 {
        UNIX_EPOCH.checked_add(Duration::from_secs(secs.unsigned_abs()))
    } else {
        UNIX_EPOCH.checked_sub(Duration::from_secs(secs.unsigned_abs()))
    };
    whole.and_then(|t| t.checked_add(Duration::from_nanos(u64::from(nanos)))).unwrap_or(UNIX_EPOCH)
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

/// The inverse of [`civil`] (`days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let y = year - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_writes_is_read_in_any_zone() {
        let time = from_unix(951_782_400, 120_000_000);
        for text in
            ["2000-02-29T00:00:00.12Z", "2000-02-29T02:00:00.120000000+02:00", "2000-02-28T23:30:00.12-00:30"]
        {
            assert_eq!(parse_rfc3339(text), Some(time), "{text}");
        }
        for bad in [
            "",
            "2000-02-29",
            "2000-13-01T00:00:00Z",
            "2000-02-29T00:00:00",
            "2000-02-29T00:00:00.Zé",
            "+000-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_written_time_is_read_again(secs in -60_000_000_000_i64..200_000_000_000, nanos in 0_u32..1_000_000_000) {
            let time = from_unix(secs, nanos);
            proptest::prop_assert_eq!(parse_rfc3339(&rfc3339(time)), Some(time));
        }

        #[test]
        fn reading_never_panics(text in ".*") {
            let _ = parse_rfc3339(&text);
        }
    }

    #[test]
    fn trailing_zeros_are_cut_as_go_does() {
        assert_eq!(rfc3339(from_unix(0, 0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(from_unix(951_782_400, 120_000_000)), "2000-02-29T00:00:00.12Z");
        assert_eq!(rfc3339(from_unix(-1, 1)), "1969-12-31T23:59:59.000000001Z");
    }
}
