//! Templates in mounts, which refer to mounts made before: `{{ mount 0 }}`, `{{ source 1 }}`, `{{ target 1 }}` and, for the
//! layers of an overlay, `{{ overlay 2 0 }}`: the mount points from 2 down to 0, joined by colons.
//!
//! The notation is that of Go's templates; of their language only these calls exist.

use types::mount::Mount;
use types::{Error, Result};

use crate::record::Active;

/// The mount with its templates filled in.
pub fn format(mount: Mount, before: &[Active]) -> Result<Mount> {
    Ok(Mount {
        kind: mount.kind,
        source: expand(&mount.source, before)?,
        target: expand(&mount.target, before)?,
        options: mount.options.iter().map(|option| expand(option, before)).collect::<Result<_>>()?,
    })
}

/// `text` with its templates filled in.
pub fn expand(text: &str, before: &[Active]) -> Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((plain, template)) = rest.split_once("{{") {
        let (call, after) = template
            .split_once("}}")
            .ok_or_else(|| Error::invalid(format!("template {text:?}: unclosed action")))?;
        out.push_str(plain);
        out.push_str(&answer(call, before).map_err(|error| error.context(format!("template {text:?}")))?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn answer(call: &str, before: &[Active]) -> Result<String> {
    let mut words = call.split_ascii_whitespace();
    let function = words.next().ok_or_else(|| Error::invalid("missing value for command"))?;
    let numbers: Vec<usize> = words
        .map(|word| {
            word.parse().map_err(|_| Error::invalid(format!("error calling {function}: bad index {word:?}")))
        })
        .collect::<Result<_>>()?;
    let one = || match numbers.as_slice() {
        [index] => before.get(*index).ok_or_else(|| {
            Error::invalid(format!(
                "error calling {function}: index out of bounds: {index}, has {} active mounts",
                before.len()
            ))
        }),
        _ => {
            Err(Error::invalid(format!("wrong number of args for {function}: want 1 got {}", numbers.len())))
        }
    };
    match function {
        "source" => Ok(one()?.mount.source.clone()),
        "target" => Ok(one()?.mount.target.clone()),
        "mount" => Ok(one()?.mount_point.clone()),
        "overlay" => overlay(&numbers, before),
        _ => Err(Error::invalid(format!("function {function:?} not defined"))),
    }
}

fn overlay(range: &[usize], before: &[Active]) -> Result<String> {
    let &[start, end] = range else {
        return Err(Error::invalid(format!("wrong number of args for overlay: want 2 got {}", range.len())));
    };
    let points = before.get(start.min(end)..=start.max(end)).ok_or_else(|| {
        Error::invalid(format!(
            "error calling overlay: invalid range: {start}-{end}, has {} active mounts",
            before.len()
        ))
    })?;
    let mut points: Vec<&str> = points.iter().map(|active| active.mount_point.as_str()).collect();
    if start > end {
        points.reverse();
    }
    Ok(points.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Vec<Active> {
        let active = |n: usize| Active {
            mount: Mount { source: format!("/s{n}"), target: format!("t{n}"), ..Mount::default() },
            mounted_at: std::time::UNIX_EPOCH,
            mount_point: format!("/m/{n}"),
        };
        (0..3).map(active).collect()
    }

    #[test]
    fn templates_name_mounts_made_before() {
        let told = |text| expand(text, &three()).unwrap();
        assert_eq!(told("lowerdir={{ mount 0 }}/a:{{mount 1}}"), "lowerdir=/m/0/a:/m/1");
        assert_eq!(told("{{ source 2 }}{{ target 2 }}"), "/s2t2");
        assert_eq!(
            told("{{ overlay 0 2 }}|{{ overlay 2 1 }}|{{ overlay 1 1 }}"),
            "/m/0:/m/1:/m/2|/m/2:/m/1|/m/1"
        );
        assert_eq!(told("no template }} {"), "no template }} {");
    }

    #[test]
    fn a_bad_template_says_what_is_wrong() {
        let told = |text| expand(text, &three()).unwrap_err().to_string();
        assert!(told("{{ mount 3 }}").contains("index out of bounds: 3, has 3 active mounts"));
        assert!(told("{{ overlay 0 3 }}").contains("invalid range: 0-3, has 3 active mounts"));
        assert!(told("{{ mount 0").contains("unclosed action"));
        assert!(told("{{ mount -1 }}").contains("bad index"));
        assert!(told("{{ exec 1 }}").contains(r#"function "exec" not defined"#));
    }

    proptest::proptest! {
        #[test]
        fn expanding_never_panics(text in r"(\{\{|\}\}| |mount|overlay|[0-9]|.)*") {
            let _ = expand(&text, &three());
        }
    }
}
