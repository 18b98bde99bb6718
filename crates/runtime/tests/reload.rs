//! A new daemon on the bundles of the one before.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod fake;

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use api::containerd::task::v3 as wire;
use fake::{Answer, Daemon, Fake, eventually, namespace, patient};
use prost::Message;
use runtime::Timeouts;
use types::task::Status;
use types::{Class, Error};

/// A task, and then a daemon that has just been started.
async fn restarted(fake: &Fake, meanwhile: impl FnOnce()) -> Daemon {
    restarted_with(fake, patient(), meanwhile).await
}

/// The same, with deadlines that the test is about.
async fn restarted_with(fake: &Fake, timeouts: Timeouts, meanwhile: impl FnOnce()) -> Daemon {
    let daemon = fake.daemon().await;
    daemon.create("c1").await.unwrap();
    drop(daemon);
    meanwhile();
    fake.daemon_with(timeouts).await
}

/// One that passes.
const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_task_that_ended_meanwhile_keeps_its_code_until_delete() {
    let fake = Fake::new();
    let exited_at = Some(api::Timestamp { seconds: 5, nanos: 0 });
    let state = wire::StateResponse { pid: 42, status: 3, exit_status: 7, exited_at, ..Default::default() };
    let mut daemon = restarted(&fake, || fake.on("State", Answer::Say(state.encode_to_vec()))).await;
    let state = daemon.runtime.state(&namespace(), "c1", "").await.unwrap();
    assert_eq!((state.status, state.pid, state.exit.unwrap().status), (Status::Stopped, 42, 7));
    assert_eq!(daemon.runtime.delete(&namespace(), "c1").await.unwrap().exit.status, 7);
    fake.assert_nothing_left().await;
    // Its exit was told before; of its delete nobody heard.
    assert_eq!(daemon.topics(1).await, ["/tasks/delete"]);
}

#[tokio::test]
async fn a_shim_that_hangs_delays_nothing() {
    let fake = Fake::new();
    let begun = Instant::now();
    let timeouts = Timeouts { state: SHORT, ..patient() };
    let daemon = restarted_with(&fake, timeouts, || fake.on("State", Answer::BeSilent)).await;
    assert_eq!(daemon.runtime.list(&namespace()), ["c1"]);
    let state = daemon.runtime.state(&namespace(), "c1", "").await.unwrap();
    assert_eq!(state.status, Status::Unknown);
    assert!(begun.elapsed() < patient().load / 2, "somebody waited for the shim");
}

#[tokio::test]
async fn a_shim_that_hung_is_not_given_up() {
    let fake = Fake::new();
    let timeouts = Timeouts { load: SHORT, ..patient() };
    let daemon = restarted_with(&fake, timeouts, || fake.on("State", Answer::BeSilent)).await;
    eventually(|| fake.calls().iter().any(|call| call == "State")).await;
    let state = wire::StateResponse { pid: 42, status: 2, ..Default::default() };
    fake.on("State", Answer::Say(state.encode_to_vec()));
    // Its deadline passes: it lives on, and can be asked again.
    assert_eq!(daemon.runtime.state(&namespace(), "c1", "").await.unwrap().status, Status::Running);
}

#[tokio::test]
async fn a_shim_that_cannot_be_reached_yet_is_tried_again_and_never_cleaned_up() {
    let fake = Fake::new();
    let mut stopped = None;
    let daemon = restarted_with(&fake, Timeouts { load: SHORT, ..patient() }, || {
        fake.die();
        stopped = Some(full_socket(&fake.path("shim.sock")));
    })
    .await;
    assert_eq!(daemon.runtime.list(&namespace()), ["c1"]);
    // Waits as long as a shim has to answer after a start.
    let connected = daemon.runtime.connect(&namespace(), "c1").await;
    assert_eq!(connected.unwrap_err().class(), Class::Unavailable);
    let state = daemon.runtime.state(&namespace(), "c1", "").await.unwrap();
    assert_eq!(state.status, Status::Unknown);
    assert!(daemon.create("c1").await.unwrap_err().is_already_exists());
    drop(stopped);
    fake.on("Wait", Answer::Say(wire::WaitResponse { exit_status: 9, exited_at: None }.encode_to_vec()));
    fake.live();
    assert_eq!(daemon.runtime.wait(&namespace(), "c1", "").await.unwrap().status, 9);
    assert_eq!(daemon.runtime.state(&namespace(), "c1", "").await.unwrap().status, Status::Running);
    assert_eq!(fake.actions(), ["start"]);
}

#[tokio::test]
async fn a_shim_that_speaks_what_we_do_not_is_left_alone() {
    let fake = Fake::new();
    let bootstrap = fake.bundle("c1").join("bootstrap.json");
    let newer = r#"{"version":4,"address":"unix:///newer","protocol":"ttrpc"}"#;
    let daemon = restarted(&fake, || std::fs::write(&bootstrap, newer).unwrap()).await;
    assert!(daemon.create("c1").await.unwrap_err().is_already_exists());
    assert_eq!(daemon.runtime.delete(&namespace(), "c1").await.unwrap_err().class(), Class::Unavailable);
    assert_eq!(daemon.runtime.list(&namespace()), ["c1"]);
    assert_eq!(std::fs::read_to_string(&bootstrap).unwrap(), newer);
    assert_eq!(fake.actions(), ["start"]);
}

/// A socket that accepts nobody and whose queue is full, as that of a stopped shim.
fn full_socket(path: &Path) -> (UnixListener, UnixStream) {
    std::fs::remove_file(path).unwrap();
    let listener = UnixListener::bind(path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let only = UnixStream::connect(path).unwrap();
    (listener, only)
}

#[tokio::test]
async fn a_shim_that_died_meanwhile_is_cleaned_up_and_its_end_told() {
    let fake = Fake::new();
    let mut daemon = restarted(&fake, || fake.die()).await;
    assert!(daemon.runtime.state(&namespace(), "c1", "").await.unwrap_err().is_not_found());
    fake.assert_nothing_left().await;
    assert_eq!(daemon.topics(2).await, ["/tasks/exit", "/tasks/delete"]);
    assert_eq!(fake.actions(), ["start", "delete"]);
    assert!(!fake.path("shim.sock").exists());
}

#[tokio::test]
async fn a_shim_whose_task_was_never_made_is_sent_away() {
    let fake = Fake::new();
    let gone = Answer::Refuse(|| Error::not_found("container not created"));
    let mut daemon = restarted_with(&fake, Timeouts { state: SHORT, ..patient() }, || {
        fake.on("State", gone.clone());
        fake.on("Delete", gone.clone());
    })
    .await;
    fake.assert_nothing_left().await;
    assert!(daemon.runtime.state(&namespace(), "c1", "").await.unwrap_err().is_not_found());
    let calls = fake.calls();
    assert_eq!(calls[calls.len() - 4..], ["State", "Kill", "Delete", "Shutdown"]);
    assert_eq!(fake.actions(), ["start", "delete"]);
    assert!(daemon.topics(0).await.is_empty());
}

#[tokio::test]
async fn a_delete_that_the_last_daemon_did_not_live_to_see_frees_the_id() {
    let fake = Fake::new();
    let daemon = restarted(&fake, || {}).await;
    let state = daemon.runtime.state(&namespace(), "c1", "").await.unwrap();
    assert_eq!(state.status, Status::Running);
    // Only now does the shim come to the end of it.
    let gone = Answer::Refuse(|| Error::not_found("container not created"));
    fake.on("State", gone);
    fake.on("Shutdown", Answer::MakeRoom);
    assert_eq!(daemon.create("c1").await.unwrap(), 42);
    assert_eq!(daemon.runtime.list(&namespace()), ["c1"]);
    let sent_away = fake.calls().iter().filter(|call| *call == "Shutdown").count();
    assert_eq!(sent_away, 1);
}

#[tokio::test]
async fn a_create_that_the_last_daemon_did_not_live_to_see_is_found() {
    let fake = Fake::new();
    let daemon = restarted(&fake, || {
        fake.on("State", Answer::Refuse(|| Error::not_found("container not created")));
    })
    .await;
    // It was asked more than once, and is asked again.
    eventually(|| fake.calls().iter().filter(|call| *call == "State").count() > 1).await;
    let created = wire::StateResponse { pid: 42, status: 1, ..Default::default() };
    fake.on("State", Answer::Say(created.encode_to_vec()));
    let state = daemon.runtime.state(&namespace(), "c1", "").await.unwrap();
    assert_eq!((state.status, state.pid), (Status::Created, 42));
}

#[tokio::test]
async fn a_shim_that_is_busy_creating_is_asked_to_go_until_it_goes() {
    let fake = Fake::new();
    let gone = Answer::Refuse(|| Error::not_found("container not created"));
    let _daemon = restarted_with(&fake, Timeouts { state: SHORT, ..patient() }, || {
        fake.on("State", gone.clone());
        fake.on("Delete", gone.clone());
        fake.on("Shutdown", Answer::Say(Vec::new()));
    })
    .await;
    eventually(|| fake.calls().iter().filter(|call| *call == "Shutdown").count() > 1).await;
    assert_eq!(fake.left(), ["root/c1", "state/c1"]);
    fake.on("Shutdown", Answer::Die);
    fake.assert_nothing_left().await;
}

#[tokio::test]
async fn a_bundle_without_an_address_is_cleaned_up() {
    let fake = Fake::new();
    let mut daemon = restarted(&fake, || {
        fake.die();
        std::fs::remove_file(fake.bundle("c1").join("bootstrap.json")).unwrap();
    })
    .await;
    fake.assert_nothing_left().await;
    assert_eq!(fake.actions(), ["start", "delete"]);
    assert_eq!(daemon.topics(2).await, ["/tasks/exit", "/tasks/delete"]);
}

#[tokio::test]
async fn a_shim_that_was_never_reached_is_found_by_its_usual_address() {
    let fake = Fake::new();
    let dir = fake.path("s");
    std::fs::create_dir(&dir).unwrap();
    let name = format!("{}/fake/c1", fake.path("c.sock").display());
    let usual = dir.join(types::Digest::of(name.as_bytes()).hex());
    let _daemon = restarted(&fake, || {
        std::fs::remove_file(fake.bundle("c1").join("bootstrap.json")).unwrap();
        std::fs::rename(fake.path("shim.sock"), &usual).unwrap();
    })
    .await;
    fake.assert_nothing_left().await;
    assert_eq!(fake.calls(), ["Create", "Delete", "Shutdown"]);
    assert_eq!(fake.actions(), ["start", "delete"]);
}

#[tokio::test]
async fn what_an_interrupted_removal_left_goes_and_strangers_stay() {
    let fake = Fake::new();
    let daemon = fake.daemon().await;
    daemon.create("c1").await.unwrap();
    drop(daemon);
    let task = fake.bundle("c1");
    let work = fake.path("root/io.containerd.runtime.v2.task/fake");
    for dir in [task.with_file_name(".c2"), task.with_file_name(".c1"), work.join("c3"), work.join(".c4")] {
        std::fs::create_dir_all(dir.join("rootfs")).unwrap();
    }
    std::fs::create_dir_all(task.with_file_name("not an id")).unwrap();
    std::fs::write(task.with_file_name("file"), "").unwrap();
    let daemon = fake.daemon().await;
    eventually(|| fake.left() == ["root/c1", "state/c1", "state/file", "state/not an id"]).await;
    assert_eq!(daemon.runtime.list(&namespace()), ["c1"]);
    // An id whose leftovers are on their way out can be used at once.
    assert_eq!(daemon.create("c3").await.unwrap(), 42);
}

#[tokio::test]
async fn a_state_directory_of_another_daemon_is_refused() {
    let fake = Fake::new();
    std::fs::create_dir_all(fake.bundle("c9")).unwrap();
    let error = runtime::check_state(&fake.path("state")).unwrap_err();
    assert!(error.to_string().contains("another daemon"), "{error}");
    assert_eq!(fake.left(), ["state/c9"]);
}
