//! The C library's allocator: trimming and arenas.
