//! An image record: a name for a descriptor.

use std::time::SystemTime;

use crate::labels::Labels;
use crate::oci::Descriptor;

/// A name, what it points to, and labels. Names are free text within a namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// The reference, e.g. `docker.io/library/alpine:3`.
    pub name: String,
    /// User labels.
    pub labels: Labels,
    /// The index or manifest it names.
    pub target: Descriptor,
    /// Set by the database.
    pub created_at: SystemTime,
    /// Set by the database.
    pub updated_at: SystemTime,
}
