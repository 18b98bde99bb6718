//! Leases hold what nothing else refers to yet.

use containerd_tests::Daemon;
use containerd_tests::archive::hex;
use tonic::Code;

#[test]
fn leases_are_created_listed_and_deleted() {
    let daemon = Daemon::shared();
    let (api, id) = (daemon.api(), daemon.id("lease"));
    api.create_lease(&id).unwrap();
    assert_eq!(api.create_lease(&id), Err(Code::AlreadyExists));
    assert!(api.leases().contains(&id));
    api.delete_lease(&id).unwrap();
    assert!(!api.leases().contains(&id));
    assert_eq!(api.delete_lease(&id), Err(Code::NotFound));
}

#[test]
fn what_a_lease_holds_stays_as_long_as_the_lease() {
    let daemon = Daemon::shared();
    let (api, id) = (daemon.api(), daemon.id("holder"));
    let digest = format!("sha256:{}", hex(b"held by a lease"));
    api.create_lease(&id).unwrap();
    api.ingest("ref-held", b"held by a lease", &digest, Some(&id)).unwrap();
    daemon.collect_garbage();
    assert_eq!(daemon.ctr(&["content", "get", &digest]).ok(), "held by a lease");
    api.delete_lease(&id).unwrap();
}

#[test]
fn writing_under_a_lease_that_does_not_exist_is_an_error() {
    let daemon = Daemon::shared();
    let digest = format!("sha256:{}", hex(b"never held"));
    let refused = daemon.api().ingest("ref-never", b"never held", &digest, Some("no-such-lease"));
    assert_eq!(refused, Err(Code::NotFound));
}
