//! Fork, parent-death signals, process attributes.
