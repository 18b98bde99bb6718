//! How init ended, in the bundle: for `delete`, which comes when the shim that knew it is gone.

use std::path::Path;

use crate::call::Exit;

const FILE: &str = "init.exit";

/// Keeps it. What cannot be kept is only missed if the shim is killed.
pub fn save(bundle: &Path, exit: Exit) -> std::io::Result<()> {
    std::fs::write(bundle.join(FILE), format!("{} {} {}\n", exit.status, exit.seconds, exit.nanos))
}

/// Reads it; none if init has not ended, or the shim was killed while it wrote.
pub fn load(bundle: &Path) -> Option<Exit> {
    let text = std::fs::read_to_string(bundle.join(FILE)).ok()?;
    let mut numbers = text.strip_suffix('\n')?.split(' ');
    let exit = Exit {
        status: numbers.next()?.parse().ok()?,
        seconds: numbers.next()?.parse().ok()?,
        nanos: numbers.next()?.parse().ok()?,
    };
    numbers.next().is_none().then_some(exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_comes_back_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()), None);
        let exit = Exit::now(7);
        save(dir.path(), exit).unwrap();
        assert_eq!(load(dir.path()), Some(exit));
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        for cut in 0..text.len() {
            std::fs::write(dir.path().join(FILE), &text[..cut]).unwrap();
            assert_eq!(load(dir.path()), None);
        }
    }
}
