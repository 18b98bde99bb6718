//! Durations as Go writes them: `5s`, `1m0s`, `1.5h`, `100ms`.

use std::time::Duration;

pub use types::duration::parse;

/// The duration as Go prints it: `1h0m0s`, `1m30s`, `1.5s`, `100ms`, `0s`.
pub fn print(time: Duration) -> String {
    let nanos = time.as_nanos();
    let (unit, name) = match nanos {
        0 => return "0s".into(),
        1..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    if unit < 1_000_000_000 {
        return format!("{}{name}", fraction(nanos, unit));
    }
    let (minutes, rest) = (nanos / (60 * unit), nanos % (60 * unit));
    let seconds = fraction(rest, unit);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// `nanos` in the unit, with as many digits behind the point as it takes.
fn fraction(nanos: u128, unit: u128) -> String {
    let digits = unit.ilog10() as usize;
    let text = format!("{}.{:0digits$}", nanos / unit, nanos % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_gos_and_understood() {
        for (nanos, text) in [
            (0, "0s"),
            (10, "10ns"),
            (1_500, "1.5µs"),
            (100_000_000, "100ms"),
            (1_500_001_000, "1.500001s"),
            (10_000_000_000, "10s"),
            (90_000_000_000, "1m30s"),
            (14_400_000_000_000, "4h0m0s"),
        ] {
            let time = Duration::from_nanos(nanos);
            assert_eq!(print(time), text);
            assert_eq!(parse(text), Some(time));
        }
    }
}
