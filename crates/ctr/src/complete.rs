//! `--generate-bash-completion` behind everything else, which completion scripts of upstream's ctr append: what could
//! stand there, one word a line.

use clap::Command;

/// The flags that begin as the last of `words`, or else the commands below those that are named.
pub fn words(root: &Command, words: &[String]) -> String {
    let named = words.iter().try_fold(root, |command, word| match command.find_subcommand(word) {
        Some(next) => Ok(next),
        // A flag, its value, or an argument.
        None if command.has_subcommands() => Ok(command),
        None => Err(command),
    });
    let (Ok(command) | Err(command)) = named;
    let mut found = match words.last().filter(|word| word.starts_with('-')) {
        Some(begun) => {
            let begins = |flag: &String| flag.starts_with(begun.as_str()) && flag != begun;
            flags(command).into_iter().filter(begins).collect()
        }
        None => commands(command),
    };
    found.push(String::new());
    found.join("\n")
}

fn flags(command: &Command) -> Vec<String> {
    let visible = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let mut found: Vec<String> = visible
        .flat_map(|arg| {
            let long = arg.get_long().map(|long| format!("--{long}"));
            long.into_iter().chain(arg.get_short().map(|short| format!("-{short}")))
        })
        .collect();
    found.extend(["--help".into(), "-h".into()]);
    found
}

fn commands(command: &Command) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        found.push(below.get_name().into());
        found.extend(below.get_visible_aliases().map(str::to_owned));
    }
    found.extend(["help".into(), "h".into()]);
    found
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn at(line: &str) -> String {
        let line: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        words(&Cli::command(), &line).lines().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn commands_follow_commands_and_flags_follow_a_dash() {
        assert!(at("-n x images").starts_with("check "));
        assert!(at("i").contains(" list ls "));
        assert_eq!(at("images ls"), "help h");
        assert_eq!(at("images ls -"), "--quiet -q --help -h");
        assert_eq!(at("images ls --q"), "--quiet");
    }
}
