//! Content, snapshots and diff of another process over gRPC.

#![forbid(unsafe_code)]
