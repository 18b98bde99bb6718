//! What one does with containers: create, delete, exits.

#![forbid(unsafe_code)]
