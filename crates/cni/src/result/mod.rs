//! What ADD answers, in all versions of the specification.
//!
//! ```text
//!  0.1.0 0.2.0            ip4, ip6, each with its routes; dns                  early
//!  0.3.0 0.3.1 0.4.0      interfaces, ips with a version, routes, dns          middle
//!  1.0.0 1.1.0            the same, without that version                       current
//! ```
//!
//! A plugin is given what the one before it said in that one's version, as libcni does; what is kept for DEL and CHECK is
//! converted to the configuration's. Each pair of versions can be converted; what a version cannot say is dropped.

mod current;
mod early;
mod middle;
mod parts;

use serde_json::{Map, Value};
use types::{Error, Result};

pub use current::{Current, Interface, IpConfig};
pub use parts::{Cidr, Dns, Route};
pub(crate) use parts::{address, bits, from_bits, next, nullable};

use self::early::Early;
use self::middle::Middle;

/// An answer, as it was given.
#[derive(Clone, Debug, PartialEq)]
pub struct AddResult {
    version: String,
    form: Form,
}

#[derive(Clone, Debug, PartialEq)]
enum Form {
    Early(Early),
    Middle(Middle),
    Current(Current),
}

/// What a version looks like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Early,
    Middle,
    Current,
}

impl Shape {
    fn of(version: &str) -> Option<Self> {
        match version {
            "0.1.0" | "0.2.0" => Some(Self::Early),
            "0.3.0" | "0.3.1" | "0.4.0" => Some(Self::Middle),
            "1.0.0" | "1.1.0" => Some(Self::Current),
            _ => None,
        }
    }
}

impl AddResult {
    /// What a plugin has printed. If it names no version, it is that of the configuration that it was given.
    pub fn parse(bytes: &[u8], configured: &str) -> Result<Self> {
        let value: Option<Map<String, Value>> = serde_json::from_slice(bytes)
            .map_err(|error| Error::unknown(format!("failed to unmarshal raw result: {error}")))?;
        Self::read(value.unwrap_or_default(), configured)
    }

    /// What was kept. Without a version it is the first one.
    pub fn kept(value: Map<String, Value>) -> Result<Self> {
        Self::read(value, "")
    }

    /// What a plugin of ours answers, in the version of the configuration.
    pub(crate) fn of(current: Current, version: &str) -> Result<Self> {
        Self { version: crate::version::CURRENT.into(), form: Form::Current(current) }.to(version)
    }

    fn read(mut value: Map<String, Value>, otherwise: &str) -> Result<Self> {
        let version = match value.remove("cniVersion") {
            Some(Value::String(version)) if !version.is_empty() => version,
            Some(Value::String(_) | Value::Null) | None if otherwise.is_empty() => "0.1.0".to_owned(),
            Some(Value::String(_) | Value::Null) | None => otherwise.to_owned(),
            Some(other) => return Err(Error::unknown(format!("the result's cniVersion is {other}"))),
        };
        let shape = Shape::of(&version)
            .ok_or_else(|| Error::unknown(format!("unsupported CNI result version {version:?}")))?;
        let value = Value::Object(value);
        parts::refuse_controls(&value)?;
        let bad = |error: serde_json::Error| Error::unknown(format!("decode the plugin's result: {error}"));
        let form = match shape {
            Shape::Early => Form::Early(serde_json::from_value(value).map_err(bad)?),
            Shape::Middle => Form::Middle(serde_json::from_value(value).map_err(bad)?),
            Shape::Current => Form::Current(serde_json::from_value(value).map_err(bad)?),
        };
        Ok(Self { version, form })
    }

    /// The version in which it stands.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The same in another version.
    pub fn to(&self, version: &str) -> Result<Self> {
        let version = if version.is_empty() { "0.1.0" } else { version };
        if version == self.version {
            return Ok(self.clone());
        }
        let none =
            || Error::unknown(format!("no converter for CNI result version {} to {version}", self.version));
        let form = match (&self.form, Shape::of(version).ok_or_else(none)?) {
            (form, shape) if form.shape() == shape => form.clone(),
            (Form::Early(early), Shape::Middle) => Form::Middle(early.into()),
            (Form::Early(early), _) => Form::Current((&Middle::from(early)).into()),
            (Form::Middle(middle), Shape::Early) => Form::Early(middle.try_into()?),
            (Form::Middle(middle), _) => Form::Current(middle.into()),
            (Form::Current(current), Shape::Early) => Form::Early((&Middle::from(current)).try_into()?),
            (Form::Current(current), _) => Form::Middle(current.into()),
        };
        Ok(Self { version: version.into(), form })
    }

    /// As the current specification has it.
    pub fn current(&self) -> Current {
        match &self.form {
            Form::Early(early) => (&Middle::from(early)).into(),
            Form::Middle(middle) => middle.into(),
            Form::Current(current) => current.clone(),
        }
    }

    /// For a plugin, or to be kept.
    pub fn to_json(&self) -> Result<Map<String, Value>> {
        let value = match &self.form {
            Form::Early(early) => serde_json::to_value(early),
            Form::Middle(middle) => serde_json::to_value(middle),
            Form::Current(current) => serde_json::to_value(current),
        };
        match value {
            Ok(Value::Object(mut map)) => {
                map.insert("cniVersion".into(), self.version.clone().into());
                Ok(map)
            }
            Ok(other) => Err(Error::internal(format!("a result became {other}"))),
            Err(error) => Err(Error::internal(format!("encode a result: {error}"))),
        }
    }
}

impl Form {
    fn shape(&self) -> Shape {
        match self {
            Self::Early(_) => Shape::Early,
            Self::Middle(_) => Shape::Middle,
            Self::Current(_) => Shape::Current,
        }
    }
}

#[cfg(test)]
mod tests;
