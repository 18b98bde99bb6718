//! The same command lines, side by side: exit codes, outputs and error texts must be the same.
//!
//! ```text
//!   client            daemon          compared with the same client and
//!   Go ctr 1.6        ours            containerd 1.6, and containerd 2.3
//!   Go ctr 2.3        ours            containerd 2.3
//!   our ctr           containerd 2.3  Go ctr 2.3
//!   Go ctr 2.3        ours, Go shim   our shim
//!   Go ctr 2.3        Go, our shim    Go shim
//! ```
//!
//! Beside the tables, `records.rs` compares all records that a pull leaves, and `descriptors.rs` the protocol.
//!
//! The tables are in `lines/`; `script.rs` says how to read them. `PEER_DIR` names the programs of 1.6 (Debian's), and
//! `REFERENCE_DIR` those of 2.3 (`cargo xtask reference`); what needs programs that are not at hand says so and is not run.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod compare;
mod config;
mod descriptors;
mod normal;
mod pairs;
mod records;
mod script;
mod side;

/// Runs a table, and once more with new daemons if it failed: Go's daemons, shims and clients race with themselves (who
/// collects when, which of two events comes first), so that one side may differ from itself. A difference of ours stays.
fn twice(table: impl Fn() + std::panic::RefUnwindSafe) {
    if std::panic::catch_unwind(&table).is_err() {
        eprintln!("--- once more, as it may be a race of the other side's");
        table();
    }
}

macro_rules! tables {
    ($($pair:ident: $($table:ident)*;)*) => {$(
        mod $pair {
            $(#[test]
            fn $table() {
                let table = include_str!(concat!("lines/", stringify!($table), ".txt"));
                crate::twice(|| crate::pairs::$pair(table));
            })*
        }
    )*};
}

tables! {
    client_1_6_daemon_1_6: containers content errors events exec images leases namespaces plugins registry run snapshots tasks;
    client_1_6_daemon_2_3: containers content errors events exec images leases namespaces plugins registry run snapshots tasks;
    client_2_3_daemon_2_3: containers content errors events exec images leases namespaces odd plugins registry run snapshots tasks;
    our_client: containers content errors events exec images leases namespaces plugins registry run snapshots tasks;
    our_shim: events exec run tasks;
    their_shim: events exec run tasks;
}
