use std::collections::BTreeSet;

use proptest::prelude::*;
use types::Class;

use super::*;

fn call(stream: u32) -> Call {
    Call { client: 1, stream }
}

fn exit(status: u32) -> Exit {
    Exit { status, seconds: 1, nanos: 0 }
}

fn created(policy: Policy) -> State {
    let mut state = State::new("c".into(), policy, call(1));
    let effects = state.step(Input::Created(Ok(10)));
    assert!(matches!(
        effects[..],
        [Effect::Publish(Event::Created { pid: 10 }), Effect::Reply(_, Ok(Answer::Pid(10)))]
    ));
    state
}

fn running() -> State {
    let mut state = created(Policy::default());
    state.step(Input::Start { exec: String::new(), call: call(2) });
    state.step(Input::Started { exec: String::new(), result: Ok(10) });
    state
}

fn events(effects: &[Effect]) -> Vec<Event> {
    effects
        .iter()
        .filter_map(|e| if let Effect::Publish(event) = e { Some(event.clone()) } else { None })
        .collect()
}

fn refusal(effects: &[Effect]) -> (Class, String) {
    match effects {
        [Effect::Reply(_, Err(error))] => (error.class(), error.to_string()),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn an_exit_that_arrives_during_start_is_told_after_it() {
    let mut state = created(Policy::default());
    state.step(Input::Start { exec: String::new(), call: call(2) });
    assert!(state.step(Input::Exited { exec: String::new(), exit: exit(7) }).is_empty());
    let effects = state.step(Input::Started { exec: String::new(), result: Ok(10) });
    assert!(matches!(events(&effects)[..], [Event::Started { .. }, Event::Exited { .. }]));
    assert_eq!(state.init.exit(), Some(exit(7)));
}

#[test]
fn the_exit_of_init_is_held_until_its_execs_are_told() {
    let mut state = running();
    let exec = String::from("e");
    state.step(Input::Exec { exec: exec.clone(), call: call(3) });
    state.step(Input::Start { exec: exec.clone(), call: call(4) });
    state.step(Input::Started { exec: exec.clone(), result: Ok(11) });
    state.step(Input::Wait { exec: String::new(), call: call(5) });
    assert!(state.step(Input::Exited { exec: String::new(), exit: exit(0) }).is_empty());
    let effects = state.step(Input::Exited { exec: exec.clone(), exit: exit(137) });
    let told: Vec<_> = events(&effects);
    assert!(
        matches!(&told[..], [Event::Exited { exec: e, .. }, Event::Exited { exec: i, .. }] if e == "e" && i.is_empty())
    );
    assert!(matches!(effects.last(), Some(Effect::Reply(c, Ok(Answer::Exit(_)))) if *c == call(5)));
}

#[test]
fn processes_that_share_the_namespace_are_killed_before_the_exit_is_told() {
    let mut state = created(Policy { kill_all_on_exit: true, ..Policy::default() });
    state.step(Input::Start { exec: String::new(), call: call(2) });
    state.step(Input::Started { exec: String::new(), result: Ok(10) });
    let effects = state.step(Input::Exited { exec: String::new(), exit: exit(0) });
    assert!(matches!(effects[..], [Effect::KillAll]));
    assert_eq!(events(&state.step(Input::KilledAll)).len(), 1);
}

#[test]
fn where_the_namespace_is_shared_removal_begins_when_all_were_killed_and_only_sigkill_needs_the_runtime() {
    let policy = Policy { kill_all_on_exit: true, eager_removal: true, restored: false };
    let mut state = created(policy);
    state.step(Input::Start { exec: String::new(), call: call(2) });
    state.step(Input::Started { exec: String::new(), result: Ok(10) });
    assert!(state.is_plainly_signalled(15) && !state.is_plainly_signalled(9));
    let effects = state.step(Input::Exited { exec: String::new(), exit: exit(0) });
    assert!(matches!(effects[..], [Effect::KillAll]));
    assert!(matches!(
        state.step(Input::KilledAll)[..],
        [Effect::Publish(Event::Exited { .. }), Effect::Remove]
    ));
    assert!(!state.is_plainly_signalled(15));
    assert!(running().is_plainly_signalled(9));
}

#[test]
fn what_the_state_does_not_allow_is_refused_in_upstreams_words() {
    let mut state = running();
    let init = String::new;
    assert_eq!(
        refusal(&state.step(Input::Delete { exec: init(), call: call(3) })),
        (Class::FailedPrecondition, "cannot delete a running process".into())
    );
    assert_eq!(
        refusal(&state.step(Input::Start { exec: init(), call: call(3) })).1,
        "cannot start a running process"
    );
    state.step(Input::Exec { exec: "e".into(), call: call(3) });
    assert_eq!(refusal(&state.step(Input::Exec { exec: "e".into(), call: call(3) })).0, Class::AlreadyExists);
    let kill = Input::Kill { exec: "e".into(), signal: 9, all: false, call: call(3) };
    assert_eq!(refusal(&state.step(kill)).1, "process not created: failed precondition");
    state.step(Input::Exited { exec: init(), exit: exit(0) });
    let start = Input::Start { exec: "e".into(), call: call(3) };
    assert!(refusal(&state.step(start)).1.contains("init process is not running"));
    let kill = Input::Kill { exec: init(), signal: 9, all: false, call: call(3) };
    assert_eq!(refusal(&state.step(kill)), (Class::NotFound, "process already finished: not found".into()));
    assert_eq!(
        refusal(&state.step(Input::Exec { exec: "f".into(), call: call(3) })).1,
        "cannot exec in a stopped state"
    );
    assert_eq!(refusal(&state.step(Input::Wait { exec: "x".into(), call: call(3) })).0, Class::NotFound);
}

#[test]
fn an_exec_can_be_added_while_inits_exit_is_held_but_not_started() {
    let mut state = running();
    let exec = |name: &str| Input::Exec { exec: name.into(), call: call(3) };
    state.step(exec("e"));
    state.step(Input::Start { exec: "e".into(), call: call(4) });
    state.step(Input::Exited { exec: String::new(), exit: exit(0) });
    assert!(matches!(
        state.step(exec("f"))[..],
        [Effect::Publish(Event::ExecAdded { .. }), Effect::Reply(_, Ok(_))]
    ));
    let start = Input::Start { exec: "f".into(), call: call(5) };
    assert!(refusal(&state.step(start)).1.contains("init process is not running"));
    let told = state.step(Input::Started { exec: "e".into(), result: Err(Error::unknown("gone")) });
    assert!(matches!(events(&told)[..], [Event::Exited { .. }]));
    assert!(state.execs.values().all(|exec| exec.phase == Phase::Created));
    assert_eq!(refusal(&state.step(exec("g"))).1, "cannot exec in a stopped state");
}

#[test]
fn a_deletion_that_fails_keeps_the_code_and_can_be_repeated() {
    let mut state = running();
    state.step(Input::Exited { exec: String::new(), exit: exit(3) });
    let effects = state.step(Input::Delete { exec: String::new(), call: call(4) });
    assert!(matches!(effects[..], [Effect::Drain(_), Effect::Remove]));
    state.step(Input::Drained { exec: String::new() });
    let effects = state.step(Input::Removed(Err(Error::unknown("busy"))));
    assert!(matches!(effects[..], [Effect::Unmount]));
    assert_eq!(refusal(&state.step(Input::Unmounted(Ok(())))).1, "busy");
    assert_eq!(state.init.exit(), Some(exit(3)));
    state.step(Input::Delete { exec: String::new(), call: call(5) });
    state.step(Input::Drained { exec: String::new() });
    let effects = state.step(Input::Removed(Ok(())));
    assert!(matches!(
        effects[..],
        [Effect::Publish(Event::Deleted { .. }), Effect::Reply(..), Effect::Forget]
    ));
}

#[test]
fn an_eager_removal_is_not_repeated_by_delete_and_unmounting_does_not_wait_for_it() {
    let mut state = created(Policy { eager_removal: true, ..Policy::default() });
    state.step(Input::Start { exec: String::new(), call: call(2) });
    state.step(Input::Started { exec: String::new(), result: Ok(10) });
    let effects = state.step(Input::Exited { exec: String::new(), exit: exit(0) });
    assert!(matches!(effects[..], [Effect::Publish(_), Effect::Remove]));
    let effects = state.step(Input::Delete { exec: String::new(), call: call(4) });
    assert!(matches!(effects[..], [Effect::Drain(_), Effect::Unmount]));
    state.step(Input::Drained { exec: String::new() });
    assert!(state.step(Input::Unmounted(Ok(()))).is_empty());
    let effects = state.step(Input::Removed(Ok(())));
    assert!(matches!(
        effects[..],
        [Effect::Publish(Event::Deleted { .. }), Effect::Reply(..), Effect::Forget]
    ));
}

#[test]
fn a_container_that_never_ran_is_deleted_after_its_exit_is_told() {
    let mut state = created(Policy::default());
    state.step(Input::Delete { exec: String::new(), call: call(2) });
    state.step(Input::Drained { exec: String::new() });
    assert!(state.step(Input::Removed(Ok(()))).is_empty());
    let effects = state.step(Input::Exited { exec: String::new(), exit: exit(137) });
    assert!(matches!(effects[..], [Effect::Publish(Event::Exited { .. }), Effect::Unmount]));
}

fn control(state: &mut State, what: Control, stream: u32) -> Vec<Effect> {
    state.step(Input::Control { what, call: call(stream) })
}

#[test]
fn a_paused_container_takes_only_what_upstream_lets_it_take() {
    let mut state = created(Policy::default());
    let why = refusal(&control(&mut state, Control::Pause, 2));
    assert_eq!(why, (Class::Unknown, "cannot pause task in created state".into()));
    let mut state = running();
    assert!(matches!(control(&mut state, Control::Pause, 3)[..], [Effect::Control(Control::Pause)]));
    assert!(state.is_pausing());
    let effects = state.step(Input::Controlled(Ok(())));
    assert!(matches!(effects[..], [Effect::Publish(Event::Paused), Effect::Reply(..)]));
    assert_eq!(refusal(&control(&mut state, Control::Pause, 4)).1, "cannot pause a paused container");
    let exec = state.step(Input::Exec { exec: "e".into(), call: call(5) });
    assert_eq!(refusal(&exec).1, "cannot exec in a paused state");
    let delete = state.step(Input::Delete { exec: String::new(), call: call(6) });
    assert_eq!(refusal(&delete).1, "cannot delete a paused process");
    let kill = |signal| Input::Kill { exec: String::new(), signal, all: false, call: call(9) };
    assert!(matches!(state.step(kill(15))[..], [Effect::Kill { .. }]));
    assert!(matches!(state.step(kill(9))[..], [Effect::Kill { .. }, Effect::Thaw]));
    state.step(Input::Thawed);
    let effects = state.step(Input::Exited { exec: String::new(), exit: exit(137) });
    assert!(matches!(effects[..], [Effect::Publish(Event::Exited { .. }), Effect::Thaw]));
    assert_eq!(refusal(&control(&mut state, Control::Resume, 7)).1, "cannot resume a stopped container");
    // The runtime is not asked to remove what it is just letting go on.
    let effects = state.step(Input::Delete { exec: String::new(), call: call(8) });
    assert!(matches!(effects[..], [Effect::Drain(_)]));
    assert!(matches!(state.step(Input::Thawed)[..], [Effect::Remove]));
}

#[test]
fn operations_on_a_container_run_one_after_the_other() {
    let mut state = running();
    control(&mut state, Control::Pause, 3);
    assert!(control(&mut state, Control::Resume, 4).is_empty());
    assert!(control(&mut state, Control::Update(b"{}".to_vec()), 5).is_empty());
    let effects = state.step(Input::Controlled(Ok(())));
    assert!(matches!(effects.last(), Some(Effect::Control(Control::Resume))));
    let effects = state.step(Input::Controlled(Err(Error::unknown("no"))));
    assert!(matches!(effects[..], [Effect::Reply(_, Err(_)), Effect::Control(Control::Update(_))]));
}

#[test]
fn memory_that_ran_out_is_told_before_the_exit_and_never_after() {
    let mut state = running();
    assert_eq!(events(&state.step(Input::OutOfMemory)), [Event::OutOfMemory]);
    state.step(Input::Exited { exec: String::new(), exit: exit(137) });
    assert!(state.step(Input::OutOfMemory).is_empty());
}

#[test]
fn a_container_out_of_a_checkpoint_has_no_process_before_its_start() {
    let policy = Policy { restored: true, ..Policy::default() };
    let restored = || {
        let mut state = State::new("c".into(), policy, call(1));
        state.step(Input::Created(Ok(0)));
        state
    };
    let mut state = restored();
    let exec = state.step(Input::Exec { exec: "e".into(), call: call(2) });
    assert_eq!(refusal(&exec).1, "cannot exec in a created state");
    let effects = state.step(Input::Start { exec: String::new(), call: call(3) });
    assert!(matches!(effects[..], [Effect::Restore]));
    let effects = state.step(Input::Started { exec: String::new(), result: Ok(12) });
    assert_eq!(events(&effects), [Event::Started { pid: 12 }]);
    // One that is never started has no exit to wait for.
    let mut state = restored();
    state.step(Input::Delete { exec: String::new(), call: call(4) });
    state.step(Input::Drained { exec: String::new() });
    assert!(matches!(state.step(Input::Removed(Ok(())))[..], [Effect::Unmount]));
}

/// A driver in miniature: performs what the state asks for, later and in any order.
#[derive(Default)]
struct World {
    todo: Vec<Input>,
    answered: BTreeSet<Call>,
    events: Vec<Event>,
    forgotten: bool,
}

impl World {
    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Reply(call, _) => assert!(self.answered.insert(call), "{call:?} answered twice"),
                Effect::Publish(event) => self.events.push(event),
                Effect::Start => self.todo.push(Input::Started { exec: String::new(), result: Ok(10) }),
                Effect::StartExec(exec) => self.todo.push(Input::Started { exec, result: Ok(11) }),
                Effect::Kill { call, .. } | Effect::Signal { call, .. } => {
                    assert!(self.answered.insert(call))
                }
                Effect::KillAll => self.todo.push(Input::KilledAll),
                Effect::Drain(exec) => self.todo.push(Input::Drained { exec }),
                Effect::Remove => self.todo.push(Input::Removed(Ok(()))),
                Effect::Unmount => self.todo.push(Input::Unmounted(Ok(()))),
                Effect::ForgetExec(_) => {}
                Effect::Restore => unreachable!("nothing is restored here"),
                Effect::Control(_) => self.todo.push(Input::Controlled(Ok(()))),
                Effect::Thaw => self.todo.push(Input::Thawed),
                Effect::Forget => self.forgotten = true,
            }
        }
    }
}

fn position(events: &[Event], wanted: impl Fn(&Event) -> bool) -> Option<usize> {
    events.iter().position(wanted)
}

proptest! {
    #[test]
    fn every_call_is_answered_once_and_events_keep_their_order(
        steps in prop::collection::vec((0u8..11, any::<bool>(), 0usize..4), 0..60),
        kill_all_on_exit: bool,
        eager_removal: bool,
    ) {
        let policy = Policy { kill_all_on_exit, eager_removal, restored: false };
        let mut state = State::new("c".into(), policy, call(1));
        let mut world = World::default();
        let mut calls = 1;
        world.todo.push(Input::Created(Ok(10)));
        let mut visible = false;
        let mut init_ended = false;
        for (kind, on_exec, pick) in steps {
            if world.forgotten { break; }
            calls += 1;
            let call = call(calls);
            let exec = if on_exec { String::from("e") } else { String::new() };
            let input = match kind {
                _ if !visible || kind < 3 => {
                    calls -= 1;
                    if world.todo.is_empty() { continue; }
                    let index = pick % world.todo.len();
                    world.todo.remove(index)
                }
                3 => Input::Start { exec, call },
                4 => Input::Wait { exec, call },
                5 => Input::Delete { exec, call },
                6 => Input::Kill { exec, signal: 9, all: false, call },
                7 => Input::Exec { exec: "e".into(), call },
                8 => Input::Control { what: if on_exec { Control::Pause } else { Control::Update(Vec::new()) }, call },
                9 => Input::Control { what: Control::Resume, call },
                _ => {
                    calls -= 1;
                    let alive = |p: &Process| !matches!(p.phase, Phase::Creating | Phase::Stopped(_) | Phase::Starting { early: Some(_) });
                    if on_exec && !state.execs.get("e").is_some_and(|p| matches!(p.phase, Phase::Running)) { continue; }
                    if !on_exec && (init_ended || !alive(&state.init)) { continue; }
                    init_ended |= !on_exec;
                    Input::Exited { exec, exit: exit(0) }
                }
            };
            visible |= matches!(input, Input::Created(_));
            let effects = state.step(input);
            world.perform(effects);
        }
        // Whatever was begun comes to an end, and then everybody can be told.
        for _ in 0..200 {
            if world.forgotten { break; }
            let effects = if let Some(input) = world.todo.pop() {
                state.step(input)
            } else if state.execs.get("e").is_some_and(Process::is_alive) {
                state.step(Input::Exited { exec: "e".into(), exit: exit(0) })
            } else if !init_ended {
                init_ended = true;
                state.step(Input::Exited { exec: String::new(), exit: exit(0) })
            } else {
                calls += 1;
                state.step(Input::Delete { exec: String::new(), call: call(calls) })
            };
            world.perform(effects);
        }
        prop_assert!(world.forgotten);
        for stream in 1..=calls {
            prop_assert!(world.answered.contains(&call(stream)), "call {} of {} unanswered", stream, calls);
        }
        let init_exit = position(&world.events, |e| matches!(e, Event::Exited { exec, .. } if exec.is_empty()));
        let deleted = position(&world.events, |e| matches!(e, Event::Deleted { .. }));
        prop_assert_eq!(deleted, Some(world.events.len() - 1));
        prop_assert!(init_exit.is_some() && init_exit < deleted);
        let created = position(&world.events, |e| matches!(e, Event::Created { .. }));
        prop_assert_eq!(created, Some(0));
        let last_exec = world.events.iter().rposition(|e| matches!(e, Event::Exited { exec, .. } if !exec.is_empty()));
        prop_assert!(last_exec < init_exit);
        let before = |e: &Event| {
            matches!(e, Event::Started { .. } | Event::ExecStarted { .. } | Event::Paused | Event::Resumed)
        };
        prop_assert!(world.events.iter().rposition(before) < init_exit);
    }
}
