//! Why a field of a request is refused: it is named, and what is shown of it is bounded.

use types::Error;

/// `value` is not what `field` takes.
pub fn bad(field: &str, value: &str, why: &str) -> Error {
    let shown: String = value.chars().take(64).collect();
    Error::invalid(format!("{field}: {shown:?} {why}"))
}

/// The value of `field` has more bytes than anybody means.
pub fn too_long(field: &str, most: usize) -> Error {
    Error::invalid(format!("{field}: longer than {most} bytes"))
}
