//! Completions and manual pages, out of the same definitions that parse the command line.
//!
//! ```text
//!  <dir>/bash-completion/completions/ctr
//!        zsh/site-functions/_ctr
//!        fish/vendor_completions.d/ctr.fish
//!        man/man1/ctr.1, ctr-images.1, ctr-images-list.1, ...
//! ```

use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use types::{Error, Result};

use crate::cli::Cli;
use crate::usage;

/// Where each shell looks, below `share`.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions/ctr"),
    (Shell::Zsh, "zsh/site-functions/_ctr"),
    (Shell::Fish, "fish/vendor_completions.d/ctr.fish"),
];

/// Writes everything below `share`.
pub fn write(share: &Path) -> Result<()> {
    let failed =
        |error: std::io::Error| Error::from(error).context(format!("write below {}", share.display()));
    for (shell, path) in COMPLETIONS {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "ctr", &mut text);
        put(&share.join(path), &text).map_err(failed)?;
    }
    pages(&mut Vec::new(), Cli::command(), &share.join("man/man1")).map_err(failed)
}

fn put(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, bytes)
}

/// The page of `command`, which is called by the words of `path`, and those of the commands below.
fn pages(path: &mut Vec<String>, command: Command, directory: &Path) -> std::io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        path.push(below.get_name().into());
        pages(path, below.clone(), directory)?;
        path.pop();
    }
    let name = std::iter::once("ctr").chain(path.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
    let command = usage::named(command, path).name(name.clone()).display_name(name.clone());
    let mut text = Vec::new();
    clap_mangen::Man::new(command).source(format!("ctr {}", types::version::VERSION)).render(&mut text)?;
    put(&directory.join(format!("{name}.1")), &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_shell_knows_it() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap();
        let page = read("man/man1/ctr-images-import.1");
        assert!(
            page.contains("ctr images import [flags] <in>") && page.contains("all\\-platforms"),
            "{page}"
        );
        assert!(read("man/man1/ctr-tasks-metrics.1").contains("json"));
        assert!(!page.contains("default: ]"), "{page}");
        for (_, path) in COMPLETIONS {
            let text = read(path);
            for word in ["inspect-runtime", "snapshotter", "metrics"] {
                assert!(text.contains(word), "{path} does not know {word}");
            }
        }
    }

    #[test]
    fn bash_completes_a_command_and_a_flag() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let script = dir.path().join("bash-completion/completions/ctr");
        let ask = |words: &str, at: usize| {
            let line = format!(
                "source {}; COMP_WORDS=({words}); COMP_CWORD={at}; _ctr ctr \"${{COMP_WORDS[{at}]}}\"; echo \"${{COMPREPLY[*]}}\"",
                script.display()
            );
            let output = std::process::Command::new("bash").args(["-c", &line]).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        assert_eq!(ask("ctr images ins", 2), "inspect");
        assert_eq!(ask("ctr tasks exec --exec", 3), "--exec-id");
    }
}
