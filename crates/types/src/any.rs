//! An opaque value with the name of its type: specs, extensions, options, event payloads.

/// A typed value that nobody here decodes: it goes from door to disk and back byte for byte.
///
/// Type URLs are compared without a `type.googleapis.com/` prefix, as Go's typeurl does: containerd sends bare
/// protobuf names (`containerd.events.TaskExit`) and its own URLs for JSON types
/// (`types.containerd.io/opencontainers/runtime-spec/1/Spec`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Any {
    /// The type's URL or bare protobuf name.
    pub type_url: String,
    /// The encoded value: protobuf for protobuf types, JSON for Go types.
    pub value: Vec<u8>,
}

/// The type URL of an OCI runtime spec in JSON.
pub const RUNTIME_SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// The type URL of an OCI process in JSON, as `Exec` carries it.
pub const RUNTIME_PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

impl Any {
    /// A value of the type `type_url`.
    pub fn new(type_url: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self { type_url: type_url.into(), value: value.into() }
    }

    /// Whether this is of the type with this URL or protobuf name.
    pub fn is(&self, name: &str) -> bool {
        self.name() == name
    }

    /// The type URL without the prefix of Google's type server.
    pub fn name(&self) -> &str {
        self.type_url.strip_prefix("type.googleapis.com/").unwrap_or(&self.type_url)
    }
}
