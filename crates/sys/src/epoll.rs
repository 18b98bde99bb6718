//! Readiness of descriptors, for the shim's loop.
