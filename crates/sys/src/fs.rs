//! Safe joins below a root, atomic writes, durable directories, extended attributes.
