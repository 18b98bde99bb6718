//! The filter language of List, Walk and Subscribe.
//!
//! ```text
//! selectors := selector ("," selector)*          all must match
//! selector  := fieldpath [operator value]        no operator: the field is present
//! fieldpath := field ("." field)*
//! field     := quoted | [A-Za-z][A-Za-z0-9_]*
//! operator  := "==" | "!=" | "~="                equal, not equal, regular expression
//! value     := quoted | [^\s,]+
//! quoted    := Go string; values also between slashes or bars, as in topic~=|^/tasks/|
//! ```
//!
//! Several filters are OR-ed; none matches everything. The language is containerd's `pkg/filters`.

use std::borrow::Cow;

use regex::Regex;

use crate::error::{Error, Result};

/// What a filter looks at.
pub trait Fields {
    /// The value at `path` and `Some` if it is present.
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>>;
}

/// The value of `labels.<key>`: everything behind the first component, joined by dots, is the key.
pub fn label<'a>(labels: &'a crate::Labels, rest: &[String]) -> Option<Cow<'a, str>> {
    labels.get(&rest.join(".")).map(|value| Cow::Borrowed(value.as_str()))
}

/// Parsed filters.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    texts: Vec<String>,
    any: Vec<Vec<Selector>>,
}

#[derive(Clone, Debug)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filters {
    /// Parses each text; an empty text matches everything.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self> {
        let any =
            texts.iter().map(|text| Parser::new(text.as_ref()).selectors()).collect::<Result<Vec<_>>>()?;
        Ok(Self { texts: texts.iter().map(|text| text.as_ref().to_owned()).collect(), any })
    }

    /// The texts they were parsed from, for a peer that filters itself.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Whether any filter matches, or there is none.
    pub fn matches(&self, object: &dyn Fields) -> bool {
        self.any.is_empty() || self.any.iter().any(|all| all.iter().all(|selector| selector.matches(object)))
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty()
    }
}

impl Selector {
    fn matches(&self, object: &dyn Fields) -> bool {
        let value = object.field(&self.path);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value.as_deref() == Some(wanted.as_str()),
            Test::NotEqual(unwanted) => value.as_deref().unwrap_or_default() != unwanted,
            Test::Matches(regex) => regex.is_match(value.as_deref().unwrap_or_default()),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn error(&self, why: &str) -> Error {
        let (before, rest) = self.text.split_at(self.at);
        let mut after = rest.chars();
        let place = match after.next() {
            Some(here) => format!("{before} >|{here}|< {}", after.as_str()),
            None => before.to_owned(),
        };
        Error::invalid(format!("filters: parse error: [{place}]: {why}: invalid argument"))
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn eat(&mut self, wanted: &str) -> bool {
        let found = self.text[self.at..].starts_with(wanted);
        if found {
            self.at += wanted.len();
        }
        found
    }

    fn skip_space(&mut self) {
        while let Some(c) = self.peek().filter(|c| c.is_whitespace()) {
            self.at += c.len_utf8();
        }
    }

    fn selectors(mut self) -> Result<Vec<Selector>> {
        let mut all = Vec::new();
        if self.text.is_empty() {
            return Ok(all);
        }
        loop {
            self.skip_space();
            all.push(self.selector()?);
            self.skip_space();
            if self.at == self.text.len() {
                return Ok(all);
            }
            if !self.eat(",") {
                return Err(self.error("expected a comma or the end"));
            }
        }
    }

    fn selector(&mut self) -> Result<Selector> {
        let path = self.path()?;
        self.skip_space();
        let test = if self.eat("==") {
            Test::Equal(self.value("\"")?)
        } else if self.eat("!=") {
            Test::NotEqual(self.value("\"")?)
        } else if self.eat("~=") {
            let pattern = self.value("\"/|")?;
            Test::Matches(
                Regex::new(&pattern).map_err(|e| self.error(&format!("bad regular expression: {e}")))?,
            )
        } else if matches!(self.peek(), None | Some(',')) {
            Test::Present
        } else {
            return Err(self.bad_operator());
        };
        Ok(Selector { path, test })
    }

    fn bad_operator(&self) -> Error {
        let rest = &self.text[self.at..];
        let len = rest.find(|c| !matches!(c, '=' | '!' | '~')).unwrap_or(rest.len());
        match &rest[..len] {
            "" => self.error(r#"expected an operator ("=="|"!="|"~=")"#),
            operator => self.error(&format!("unsupported operator {operator:?}")),
        }
    }

    fn path(&mut self) -> Result<Vec<String>> {
        let mut path = vec![self.field()?];
        while self.eat(".") {
            path.push(self.field()?);
        }
        Ok(path)
    }

    fn field(&mut self) -> Result<String> {
        if self.peek() == Some('"') {
            return self.quoted('"');
        }
        let rest = &self.text[self.at..];
        let len = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        if len == 0 {
            return Err(self.error("expected field or quoted"));
        }
        self.at += len;
        Ok(rest[..len].to_owned())
    }

    fn value(&mut self, quotes: &str) -> Result<String> {
        self.skip_space();
        match self.peek() {
            Some(quote) if quotes.contains(quote) => self.quoted(quote),
            _ => {
                let rest = &self.text[self.at..];
                let len = rest.find(|c: char| c.is_whitespace() || c == ',').unwrap_or(rest.len());
                if len == 0 {
                    return Err(self.error("expected value or quoted"));
                }
                self.at += len;
                Ok(rest[..len].to_owned())
            }
        }
    }

    /// A Go string between two `quote`s. Between slashes or bars only the quote itself is escaped.
    fn quoted(&mut self, quote: char) -> Result<String> {
        let start = self.at;
        self.at += quote.len_utf8();
        let mut out = Vec::new();
        while let Some(c) = self.peek() {
            self.at += c.len_utf8();
            match c {
                c if c == quote => {
                    return String::from_utf8(out).map_err(|_| self.error("quoted value is not UTF-8"));
                }
                '\\' if quote == '"' => self.escape(&mut out)?,
                '\\' if self.eat(&quote.to_string()) => out.extend(quote.to_string().bytes()),
                '\n' if quote == '"' => break,
                c => out.extend(c.to_string().bytes()),
            }
        }
        self.at = start;
        Err(self.error("quoted literal not terminated"))
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let c = self.peek().ok_or_else(|| self.error("escape at the end"))?;
        self.at += c.len_utf8();
        let plain = match c {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' => b'\\',
            '"' => b'"',
            '\'' => b'\'',
            'x' => u8::try_from(self.number(2, 16)?).map_err(|_| self.error("bad escape"))?,
            '0'..='7' => {
                self.at -= 1;
                u8::try_from(self.number(3, 8)?).map_err(|_| self.error("bad escape"))?
            }
            'u' | 'U' => {
                let code = self.number(if c == 'u' { 4 } else { 8 }, 16)?;
                let code = char::from_u32(code).ok_or_else(|| self.error("bad escape"))?;
                out.extend(code.to_string().bytes());
                return Ok(());
            }
            _ => return Err(self.error("unknown escape")),
        };
        out.push(plain);
        Ok(())
    }

    fn number(&mut self, digits: usize, radix: u32) -> Result<u32> {
        let text =
            self.text.get(self.at..self.at + digits).ok_or_else(|| self.error("escape is cut short"))?;
        let number = u32::from_str_radix(text, radix).map_err(|_| self.error("bad escape"))?;
        self.at += digits;
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing(crate::Labels);

    impl Fields for Thing {
        fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
            match path.first()?.as_str() {
                "id" => Some("c1".into()),
                "topic" => Some("/tasks/exit".into()),
                "labels" => label(&self.0, &path[1..]),
                _ => None,
            }
        }
    }

    fn matches(filters: &[&str]) -> bool {
        let labels = [("a".to_owned(), "b".to_owned()), ("x.y".to_owned(), "z w".to_owned())].into();
        Filters::parse(filters).unwrap().matches(&Thing(labels))
    }

    #[test]
    fn selectors_are_and_ed_and_filters_or_ed() {
        assert!(matches(&[]) && matches(&[""]));
        assert!(matches(&["id==c1,labels.a==b"]));
        assert!(!matches(&["id==c1,labels.a==c"]));
        assert!(matches(&["id==c2", "labels.a"]));
        assert!(!matches(&["1x==a"]));
        assert!(matches(&["id!=c2"]) && matches(&["nosuch!=x"]) && !matches(&["nosuch"]));
        assert!(matches(&[r#"labels."x.y"=="z w""#]));
    }

    #[test]
    fn regular_expressions_may_stand_between_bars_or_slashes() {
        assert!(matches(&["topic~=|^/tasks/|"]));
        assert!(matches(&[r"topic~=/^\/tasks\//"]));
        assert!(!matches(&["topic~=^/images/"]));
    }

    #[test]
    fn bad_filters_are_refused() {
        for bad in ["==", "id=", "id==", "id~=[", "id==\"x", "id==a b", "-x==a", ",", "id==a,,"] {
            assert!(Filters::parse(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        let told = |bad: &str| Filters::parse(&[bad]).unwrap_err().to_string();
        assert_eq!(
            told("size>1000"),
            r#"filters: parse error: [size >|>|< 1000]: expected an operator ("=="|"!="|"~="): invalid argument"#
        );
        assert_eq!(
            told("id=a"),
            r#"filters: parse error: [id >|=|< a]: unsupported operator "=": invalid argument"#
        );
        assert_eq!(told("id=="), "filters: parse error: [id==]: expected value or quoted: invalid argument");
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ = Filters::parse(&[text]);
        }
    }
}
