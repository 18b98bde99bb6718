//! A task between Create and Delete: what a slow, silent or dying shim does to it and to the others.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod fake;

use std::time::{Duration, Instant};

use api::containerd::task::v3 as wire;
use fake::{Answer, Fake, eventually, namespace, patient};
use prost::Message;
use runtime::Timeouts;
use types::task::Status;
use types::{Class, Error};

#[tokio::test]
async fn a_shim_that_is_silent_leaves_the_state_unknown() {
    let fake = Fake::new();
    let daemon = fake.daemon_with(Timeouts { state: Duration::from_millis(200), ..patient() }).await;
    daemon.create("c1").await.unwrap();
    fake.on("State", Answer::BeSilent);
    let state = daemon.runtime.state(&namespace(), "c1", "").await.unwrap();
    assert_eq!((state.status, state.pid), (Status::Unknown, 42));
}

#[tokio::test]
async fn a_shim_that_does_not_tell_the_state_leaves_it_unknown() {
    let fake = Fake::new();
    let daemon = fake.daemon().await;
    daemon.create("c1").await.unwrap();
    for answer in [Answer::Refuse(|| Error::internal("confused")), Answer::Say(vec![0xff; 3])] {
        fake.on("State", answer);
        let state = daemon.runtime.state(&namespace(), "c1", "").await.unwrap();
        assert_eq!((state.status, state.pid), (Status::Unknown, 42));
    }
    fake.on("State", Answer::Refuse(|| Error::not_found("process e1: not found")));
    assert!(daemon.runtime.state(&namespace(), "c1", "e1").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn the_death_of_a_shim_is_the_end_of_its_task() {
    let fake = Fake::new();
    let mut daemon = fake.daemon().await;
    daemon.create("c1").await.unwrap();
    let waiting = tokio::spawn({
        let runtime = daemon.runtime.clone();
        async move { runtime.wait(&namespace(), "c1", "").await }
    });
    eventually(|| fake.calls().contains(&"Wait".to_owned())).await;
    fake.die();
    assert_eq!(waiting.await.unwrap().unwrap().status, 137);
    assert_eq!(daemon.topics(3).await, ["/containerd-rs/exit-estimated", "/tasks/exit", "/tasks/delete"]);
    fake.assert_nothing_left().await;
    assert!(!fake.path("shim.sock").exists(), "the socket of a dead shim stays");
    assert!(daemon.runtime.delete(&namespace(), "c1").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn an_end_that_nobody_can_tell_is_255() {
    let fake = Fake::new();
    let mut daemon = fake.daemon().await;
    daemon.create("c1").await.unwrap();
    fake.write("fail-delete", "");
    fake.die();
    let event = daemon.events.next().await.unwrap();
    let exit: api::containerd::events::TaskExit = api::any::unpack(&event.event).unwrap();
    assert_eq!((exit.container_id.as_str(), exit.id.as_str()), ("c1", "c1"));
    assert_eq!((exit.pid, exit.exit_status), (42, 255));
    fake.assert_nothing_left().await;
}

#[tokio::test]
async fn a_shim_that_dies_in_delete_answers_it_by_its_death() {
    let fake = Fake::new();
    let daemon = fake.daemon().await;
    daemon.create("c1").await.unwrap();
    fake.on("Delete", Answer::Die);
    assert_eq!(daemon.runtime.delete(&namespace(), "c1").await.unwrap().exit.status, 137);
    fake.assert_nothing_left().await;
}

#[tokio::test]
async fn two_deletes_at_a_time_give_one_answer() {
    let fake = Fake::new();
    let mut daemon = fake.daemon().await;
    daemon.create("c1").await.unwrap();
    let (ns, other) = (namespace(), namespace());
    let (one, two) = tokio::join!(daemon.runtime.delete(&ns, "c1"), daemon.runtime.delete(&other, "c1"));
    assert_eq!(one.unwrap(), two.unwrap());
    // The shim tells its exit itself; its delete, which it did not, is told once.
    assert_eq!(daemon.topics(1).await, ["/tasks/delete"]);
    fake.assert_nothing_left().await;
}

#[tokio::test]
async fn a_delete_is_told_in_place_of_a_shim_that_went_without_telling() {
    for shim_tells in [true, false] {
        let fake = Fake::new();
        let mut daemon = fake.daemon().await;
        daemon.create("c1").await.unwrap();
        daemon.runtime.delete(&namespace(), "c1").await.unwrap();
        if shim_tells {
            let event =
                api::containerd::events::TaskDelete { container_id: "c1".into(), ..Default::default() };
            daemon.bus.publish(&namespace(), "/tasks/delete", api::any::pack(&event)).unwrap();
        }
        // As long as the shim's own word is waited for, and a little.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert_eq!(daemon.topics(1).await, ["/tasks/delete"]);
    }
}

#[tokio::test]
async fn a_task_that_runs_is_not_deleted() {
    let fake = Fake::new();
    let daemon = fake.daemon().await;
    daemon.create("c1").await.unwrap();
    fake.on("Delete", Answer::Refuse(|| Error::unknown("cannot delete a running process")));
    let error = daemon.runtime.delete(&namespace(), "c1").await.unwrap_err();
    assert_eq!(error.class(), Class::FailedPrecondition);
    assert_eq!(error.to_string(), "failed to delete task: cannot delete a running process");
    assert_eq!(daemon.runtime.list(&namespace()), ["c1"]);
}

#[tokio::test]
async fn a_shim_that_does_not_go_is_left_after_its_deadline() {
    let fake = Fake::new();
    let daemon = fake.daemon_with(Timeouts { shutdown: Duration::from_millis(300), ..patient() }).await;
    daemon.create("c1").await.unwrap();
    fake.on("Shutdown", Answer::BeSilent);
    let begun = Instant::now();
    daemon.runtime.delete(&namespace(), "c1").await.unwrap();
    assert!(begun.elapsed() < patient().cleanup / 2);
    assert!(fake.left().is_empty());
}

#[tokio::test]
async fn containers_of_one_shim_share_it_until_the_last_one_goes() {
    let fake = Fake::new();
    let mut daemon = fake.daemon().await;
    fake.on("Shutdown", Answer::Say(Vec::new()));
    for id in ["c1", "c2"] {
        daemon.create(id).await.unwrap();
    }
    let begun = Instant::now();
    daemon.runtime.delete(&namespace(), "c1").await.unwrap();
    assert!(begun.elapsed() < patient().shutdown / 2, "waited for a shim that is still needed");
    assert_eq!(daemon.runtime.list(&namespace()), ["c2"]);
    fake.on("Shutdown", Answer::Die);
    daemon.runtime.delete(&namespace(), "c2").await.unwrap();
    fake.assert_nothing_left().await;
    assert_eq!(daemon.topics(2).await, ["/tasks/delete", "/tasks/delete"]);
}

#[tokio::test]
async fn a_dead_shim_ends_all_its_containers() {
    let fake = Fake::new();
    let mut daemon = fake.daemon().await;
    for id in ["c1", "c2"] {
        daemon.create(id).await.unwrap();
    }
    fake.die();
    fake.assert_nothing_left().await;
    let topics = daemon.topics(4).await;
    assert_eq!(topics.iter().filter(|topic| *topic == "/tasks/exit").count(), 2);
    assert_eq!(topics.iter().filter(|topic| *topic == "/tasks/delete").count(), 2);
}

#[tokio::test]
async fn a_wait_that_is_given_up_does_not_disturb_the_next() {
    let fake = Fake::new();
    let daemon = fake.daemon().await;
    daemon.create("c1").await.unwrap();
    let (runtime, ns) = (&daemon.runtime, namespace());
    assert!(tokio::time::timeout(Duration::from_millis(20), runtime.wait(&ns, "c1", "")).await.is_err());
    let exited = wire::WaitResponse { exit_status: 9, exited_at: None };
    fake.on("Wait", Answer::Say(exited.encode_to_vec()));
    assert_eq!(runtime.wait(&ns, "c1", "").await.unwrap().status, 9);
}
