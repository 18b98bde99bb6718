//! `Any` values as containerd writes them: with the bare protobuf name as type URL.
//!
//! prost's own `Any::from_msg` and `to_msg` put a slash in front and insist on one, which containerd's clients and
//! daemons do not (crates.md, trap T1).

use prost::{Message, Name};
use types::{Any, Error, Result};

/// Packs a message under its bare name.
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::full_name(), value: message.encode_to_vec() }
}

/// Unpacks a message, if the value is of that type.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Result<M> {
    if !any.is(&M::full_name()) {
        return Err(Error::invalid(format!("expected {} but got {}", M::full_name(), any.type_url)));
    }
    M::decode(any.value.as_slice()).map_err(|e| Error::invalid(format!("decode {}: {e}", any.type_url)))
}

/// To the wire's form.
pub fn to_wire(any: Any) -> prost_types::Any {
    prost_types::Any { type_url: any.type_url, value: any.value }
}

/// From the wire's form.
pub fn from_wire(any: prost_types::Any) -> Any {
    Any { type_url: any.type_url, value: any.value }
}
