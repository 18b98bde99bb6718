//! Text on stdout that is replaced by later text: on a terminal in place, elsewhere below what was printed before.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;
use types::Result;

use crate::commands::print;

/// How often a terminal is drawn anew at the most.
const OFTEN: Duration = Duration::from_millis(100);

/// Where progress is drawn.
pub struct Screen {
    terminal: bool,
    /// Rows of the terminal that the last drawing took.
    rows: usize,
    drawn: Option<Instant>,
}

impl Screen {
    /// Stdout.
    pub fn stdout() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), rows: 0, drawn: None }
    }

    /// Whether it is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// When drawing anew makes sense; on what is no terminal that is at once.
    pub fn next(&self) -> Option<Instant> {
        self.drawn.filter(|_| self.terminal).map(|drawn| drawn + OFTEN)
    }

    /// Draws lines in place of those before. The last of them stays in any case, whatever there is room for.
    pub fn draw(&mut self, text: &str) -> Result<()> {
        if !self.terminal {
            return print(text);
        }
        let size = tcgetwinsize(std::io::stdout()).map_or((80, 24), |size| (size.ws_col, size.ws_row));
        let (columns, rows) = (usize::from(size.0.max(20)), usize::from(size.1.max(4)));
        let lines = fitted(text, columns, rows - 1);
        let above = if self.rows > 0 { format!("\x1b[{}A\r\x1b[J", self.rows) } else { String::new() };
        self.rows = lines.len();
        self.drawn = Some(Instant::now());
        print(lines.into_iter().fold(above, |text, line| text + &line + "\x1b[K\n"))
    }
}

/// The lines of `text`, none longer than a row, and no more of them than there are rows.
fn fitted(text: &str, columns: usize, rows: usize) -> Vec<String> {
    let mut lines: Vec<String> =
        text.lines().map(|line| cut(&expand(line.trim_end_matches('\t')), columns)).collect();
    if lines.len() > rows {
        let hidden = lines.len() - rows + 1;
        // What is done is of least interest.
        let mut left = hidden;
        let done =
            |line: &String| [" complete", " extracted", " exists"].iter().any(|word| line.contains(word));
        lines.retain(|line| {
            let drop = left > 0 && done(line);
            left -= usize::from(drop);
            !drop
        });
        let over = (lines.len() + 1).saturating_sub(rows);
        lines.drain(..over.min(lines.len()));
        lines.insert(0, format!("... and {hidden} more"));
    }
    lines
}

/// Tabs as the terminal would show them.
fn expand(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut column = 0;
    let mut escaped = false;
    for c in line.chars() {
        match c {
            '\t' => {
                let fill = 8 - column % 8;
                shown.extend(std::iter::repeat_n(' ', fill));
                column += fill;
                continue;
            }
            '\x1b' => escaped = true,
            _ if escaped => escaped = !c.is_ascii_alphabetic(),
            _ => column += 1,
        }
        shown.push(c);
    }
    shown
}

/// No more than `columns` characters; what colours them does not count.
fn cut(line: &str, columns: usize) -> String {
    let mut shown = String::with_capacity(line.len());
    let (mut column, mut escaped) = (0, false);
    for c in line.chars() {
        match c {
            '\x1b' => escaped = true,
            _ if escaped => escaped = !c.is_ascii_alphabetic(),
            _ if column == columns => continue,
            _ => column += 1,
        }
        shown.push(c);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_cut_and_what_is_done_makes_room() {
        assert_eq!(expand("a\tb\x1b[32mc\x1b[0m\td"), "a       b\x1b[32mc\x1b[0m      d");
        assert_eq!(cut("a\x1b[32mbcd\x1b[0me", 3), "a\x1b[32mbc\x1b[0m");
        let text = "name\nx complete\ny complete\nz downloading\nsum\n";
        assert_eq!(fitted(text, 80, 5).len(), 5);
        assert_eq!(fitted(text, 80, 4), ["... and 2 more", "name", "z downloading", "sum"]);
        assert_eq!(fitted(text, 80, 2), ["... and 4 more", "sum"]);
    }
}
