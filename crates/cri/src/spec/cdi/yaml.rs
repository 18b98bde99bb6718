//! The part of YAML that tools write: mappings and lists by indentation or in brackets, plain and quoted words, comments. What is
//! not read here (anchors, tags, texts of several lines, more than one document) is refused by its line, never guessed.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};
use types::{Error, Result};

/// Deeper files are refused.
const DEPTH: usize = 64;

/// A line without its comment; never empty.
#[derive(Clone, Debug)]
struct Line<'a> {
    number: usize,
    indent: usize,
    text: &'a str,
}

impl Line<'_> {
    fn error(&self, why: &str) -> Error {
        error(self.number, why)
    }
}

fn error(line: usize, why: &str) -> Error {
    Error::invalid(format!("yaml: line {line}: {why}"))
}

/// A document.
pub(super) fn parse(text: &str) -> Result<Value> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let text = without_comment(line).trim_end();
        let bare = text.trim_start_matches(' ');
        if bare.is_empty() || (lines.is_empty() && bare == "---") || bare.starts_with('%') {
            continue;
        }
        let line = Line { number: at + 1, indent: text.len() - bare.len(), text: bare };
        if bare.starts_with('\t') {
            return Err(line.error("a tab is no indentation"));
        }
        if line.indent == 0 && (bare == "---" || bare == "...") {
            return Err(line.error("one document only"));
        }
        lines.push(line);
    }
    let Some(first) = lines.first() else { return Ok(Value::Null) };
    let mut blocks = Blocks { indent: first.indent, lines, at: 0 };
    let value = blocks.block(blocks.indent, 0)?;
    match blocks.lines.get(blocks.at) {
        Some(line) => Err(line.error("unexpected indentation")),
        None => Ok(value),
    }
}

/// Up to a `#` that begins a word outside of quotes.
fn without_comment(line: &str) -> &str {
    let (mut quote, mut before) = (None, ' ');
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '#') if before == ' ' || before == '\t' => return &line[..at],
            (None, '"' | '\'') if !before.is_alphanumeric() => quote = Some(c),
            (Some(q), c) if q == c && before != '\\' => quote = None,
            _ => {}
        }
        before = c;
    }
    line
}

struct Blocks<'a> {
    lines: Vec<Line<'a>>,
    at: usize,
    indent: usize,
}

impl<'a> Blocks<'a> {
    fn peek(&self, indent: usize) -> Option<Line<'a>> {
        self.lines.get(self.at).filter(|line| line.indent == indent).cloned()
    }

    /// What begins at the current line, which has this indentation.
    fn block(&mut self, indent: usize, depth: usize) -> Result<Value> {
        let Some(line) = self.peek(indent) else { return Ok(Value::Null) };
        if depth > DEPTH {
            return Err(line.error("nested too deeply"));
        }
        if item(line.text).is_some() {
            return self.list(indent, depth);
        }
        if key(&line)?.is_some() {
            return self.mapping(indent, depth);
        }
        self.at += 1;
        scalar(&line, line.text)
    }

    fn list(&mut self, indent: usize, depth: usize) -> Result<Value> {
        let mut list = Vec::new();
        while let Some(line) = self.peek(indent) {
            let Some(rest) = item(line.text) else { break };
            if rest.is_empty() {
                self.at += 1;
                list.push(self.deeper(indent, depth)?);
                continue;
            }
            // What stands behind the dash is a block of its own, further in.
            let inner = indent + (line.text.len() - rest.len());
            self.lines[self.at] = Line { indent: inner, text: rest, ..line };
            list.push(self.block(inner, depth + 1)?);
        }
        Ok(Value::Array(list))
    }

    fn mapping(&mut self, indent: usize, depth: usize) -> Result<Value> {
        let mut map = Map::new();
        while let Some(line) = self.peek(indent) {
            let Some((key, rest)) = key(&line)? else { return Err(line.error("a key is needed")) };
            self.at += 1;
            let value = if !rest.is_empty() {
                scalar(&line, rest)?
            } else if self.peek(indent).is_some_and(|next| item(next.text).is_some()) {
                self.list(indent, depth + 1)?
            } else {
                self.deeper(indent, depth)?
            };
            if map.insert(key.clone(), value).is_some() {
                return Err(line.error(&format!("{key:?} stands twice")));
            }
        }
        Ok(Value::Object(map))
    }

    /// What is further in than `indent`, if anything.
    fn deeper(&mut self, indent: usize, depth: usize) -> Result<Value> {
        match self.lines.get(self.at).map(|line| line.indent) {
            Some(inner) if inner > indent => self.block(inner, depth + 1),
            _ => Ok(Value::Null),
        }
    }
}

/// What stands behind a dash.
fn item(text: &str) -> Option<&str> {
    if text == "-" { Some("") } else { text.strip_prefix("- ").map(str::trim_start) }
}

/// A key and what stands behind its colon.
fn key<'a>(line: &Line<'a>) -> Result<Option<(String, &'a str)>> {
    let text = line.text;
    if text.starts_with(['[', '{']) {
        return Ok(None);
    }
    if text.starts_with(['"', '\'']) {
        let mut flow = Flow { line: line.number, rest: text };
        let key = flow.quoted()?;
        let rest = flow.rest.trim_start();
        return Ok(rest.strip_prefix(':').map(|rest| (key, rest.trim())));
    }
    let at = text.find(": ").or_else(|| text.ends_with(':').then(|| text.len() - 1));
    Ok(at.map(|at| (text[..at].trim_end().to_owned(), text[at + 1..].trim())))
}

/// A word, or brackets, to the end of the line.
fn scalar(line: &Line<'_>, text: &str) -> Result<Value> {
    match text.chars().next() {
        Some('|' | '>') => Err(line.error("texts of several lines are not read")),
        Some('[' | '{' | '"' | '\'') => {
            let mut flow = Flow { line: line.number, rest: text };
            let value = flow.value(0)?;
            if flow.rest.trim().is_empty() { Ok(value) } else { Err(line.error("something follows")) }
        }
        _ => plain(text).map_err(|why| line.error(why)),
    }
}

fn plain(text: &str) -> Result<Value, &'static str> {
    if text.starts_with(['&', '*', '!', '@', '`', '%']) {
        return Err("anchors, aliases and tags are not read");
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        text => number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number),
    })
}

/// A whole number; as before YAML 1.2 one that begins with a zero is octal.
fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (digits, base) = match digits.strip_prefix('0') {
        Some(rest) if !rest.is_empty() => match rest.split_at_checked(1) {
            Some(("x", hex)) => (hex, 16),
            Some(("o", octal)) => (octal, 8),
            _ => (rest, 8),
        },
        _ => (digits, 10),
    };
    let plain = digits.chars().all(|c| c.is_ascii_hexdigit());
    let value = plain.then(|| i64::from_str_radix(digits, base).ok())??;
    Some(Number::from(if text.starts_with('-') { -value } else { value }))
}

/// What stands in brackets or quotes.
struct Flow<'a> {
    line: usize,
    rest: &'a str,
}

impl Flow<'_> {
    fn value(&mut self, depth: usize) -> Result<Value> {
        self.rest = self.rest.trim_start();
        if depth > DEPTH {
            return Err(error(self.line, "nested too deeply"));
        }
        match self.rest.chars().next() {
            Some('[') => self.list(depth),
            Some('{') => self.mapping(depth),
            Some('"' | '\'') => self.quoted().map(Value::String),
            Some(_) => {
                let end = self.rest.find([',', ']', '}']).unwrap_or(self.rest.len());
                let (word, rest) = self.rest.split_at(end);
                self.rest = rest;
                plain(word.trim()).map_err(|why| error(self.line, why))
            }
            None => Err(error(self.line, "brackets must be closed on their line")),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value> {
        self.rest = &self.rest[1..];
        let mut list = Vec::new();
        while !self.ends(']')? {
            list.push(self.value(depth + 1)?);
        }
        Ok(Value::Array(list))
    }

    fn mapping(&mut self, depth: usize) -> Result<Value> {
        self.rest = &self.rest[1..];
        let mut map = Map::new();
        while !self.ends('}')? {
            let key = if self.rest.starts_with(['"', '\'']) {
                self.quoted()?
            } else {
                let end = self.rest.find(':').ok_or_else(|| error(self.line, "a colon is needed"))?;
                let (key, rest) = self.rest.split_at(end);
                self.rest = rest;
                key.trim().to_owned()
            };
            let rest = self.rest.trim_start().strip_prefix(':');
            self.rest = rest.ok_or_else(|| error(self.line, "a colon is needed"))?;
            let value = self.value(depth + 1)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }

    /// Whether the brackets end here; else what separates is gone.
    fn ends(&mut self, bracket: char) -> Result<bool> {
        self.rest = self.rest.trim_start();
        self.rest = self.rest.strip_prefix(',').unwrap_or(self.rest).trim_start();
        if let Some(rest) = self.rest.strip_prefix(bracket) {
            self.rest = rest;
            return Ok(true);
        }
        if self.rest.is_empty() {
            Err(error(self.line, "brackets must be closed on their line"))
        } else {
            Ok(false)
        }
    }

    /// A word in quotes: of JSON's escapes in double ones, a quote twice in single ones.
    fn quoted(&mut self) -> Result<String> {
        let open = || error(self.line, "quotes must be closed on their line");
        if let Some(rest) = self.rest.strip_prefix('\'') {
            let mut text = String::new();
            let mut left = rest;
            loop {
                let end = left.find('\'').ok_or_else(open)?;
                text.push_str(&left[..end]);
                left = &left[end + 1..];
                let Some(more) = left.strip_prefix('\'') else { break };
                text.push('\'');
                left = more;
            }
            self.rest = left;
            return Ok(text);
        }
        let mut stream = serde_json::Deserializer::from_str(self.rest).into_iter::<String>();
        let text = stream.next().and_then(Result::ok).ok_or_else(open)?;
        self.rest = &self.rest[stream.byte_offset()..];
        Ok(text)
    }
}

/// A text that a file may have written as a number.
pub(super) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    word(Value::deserialize(from)?).map_err(serde::de::Error::custom)
}

/// A list of such.
pub(super) fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let list = Option::<Vec<Value>>::deserialize(from)?.unwrap_or_default();
    list.into_iter().map(|value| word(value).map_err(serde::de::Error::custom)).collect()
}

fn word(value: Value) -> Result<String, &'static str> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err("a text is needed"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn blocks_brackets_and_words_are_read() {
        let text = "---\na: 1\nb:\n- x\n- y: 2\n  z: [p, \"q, r\", {k: 'it''s'}]\n-\n  - deep\nc: {}\nd: \"# no\" # yes\n'e f': 0666\ng: a:b#c\nh:\n  i: ~\n";
        assert_eq!(
            parse(text).unwrap(),
            json!({
                "a": 1, "b": ["x", { "y": 2, "z": ["p", "q, r", { "k": "it's" }] }, ["deep"]], "c": {}, "d": "# no",
                "e f": 438, "g": "a:b#c", "h": { "i": null },
            })
        );
        assert_eq!(parse("# nothing\n").unwrap(), Value::Null);
        assert_eq!(parse("{\"a\": [1, true, \"\\u0041\"]}").unwrap(), json!({ "a": [1, true, "A"] }));
    }

    #[test]
    fn words_are_numbers_only_if_they_are() {
        for (text, value) in [
            ("-7", json!(-7)),
            ("0", json!(0)),
            ("0x1f", json!(31)),
            ("0.5.0", json!("0.5.0")),
            ("08", json!("08")),
            ("1e3", json!("1e3")),
            ("-", json!("-")),
            ("+5", json!("+5")),
        ] {
            assert_eq!(parse(&format!("a: {text}")).unwrap()["a"], value, "{text:?}");
        }
    }

    #[test]
    fn what_is_not_read_is_refused_by_its_line() {
        for (text, line) in [
            ("a: |\n  x\n", 1),
            ("a: &b 1\n", 1),
            ("a: *b\n", 1),
            ("a: 1\n---\nb: 2\n", 2),
            ("a: 1\n  b: 2\n", 2),
            ("a: [1\n", 1),
            ("a: \"x\n", 1),
            ("a: 1\na: 2\n", 2),
            ("\ta: 1\n", 1),
            ("a:\n  - 1\n b: 2\n", 3),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("yaml: line {line}: ")), "{text:?}: {error}");
        }
        assert!(parse(&"- ".repeat(200)).is_err());
        assert!(parse(&"[".repeat(200)).is_err());
    }
}
