//! A table of command lines, as text.
//!
//! ```text
//! # a remark
//! namespaces create one              one line, one command of ctr, compared in exit code, stdout and stderr
//! label 'two words'                  words are split as by a shell
//! [sorted] images ls                 marks of a line stand in front, see [`Mark`]
//! @await %one STOPPED                a step that is not compared, see [`Step`]
//! ```
//!
//! `%one` is a container's id that no other run uses; `{image}`, `{dir}` and the like are filled in by the side.

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// As it stands in the table.
    pub text: String,
    /// How it is to be compared.
    pub marks: Vec<Mark>,
    /// What is done.
    pub step: Step,
}

/// What a line does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A command of ctr.
    Ctr(Vec<String>),
    /// Waits until a task has a status.
    Await(String, String),
    /// Starts a command of ctr that goes on while the next lines run.
    Listen(Vec<String>),
    /// Waits until the listener has written some words.
    Hear(String),
    /// Kills the listener and compares what it wrote.
    Unlisten,
    /// Waits for a garbage collection.
    Collect,
    /// Imports the image, by the way that works with every pair.
    Import,
    /// Writes a file below the side's directory.
    Write(String, String),
}

/// How the output of a line is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Runs of blanks are one blank: a column holds something as wide as a number of the moment.
    Columns,
    /// Numbers are not compared (nor are blanks).
    Numbers,
    /// The order of lines is not compared.
    Sorted,
    /// The order of labels in a line, `a=b,c=d`, is not compared.
    Labels,
    /// Help is printed; a client of another make lays it out in another way.
    Help,
    /// Only the exit code is compared.
    Code,
    /// Only Go clients of 2.x know the command.
    New,
    /// What the command reads.
    Input(String),
    /// A pair of sides differs on purpose, for the reason given; if it does not, the line fails.
    Differs(Pairing, String),
}

/// In what two sides differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Our daemon and upstream's of 2.3, one client.
    Daemon,
    /// Our daemon and upstream's of 1.6, one client.
    OldDaemon,
    /// Our client and upstream's of 2.3, one daemon.
    Client,
    /// Our shim and upstream's of 2.3, one daemon.
    Shim,
}

/// Reads a table.
///
/// # Panics
/// If a line is no line, with its text.
pub fn parse(table: &str) -> Vec<Line> {
    let lines = table.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(parse_line).collect()
}

fn parse_line(text: &str) -> Line {
    let (mut marks, mut rest) = (Vec::new(), text);
    while let Some((mark, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        marks.push(parse_mark(mark).unwrap_or_else(|| panic!("no mark {mark:?}: {text}")));
        rest = after.trim_start();
    }
    let mut words = split(rest);
    assert!(!words.is_empty(), "no command: {text}");
    let take = |words: &mut Vec<String>, n: usize| {
        assert!(words.len() > n, "too few words: {text}");
        words[n].clone()
    };
    let step = match words[0].as_str() {
        "@await" => Step::Await(take(&mut words, 1), take(&mut words, 2)),
        "@listen" => Step::Listen(words.split_off(1)),
        "@hear" => Step::Hear(take(&mut words, 1)),
        "@unlisten" => Step::Unlisten,
        "@collect" => Step::Collect,
        "@import" => Step::Import,
        "@write" => Step::Write(take(&mut words, 1), take(&mut words, 2)),
        other if other.starts_with('@') => panic!("no step {other:?}: {text}"),
        _ => Step::Ctr(words),
    };
    Line { text: text.to_owned(), marks, step }
}

fn parse_mark(mark: &str) -> Option<Mark> {
    let (name, value) = mark.split_once(": ").unwrap_or((mark, ""));
    Some(match (name, value) {
        ("columns", "") => Mark::Columns,
        ("numbers", "") => Mark::Numbers,
        ("sorted", "") => Mark::Sorted,
        ("labels", "") => Mark::Labels,
        ("help", "") => Mark::Help,
        ("code", "") => Mark::Code,
        ("2.x", "") => Mark::New,
        ("input", text) => Mark::Input(text.replace("\\n", "\n")),
        (name, reason) if !reason.is_empty() => Mark::Differs(parse_pairing(name)?, reason.to_owned()),
        _ => return None,
    })
}

fn parse_pairing(name: &str) -> Option<Pairing> {
    Some(match name {
        "daemon differs" => Pairing::Daemon,
        "1.6 differs" => Pairing::OldDaemon,
        "ctr differs" => Pairing::Client,
        "shim differs" => Pairing::Shim,
        _ => return None,
    })
}

/// Words in single or double quotes hold blanks; there are no escapes.
fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "a quote is not closed: {text}");
    words.extend(word);
    words
}

#[test]
fn words_marks_and_steps_are_told_apart() {
    let lines = parse("# remark\n\n[sorted] [input: a\\nb] label 'two words' \"\"\n@await %one STOPPED\n");
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0].marks, [Mark::Sorted, Mark::Input("a\nb".to_owned())]);
    assert_eq!(lines[0].step, Step::Ctr(vec!["label".to_owned(), "two words".to_owned(), String::new()]));
    assert_eq!(lines[1].step, Step::Await("%one".to_owned(), "STOPPED".to_owned()));
}
