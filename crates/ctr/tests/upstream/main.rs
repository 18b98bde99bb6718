//! Our ctr and upstream's say and do the same: each command line is given to both, against upstream's daemon.
//!
//! `CTR_UPSTREAM` names upstream's ctr 2.3; `containerd` and its shim are beside it, runc on the PATH. Without it, or
//! without root, the tests say so and pass. Daemon, root, state and FIFOs are private and go with the test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod image;
mod lines;

use bench::{Bench, Ctr, Said};
use lines::{GROUPS, RUNS};

#[test]
fn containers_have_the_same_spec_record_and_outcome() {
    let Some(bench) = Bench::new() else { return };
    let mut differ = Vec::new();
    for line in RUNS {
        let [theirs, ours] = bench.both(|ctr| {
            let dumped = bench.path("spec.json");
            std::fs::remove_file(&dumped).ok();
            let flags = format!("run -d --null-io --dump-config {} ", dumped.display());
            let said = ctr.say(&(flags + line));
            let spec = std::fs::read_to_string(&dumped).unwrap_or_default();
            let record = ctr.say("containers info sp").without(&["\"CreatedAt\"", "\"UpdatedAt\""]);
            ctr.say("tasks rm -f sp");
            ctr.say("containers rm sp");
            ctr.say("snapshots rm sp");
            // Upstream leaves the snapshot of a run that failed to its collector.
            (said.sorted(), spec, if said.code == 0 { record } else { Said::default() })
        });
        if theirs != ours {
            differ.push(format!("{line}\n  upstream: {theirs:?}\n  ours:     {ours:?}"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

fn said(ctr: &Ctr<'_>, line: &str) -> Said {
    match line.strip_prefix('#') {
        Some(line) => ctr.say(line).sorted().without_numbers(),
        None => match line.strip_prefix('%') {
            Some(line) => ctr.say(line).sorted().labels_sorted(),
            None => ctr.say(line).sorted(),
        },
    }
}

#[test]
fn commands_print_and_exit_alike() {
    let Some(bench) = Bench::new() else { return };
    let mut differ = Vec::new();
    for group in GROUPS {
        let [theirs, ours] = bench.both(|ctr| {
            let said: Vec<Said> = group.iter().map(|line| said(ctr, line)).collect();
            bench.clean();
            said
        });
        for ((line, theirs), ours) in group.iter().zip(theirs).zip(ours) {
            if theirs != ours {
                differ.push(format!("{line}\n  upstream: {theirs:?}\n  ours:     {ours:?}"));
            }
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}
