//! `kill -9` of the daemon between any two of its steps.
//!
//! A client leads a container from its lease to the last deletion. At one point of the daemon's code (see
//! `types::crash`, which only debug builds have) the daemon kills itself, and another one is started. Promised: whatever
//! was acknowledged is there, whatever was deleted stays deleted, the call that was cut off can be made again and gets a
//! proper answer, the rest of the life goes its way, and after it nothing is left behind.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod garbage;
mod life;

use life::{Life, Step};

/// Kills the daemon at each point once; the client makes its call again at once.
fn survive(points: &[&str]) {
    for point in points {
        let mut life = Life::begin(point);
        for step in Step::ALL {
            if let Err(status) = life.attempt(*step) {
                life.expect_kill(&status);
                life.restart();
                life.check_acknowledged();
                life.attempt_again(*step);
            }
            life.acknowledge(*step);
        }
        life.end();
    }
}

/// Kills the daemon at each point once; the client that was cut off never comes back, and another one takes the id when
/// everything has settled.
fn survive_alone(points: &[&str]) {
    for point in points {
        let mut life = Life::begin(point);
        for step in Step::ALL {
            if let Err(status) = life.attempt(*step) {
                life.expect_kill(&status);
                life.restart();
                life.await_whole_or_nothing();
                life.attempt_again(*step);
            }
            life.acknowledge(*step);
        }
        life.end();
    }
}

#[test]
fn records_are_there_or_not_and_never_half() {
    survive(&["lease-row", "image-row", "container-row"]);
    survive(&["container-row-deleted", "image-row-deleted", "lease-deleted"]);
}

#[test]
fn a_blob_is_there_or_not_and_never_half() {
    survive(&["blob-committed", "blob-row", "blob-row-deleted"]);
}

#[test]
fn a_snapshot_is_there_or_not_and_never_half() {
    survive(&["snapshot-made", "snapshot-row", "snapshot-made:2", "snapshot-row:2"]);
    survive(&["snapshot-commit-noted", "snapshot-committed"]);
    survive(&["snapshot-row-deleted", "snapshot-row-deleted:2"]);
}

#[test]
fn a_task_that_was_being_made_is_made_again() {
    survive(&["bundle-begun", "bundle-made", "shim-started", "address-stored", "create-sent", "created"]);
}

#[test]
fn a_task_that_was_being_made_and_is_left_alone_is_whole_or_gone() {
    survive_alone(&[
        "bundle-begun",
        "bundle-made",
        "shim-started",
        "address-stored",
        "create-sent",
        "created",
    ]);
}

#[test]
fn a_task_that_was_being_started_runs() {
    survive(&["start-sent", "started"]);
}

#[test]
fn a_task_that_was_being_deleted_goes() {
    survive(&["delete-sent", "deleted", "shim-gone", "bundle-hidden"]);
}

#[test]
fn a_task_that_was_being_deleted_and_is_left_alone_goes() {
    survive_alone(&["delete-sent", "deleted", "shim-gone", "bundle-hidden", "bundle-hidden:2"]);
}

#[test]
fn a_collection_that_was_cut_off_loses_nothing_and_is_done_again() {
    for point in ["lease-deleted", "gc-sweep", "gc-buried"] {
        garbage::survive(point);
    }
}
