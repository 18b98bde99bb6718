//! The forms of lines in a log file, and how what a process says is cut into them.

use types::output::Format;

use super::Channel;

/// A whole line, or a part that another follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Whole,
    Part,
}

/// Text to be written, and of which bytes of the process each piece of it tells.
#[derive(Debug, Default)]
pub struct Batch {
    text: Vec<u8>,
    /// Where each line ends in the text, and how many bytes the process has said for it. None for raw bytes.
    lines: Vec<(usize, u64)>,
}

impl Batch {
    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }

    /// What is to be written.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether a line ends at `place`, or begins.
    pub fn is_end(&self, place: usize) -> bool {
        place == 0 || self.lines.iter().any(|(end, _)| *end == place)
    }

    /// How many bytes the process has said for what is not wholly before `place`.
    pub fn said_behind(&self, place: usize) -> u64 {
        if self.lines.is_empty() {
            return self.text.len().saturating_sub(place) as u64;
        }
        self.lines.iter().filter(|(end, _)| *end > place).map(|(_, said)| said).sum()
    }

    /// Nothing, in the same memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.lines.clear();
    }
}

/// How lines look at this moment.
pub struct Form {
    /// Not raw.
    pub format: Format,
    /// See [`types::output::LogFile`].
    pub max_line: Option<u32>,
    /// Whose lines.
    pub channel: Channel,
    /// Now.
    pub time: String,
}

impl Form {
    /// Cuts `bytes`, behind what has begun as `partial`, into lines. A line that has not ended and is not too long yet stays
    /// there.
    pub fn add(&self, bytes: &[u8], partial: &mut Vec<u8>, batch: &mut Batch) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.split_last() {
                Some((b'\n', said)) => {
                    partial.extend_from_slice(said);
                    let returned = self.returns(partial);
                    partial.truncate(partial.len() - returned);
                    let begin = self.parts(partial, partial.len(), batch);
                    self.line(partial.get(begin..).unwrap_or_default(), Line::Whole, 1 + returned, batch);
                    partial.clear();
                }
                _ => {
                    partial.extend_from_slice(piece);
                    // It is none of the line's if the next byte ends that.
                    let certain = partial.len() - self.returns(partial);
                    let begin = self.parts(partial, certain, batch);
                    partial.drain(..begin);
                }
            }
        }
    }

    /// The process has ended in the middle of a line.
    pub fn rest(&self, partial: &mut Vec<u8>, batch: &mut Batch) {
        let begin = self.parts(partial, partial.len(), batch);
        self.line(partial.get(begin..).unwrap_or_default(), Line::Part, 0, batch);
        partial.clear();
    }

    /// A line of our own.
    pub fn whole(&self, text: &[u8], into: &mut Vec<u8>) {
        self.write(text, Line::Whole, into);
    }

    /// How many bytes at the end of a line would be a part of what ends it.
    fn returns(&self, line: &[u8]) -> usize {
        usize::from(self.format == Format::Cri && line.ends_with(b"\r"))
    }

    /// The parts in front of a line of which `length` bytes are certain; how many bytes they take.
    fn parts(&self, line: &[u8], length: usize, batch: &mut Batch) -> usize {
        let Some(max) = self.max_line.and_then(|max| usize::try_from(max).ok()) else { return 0 };
        let mut begin = 0;
        while length - begin > max {
            self.line(line.get(begin..begin + max).unwrap_or_default(), Line::Part, 0, batch);
            begin += max;
        }
        begin
    }

    /// One more line, which was said with `more` bytes than it has.
    fn line(&self, said: &[u8], line: Line, more: usize, batch: &mut Batch) {
        self.write(said, line, &mut batch.text);
        batch.lines.push((batch.text.len(), (said.len() + more) as u64));
    }

    fn write(&self, said: &[u8], line: Line, text: &mut Vec<u8>) {
        let (time, stream) = (self.time.as_str(), self.channel.name());
        match self.format {
            Format::Raw => text.extend_from_slice(said),
            Format::Cri => {
                let tag = if line == Line::Whole { " F " } else { " P " };
                for piece in [time, " ", stream, tag] {
                    text.extend_from_slice(piece.as_bytes());
                }
                text.extend_from_slice(said);
                text.push(b'\n');
            }
            Format::Json => {
                let mut said = String::from_utf8_lossy(said).into_owned();
                if line == Line::Whole {
                    said.push('\n');
                }
                let mut json = String::from("{\"log\":");
                crate::json::quote(&said, &mut json);
                json.push_str(&format!(",\"stream\":\"{stream}\",\"time\":\"{time}\"}}\n"));
                text.extend_from_slice(json.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn form(max_line: Option<u32>) -> Form {
        Form { format: Format::Cri, max_line, channel: Channel::Out, time: "T".into() }
    }

    /// The lines that come of pieces, and of the end behind them.
    fn cut(max_line: Option<u32>, pieces: &[&[u8]]) -> Vec<String> {
        let (mut partial, mut batch) = (Vec::new(), Batch::default());
        for piece in pieces {
            form(max_line).add(piece, &mut partial, &mut batch);
        }
        if !partial.is_empty() {
            form(max_line).rest(&mut partial, &mut batch);
        }
        let text = String::from_utf8(batch.text.clone()).unwrap();
        text.split_terminator('\n').map(|line| line.strip_prefix("T stdout ").unwrap().to_owned()).collect()
    }

    #[test]
    fn a_line_is_cut_only_when_it_is_longer_than_it_may_be() {
        assert_eq!(cut(Some(4), &[b"abcd\n"]), ["F abcd"]);
        assert_eq!(cut(Some(4), &[b"abcd", b"\n"]), ["F abcd"]);
        assert_eq!(cut(Some(4), &[b"abcde\n"]), ["P abcd", "F e"]);
        assert_eq!(cut(Some(4), &[b"abcdefghi\nx\n"]), ["P abcd", "P efgh", "F i", "F x"]);
        assert_eq!(cut(None, &[b"abcdefghi", b"jk\n"]), ["F abcdefghijk"]);
    }

    #[test]
    fn one_carriage_return_belongs_to_the_end_of_a_line_wherever_a_read_ended() {
        assert_eq!(cut(Some(4), &[b"abcd\r\n"]), ["F abcd"]);
        assert_eq!(cut(Some(4), &[b"abcd\r", b"\n"]), ["F abcd"]);
        assert_eq!(cut(Some(4), &[b"abcd\r\r\n"]), ["P abcd", "F \r"]);
        assert_eq!(cut(Some(4), &[b"abcd\r", b"x\n"]), ["P abcd", "F \rx"]);
        assert_eq!(cut(Some(4), &[b"\r\n\n"]), ["F ", "F "]);
    }

    #[test]
    fn what_has_no_end_is_a_part() {
        assert_eq!(cut(Some(4), &[b"abc"]), ["P abc"]);
        assert_eq!(cut(Some(4), &[b"abc\r"]), ["P abc\r"]);
        assert_eq!(cut(Some(4), &[b"abcd\r"]), ["P abcd", "P \r"]);
        assert_eq!(cut(Some(4), &[b"x\n"]), ["F x"]);
    }

    #[test]
    fn what_is_not_wholly_written_is_counted_in_bytes_of_the_process() {
        let (mut partial, mut batch) = (Vec::new(), Batch::default());
        form(Some(4)).add(b"ab\r\nc\nabcdef\n", &mut partial, &mut batch);
        assert_eq!((batch.said_behind(0), batch.is_end(0)), (13, true));
        let first = batch.lines[0].0;
        assert_eq!((batch.said_behind(first), batch.is_end(first)), (9, true));
        assert_eq!((batch.said_behind(first - 1), batch.is_end(first - 1)), (13, false));
        assert_eq!(batch.said_behind(batch.text().len()), 0);
    }

    proptest! {
        #[test]
        fn what_was_said_comes_back_whatever_the_pieces(
            said in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'x')], 0..60),
            at in 0usize..60,
            max in 1u32..6,
        ) {
            let (first, second) = said.split_at(at.min(said.len()));
            let lines = cut(Some(max), &[first, second]);
            prop_assert_eq!(&lines, &cut(Some(max), &[&said]));
            let mut back = String::new();
            for line in &lines {
                let (tag, text) = line.split_once(' ').unwrap();
                prop_assert!(text.len() <= max as usize);
                back.push_str(text);
                if tag == "F" { back.push('\n') }
            }
            let wanted = String::from_utf8(said).unwrap().replace("\r\n", "\n");
            let back_too = back.replace("\r\n", "\n");
            prop_assert_eq!(back_too, wanted.replace("\r\n", "\n"));
        }
    }
}
