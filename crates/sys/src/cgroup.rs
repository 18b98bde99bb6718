//! Control groups, v1 and v2: which mode, which paths.
