//! `encoding/json`: the same escapes, indents and field orders.

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use types::{Error, Result};

/// `json.MarshalIndent(value, "", indent)`.
pub fn indented(value: &impl Serialize, indent: &str) -> Result<String> {
    let mut bytes = Vec::new();
    let formatter = PrettyFormatter::with_indent(indent.as_bytes());
    value
        .serialize(&mut Serializer::with_formatter(&mut bytes, formatter))
        .map_err(|e| Error::internal(format!("encode JSON: {e}")))?;
    Ok(escaped(&String::from_utf8_lossy(&bytes)))
}

/// `json.Marshal(value)`.
pub fn compact(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string(value).map_err(|e| Error::internal(format!("encode JSON: {e}")))?;
    Ok(escaped(&text))
}

/// What ctr prints for a value: indented by four spaces, with a line end.
pub fn shown(value: &impl Serialize) -> Result<String> {
    Ok(indented(value, "    ")? + "\n")
}

/// Go escapes for HTML; these characters only occur inside of strings.
fn escaped(text: &str) -> String {
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return text.to_owned();
    }
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

#[cfg(test)]
mod tests {
    #[test]
    fn html_is_escaped_and_empty_things_stay_on_one_line() {
        let value = serde_json::json!({"a": "<&>", "b": [], "c": {}, "d": [1]});
        let wanted = "{\n    \"a\": \"\\u003c\\u0026\\u003e\",\n    \"b\": [],\n    \"c\": {},\n    \"d\": [\n        1\n    ]\n}\n";
        assert_eq!(super::shown(&value).unwrap(), wanted);
    }
}
