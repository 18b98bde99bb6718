//! Child subreaper and collecting of exits.
