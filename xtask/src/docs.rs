//! `dist-docs`: completions and manual pages of the client, where packagers take them from.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{paths, program};

/// Has the client write them; gives the directory, which is laid out as below `/usr/share`.
pub fn build() -> Result<PathBuf> {
    let share = paths::dist().join("share");
    std::fs::create_dir_all(&share).with_context(|| format!("create {}", share.display()))?;
    // A build of its own: the client that is shipped does without what writes them.
    let client = ["run", "--quiet", "--locked", "--package", "ctr", "--features", "docs", "--", "docs"];
    program::run(program::cargo(&client).arg(&share))?;
    eprintln!("written: {}", share.display());
    Ok(share)
}
