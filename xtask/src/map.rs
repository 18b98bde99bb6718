//! The map of the README: each place that it names must exist.

use std::fs;

use anyhow::{Context, Result};

use crate::paths;

/// Places that the README names and that are not there.
pub fn missing() -> Result<Vec<String>> {
    let readme = paths::repository().join("README.md");
    let text = fs::read_to_string(&readme).with_context(|| format!("read {}", readme.display()))?;
    Ok(places(&text).into_iter().filter(|place| !paths::repository().join(place).exists()).collect())
}

/// What stands in backquotes and begins with a directory of the repository; `<...>` in it stands for many.
fn places(text: &str) -> Vec<String> {
    let roots = ["crates/", "tests/", "bench/", "xtask/", "docs/"];
    let quoted = text.split('`').skip(1).step_by(2);
    let named = quoted.filter(|word| roots.iter().any(|root| word.starts_with(root)) && !word.contains('<'));
    named.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_what_stands_in_backquotes() {
        let text = "see `crates/types/src` and `ctr run`, `tests/x/<name>.rs`; not crates/y";
        assert_eq!(places(text), ["crates/types/src"]);
    }
}
