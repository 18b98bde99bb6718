//! A transfer as the daemon tells of it: what is moved, below what names it.
//!
//! ```text
//!  docker.io/library/x:1                     fetching image content
//!  └──manifest (0123456789ab)                complete      |++++++++|
//!     ├──layer (123456789abc)                downloading   |+++-----|   1.2 MiB/3.4 MiB
//!     └──config (23456789abcd)               waiting       |--------|
//!  application/vnd.oci.image.manifest.v1+json sha256:...
//!  Pulling from OCI Registry (docker.io/library/x:1)   elapsed: 1.2 s   total:  1.2 Mi   (1.0 MiB/s)
//! ```
//!
//! Where the output is no terminal, all of it is printed whenever something changes, as upstream's ctr does. On a terminal it
//! is drawn in place, and the last line tells the rate of the last seconds.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use api::containerd::types::transfer::Progress;
use types::Result;

use super::bar::{amount, bar, rate, sum, whole};
use super::screen::Screen;

/// Over what time a rate is measured.
const RECENT: Duration = Duration::from_secs(3);

/// What is known of a transfer, drawn.
pub struct Tree {
    screen: Screen,
    board: Board,
    recent: VecDeque<(Instant, u64)>,
    pending: bool,
}

impl Tree {
    /// Nothing is known yet.
    pub fn stdout() -> Self {
        Self { screen: Screen::stdout(), board: Board::new(), recent: VecDeque::new(), pending: false }
    }

    /// Takes note, and draws if it is time to.
    pub fn take(&mut self, progress: Progress) -> Result<()> {
        self.pending |= self.board.take(progress) || self.screen.is_terminal() && self.board.is_known();
        match self.screen.next() {
            Some(next) if next > Instant::now() => Ok(()),
            _ => self.draw(),
        }
    }

    /// When something waits to be drawn.
    pub fn due(&self) -> Option<Instant> {
        self.screen.next().filter(|_| self.pending)
    }

    /// Draws what has not been drawn.
    pub fn draw(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.pending) {
            return Ok(());
        }
        if !self.screen.is_terminal() {
            return self.screen.draw(&self.board.text());
        }
        let last = self.last_line();
        self.screen.draw(&self.board.text_with(&last))
    }

    /// As upstream's, with how much there is to do, and the rate at the moment.
    fn last_line(&mut self) -> String {
        let (now, (done, total)) = (Instant::now(), self.board.amounts());
        self.recent.push_back((now, done));
        while self.recent.len() > 2 && self.recent.front().is_some_and(|(at, _)| now - *at > RECENT) {
            self.recent.pop_front();
        }
        let (since, before) = self.recent.front().copied().unwrap_or((now, done));
        let elapsed = format!("{:.1}", self.board.begun.elapsed().as_secs_f64());
        let rate = rate(done.saturating_sub(before), now - since);
        let Board { status, .. } = &self.board;
        format!("{status}\telapsed: {elapsed}s\ttotal: {}\t({rate})\t\n", amount(done, total).trim_start())
    }
}

/// What is known of a transfer.
struct Board {
    begun: Instant,
    status: String,
    nodes: Vec<Node>,
    by_name: BTreeMap<String, usize>,
    roots: Vec<usize>,
}

struct Node {
    progress: Progress,
    children: Vec<usize>,
    root: bool,
}

impl Board {
    fn new() -> Self {
        let (status, nodes, by_name, roots) = Default::default();
        Self { begun: Instant::now(), status, nodes, by_name, roots }
    }

    fn is_known(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// Takes note; answers whether upstream's ctr would draw now.
    fn take(&mut self, progress: Progress) -> bool {
        if progress.name.is_empty() {
            self.status = progress.event;
            return false;
        }
        let at = match self.by_name.get(&progress.name) {
            Some(at) => *at,
            None => {
                let at = self.nodes.len();
                self.by_name.insert(progress.name.clone(), at);
                self.nodes.push(Node { progress: Progress::default(), children: Vec::new(), root: true });
                self.roots.push(at);
                at
            }
        };
        self.hang(at, &progress.parents);
        if let Some(node) = self.nodes.get_mut(at) {
            node.progress = progress;
        }
        true
    }

    /// Hangs a node below those of its parents that are known.
    fn hang(&mut self, at: usize, parents: &[String]) {
        for parent in parents.iter().filter_map(|name| self.by_name.get(name)).copied() {
            if parent == at {
                continue;
            }
            if let Some(parent) = self.nodes.get_mut(parent)
                && !parent.children.contains(&at)
            {
                parent.children.push(at);
            }
            if let Some(node) = self.nodes.get_mut(at) {
                node.root = false;
            }
            self.roots.retain(|root| *root != at);
        }
    }

    /// As upstream prints it.
    fn text(&self) -> String {
        let last = format!("{}\t{}", self.status, sum(self.begun.elapsed(), self.amounts().0));
        self.text_with(&last)
    }

    fn text_with(&self, last: &str) -> String {
        let mut text = String::new();
        self.lines(&self.roots, "", 0, &mut text);
        let described = self.roots.iter().filter_map(|root| self.described(*root, 0));
        for (kind, digest) in described {
            text.push_str(&format!("{kind} {digest}\n"));
        }
        text + last
    }

    /// What is done and what there is to do, in bytes.
    fn amounts(&self) -> (u64, u64) {
        let bytes = |count: i64| u64::try_from(count).unwrap_or(0);
        self.nodes.iter().fold((0, 0), |(done, total), Node { progress, .. }| {
            (done + bytes(progress.progress), total + bytes(progress.total))
        })
    }

    /// The content that a root stands for: its own, or the first below it.
    fn described(&self, at: usize, depth: usize) -> Option<(&str, &str)> {
        let node = self.nodes.get(at).filter(|_| depth < DEPTH)?;
        match &node.progress.desc {
            Some(desc) => Some((&desc.media_type, &desc.digest)),
            None => node.children.iter().find_map(|child| self.described(*child, depth + 1)),
        }
    }

    fn lines(&self, nodes: &[usize], prefix: &str, depth: usize, out: &mut String) {
        if depth == DEPTH {
            return;
        }
        for (place, node) in nodes.iter().enumerate() {
            let Some(node) = self.nodes.get(*node) else { continue };
            let (branch, below) = match (node.root, place + 1 == nodes.len()) {
                (true, _) => ("", ""),
                (false, true) => ("└──", "   "),
                (false, false) => ("├──", "│  "),
            };
            let name = format!("{prefix}{branch}{}", shown(&node.progress.name));
            out.push_str(&line(&name, &node.progress));
            self.lines(&node.children, &format!("{prefix}{below}"), depth + 1, out);
        }
    }
}

/// How deep content may nest; what a daemon tells need not be a tree.
const DEPTH: usize = 16;

fn line(name: &str, progress: &Progress) -> String {
    let bytes = |count: i64| u64::try_from(count).unwrap_or(0);
    let (event, done, total) = (progress.event.as_str(), bytes(progress.progress), bytes(progress.total));
    match event {
        "downloading" | "uploading" | "extracting" => {
            format!("{name:<40.40}\t{event:<11}\t{}\t{}\t\n", bar(done, total), amount(done, total))
        }
        "resolving" | "waiting" => format!("{name:<40.40}\t{event:<11}\t{}\t\n", whole(false)),
        "complete" | "extracted" => format!("{name:<40.40}\t{event:<11}\t{}\t\n", whole(true)),
        event => format!("{name:<40.40}\t{event}\t\n"),
    }
}

/// A name with spaces for dashes and digests cut short.
fn shown(name: &str) -> String {
    let part = |part: &str| match part.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 => format!("({})", hex.chars().take(12).collect::<String>()),
        _ => part.to_owned(),
    };
    name.split('-').map(part).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(event: &str, name: &str, parents: &[&str], amounts: (i64, i64)) -> Progress {
        Progress {
            event: event.into(),
            name: name.into(),
            parents: parents.iter().map(|parent| (*parent).to_owned()).collect(),
            progress: amounts.0,
            total: amounts.1,
            desc: None,
        }
    }

    fn described(mut progress: Progress) -> Progress {
        let desc = api::containerd::types::Descriptor {
            media_type: "m".into(),
            digest: "d".into(),
            ..Default::default()
        };
        progress.desc = Some(desc);
        progress
    }

    #[test]
    fn progress_reads_as_upstream_prints_it() {
        let mut board = Board::new();
        assert!(!board.take(told("Importing", "", &[], (0, 0))));
        assert!(board.take(described(told("saved", "docker.io/library/busybox:1", &[], (0, 0)))));
        let wanted = "docker.io/library/busybox:1             \tsaved\t\nm d\n\
            Importing\telapsed: 0.0 s\ttotal:   0.0 B\t(0.0 B/s)\t\n";
        assert_eq!(board.text(), wanted);
    }

    #[test]
    fn content_hangs_below_what_names_it_and_is_added_up() {
        let mut board = Board::new();
        board.take(told("fetching image content", "r", &[], (0, 0)));
        board.take(told("complete", "manifest-m", &["r"], (5, 5)));
        board.take(told("waiting", "layer-a", &["manifest-m"], (0, 20)));
        board.take(told("downloading", "layer-b", &["manifest-m"], (10, 20)));
        board.take(told("already exists", "layer-a", &[], (20, 20)));
        // One that names itself, or each other, ends all the same.
        board.take(told("waiting", "layer-b", &["layer-b", "manifest-m"], (10, 20)));
        let text = board.text();
        let names: Vec<&str> =
            text.lines().filter_map(|line| line.split('\t').next()).map(str::trim_end).collect();
        assert_eq!(names[..4], ["r", "└──manifest m", "   ├──layer a", "   └──layer b"], "{text}");
        assert!(text.contains("\talready exists\t\n"));
        assert_eq!(board.amounts(), (35, 45));
    }
}
