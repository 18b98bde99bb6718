//! `ctr content edit`: a blob through an editor, and what comes out into the store.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use clap::Args;
use content::{Store, WriterOptions};
use types::{Digest, Error, Labels, Result};

use crate::cli::Globals;
use crate::client::Client;
use crate::commands::{print, refused};
use crate::flags::Words;
use crate::go;

/// What is read into memory at most.
const LIMIT: u64 = 64 << 20;

/// `ctr content edit`.
#[derive(Args, Debug)]
pub struct Flags {
    /// Validate the result against a format (json, mediatype, etc.)
    #[arg(long, default_value = "")]
    validate: String,
    /// Select editor (vim, emacs, etc.)
    #[arg(long, env = "EDITOR", default_value = "")]
    editor: String,
    #[command(flatten)]
    digest: Words,
}

/// Prints the digest of the edited blob.
pub async fn run(globals: &Globals, flags: Flags) -> Result<()> {
    if !flags.validate.is_empty() {
        return refused("validating the edit result not supported");
    }
    let object = flags.digest.first();
    let digest = go::digest(object)?;
    let store = Client::open(globals)?.content();
    let bytes = store.read(&digest, LIMIT).await?;
    if flags.editor.is_empty() {
        return refused("editor is required");
    }
    let edited = edit(&flags.editor, &bytes)?;
    let reference = format!("edit-{object}");
    let mut writer = store.writer(WriterOptions { reference, total: 0, expected: None }).await?;
    writer.truncate(0).await?;
    let digest = Digest::of(&edited);
    for chunk in edited.chunks(1 << 20) {
        writer.write(Bytes::copy_from_slice(chunk)).await?;
    }
    match writer.commit(0, Some(digest.clone()), Labels::new()).await {
        Err(error) if !error.is_already_exists() => return Err(error),
        _ => {}
    }
    print(format!("{digest}\n"))
}

/// What the editor made of `bytes`.
fn edit(editor: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let file = Temporary::with(bytes)?;
    let status = Command::new("sh").arg("-c").arg(format!("{editor} {}", file.0.display())).status();
    let status = status.map_err(|e| go::path_error("fork/exec", "sh", e))?;
    if !status.success() {
        return Err(Error::unknown(match status.code() {
            Some(code) => format!("exit status {code}"),
            None => status.to_string(),
        }));
    }
    // By name: many editors put a new file in the place of the old one.
    std::fs::read(&file.0).map_err(|e| go::path_error("open", &file.0, e))
}

/// A file for the editor, which goes with the value.
struct Temporary(PathBuf);

impl Temporary {
    fn with(bytes: &[u8]) -> Result<Self> {
        let directory = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        Self::below(&directory, bytes)
    }

    fn below(directory: &Path, bytes: &[u8]) -> Result<Self> {
        let path = directory.join(format!("edit-{}", rand::random::<u32>()));
        let mut options = std::fs::OpenOptions::new();
        let opened = options.write(true).create_new(true).mode(0o600).open(&path);
        let mut file = opened.map_err(|e| go::path_error("open", &path, e))?;
        let made = Self(path);
        file.write_all(bytes).map_err(|e| go::path_error("write", &made.0, e))?;
        Ok(made)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_editor_leaves_is_the_result_and_the_file_goes() {
        assert_eq!(edit("sed -i s/a/b/", b"a").unwrap(), b"b");
        assert_eq!(edit("exit 3 #", b"a").unwrap_err().to_string(), "exit status 3");
        let dir = tempfile::tempdir().unwrap();
        drop(Temporary::below(dir.path(), b"x").unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
