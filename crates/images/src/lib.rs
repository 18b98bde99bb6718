//! What one does with image references: import, unpack.

#![forbid(unsafe_code)]
