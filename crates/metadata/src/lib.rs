//! The namespaced database.

#![forbid(unsafe_code)]
