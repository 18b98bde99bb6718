//! Places in JSON that are made if they are not there.

use serde_json::{Map, Value};
use types::{Error, Result};

/// The object at `/a/b`.
pub fn object<'a>(spec: &'a mut Value, at: &str) -> Result<&'a mut Map<String, Value>> {
    let place = place(spec, at)?;
    if place.is_null() {
        *place = Value::Object(Map::new());
    }
    place.as_object_mut().ok_or_else(|| wrong(at, "object"))
}

/// The list at `/a/b`.
pub fn list<'a>(spec: &'a mut Value, at: &str) -> Result<&'a mut Vec<Value>> {
    let place = place(spec, at)?;
    if place.is_null() {
        *place = Value::Array(Vec::new());
    }
    place.as_array_mut().ok_or_else(|| wrong(at, "list"))
}

/// Replaces what is at `/a/b`.
pub fn set(spec: &mut Value, at: &str, value: Value) -> Result<()> {
    *place(spec, at)? = value;
    Ok(())
}

/// Removes what is at `/a/b`.
pub fn remove(spec: &mut Value, at: &str) {
    let Some((parent, key)) = at.rsplit_once('/') else { return };
    if let Some(parent) = spec.pointer_mut(parent).and_then(Value::as_object_mut) {
        parent.shift_remove(key);
    }
}

fn place<'a>(spec: &'a mut Value, at: &str) -> Result<&'a mut Value> {
    let mut place = spec;
    for key in at.split('/').skip(1) {
        if place.is_null() {
            *place = Value::Object(Map::new());
        }
        let object = place.as_object_mut().ok_or_else(|| wrong(at, "object"))?;
        place = object.entry(key).or_insert(Value::Null);
    }
    Ok(place)
}

fn wrong(at: &str, what: &str) -> Error {
    Error::invalid(format!("spec of a container: {at} is in no {what}"))
}
