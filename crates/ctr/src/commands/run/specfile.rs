//! A spec that somebody wrote: passed on as it is, with the labels as annotations.

use serde_json::{Map, Value, json};
use types::any::RUNTIME_SPEC;
use types::oci::spec::VERSION;
use types::{Any, Error, Labels, Result, ResultExt};

use crate::go;

/// Reads the spec at `path`. Fields that we do not know stay.
pub fn read(path: &str, labels: &Labels) -> Result<Any> {
    let bytes = std::fs::read(path).map_err(|e| go::path_error("open", path, e));
    let bytes = bytes.context(|| "cannot load spec config file")?;
    let bad = |why: String| {
        let doing =
            format!("decoding spec config file failed, current supported OCI runtime-spec : v{VERSION}");
        Error::invalid(format!("{doing}: {why}"))
    };
    let mut spec: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
    if !labels.is_empty() {
        let annotations = spec.entry("annotations").or_insert_with(|| json!({}));
        if annotations.is_null() {
            *annotations = json!({});
        }
        let annotations =
            annotations.as_object_mut().ok_or_else(|| bad("annotations are no object".into()))?;
        annotations.extend(labels.iter().map(|(key, value)| (key.clone(), json!(value))));
    }
    Ok(Any::new(RUNTIME_SPEC, go::json::compact(&spec)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_keeps_what_we_do_not_know_and_gets_labels_as_annotations() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"ociVersion":"1.0.2","x":{"y":[1]},"annotations":null}"#).unwrap();
        let path = file.path().to_str().unwrap();
        let spec = read(path, &Labels::from([("a".into(), "b".into())])).unwrap();
        let text = String::from_utf8(spec.value).unwrap();
        assert_eq!(text, r#"{"ociVersion":"1.0.2","x":{"y":[1]},"annotations":{"a":"b"}}"#);
        std::fs::write(file.path(), "[]").unwrap();
        assert!(
            read(path, &Labels::new())
                .unwrap_err()
                .to_string()
                .starts_with("decoding spec config file failed")
        );
    }
}
