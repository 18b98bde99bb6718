//! Paths in a container, as texts: Go's `filepath.Clean`.

/// The shortest path that means the same, without a look at links.
pub(super) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn paths_are_cleaned_as_go_cleans_them() {
        for (path, cleaned) in [
            ("", "."),
            ("/", "/"),
            ("//a/./b/", "/a/b"),
            ("/a/../../b", "/b"),
            ("a/..", "."),
            ("../a/../..", "../.."),
            ("a//b/../c", "a/c"),
        ] {
            assert_eq!(clean(path), cleaned, "{path:?}");
        }
    }
}
