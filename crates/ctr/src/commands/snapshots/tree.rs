//! Snapshots as a tree of names.

use std::collections::BTreeMap;

use types::snapshot::Info;

/// Draws each root with what was made on it, in the order in which they were listed.
pub fn draw(snapshots: &[Info]) -> String {
    let mut children: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for info in snapshots {
        children.entry(info.parent.as_str()).or_default().push(&info.name);
    }
    let mut text = String::new();
    // Depth-first without recursion: what comes next is on top. A cycle has no root and is not reached.
    let mut next: Vec<(usize, &str)> = roots(&children).rev().map(|name| (0, name)).collect();
    while let Some((level, name)) = next.pop() {
        let branch = if level > 0 { "\\_" } else { "" };
        text.push_str(&format!("{}{branch} {name}\n", "  ".repeat(level)));
        let below = children.get(name).into_iter().flatten().rev();
        next.extend(below.map(|child| (level + 1, *child)));
    }
    text
}

fn roots<'a>(children: &BTreeMap<&'a str, Vec<&'a str>>) -> impl DoubleEndedIterator<Item = &'a str> {
    children.get("").cloned().unwrap_or_default().into_iter()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use types::snapshot::Kind;

    use super::*;

    #[test]
    fn children_stand_below_their_parents() {
        let info = |name: &str, parent: &str| Info {
            kind: Kind::Committed,
            name: name.into(),
            parent: parent.into(),
            labels: Default::default(),
            created_at: UNIX_EPOCH,
            updated_at: UNIX_EPOCH,
        };
        let all = [info("c", "b"), info("a", ""), info("b", "a"), info("d", "a")];
        assert_eq!(draw(&all), " a\n  \\_ b\n    \\_ c\n  \\_ d\n");
    }
}
