//! The filter language of List, Walk and Subscribe.
//!
//! ```text
//! selectors := selector ("," selector)*          all must match
//! selector  := fieldpath [operator value]        no operator: the field is present
//! fieldpath := field ("." field)*
//! field     := quoted | [A-Za-z0-9_]+
//! operator  := "==" | "!=" | "~="                equal, not equal, regular expression
//! value     := quoted | [^\s,]+                  not beginning with what begins something else
//! quoted    := Go string; expressions also between slashes or bars, as in topic~=|^/tasks/|
//! ```
//!
//! A blank may stand before any word, but not behind a value or before a comma. An expression that is none matches nothing.
//!
//! Several filters are OR-ed; none matches everything. The language is containerd's `pkg/filters`.

mod regexp;
mod scan;

use std::borrow::Cow;

use regex::Regex;

use self::scan::{Rune, Scanner, Token, Word};
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
    /// `None`: not an expression.
    Matches(Option<Regex>),
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
            Test::Matches(regex) => {
                regex.as_ref().is_some_and(|regex| regex.is_match(value.as_deref().unwrap_or_default()))
            }
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    scanner: Scanner<'a>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, scanner: Scanner::new(text) }
    }

    fn error(&self, at: usize, why: &str) -> Error {
        let (before, rest) = self.text.split_at(at);
        let mut after = rest.chars();
        let place = match after.next() {
            Some(here) => format!("{before} >|{here}|< {}", after.as_str()),
            None => before.to_owned(),
        };
        Error::invalid(format!("filters: parse error: [{place}]: {why}: invalid argument"))
    }

    fn selectors(mut self) -> Result<Vec<Selector>> {
        let mut all = Vec::new();
        if self.text.is_empty() {
            return Ok(all);
        }
        loop {
            all.push(self.selector()?);
            match self.scanner.peek() {
                Rune::End => return Ok(all),
                Rune::Char(',') => drop(self.scanner.scan()),
                other => {
                    let found = if let Rune::Char(c) = other { c } else { char::REPLACEMENT_CHARACTER };
                    return Err(self.error(self.scanner.at(), &format!("unexpected input: {found}")));
                }
            }
        }
    }

    fn selector(&mut self) -> Result<Selector> {
        let path = self.path()?;
        if matches!(self.scanner.peek(), Rune::End | Rune::Char(',')) {
            return Ok(Selector { path, test: Test::Present });
        }
        let operator = self.scanner.scan();
        let test = match (operator.token, operator.text) {
            (Token::Operator, "==") => Test::Equal(self.value(Quotes::Double)?),
            (Token::Operator, "!=") => Test::NotEqual(self.value(Quotes::Double)?),
            (Token::Operator, "~=") => Test::Matches(regexp::compile(&self.value(Quotes::Any)?)),
            (Token::Operator, other) => {
                return Err(self.error(operator.at, &format!("unsupported operator {other:?}")));
            }
            _ => return Err(self.unexpected(operator, r#"expected an operator ("=="|"!="|"~=")"#)),
        };
        Ok(Selector { path, test })
    }

    fn path(&mut self) -> Result<Vec<String>> {
        let mut path = vec![self.field()?];
        while self.scanner.peek() == Rune::Char('.') {
            self.scanner.scan();
            path.push(self.field()?);
        }
        Ok(path)
    }

    fn field(&mut self) -> Result<String> {
        let word = self.scanner.scan();
        match word.token {
            Token::Field => Ok(word.text.to_owned()),
            Token::Quoted => self.unquote(word, Quotes::Double),
            _ => Err(self.unexpected(word, "expected field or quoted")),
        }
    }

    fn value(&mut self, quotes: Quotes) -> Result<String> {
        let word = self.scanner.scan();
        match word.token {
            Token::Value | Token::Field => Ok(word.text.to_owned()),
            Token::Quoted => self.unquote(word, quotes),
            _ => Err(self.unexpected(word, "expected value or quoted")),
        }
    }

    fn unquote(&self, word: Word<'_>, quotes: Quotes) -> Result<String> {
        if quotes == Quotes::Double && !word.text.starts_with('"') {
            return Err(self.error(word.at, "invalid quote encountered"));
        }
        scan::unquote(word.text).ok_or_else(|| self.error(word.at, "unquoting failed: quote syntax error"))
    }

    fn unexpected(&self, word: Word<'_>, expected: &str) -> Error {
        let why = if word.token == Token::Illegal { self.scanner.mistake() } else { expected };
        self.error(word.at, why)
    }
}

/// Between what a value may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Double,
    /// Also between slashes or bars.
    Any,
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
        assert!(matches(&[r"topic~=|^/tasks/\x65xit$|"]) && matches(&[r#"topic~="^/tasks/\\w+$""#]));
        assert!(!matches(&["topic~=^/images/"]));
    }

    #[test]
    fn bad_filters_are_refused() {
        for bad in
            ["==", "id=", "id==", "id==\"x", "id==a b", "-x==a", ",", "id==a,,", "id==a ", "id ,x", "x.", " "]
        {
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
        for (bad, place, why) in [
            ("id==", "id==", "expected value or quoted"),
            ("id~=.", "id~= >|.|< ", "expected value or quoted"),
            ("id==/x/", "id== >|/|< x/", "invalid quote encountered"),
            ("id==|x", "id== >|||< x", "quoted literal not terminated"),
            (r"id~=/\d/", r"id~= >|/|< \d/", "illegal escape sequence"),
            (r#"id=="\x4""#, r#"id== >|"|< \x4""#, "illegal numeric escape sequence"),
            (r#"id=="\777""#, r#"id== >|"|< \777""#, "unquoting failed: quote syntax error"),
            ("id==a b", "id==a >| |< b", "unexpected input:  "),
            ("id==a\0", "id==a >|\0|< ", "unexpected input: \u{fffd}"),
            ("\0", " >|\0|< ", "unexpected null"),
        ] {
            assert_eq!(told(bad), format!("filters: parse error: [{place}]: {why}: invalid argument"));
        }
    }

    #[test]
    fn an_expression_that_is_none_matches_nothing() {
        assert!(!matches(&["id~=["]) && !matches(&["id~=*"]) && matches(&["id~=[", "id==c1"]));
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ = Filters::parse(&[text]);
        }
    }
}
