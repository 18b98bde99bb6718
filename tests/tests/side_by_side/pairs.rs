//! Which two sides a table is run on. Where one's programs are not at hand that is said, and the test is not run.

use std::path::Path;

use containerd_tests::binaries::{self, Binaries, Suite};

use crate::compare::compare;
use crate::script::Pairing;
use crate::side::Side;

/// Both daemons with the client of `client`.
fn daemons(table: &str, pairing: Pairing, theirs: Binaries, client: &Path, new_client: bool) {
    let ours = Side::start(binaries::tested(), Suite::Ours, client);
    let theirs = Side::start(theirs, Suite::Upstream, client);
    compare(table, pairing, new_client, &ours, &theirs);
}

/// Go ctr 1.6: our daemon and containerd 1.6.
pub fn client_1_6_daemon_1_6(table: &str) {
    let Some(old) = binaries::peer() else { return };
    daemons(table, Pairing::OldDaemon, old.clone(), &old.ctr, false);
}

/// Go ctr 1.6: our daemon and containerd 2.3.
pub fn client_1_6_daemon_2_3(table: &str) {
    let (Some(old), Some(new)) = (binaries::peer(), binaries::reference()) else { return };
    daemons(table, Pairing::Daemon, new, &old.ctr, false);
}

/// Go ctr 2.3: our daemon and containerd 2.3.
pub fn client_2_3_daemon_2_3(table: &str) {
    let Some(new) = binaries::reference() else { return };
    daemons(table, Pairing::Daemon, new.clone(), &new.ctr, true);
}

/// containerd 2.3: our client and Go ctr 2.3.
pub fn our_client(table: &str) {
    let Some(new) = binaries::reference() else { return };
    let ours = Side::start(new.clone(), Suite::Upstream, &binaries::tested().ctr);
    let theirs = Side::start(new.clone(), Suite::Upstream, &new.ctr);
    compare(table, Pairing::Client, true, &ours, &theirs);
}

/// Go ctr 2.3 and containerd 2.3: our shim and the Go shim.
pub fn our_shim(table: &str) {
    let Some(new) = binaries::reference() else { return };
    let mixed = Binaries { shim_dir: binaries::tested().shim_dir, ..new.clone() };
    let ours = Side::start(mixed, Suite::Upstream, &new.ctr);
    let theirs = Side::start(new.clone(), Suite::Upstream, &new.ctr);
    compare(table, Pairing::Shim, true, &ours, &theirs);
}

/// Go ctr 2.3 and our daemon: our shim and the Go shim.
pub fn their_shim(table: &str) {
    let Some(new) = binaries::reference() else { return };
    let mixed = Binaries { shim_dir: new.shim_dir.clone(), ..binaries::tested() };
    let ours = Side::start(binaries::tested(), Suite::Ours, &new.ctr);
    let theirs = Side::start(mixed, Suite::Ours, &new.ctr);
    compare(table, Pairing::Shim, true, &ours, &theirs);
}
