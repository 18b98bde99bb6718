//! Go's command line syntax (urfave/cli over the `flag` package), rewritten into what clap expects.
//!
//! ```text
//!  -namespace x          --namespace=x           one dash or two
//!  --rm --detach=false   --rm                    booleans never take the next word
//!  -n a -n b             --namespace=b           the last one wins, lists collect
//!  run -t IMG ID ls -l   run --tty -- IMG ID ls -l   flags end at the first argument
//! ```
//!
//! Afterwards every flag is one word under its long name and the arguments stand behind `--`, so that nothing in
//! them can be mistaken. What Go refuses is refused here, with its words.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, Command};

/// Why a command line is not run.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// Somebody asked for help with the command at this path, or named a group without a command.
    Help(Vec<String>),
    /// `--version`.
    Version,
    /// Wrong use of the command at this path.
    Usage(Vec<String>, String),
    /// There is no such command.
    Unknown(String),
}

/// Rewrites `args` (without the program's name) for `root`.
pub fn normalize(root: &Command, args: &[String]) -> Result<Vec<String>, Stop> {
    let mut words = vec![root.get_name().to_owned()];
    let mut path = Vec::new();
    let mut command = root;
    let mut rest = args;
    loop {
        let (flags, behind) = flags(command, &path, rest)?;
        words.extend(flags);
        if !command.has_subcommands() {
            words.push("--".into());
            words.extend(behind.iter().cloned());
            return Ok(words);
        }
        let Some((name, behind)) = behind.split_first() else { return Err(Stop::Help(path)) };
        if name == "help" || name == "h" {
            return Err(Stop::Help(help_path(command, path, behind)));
        }
        let Some(next) = command.find_subcommand(name) else { return Err(Stop::Unknown(name.clone())) };
        words.push(next.get_name().to_owned());
        path.push(next.get_name().to_owned());
        command = next;
        rest = behind;
    }
}

fn help_path(mut command: &Command, mut path: Vec<String>, names: &[String]) -> Vec<String> {
    for name in names {
        let Some(next) = command.find_subcommand(name) else { break };
        path.push(next.get_name().to_owned());
        command = next;
    }
    path
}

/// The flags of `command` in front of the first argument, each as one word, and what stands behind them.
fn flags<'a>(
    command: &Command,
    path: &[String],
    args: &'a [String],
) -> Result<(Vec<String>, &'a [String]), Stop> {
    let usage = |text: String| Stop::Usage(path.to_vec(), text);
    let mut single = BTreeMap::new();
    let mut lists = Vec::new();
    let mut rest = args;
    while let Some((word, behind)) = rest.split_first() {
        if word == "--" {
            rest = behind;
            break;
        }
        let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|f| !f.is_empty())
        else {
            break;
        };
        rest = behind;
        if flag.starts_with(['-', '=']) {
            return Err(usage(format!("bad flag syntax: {word}")));
        }
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let Some(arg) = find(command, name) else {
            return match name {
                "help" | "h" => Err(Stop::Help(path.to_vec())),
                "version" | "v" if path.is_empty() => Err(Stop::Version),
                _ => Err(usage(format!("flag provided but not defined: -{name}"))),
            };
        };
        let long = arg.get_long().unwrap_or_default().to_owned();
        if matches!(arg.get_action(), ArgAction::SetTrue) {
            let on = is_on(name, value).map_err(usage)?;
            single.insert(long.clone(), on.then(|| format!("--{long}")));
            continue;
        }
        let value = match (value, rest.split_first()) {
            (Some(value), _) => value,
            (None, Some((next, behind))) => {
                rest = behind;
                next.clone()
            }
            (None, None) => return Err(usage(format!("flag needs an argument: -{name}"))),
        };
        let word = format!("--{long}={value}");
        match arg.get_action() {
            ArgAction::Append => lists.push(word),
            _ => drop(single.insert(long, Some(word))),
        }
    }
    Ok((single.into_values().flatten().chain(lists).collect(), rest))
}

/// What a boolean flag says.
fn is_on(name: &str, value: Option<String>) -> Result<bool, String> {
    let Some(value) = value else { return Ok(true) };
    go_bool(&value).ok_or_else(|| format!("invalid boolean value {value:?} for -{name}: parse error"))
}

fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    let mut chars = name.chars();
    let short = chars.next().filter(|_| chars.next().is_none());
    command.get_arguments().find(|arg| {
        arg.get_long() == Some(name)
            || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
            || (short.is_some() && arg.get_short() == short)
    })
}

/// The words that Go's `strconv.ParseBool` takes.
pub fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn words(line: &str) -> Result<Vec<String>, Stop> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        normalize(&Cli::command(), &args).map(|words| words[1..].to_vec())
    }

    #[test]
    fn one_dash_is_as_good_as_two_and_flags_end_at_the_first_argument() {
        assert_eq!(
            words("-n ns -address /s run -rm -env A=1 --env=B=2 -t IMG ID ls --rm -l").unwrap().join(" "),
            "--address=/s --namespace=ns run --rm --tty --env=A=1 --env=B=2 -- IMG ID ls --rm -l"
        );
        assert_eq!(words("i ls -q").unwrap().join(" "), "images list --quiet --");
        assert_eq!(words("t kill -s 9 -- -x").unwrap().join(" "), "tasks kill --signal=9 -- -x");
    }

    #[test]
    fn the_last_of_a_single_flag_wins() {
        assert_eq!(
            words("run --rm --rm=false --cpu-quota -5 -cpu-quota -1").unwrap().join(" "),
            "run --cpu-quota=-1 --"
        );
        assert_eq!(words("i import -").unwrap().join(" "), "images import -- -");
    }

    #[test]
    fn wrong_use_is_refused_with_gos_words() {
        let usage = |line| match words(line) {
            Err(Stop::Usage(_, text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(usage("run --fooo"), "flag provided but not defined: -fooo");
        assert_eq!(usage("run --env"), "flag needs an argument: -env");
        assert_eq!(usage("run --rm=x"), "invalid boolean value \"x\" for -rm: parse error");
        assert_eq!(usage("run ---rm"), "bad flag syntax: ---rm");
        assert_eq!(words("nonsense"), Err(Stop::Unknown("nonsense".into())));
        assert_eq!(words("c help ls"), Err(Stop::Help(vec!["containers".into(), "list".into()])));
        assert_eq!(words("-v"), Err(Stop::Version));
    }
}
