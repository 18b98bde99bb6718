//! `docker/go-units`: sizes for people.

fn scaled(size: u64, base: f64, units: &[&'static str]) -> (f64, &'static str) {
    #[expect(clippy::cast_precision_loss, reason = "shown with four digits")]
    let mut size = size as f64;
    let mut at = 0;
    while size >= base && at + 1 < units.len() {
        size /= base;
        at += 1;
    }
    (size, units[at])
}

/// `1004.2 KiB`: one digit behind the point, powers of 1024.
pub fn binary(size: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];
    let (size, unit) = scaled(size, 1024.0, &units);
    format!("{size:02.1} {unit}")
}

/// `1.028MB`: four significant digits, powers of 1000.
pub fn decimal(size: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
    let (size, unit) = scaled(size, 1000.0, &units);
    format!("{}{unit}", significant(size))
}

/// Go's `%.4g` for 0 <= `value`, where it needs no exponent.
fn significant(value: f64) -> String {
    let before = if value >= 1.0 { format!("{}", value.trunc()).len() } else { 1 };
    let text = format!("{value:.*}", 4usize.saturating_sub(before));
    // Rounding 999.96 up leaves 1000.0, which has a digit too many.
    match text.split_once('.') {
        Some((whole, _)) if whole.len() >= 4 => whole.to_owned(),
        Some(_) => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_go_units_prints_them() {
        assert_eq!((binary(0), binary(1_028_301)), ("0.0 B".into(), "1004.2 KiB".into()));
        let shown: Vec<String> = [0, 422, 1000, 1_028_000, 1_234_567, 999_999].map(decimal).into();
        assert_eq!(shown, ["0B", "422B", "1kB", "1.028MB", "1.235MB", "1000kB"]);
    }
}
