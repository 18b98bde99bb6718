//! Go's templates, as far as network configurations use them: values, lists gone through, parts left out.
//!
//! ```text
//!  {{.PodCIDR}}   {{range $i, $cidr := .PodCIDRRanges}} {{if $i}},{{end}} {{$cidr}} {{else}} {{end}}   {{.}}   {{- trimmed -}}
//! ```

use std::collections::BTreeMap;

use types::{Error, Result};

/// What a template can name.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// Single values.
    pub texts: BTreeMap<&'static str, String>,
    /// Lists.
    pub lists: BTreeMap<&'static str, Vec<String>>,
}

/// Fills a template.
pub fn fill(template: &str, values: &Values) -> Result<String> {
    let mut parts = parts(template)?.into_iter();
    let (parsed, until) = parse(&mut parts, 0)?;
    if until != Until::Template {
        return Err(Error::invalid("unexpected {{end}} or {{else}}"));
    }
    let mut filled = String::new();
    let mut scope = Scope { values, dot: None, variables: Vec::new() };
    parsed.iter().try_for_each(|node| node.write(&mut scope, &mut filled))?;
    Ok(filled)
}

/// How deep parts may be within each other.
const DEEPEST: usize = 16;

/// A piece of a template.
enum Part {
    Text(String),
    Action(String),
}

/// Pieces that are still to be understood.
type Parts = std::vec::IntoIter<Part>;

/// A piece that is understood.
enum Node {
    Text(String),
    Value(String),
    If { what: String, then: Vec<Node>, other: Vec<Node> },
    Range { index: Option<String>, item: Option<String>, list: String, each: Vec<Node>, none: Vec<Node> },
}

/// Where a part of a template ends.
#[derive(PartialEq, Eq)]
enum Until {
    Template,
    Else,
    End,
}

/// Cuts a template at its braces.
fn parts(mut rest: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut trim = false;
    while let Some((text, after)) = rest.split_once("{{") {
        let (action, after) =
            after.split_once("}}").ok_or_else(|| Error::invalid("unclosed action: no }} after {{"))?;
        let text = if trim { text.trim_start() } else { text };
        let left = action.starts_with("- ");
        parts.push(Part::Text(if left { text.trim_end() } else { text }.to_owned()));
        let action = if left { &action[2..] } else { action };
        trim = action.ends_with(" -");
        let action = action.strip_suffix(" -").unwrap_or(action).trim();
        if !action.starts_with("/*") {
            parts.push(Part::Action(action.to_owned()));
        }
        rest = after;
    }
    parts.push(Part::Text(if trim { rest.trim_start() } else { rest }.to_owned()));
    Ok(parts)
}

fn parse(parts: &mut Parts, depth: usize) -> Result<(Vec<Node>, Until)> {
    if depth > DEEPEST {
        return Err(Error::invalid(format!("more than {DEEPEST} parts within each other")));
    }
    let mut nodes = Vec::new();
    while let Some(part) = parts.next() {
        let action = match part {
            Part::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Part::Action(action) => action,
        };
        let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((&action, ""));
        match word {
            "end" => return Ok((nodes, Until::End)),
            "else" if rest.is_empty() => return Ok((nodes, Until::Else)),
            "if" => {
                let (then, other) = branches(parts, depth)?;
                nodes.push(Node::If { what: rest.trim().to_owned(), then, other });
            }
            "range" => {
                let (each, none) = branches(parts, depth)?;
                nodes.push(range(rest, each, none)?);
            }
            word if rest.is_empty() && word.starts_with(['.', '$']) => nodes.push(Node::Value(action)),
            _ => return Err(Error::invalid(format!("{{{{{action}}}}} is not supported"))),
        }
    }
    Ok((nodes, Until::Template))
}

/// What is between an action and its end, and what is there instead.
fn branches(parts: &mut Parts, depth: usize) -> Result<(Vec<Node>, Vec<Node>)> {
    let unexpected = || Error::invalid("unexpected EOF: an {{end}} is missing");
    match parse(parts, depth + 1)? {
        (first, Until::End) => Ok((first, Vec::new())),
        (first, Until::Else) => match parse(parts, depth + 1)? {
            (second, Until::End) => Ok((first, second)),
            _ => Err(unexpected()),
        },
        (_, Until::Template) => Err(unexpected()),
    }
}

/// `$i, $x := .List`, `$x := .List`, `.List`.
fn range(text: &str, each: Vec<Node>, none: Vec<Node>) -> Result<Node> {
    let (names, list) = text.split_once(":=").unwrap_or(("", text));
    let mut names: Vec<String> =
        names.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
    if names.len() > 2 || names.iter().any(|name| !name.starts_with('$')) {
        return Err(Error::invalid(format!("{{{{range {text}}}}} is not supported")));
    }
    let item = names.pop();
    let index = names.pop();
    Ok(Node::Range { index, item, list: list.trim().to_owned(), each, none })
}

/// What names mean at a place.
struct Scope<'a> {
    values: &'a Values,
    dot: Option<String>,
    variables: Vec<(String, String)>,
}

impl Scope<'_> {
    fn list(&self, name: &str) -> Result<Vec<String>> {
        let list = name.strip_prefix('.').and_then(|name| self.values.lists.get(name));
        list.cloned().ok_or_else(|| Error::invalid(format!("{name:?} is no list")))
    }

    fn text(&self, name: &str) -> Result<String> {
        let variable =
            || self.variables.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value);
        let found = match name.strip_prefix('.') {
            Some("") => self.dot.as_ref(),
            Some(name) => self.values.texts.get(name),
            None => variable(),
        };
        found.cloned().ok_or_else(|| Error::invalid(format!("can't evaluate {name:?}")))
    }

    /// Whether something is there: neither nothing, nor zero.
    fn is_true(&self, name: &str) -> Result<bool> {
        match self.list(name) {
            Ok(list) => Ok(!list.is_empty()),
            // Numbers are those of a list's items.
            Err(_) => self.text(name).map(|text| !text.is_empty() && text != "0"),
        }
    }
}

impl Node {
    fn write(&self, scope: &mut Scope<'_>, out: &mut String) -> Result<()> {
        match self {
            Self::Text(text) => out.push_str(text),
            Self::Value(name) => out.push_str(&scope.text(name)?),
            Self::If { what, then, other } => {
                let chosen = if scope.is_true(what)? { then } else { other };
                return chosen.iter().try_for_each(|node| node.write(scope, out));
            }
            Self::Range { index, item, list, each, none } => {
                let list = scope.list(list)?;
                if list.is_empty() {
                    return none.iter().try_for_each(|node| node.write(scope, out));
                }
                for (number, value) in list.into_iter().enumerate() {
                    let (known, dot) = (scope.variables.len(), scope.dot.replace(value.clone()));
                    let index = index.iter().map(|name| (name.clone(), number.to_string()));
                    scope
                        .variables
                        .extend(index.chain(item.iter().map(|name| (name.clone(), value.clone()))));
                    each.iter().try_for_each(|node| node.write(scope, out))?;
                    scope.variables.truncate(known);
                    scope.dot = dot;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        Values {
            texts: [("PodCIDR", "10.0.0.0/24".to_owned())].into(),
            lists: [("PodCIDRRanges", list(&["a", "b"])), ("Routes", list(&[]))].into(),
        }
    }

    #[test]
    fn templates_of_clusters_are_filled() {
        for (template, filled) in [
            ("x", "x"),
            ("\"{{.PodCIDR}}\"", "\"10.0.0.0/24\""),
            (
                "[{{range $i, $range := .PodCIDRRanges}}{{if $i}}, {{end}}[{\"subnet\": \"{{$range}}\"}]{{end}}]",
                "[[{\"subnet\": \"a\"}], [{\"subnet\": \"b\"}]]",
            ),
            ("{{range .PodCIDRRanges}}<{{.}}>{{end}}", "<a><b>"),
            ("{{range $x := .Routes}}{{$x}}{{else}}none{{end}}", "none"),
            ("{{if .Routes}}yes{{else}}no{{end}}{{/* a remark */}}", "no"),
            ("a {{- .PodCIDR -}} b", "a10.0.0.0/24b"),
        ] {
            assert_eq!(fill(template, &values()).unwrap(), filled, "{template}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "{{",
            "{{.Other}}",
            "{{$x}}",
            "{{if .PodCIDR}}",
            "{{end}}",
            "{{template \"x\"}}",
            "{{range .PodCIDR}}{{end}}",
            "{{.}}",
        ] {
            assert!(fill(bad, &values()).is_err(), "{bad}");
        }
        let deep = "{{if .PodCIDR}}".repeat(50) + &"{{end}}".repeat(50);
        assert!(fill(&deep, &values()).is_err());
    }
}
