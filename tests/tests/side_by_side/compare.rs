//! A table is run on both sides at once, line by line; what differs is reported all at the end.

use std::time::{Duration, Instant};

use containerd_tests::Finished;
use containerd_tests::command::Running;

use crate::normal::normal;
use crate::script::{Line, Mark, Pairing, Step, parse};
use crate::side::Side;

/// A daemon collects garbage a tenth of a second after its start: a table that has made something by then, which nothing
/// keeps, would lose it on one side and not on the other.
const FIRST_COLLECTION: Duration = Duration::from_millis(500);

/// Runs `table` on `ours` and `theirs`.
///
/// # Panics
/// With all lines that differ.
pub fn compare(table: &str, pairing: Pairing, new_client: bool, ours: &Side, theirs: &Side) {
    let mut differences = Vec::new();
    let mut listeners = None;
    std::thread::sleep(FIRST_COLLECTION);
    for line in parse(table) {
        if line.marks.contains(&Mark::New) && !new_client {
            continue;
        }
        match &line.step {
            Step::Await(id, status) => [ours, theirs].iter().for_each(|side| side.await_status(id, status)),
            Step::Collect => [ours, theirs].iter().for_each(|side| side.collect_garbage()),
            Step::Import => [ours, theirs].iter().for_each(|side| side.import()),
            Step::Write(path, text) => [ours, theirs].iter().for_each(|side| side.write(path, text)),
            Step::Listen(words) => listeners = Some((line.clone(), ours.listen(words), theirs.listen(words))),
            Step::Hear(words) => {
                differences.extend(hear(listeners.as_ref(), &[ours, theirs].map(|side| side.fill(words))))
            }
            Step::Unlisten => {
                let (line, a, b) = listeners.take().expect("somebody listens");
                let [a, b] = [(ours, a), (theirs, b)].map(|(side, listener)| stopped(side, listener, &line));
                differences.extend(difference(&line, pairing, &a, &b));
            }
            Step::Ctr(words) => differences.extend(run(&line, words, pairing, ours, theirs)),
        }
    }
    let count = differences.len();
    assert!(count == 0, "{count} lines differ\n\n{}", differences.join("\n"));
}

/// Runs a line on both sides at once; gives what differs.
fn run(line: &Line, words: &[String], pairing: Pairing, ours: &Side, theirs: &Side) -> Option<String> {
    let mut found = None;
    for _ in 0..tries(words) {
        let running = [ours, theirs].map(|side| (side, start(side, words, line)));
        let [a, b] = running.map(|(side, running)| outcome(side, &running.finish(), line));
        if a.code != 0 || b.code != 0 {
            // What a client made before it failed hung on its lease.
            [ours, theirs].iter().for_each(|side| side.collect_garbage());
        }
        found = difference(line, pairing, &a, &b);
        if found.is_none() {
            break;
        }
    }
    found
}

/// On a busy machine Go's clients now and then lose what a process wrote just before its end, whoever's daemon and shim
/// it is: they stop to read as soon as they know of the end.
fn tries(words: &[String]) -> u32 {
    let starts = |with: &[&str]| words.len() >= with.len() && words.iter().zip(with).all(|(a, b)| a == b);
    if starts(&["run", "--rm"]) || starts(&["tasks", "exec"]) { 3 } else { 1 }
}

fn start(side: &Side, words: &[String], line: &Line) -> Running {
    let input = line.marks.iter().find_map(|mark| match mark {
        Mark::Input(text) => Some(text.clone()),
        _ => None,
    });
    let command = side.ctr(words);
    match input {
        Some(text) => command.input(text).start(),
        None => command.start(),
    }
}

/// Waits until both listeners have heard; says who has not.
fn hear(listeners: Option<&(Line, Running, Running)>, words: &[String; 2]) -> Option<String> {
    let (_, a, b) = listeners.expect("somebody listens");
    let start = Instant::now();
    let heard = || a.output().contains(&words[0]) && b.output().contains(&words[1]);
    while !heard() {
        if start.elapsed() > Duration::from_secs(30) {
            let heard = [a, b].map(Running::output);
            return Some(format!("@hear {}\n  not heard by both: {heard:?}\n", words[0]));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

fn stopped(side: &Side, listener: Running, line: &Line) -> Outcome {
    listener.signal(rustix::process::Signal::KILL);
    let mut outcome = outcome(side, &listener.finish(), line);
    // The first ones are there until the listener was seen to hear; and Go's shim often ends before it has sent the last.
    let noise = |line: &&str| line.contains("heard") || line.contains("/tasks/delete");
    let heard = outcome.stdout.lines().filter(|line| !noise(line));
    outcome.stdout = heard.map(|line| format!("{line}\n")).collect();
    outcome
}

/// What a line gave, normalised.
#[derive(PartialEq, Eq)]
struct Outcome {
    code: i32,
    stdout: String,
    stderr: String,
}

fn outcome(side: &Side, finished: &Finished, line: &Line) -> Outcome {
    if line.marks.contains(&Mark::Code) {
        return Outcome { code: finished.code, stdout: String::new(), stderr: String::new() };
    }
    let clean = |text: &str| normal(text, &side.names(), &line.marks);
    Outcome { code: finished.code, stdout: clean(&finished.stdout), stderr: clean(&finished.stderr) }
}

/// What to say about a line, if anything.
fn difference(line: &Line, pairing: Pairing, ours: &Outcome, theirs: &Outcome) -> Option<String> {
    let reason = line.marks.iter().find_map(|mark| match mark {
        Mark::Differs(of, reason) if *of == pairing => Some(reason),
        _ => None,
    });
    let help = pairing == Pairing::Client && line.marks.contains(&Mark::Help);
    let same = if help { (ours.code, &ours.stderr) == (theirs.code, &theirs.stderr) } else { ours == theirs };
    match (reason, same) {
        (None, true) | (Some(_), false) => None,
        // Of two events that one deletion causes, Go's daemon tells either first.
        (Some(_), true) if matches!(line.step, Step::Listen(_)) => None,
        (Some(reason), true) => Some(format!("$ ctr {}\n  no longer differs: {reason}\n", line.text)),
        (None, false) => Some(format!("$ ctr {}\n{}", line.text, shown(ours, theirs))),
    }
}

/// The exit codes, and the lines that only one side has.
fn shown(ours: &Outcome, theirs: &Outcome) -> String {
    let mut text = String::new();
    if ours.code != theirs.code {
        text = format!("  exit codes: ours {}, theirs {}\n", ours.code, theirs.code);
    }
    for (name, a, b) in [("stdout", &ours.stdout, &theirs.stdout), ("stderr", &ours.stderr, &theirs.stderr)] {
        if a == b {
            continue;
        }
        let (only_a, only_b) = (only_in(a, b), only_in(b, a));
        if only_a.is_empty() && only_b.is_empty() {
            text += &format!("  {name}: in another order, or another end\n{a}--- theirs\n{b}");
        }
        text += &listed(&format!("{name}   ours"), &only_a);
        text += &listed(&format!("{name} theirs"), &only_b);
    }
    text
}

fn listed(head: &str, lines: &[&str]) -> String {
    let shown = lines.iter().take(12).map(|line| format!("  {head}| {line}\n"));
    let more = (lines.len() > 12).then(|| format!("  {head}| and {} lines more\n", lines.len() - 12));
    shown.chain(more).collect()
}

/// The lines of `a` that `b` has not, or has less often.
fn only_in<'a>(a: &'a str, b: &str) -> Vec<&'a str> {
    let mut others: Vec<&str> = b.lines().collect();
    let mut only = Vec::new();
    for line in a.lines() {
        match others.iter().position(|other| *other == line) {
            Some(at) => drop(others.swap_remove(at)),
            None => only.push(line),
        }
    }
    only
}
