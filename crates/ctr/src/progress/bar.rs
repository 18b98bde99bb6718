//! The parts of a line of progress, as upstream's ctr prints them: `|++++----|`, `12.3 MiB`.

use std::time::Duration;

use crate::go;

/// How many characters a bar has between its ends.
const WIDTH: usize = 38;

/// A bar of which `done` of `total` is filled; the colours are there whoever reads it, as upstream.
pub fn bar(done: u64, total: u64) -> String {
    let filled = match total {
        0 => 0,
        total => {
            usize::try_from(u128::from(done.min(total)) * WIDTH as u128 / u128::from(total)).unwrap_or(0)
        }
    };
    format!("|\x1b[32m{}\x1b[0m{}|", "+".repeat(filled), "-".repeat(WIDTH - filled))
}

/// A bar that is full, or empty.
pub fn whole(full: bool) -> String {
    bar(u64::from(full), 1)
}

/// `12.3 MiB/56.7 MiB`, the first in eight characters.
pub fn amount(done: u64, total: u64) -> String {
    format!("{:>8.8}/{}", go::size::binary(done), go::size::binary(total))
}

/// The line below all others, from `elapsed:` on.
pub fn sum(elapsed: Duration, total: u64) -> String {
    let seconds = format!("{:.1}", elapsed.as_secs_f64());
    format!("elapsed: {seconds:<4}s\ttotal: {:>7.6}\t({})\t\n", go::size::binary(total), rate(total, elapsed))
}

/// `12.3 MiB/s`.
pub fn rate(bytes: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "shown with three digits"
    )]
    let rate = if seconds > 0.0 { (bytes as f64 / seconds) as u64 } else { 0 };
    format!("{}/s", go::size::binary(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_and_sums_read_as_upstream_prints_them() {
        let plain = |bar: String| bar.replace("\x1b[32m", "").replace("\x1b[0m", "");
        assert_eq!(plain(bar(1, 2)), format!("|{}{}|", "+".repeat(19), "-".repeat(19)));
        assert_eq!(plain(whole(true)), format!("|{}|", "+".repeat(38)));
        assert_eq!(plain(bar(5, 0)), plain(whole(false)));
        assert_eq!(plain(bar(9, 3)), plain(whole(true)));
        assert_eq!(amount(1 << 20, 3 << 20), " 1.0 MiB/3.0 MiB");
        assert_eq!(
            sum(Duration::from_secs(2), 123 << 20),
            "elapsed: 2.0 s\ttotal:  123.0 \t(61.5 MiB/s)\t\n"
        );
    }
}
