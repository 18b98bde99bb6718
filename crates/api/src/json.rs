//! Kubernetes' messages as JSON, as Go's encoding/json writes and reads them.

use serde::{Deserialize, Deserializer};

/// Whether a field is left out: Go's `omitempty`.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Go writes a list or map without elements that was never made as null.
pub fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// Bytes as a string, what is not UTF-8 in it replaced: a value of an environment variable was a string once, and records of
/// that time are read.
pub mod text {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes bytes.
    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&String::from_utf8_lossy(bytes))
    }

    /// Reads bytes.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        Ok(String::deserialize(from)?.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use crate::cri::{ContainerConfig, KeyValue, LinuxContainerResources, PodSandboxConfig};

    #[test]
    fn a_name_that_is_not_rusts_is_the_protocols() {
        let text = r#"{"uidMappings":[{"host_id":1,"length":2}]}"#;
        let mount: crate::cri::Mount = serde_json::from_str(text).unwrap();
        assert_eq!(mount.uid_mappings[0].length, 2);
        assert_eq!(serde_json::to_string(&mount).unwrap(), text);
    }

    #[test]
    fn what_is_empty_is_left_out_and_names_are_those_of_the_protocol() {
        let config = ContainerConfig {
            working_dir: "/w".to_owned(),
            envs: vec![KeyValue { key: "K".to_owned(), value: b"v\xff".to_vec() }],
            ..ContainerConfig::default()
        };
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(json, "{\"working_dir\":\"/w\",\"envs\":[{\"key\":\"K\",\"value\":\"v\u{fffd}\"}]}");
        assert_eq!(serde_json::to_string(&LinuxContainerResources::default()).unwrap(), "{}");
    }

    #[test]
    fn what_go_writes_is_read() {
        let json = "{\"metadata\":{\"name\":\"n\",\"attempt\":2},\"port_mappings\":null,\"labels\":{\"a\":\"b\"},\"new\":1}";
        let config: PodSandboxConfig = serde_json::from_str(json).unwrap();
        assert_eq!(config.metadata.unwrap().attempt, 2);
        assert_eq!(config.labels["a"], "b");
    }
}
