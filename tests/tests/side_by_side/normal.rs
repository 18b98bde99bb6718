//! What differs between any two runs, replaced by its name.

use std::sync::LazyLock;

use regex::Regex;

use crate::script::Mark;

static REPLACED: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let pairs = [
        // 2026-11-21T10:20:30.123456789Z, and as Go's Time.String writes it.
        (
            r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?Z| ?[+-]\d\d:?\d\d)?( UTC| [+-]\d\d)?( m=\+\d+\.\d+)?",
            "TIME",
        ),
        (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID"),
        (r"/run/containerd/fifo/\d+", "FIFO"),
        (r"containerd-mount\d+", "MOUNT"),
        // A snapshot's own name carries the number of a database's write.
        (r"\bNS/\d+/", "NS/N/"),
        (r"elapsed: [\d.]+ s", "elapsed: AGE"),
        (r"extract-\d+-\S{4}", "EXTRACT"),
        (r"\bpid \d+", "pid PID"),
        (r"(Less than a|About a|\d+) (second|minute)s?\b", "AGE"),
    ];
    pairs.map(|(pattern, name)| (Regex::new(pattern).expect("a pattern"), name)).to_vec()
});

static NUMBER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b\d+(\.\d+)?").expect("a pattern"));
static BLANKS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[ \t]+").expect("a pattern"));

/// `text` without what differs between any two runs, nor what `marks` say.
pub fn normal(text: &str, names: &[(String, &str)], marks: &[Mark]) -> String {
    let mut text = names.iter().fold(text.to_owned(), |text, (value, name)| text.replace(value, name));
    for (pattern, name) in REPLACED.iter() {
        text = pattern.replace_all(&text, *name).into_owned();
    }
    text = last_frame(&text);
    if marks.contains(&Mark::Numbers) {
        text = NUMBER.replace_all(&text, "N").into_owned();
    }
    if marks.contains(&Mark::Numbers) || marks.contains(&Mark::Columns) {
        text = BLANKS.replace_all(&text, " ").into_owned();
    }
    if marks.contains(&Mark::Labels) {
        text = text.split(' ').map(labels_sorted).collect::<Vec<_>>().join(" ");
    }
    if marks.contains(&Mark::Sorted) {
        text = sorted(&text, "\n");
    }
    text
}

/// A transfer's progress is shown again and again, as often as there is time for; the last one tells what it came to.
fn last_frame(text: &str) -> String {
    let ends: Vec<_> = text.match_indices("Importing\telapsed: ").map(|(at, _)| at).collect();
    let [.., before, _] = ends.as_slice() else { return text.to_owned() };
    text[*before..].split_once('\n').map_or(text, |(_, frame)| frame).to_owned()
}

/// A word that is a list of labels, and may end its line.
fn labels_sorted(word: &str) -> String {
    let (list, rest) = word.split_at(word.find('\n').unwrap_or(word.len()));
    sorted(list, ",") + rest
}

fn sorted(text: &str, between: &str) -> String {
    let mut parts: Vec<&str> = text.split(between).collect();
    parts.sort_unstable();
    parts.join(between)
}

#[test]
fn times_names_and_columns_are_replaced() {
    let names = [("/tmp/ctd-abc".to_owned(), "DIR"), ("bb1-2".to_owned(), "NS")];
    let text = "bb1-2-c  12 /tmp/ctd-abc 2026-11-21T10:20:30.123Z 2026-11-21 10:20:30.5 +0000 UTC";
    assert_eq!(normal(text, &names, &[]), "NS-c  12 DIR TIME TIME");
    assert_eq!(normal("Less than a second, 2 seconds", &[], &[]), "AGE, AGE");
    let frames = "a\tsaved\nImporting\telapsed: 0.1 s\na\tsaved\nb\tsaved\nImporting\telapsed: 0.3 s\n";
    assert_eq!(normal(frames, &[], &[]), "a\tsaved\nb\tsaved\nImporting\telapsed: AGE\n");
    assert_eq!(normal("a  12", &[], &[Mark::Numbers]), "a N");
    assert_eq!(normal("b\na\n", &[], &[Mark::Sorted]), "\na\nb");
    assert_eq!(normal("c b=2,a=1\nx\n", &[], &[Mark::Labels]), "c a=1,b=2\nx\n");
}
