//! OCI formats: images (`image`) and the runtime spec (`spec`); who runs (`users`).

pub mod image;
pub mod spec;
pub mod users;

pub use image::{Descriptor, ImageConfig, Index, Manifest};
