//! Create: each step that fails takes back those before it. What cannot be taken back is taken back later.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod fake;

use std::time::Duration;

use api::containerd::runtime::bootstrap::v1::BootstrapParams;
use api::containerd::task::v3 as wire;
use fake::{Answer, Fake, create, eventually, namespace, patient};
use prost::Message;
use runtime::{Awaited, Ready, Terms, Timeouts};
use types::task::Status;
use types::{Any, Class, Error};

type Test = Result<(), Box<dyn std::error::Error>>;

#[tokio::test]
async fn a_shim_is_told_everything_and_its_address_is_kept() -> Test {
    let fake = Fake::new();
    let daemon = fake.daemon().await;
    let options = Any::new("containerd.runc.v1.Options", *b"\x32\x04crun");
    let task = types::task::Create { options: Some(options.clone()), ..create() };
    assert_eq!(daemon.runtime.create(&namespace(), "c1", task).await?, 42);
    let params = BootstrapParams::decode(std::fs::read(fake.path("stdin"))?.as_slice())?;
    assert_eq!((params.instance_id.as_str(), params.namespace.as_str()), ("c1", "fake"));
    assert_eq!(params.containerd_version, types::version::VERSION);
    assert_eq!(params.extensions[0].value.as_ref().map(|any| any.value.clone()), Some(options.value));
    let bootstrap = std::fs::read_to_string(fake.bundle("c1").join("bootstrap.json"))?;
    assert_eq!(bootstrap, std::fs::read_to_string(fake.path("answer"))?);
    let binary = std::fs::read_to_string(fake.bundle("c1").join("shim-binary-path"))?;
    assert_eq!(binary, fake.path("containerd-shim-fake-v2").to_str().unwrap());
    let again = daemon.create("c1").await.unwrap_err();
    assert_eq!(
        (again.class(), again.to_string().as_str()),
        (Class::AlreadyExists, "task c1: already exists")
    );
    assert_eq!(daemon.runtime.delete(&namespace(), "c1").await?.exit.status, 7);
    fake.assert_nothing_left().await;
    let mut calls = fake.calls();
    // Asked once by the client, and once, whenever, by who gets hold of the init.
    calls.retain(|call| call != "State");
    assert_eq!(calls, ["Create", "Delete", "Shutdown"]);
    Ok(())
}

#[tokio::test]
async fn shims_of_the_first_generation_are_told_their_options_alone() -> Test {
    let fake = Fake::new();
    let daemon = fake.daemon().await;
    let runtime = fake.script("containerd-shim-runc-v1").to_str().unwrap().to_owned();
    let options = Some(Any::new("x.Options", *b"abc"));
    fake.write("answer", &format!("unix://{}\n", fake.path("shim.sock").display()));
    daemon.runtime.create(&namespace(), "c1", types::task::Create { runtime, options, ..create() }).await?;
    let told = api::ProtoAny::decode(std::fs::read(fake.path("stdin"))?.as_slice())?;
    assert_eq!((told.type_url.as_str(), told.value.as_slice()), ("x.Options", &b"abc"[..]));
    assert_eq!(fake.services(), ["containerd.task.v2.Task/Create"]);
    Ok(())
}

#[tokio::test]
async fn shims_from_before_2_3_are_told_their_options_alone() -> Test {
    let fake = Fake::new();
    let daemon = fake.daemon().await;
    fake.write("before-2.3", "");
    let options = Some(Any::new("x.Options", *b"abc"));
    daemon.runtime.create(&namespace(), "c1", types::task::Create { options, ..create() }).await?;
    let told = api::ProtoAny::decode(std::fs::read(fake.path("stdin"))?.as_slice())?;
    assert_eq!((told.type_url.as_str(), told.value.as_slice()), ("x.Options", &b"abc"[..]));
    assert_eq!(fake.actions(), ["start", "start"]);
    Ok(())
}

#[tokio::test]
async fn a_shim_that_only_knows_the_older_service_is_asked_by_it() -> Test {
    let fake = Fake::new();
    let daemon = fake.daemon().await;
    fake.on("Create", Answer::Refuse(|| Error::unimplemented("service containerd.task.v3.Task")));
    assert_eq!(daemon.create("c1").await.unwrap_err().class(), Class::Unimplemented);
    let services = fake.services();
    assert_eq!(services[..2], ["containerd.task.v3.Task/Create", "containerd.task.v2.Task/Create"]);
    Ok(())
}

#[tokio::test]
async fn when_start_fails_nothing_is_left_and_its_words_are_told() {
    let fake = Fake::new();
    let daemon = fake.daemon().await;
    fake.write("fail-start", "");
    let error = daemon.create("c1").await.unwrap_err();
    assert_eq!(error.to_string(), "failed to start shim: start failed: no start today: exit status 3");
    assert_eq!(fake.actions(), ["start", "delete"]);
    fake.assert_nothing_left().await;
}

#[tokio::test]
async fn when_start_hangs_it_is_ended_at_the_deadline() {
    let fake = Fake::new();
    let daemon = fake.daemon_with(Timeouts { start: Duration::from_millis(500), ..patient() }).await;
    fake.write("hang-start", "");
    let error = daemon.create("c1").await.unwrap_err();
    assert_eq!(error.class(), Class::DeadlineExceeded, "{error}");
    fake.assert_nothing_left().await;
    std::fs::remove_file(fake.path("hang-start")).unwrap();
    let daemon = fake.daemon().await;
    assert_eq!(daemon.create("c1").await.unwrap(), 42);
}

#[tokio::test]
async fn when_the_answer_is_nonsense_or_leads_nowhere_nothing_is_left() {
    let fake = Fake::new();
    let daemon = fake.daemon().await;
    for answer in ["", "usage: shim start", "unix:///nowhere/at/all", r#"{"version":9,"address":"a"}"#] {
        fake.write("answer", answer);
        let error = daemon.create("c1").await.unwrap_err().to_string();
        assert!(error.starts_with("failed to start shim: start failed: "), "{error}");
        fake.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn when_the_runtime_is_not_installed_nothing_is_made() {
    let fake = Fake::new();
    let daemon = fake.daemon().await;
    let task = types::task::Create { runtime: "io.containerd.absent.v1".into(), ..create() };
    let error = daemon.runtime.create(&namespace(), "c1", task).await.unwrap_err().to_string();
    let wanted = "failed to start shim: failed to resolve runtime path: runtime \"io.containerd.absent.v1\" binary not \
                  installed \"containerd-shim-absent-v1\": file does not exist";
    assert_eq!(error, wanted);
    assert!(fake.left().is_empty() && fake.actions().is_empty());
}

#[tokio::test]
async fn when_the_task_cannot_be_made_the_shim_is_sent_away() {
    let fake = Fake::new();
    let mut daemon = fake.daemon().await;
    fake.on("Create", Answer::Refuse(|| Error::unknown("OCI runtime create failed: boom")));
    fake.on("Delete", Answer::Refuse(|| Error::not_found("container not created")));
    let error = daemon.create("c1").await.unwrap_err().to_string();
    assert_eq!(error, "failed to create shim task: OCI runtime create failed: boom");
    assert_eq!(fake.calls(), ["Create", "Delete", "Shutdown"]);
    assert_eq!(fake.actions(), ["start"]);
    fake.assert_nothing_left().await;
    assert!(daemon.topics(0).await.is_empty());
}

#[tokio::test]
async fn when_the_shim_dies_in_create_its_program_cleans_up_and_no_end_is_told() {
    let fake = Fake::new();
    let mut daemon = fake.daemon().await;
    fake.on("Create", Answer::Die);
    let error = daemon.create("c1").await.unwrap_err();
    assert_eq!(error.to_string(), "failed to create shim task: ttrpc: closed");
    assert_eq!(fake.actions(), ["start", "delete"]);
    fake.assert_nothing_left().await;
    assert!(daemon.topics(0).await.is_empty());
}

#[tokio::test]
async fn when_cleaning_up_fails_too_the_next_create_does_it_first() {
    let fake = Fake::new();
    let daemon = fake.daemon().await;
    fake.on("Create", Answer::Die);
    fake.write("fail-delete", "");
    // The shim wrote down an init that lives: this test.
    let watcher = {
        let pid_file = fake.bundle("c1").join("init.pid");
        tokio::spawn(async move {
            while std::fs::write(&pid_file, std::process::id().to_string()).is_err() {
                tokio::task::yield_now().await;
            }
        })
    };
    daemon.create("c1").await.unwrap_err();
    watcher.await.unwrap();
    assert_eq!(fake.left(), ["root/c1", "state/c1"]);
    assert!(daemon.runtime.list(&namespace()).is_empty());
    std::fs::remove_file(fake.path("fail-delete")).unwrap();
    fake.on("Create", Answer::Say(api::containerd::task::v3::CreateTaskResponse { pid: 43 }.encode_to_vec()));
    fake.live();
    assert_eq!(daemon.create("c1").await.unwrap(), 43);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_creates_of_one_id_one_succeeds() {
    let fake = Fake::new();
    let daemon = fake.daemon().await;
    let mut creating = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let runtime = daemon.runtime.clone();
        creating.spawn(async move { runtime.create(&namespace(), "c1", create()).await });
    }
    let done = creating.join_all().await;
    assert_eq!(done.iter().filter(|created| created.is_ok()).count(), 1);
    let refused = done.iter().filter_map(|created| created.as_ref().err());
    assert!(refused.map(Error::class).all(|class| class == Class::AlreadyExists));
    assert_eq!(daemon.runtime.list(&namespace()), ["c1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_being_made_is_seen_and_not_deleted_and_its_end_is_waited_for() {
    let fake = Fake::new();
    let daemon = fake.daemon().await;
    fake.on("Create", Answer::BeSilent);
    fake.on("State", Answer::Refuse(|| Error::not_found("container not created")));
    fake.on("Delete", Answer::Refuse(|| Error::not_found("container not created")));
    let (runtime, ns) = (daemon.runtime.clone(), namespace());
    let creating = tokio::spawn(async move { runtime.create(&namespace(), "c1", create()).await });
    eventually(|| fake.calls() == ["Create"]).await;
    let state = daemon.runtime.state(&ns, "c1", "").await.unwrap();
    assert_eq!((state.status, state.pid), (Status::Unknown, 0));
    let refused = daemon.runtime.delete(&ns, "c1").await.unwrap_err();
    assert_eq!(refused.class(), Class::FailedPrecondition);
    let mut waiting = std::pin::pin!(daemon.runtime.wait(&ns, "c1", ""));
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut waiting).await.is_err());
    // It is ended, as by a kill.
    fake.die();
    creating.await.unwrap().unwrap_err();
    // Whatever it is told: there is nothing to wait for any more.
    let _ = waiting.await;
    assert!(daemon.runtime.state(&ns, "c1", "").await.unwrap_err().is_not_found());
    fake.assert_nothing_left().await;
}

#[tokio::test]
async fn a_create_that_hangs_and_that_nobody_waits_for_is_ended() {
    let fake = Fake::new();
    let daemon = fake.daemon_with(Timeouts { cleanup: Duration::from_millis(500), ..patient() }).await;
    fake.on("Create", Answer::BeSilent);
    fake.on("Kill", Answer::Say(Vec::new()));
    fake.on("Delete", Answer::Refuse(|| Error::not_found("container not created")));
    let (waiting, awaited) = Awaited::pair();
    drop(waiting);
    let terms = Terms { awaited, ..Terms::default() };
    let error = daemon.runtime.create_on(&namespace(), "c1", create(), terms).await.unwrap_err();
    assert_eq!(error.class(), Class::DeadlineExceeded, "{error}");
    assert_eq!(fake.calls(), ["Create", "Kill", "Delete", "Shutdown"]);
    fake.assert_nothing_left().await;
}

#[tokio::test]
async fn a_create_that_nobody_waits_for_is_finished_if_it_can_be() {
    let fake = Fake::new();
    let daemon = fake.daemon().await;
    let (waiting, awaited) = Awaited::pair();
    drop(waiting);
    let terms = Terms { awaited, ..Terms::default() };
    assert_eq!(daemon.runtime.create_on(&namespace(), "c1", create(), terms).await.unwrap(), 42);
    assert_eq!(daemon.runtime.list(&namespace()), ["c1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_starts_while_what_its_task_needs_is_made() {
    let fake = Fake::new();
    let daemon = fake.daemon().await;
    let (preparing, ready) = Ready::pair();
    let (runtime, terms) = (daemon.runtime.clone(), Terms { ready, ..Terms::default() });
    let creating = tokio::spawn(async move { runtime.create_on(&namespace(), "c1", create(), terms).await });
    eventually(|| fake.bundle("c1").join("bootstrap.json").exists()).await;
    assert!(!fake.calls().iter().any(|call| call == "Create"));
    preparing.done();
    assert_eq!(creating.await.unwrap().unwrap(), 42);
}

#[tokio::test]
async fn a_task_that_does_not_get_what_it_needs_leaves_nothing() {
    let fake = Fake::new();
    let daemon = fake.daemon().await;
    let (preparing, ready) = Ready::pair();
    drop(preparing);
    let terms = Terms { ready, ..Terms::default() };
    let error = daemon.runtime.create_on(&namespace(), "c1", create(), terms).await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable, "{error}");
    assert!(!fake.calls().iter().any(|call| call == "Create"));
    fake.assert_nothing_left().await;
}

/// Found by the soak: the answer to a list that came too early took a task out of the table for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_was_asked_before_the_task_was_made_does_not_lose_it() {
    let fake = Fake::new();
    let daemon = fake.daemon().await;
    fake.on("Create", Answer::Wait(wire::CreateTaskResponse { pid: 42 }.encode_to_vec()));
    fake.on("State", Answer::WaitAndRefuse(|| Error::not_found("container not created")));
    let (runtime, ns) = (daemon.runtime.clone(), namespace());
    let creating = tokio::spawn(async move { runtime.create(&namespace(), "c1", create()).await });
    eventually(|| fake.calls() == ["Create"]).await;
    let runtime = daemon.runtime.clone();
    let asking = tokio::spawn(async move { runtime.state(&namespace(), "c1", "").await });
    eventually(|| fake.calls() == ["Create", "State"]).await;
    // The task is made, and only then comes the answer to the question before.
    fake.go_on("Create");
    assert_eq!(creating.await.unwrap().unwrap(), 42);
    fake.go_on("State");
    assert_eq!(asking.await.unwrap().unwrap().status, Status::Unknown);
    assert_eq!(daemon.runtime.list(&ns), ["c1"]);
    // Who holds the init asks for it, too.
    assert!(fake.calls().iter().all(|call| call == "Create" || call == "State"), "it was sent away");
}
