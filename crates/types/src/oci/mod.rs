//! OCI formats: images (`image`) and the runtime spec (`spec`).

pub mod image;
pub mod spec;

pub use image::{Descriptor, ImageConfig, Index, Manifest};
