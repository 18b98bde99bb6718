//! Processes added to a container: side by side, each with its own code and error, ended before init is told.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod support;

use api::containerd::events::TaskExit;
use api::containerd::task::v3 as wire;
use prost::Message;
use support::{Rig, can_run};
use types::Class;

#[test]
fn execs_run_side_by_side_and_keep_their_codes() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    rig.run("c1", &["sleep", "1000"]);
    std::thread::scope(|scope| {
        for worker in 0..4u32 {
            let rig = &rig;
            scope.spawn(move || {
                for n in 0..3 {
                    let (id, code) = (format!("e{worker}-{n}"), worker * 10 + n);
                    rig.exec("c1", &id, &["sh", "-c", &format!("exit {code}")]).unwrap();
                    assert_eq!(rig.wait("c1", &id), code);
                    assert_eq!(rig.delete("c1", &id).unwrap().exit_status, code);
                    let missing = format!("no-such-{id}");
                    let error = rig.exec("c1", &format!("m{id}"), &[&missing]).unwrap_err().to_string();
                    assert!(
                        error.starts_with("OCI runtime exec failed: ") && error.contains(&missing),
                        "{error}"
                    );
                }
            });
        }
    });
    rig.kill("c1", "", 9).unwrap();
    assert_eq!(rig.wait("c1", ""), 137);
    rig.delete("c1", "").unwrap();
    let left: Vec<_> = std::fs::read_dir(rig.path("c1")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with('e')), "{left:?}");
    rig.shut_down();
}

#[test]
fn what_the_state_does_not_allow_is_refused() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    rig.run("c1", &["sleep", "1000"]);
    let add = |exec: &str| rig.add("c1", exec, &["sleep", "1000"], Default::default());
    add("e").unwrap();
    let error = add("e").unwrap_err();
    assert_eq!((error.class(), error.to_string()), (Class::AlreadyExists, "id e: already exists".into()));
    assert_eq!(add("../x").unwrap_err().class(), Class::InvalidArgument);
    assert_eq!(rig.kill("c1", "e", 9).unwrap_err().to_string(), "process not created: failed precondition");
    assert_eq!(rig.state("c1", "none").unwrap_err().to_string(), "process does not exist none: not found");
    assert_eq!(rig.kill("none", "", 9).unwrap_err().to_string(), "container not created: not found");
    let start = wire::StartRequest { id: "c1".into(), exec_id: "e".into() };
    rig.client().call::<wire::StartResponse>("Start", &start).unwrap();
    rig.kill("c1", "e", 15).unwrap();
    assert_eq!(rig.wait("c1", "e"), 143);
    assert_eq!(rig.kill("c1", "e", 15).unwrap_err().class(), Class::NotFound);
    add("late").unwrap();
    rig.kill("c1", "", 9).unwrap();
    rig.wait("c1", "");
    let start = wire::StartRequest { id: "c1".into(), exec_id: "late".into() };
    let error = rig.client().call::<wire::StartResponse>("Start", &start).unwrap_err();
    assert_eq!(
        (error.class(), error.to_string()),
        (Class::FailedPrecondition, "container c1 init process is not running: failed precondition".into())
    );
    let error = add("later").unwrap_err().to_string();
    assert!(error.starts_with("cannot exec in a stopped state"), "{error}");
    rig.delete("c1", "").unwrap();
    rig.shut_down();
}

#[test]
fn the_exits_of_execs_are_told_before_that_of_init() {
    if !can_run() {
        return;
    }
    let rig = Rig::new("c1");
    rig.run("c1", &["sleep", "1000"]);
    for n in 0..5 {
        rig.exec("c1", &format!("e{n}"), &["sleep", "1000"]).unwrap();
    }
    rig.kill("c1", "", 9).unwrap();
    assert_eq!(rig.wait("c1", ""), 137);
    rig.wait_for_topic("/tasks/exit", 6);
    let exits: Vec<String> = {
        let events = rig.events.lock().unwrap();
        let exits = events.iter().filter(|(topic, _)| topic == "/tasks/exit");
        exits.map(|(_, event)| TaskExit::decode(event.as_slice()).unwrap().id).collect()
    };
    assert_eq!(exits.last().map(String::as_str), Some("c1"), "{exits:?}");
    rig.delete("c1", "").unwrap();
    rig.shut_down();
}
