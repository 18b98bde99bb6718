//! What pods and containers keep in records of the database: JSON in an extension, with a version around it, as upstream writes it.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use types::{Any, Error, Result};

/// The version that is written, and read.
const VERSION: &str = "v1";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Versioned<T> {
    version: String,
    metadata: T,
}

/// `metadata` as an extension of the type `kind`; `whose` it is, for errors.
pub fn pack<T: Serialize>(metadata: &T, kind: &str, whose: impl FnOnce() -> String) -> Result<Any> {
    let json = serde_json::to_vec(&Versioned { version: VERSION.to_owned(), metadata });
    let json = json.map_err(|e| Error::internal(format!("encode record of {}: {e}", whose())))?;
    Ok(Any::new(kind, json))
}

/// What is in the extension of `what`.
pub fn unpack<T: DeserializeOwned>(any: &Any, what: &str) -> Result<T> {
    let record: Versioned<T> = serde_json::from_slice(&any.value)
        .map_err(|e| Error::invalid(format!("decode record of {what}: {e}")))?;
    if record.version != VERSION {
        return Err(Error::invalid(format!("unsupported version: {:?}", record.version)));
    }
    Ok(record.metadata)
}
