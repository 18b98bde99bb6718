//! AppArmor: which profiles the kernel has, and the one of containers that have none of their own, generated and loaded where no
//! profile of that name is.
//!
//! What it allows and denies is upstream's; whether the machine's abstractions are used depends on what is installed.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use types::{Error, Result, ResultExt};

/// The profiles that the kernel has, a line each: `name (mode)`.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";
/// Where distributions keep what profiles include.
const INCLUDES: &str = "/etc/apparmor.d";
/// Reads a profile from its input with these arguments: not from the cache, replacing.
const PARSER: &str = "apparmor_parser";

/// What a container may do: everything but what is denied below.
const ALLOWED: [&str; 4] = ["network", "capability", "file", "umount"];

/// Programs that may send signals to containers: the host's, and those that run containers.
const SENDERS: [&str; 3] = ["unconfined", "runc", "crun"];

/// Places that no container writes, where the kernel's files are shared with the host.
const DENIED: [&str; 15] = [
    "@{PROC}/* w",
    "@{PROC}/{[^1-9/],[^1-9/][^0-9/],[^1-9s/][^0-9y/][^0-9s/],[^1-9/][^0-9/][^0-9/][^0-9/]*}/** w",
    "@{PROC}/sys/[^k]** w",
    "@{PROC}/sys/kernel/{?,??,[^s][^h][^m]**} w",
    "@{PROC}/sysrq-trigger rwklx",
    "@{PROC}/kcore rwklx",
    "mount",
    "/sys/[^f]*/** wklx",
    "/sys/f[^s]*/** wklx",
    "/sys/fs/[^c]*/** wklx",
    "/sys/fs/c[^g]*/** wklx",
    "/sys/fs/cg[^r]*/** wklx",
    "/sys/firmware/** rwklx",
    "/sys/devices/virtual/powercap/** rwklx",
    "/sys/kernel/security/** rwklx",
];

/// Makes sure that the kernel has a profile of this name.
pub fn ensure(name: &str) -> Result<()> {
    if is_loaded(name)? {
        return Ok(());
    }
    if name.contains(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c)) {
        return Err(Error::invalid(format!("apparmor profile {name:?} has no plain name")));
    }
    let own = std::fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    let has = |include: &str| Path::new(INCLUDES).join(include).exists();
    load(PARSER, name, &text(name, &own, has))
}

/// Whether the kernel has a profile of this name.
pub fn is_loaded(name: &str) -> Result<bool> {
    let loaded = std::fs::read_to_string(LOADED).context(|| format!("open {LOADED}"))?;
    Ok(is_listed(&loaded, name))
}

fn is_listed(profiles: &str, name: &str) -> bool {
    profiles.lines().any(|line| line.split(" (").next() == Some(name))
}

/// The profile, by a process that is confined by the profile `own`, if by any.
fn text(name: &str, own: &str, has: impl Fn(&str) -> bool) -> String {
    let own = own.split([' ', '\n', '\0']).next().filter(|own| !own.is_empty()).unwrap_or("unconfined");
    let mut text = String::new();
    if has("abi/3.0") {
        text += "abi <abi/3.0>,\n";
    }
    text += if has("tunables/global") { "#include <tunables/global>\n" } else { "@{PROC}=/proc/\n" };
    text += &format!("profile {name} flags=(attach_disconnected,mediate_deleted) {{\n");
    if has("abstractions/base") {
        text += "  #include <abstractions/base>\n";
    }
    let rules = ALLOWED.iter().map(|rule| (*rule).to_owned());
    let mut senders: Vec<&str> = SENDERS.to_vec();
    if !senders.contains(&own) {
        senders.push(own);
    }
    let signals = senders.into_iter().map(|peer| format!("signal (receive) peer={peer}"));
    let among = [
        format!("signal (send,receive) peer={name}"),
        format!("ptrace (trace,tracedby,read,readby) peer={name}"),
    ];
    let denied = DENIED.iter().map(|rule| format!("deny {rule}"));
    for rule in rules.chain(signals).chain(among).chain(denied) {
        text += &format!("  {rule},\n");
    }
    text + "}\n"
}

fn load(parser: &str, name: &str, profile: &str) -> Result<()> {
    let failed = |why: String| Error::unknown(format!("load apparmor profile {name}: {why}"));
    let mut command = Command::new(parser);
    command.arg("-Kr").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| failed(format!("exec: {parser:?}: {e}")))?;
    if let Some(mut input) = child.stdin.take() {
        // One that ends without reading says why by its code.
        input.write_all(profile.as_bytes()).ok();
    }
    let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
    Err(failed(format!("parser error({said:?}): {}", output.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_allows_denies_and_names_whoever_may_signal() {
        let bare = text("p", "", |_| false);
        assert!(
            bare.starts_with("@{PROC}=/proc/\nprofile p flags=(attach_disconnected,mediate_deleted) {\n")
        );
        assert!(bare.ends_with("}\n") && bare.matches("peer=unconfined,").count() == 1);
        assert!(bare.contains("  deny mount,\n") && bare.contains("  signal (send,receive) peer=p,\n"));
        let confined = text("p", "containerd (enforce)\n", |_| true);
        assert!(confined.starts_with("abi <abi/3.0>,\n#include <tunables/global>\n"));
        assert!(confined.contains("  signal (receive) peer=containerd,\n"));
        assert!(confined.contains("  #include <abstractions/base>\n"));
    }

    #[test]
    fn a_loaded_profile_is_known_by_its_whole_name() {
        let listed = "docker-default (enforce)\ncri-containerd.apparmor.d (complain)\n";
        assert!(is_listed(listed, "docker-default") && is_listed(listed, "cri-containerd.apparmor.d"));
        assert!(!is_listed(listed, "docker") && !is_listed("", ""));
    }

    #[test]
    fn the_parser_reads_the_profile_and_its_complaint_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            use std::os::unix::fs::OpenOptionsExt;
            let path = dir.path().join(name);
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o755).open(&path).unwrap();
            file.write_all(format!("#!/bin/sh\n{text}\n").as_bytes()).unwrap();
            path.display().to_string()
        };
        // A test beside this one may have forked while the script was open.
        let load = |parser: &str, profile: &str| loop {
            match load(parser, "p", profile) {
                Err(error) if error.to_string().contains("Text file busy") => {}
                done => return done,
            }
        };
        let taken = dir.path().join("taken");
        load(&script("good", &format!("cat > {}", taken.display())), "profile p {}\n").unwrap();
        assert_eq!(std::fs::read_to_string(taken).unwrap(), "profile p {}\n");
        let error = load(&script("bad", "echo no; exit 1"), "x").unwrap_err().to_string();
        assert_eq!(error, "load apparmor profile p: parser error(\"no\"): exit status: 1");
        assert!(load("/nope", "x").is_err());
    }
}
