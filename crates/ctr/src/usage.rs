//! What stands behind the flags of each command, for help, manual pages and completions: upstream's words.

use clap::{Arg, Command};

/// Command and arguments.
const ARGUMENTS: &[(&str, &str)] = &[
    ("containers checkpoint", "CONTAINER REF"),
    ("containers create", "Image|RootFS CONTAINER [COMMAND] [ARG...]"),
    ("containers delete", "CONTAINER [CONTAINER, ...]"),
    ("containers info", "CONTAINER"),
    ("containers label", "CONTAINER [<key>=<value>, ...]"),
    ("containers list", "[<filter>, ...]"),
    ("containers restore", "CONTAINER REF"),
    ("content active", "[<regexp>]"),
    ("content delete", "[<digest>, ...]"),
    ("content edit", "<digest>"),
    ("content fetch", "<remote> <object>"),
    ("content fetch-blob", "<remote> [<digest>, ...]"),
    ("content fetch-object", "<remote> <object> [<hint>, ...]"),
    ("content get", "[<digest>, ...]"),
    ("content ingest", "<key>"),
    ("content label", "<digest> [<label>=<value> ...]"),
    ("content push-object", "<remote> <object> <type>"),
    ("images check", "[<filter>, ...]"),
    ("images convert", "<source_ref> <target_ref>"),
    ("images delete", "<ref> [<ref>, ...]"),
    ("images export", "<out> <image> ..."),
    ("images import", "<in>"),
    ("images inspect", "<image>"),
    ("images label", "<name> [<key>=<value>, ...]"),
    ("images list", "[<filter>, ...]"),
    ("images mount", "<ref> [<target>]"),
    ("images pull", "<ref>"),
    ("images push", "<remote> [<local>]"),
    ("images tag", "<source_ref> <target_ref> [<target_ref>, ...]"),
    ("images unmount", "<target>"),
    ("images usage", "<ref>"),
    ("install", "<ref>"),
    ("leases create", "<label>=<value> ..."),
    ("leases delete", "<lease id> ..."),
    ("leases list", "<filter>"),
    ("namespaces create", "<name> [<key>=<value>]"),
    ("namespaces label", "<name> [<key>=<value>, ...]"),
    ("namespaces remove", "<name> [<name>, ...]"),
    ("run", "Image|RootFS ID [COMMAND] [ARG...]"),
    ("sandboxes info", "<sandbox id>"),
    ("sandboxes remove", "<id> [<id>, ...]"),
    ("sandboxes run", "<pod-config.json> <sandbox-id>"),
    ("snapshots commit", "<key> <active>"),
    ("snapshots delete", "<key> [<key>, ...]"),
    ("snapshots diff", "<idA> [<idB>]"),
    ("snapshots info", "<key>"),
    ("snapshots label", "<name> [<label>=<value> ...]"),
    ("snapshots mounts", "<target> <key>"),
    ("snapshots prepare", "<key> [<parent>]"),
    ("snapshots unpack", "<digest>"),
    ("snapshots usage", "[<key>, ...]"),
    ("snapshots view", "<key> [<parent>]"),
    ("tasks attach", "CONTAINER"),
    ("tasks checkpoint", "CONTAINER"),
    ("tasks delete", "CONTAINER [CONTAINER, ...]"),
    ("tasks exec", "CONTAINER CMD [ARG...]"),
    ("tasks kill", "CONTAINER"),
    ("tasks metrics", "CONTAINER"),
    ("tasks pause", "CONTAINER"),
    ("tasks ps", "CONTAINER"),
    ("tasks resume", "CONTAINER"),
    ("tasks start", "CONTAINER"),
];

/// `command`, which is called by the words of `path`, as it is shown: with its line of use, and without defaults that
/// are nothing.
pub fn named(command: Command, path: &[String]) -> Command {
    let name = path.join(" ");
    let behind = match ARGUMENTS.iter().find(|(command, _)| *command == name) {
        Some((_, arguments)) => format!(" {arguments}"),
        None if command.has_subcommands() => " <command>".into(),
        None => String::new(),
    };
    let space = if path.is_empty() { "" } else { " " };
    let nothing = |arg: &Arg| arg.get_default_values().first().is_some_and(|value| value.is_empty());
    let command = command.mut_args(|arg| match nothing(&arg) {
        true => arg.hide_default_value(true),
        false => arg,
    });
    command.override_usage(format!("ctr{space}{name} [flags]{behind}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_line_is_of_a_command_that_there_is() {
        let root = Cli::command();
        for (name, _) in ARGUMENTS {
            let found = name.split(' ').try_fold(&root, |command, word| command.find_subcommand(word));
            assert!(found.is_some(), "{name}");
        }
    }
}
