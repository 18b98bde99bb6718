//! How fast a pod may be, as two annotations say it in Kubernetes' quantities (`10M`, `1Gi`, `1e6`), in bits a second.

use std::collections::BTreeMap;

use cni::capability::Bandwidth;
use types::{Error, Result};

const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";
/// Less is a mistake.
const LEAST: f64 = 1e3;
/// More is a mistake.
const MOST: f64 = 1e15;
/// What may come at once: as much as plugins can say.
const BURST: u64 = u32::MAX as u64;

/// The limits that a pod's annotations name.
pub fn of(annotations: &BTreeMap<String, String>) -> Result<Option<Bandwidth>> {
    let rate = |key: &str| annotations.get(key).map(|value| reasonable(key, value)).transpose();
    let (ingress, egress) = (rate(INGRESS)?, rate(EGRESS)?);
    if ingress.is_none() && egress.is_none() {
        return Ok(None);
    }
    Ok(Some(Bandwidth {
        ingress_rate: ingress.unwrap_or(0),
        ingress_burst: ingress.map_or(0, |_| BURST),
        egress_rate: egress.unwrap_or(0),
        egress_burst: egress.map_or(0, |_| BURST),
    }))
}

fn reasonable(key: &str, value: &str) -> Result<u64> {
    let bits = quantity(value)
        .ok_or_else(|| Error::invalid(format!("annotations: {key}: {:?} is no quantity", cut(value))))?;
    if bits < LEAST {
        return Err(Error::invalid(format!("annotations: {key}: resource is unreasonably small (< 1kbit)")));
    }
    if bits > MOST {
        return Err(Error::invalid(format!("annotations: {key}: resource is unreasonably large (> 1Pbit)")));
    }
    // Within the bounds above.
    Ok(bits.ceil() as u64)
}

fn cut(value: &str) -> String {
    value.chars().take(32).collect()
}

/// A number with a suffix of Kubernetes.
fn quantity(text: &str) -> Option<f64> {
    let digits = |c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-');
    let end = text.find(|c| !digits(c)).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let scale = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => f64::from(1_u32 << 10),
        "Mi" => f64::from(1_u32 << 20),
        "Gi" => f64::from(1_u32 << 30),
        "Ti" => (1_u64 << 40) as f64,
        "Pi" => (1_u64 << 50) as f64,
        "Ei" => (1_u64 << 60) as f64,
        _ => 10_f64.powi(suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    Some(number * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(ingress: &str) -> Result<Option<Bandwidth>> {
        of(&[(INGRESS.to_owned(), ingress.to_owned())].into())
    }

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, bits) in
            [("10M", 10_000_000), ("1Ki", 1024), ("1e6", 1_000_000), ("1.5k", 1500), ("2000", 2000)]
        {
            let found = limits(text).unwrap().unwrap();
            assert_eq!((found.ingress_rate, found.egress_rate), (bits, 0), "{text}");
            assert_eq!((found.ingress_burst, found.egress_burst), (BURST, 0));
        }
        assert_eq!(of(&BTreeMap::new()).unwrap(), None);
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for bad in ["", "x", "10", "1E", "10Mb", "-1M", "1e", "NaN", "inf", "1e400"] {
            assert!(limits(bad).is_err(), "{bad:?}");
        }
    }
}
