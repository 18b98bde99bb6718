//! A long random life: four clients change everything at once while garbage is collected and the daemon is killed.
//!
//! ```text
//!   soak [--minutes N] [--kill-every SECONDS] [--seed N] [--points] [--go-ctr PATH]
//!
//!   two clients by command line (ours, and Go's where it is at hand), two by the API
//!        | each keeps a model of what was acknowledged, and resolves what was cut off by asking again
//!   the arena kills the daemon, starts it again, and notes how large it has grown
//!        | at the end
//!   every live object is there, byte for byte; after a last collection nothing else is; then all is removed, and the
//!   ledger is as before
//! ```
//!
//! `--points` also lets the daemon kill itself at a random crash point of each life; that needs a debug build.
//! `CONTAINERD_BIN` names the daemon, as for the black-box suite.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a harness fails by panicking")]

mod arena;
mod cli;
mod end;
mod model;
mod raw;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use arena::{Arena, Killing};
use containerd_tests::Chance;
use model::Model;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Settings {
    minutes: f64,
    kill_every: f64,
    seed: u64,
    points: bool,
    go_ctr: Option<PathBuf>,
}

const USAGE: &str = "usage: soak [--minutes N] [--kill-every SECONDS] [--seed N] [--points] [--go-ctr PATH]";

fn settings() -> Result<Settings, String> {
    let seed = u64::from(std::process::id());
    let mut settings = Settings { minutes: 60.0, kill_every: 60.0, seed, points: false, go_ctr: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{flag} needs a value\n{USAGE}"));
        let number = |text: String| text.parse::<f64>().map_err(|_| format!("{text:?} is no number"));
        match flag.as_str() {
            "--minutes" => settings.minutes = number(value()?)?,
            "--kill-every" => settings.kill_every = number(value()?)?,
            "--seed" => settings.seed = value()?.parse().map_err(|_| "--seed takes a number".to_owned())?,
            "--points" => settings.points = true,
            "--go-ctr" => settings.go_ctr = Some(value()?.into()),
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(settings)
}

fn main() -> ExitCode {
    let settings = match settings() {
        Ok(settings) => settings,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    println!("soak: {settings:?}");
    let arena = Arena::build();
    let models = live(&arena, &settings);
    arena.report();
    end::check(&arena, &models);
    let problems = arena.problems();
    for problem in &problems {
        println!("PROBLEM {problem}");
    }
    println!("{} passed, {} failed", usize::from(problems.is_empty()), usize::from(!problems.is_empty()));
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The four clients and the killer, until the time is over; what each client believes in the end.
fn live(arena: &Arena, settings: &Settings) -> Vec<Model> {
    let ours = arena.daemon.ctr_binary().to_path_buf();
    let second = settings.go_ctr.clone().unwrap_or_else(|| {
        println!("no Go ctr: ours is there twice");
        ours.clone()
    });
    let chance = |number: u64| Chance::new(settings.seed.wrapping_mul(1000).wrapping_add(number));
    let other = format!("{}-other", arena.daemon.namespace());
    std::thread::scope(|scope| {
        let clients = [
            scope.spawn(|| cli::live(arena, "a", &ours, chance(1))),
            scope.spawn(|| cli::live(arena, "b", &second, chance(2))),
            scope.spawn(|| raw::live(arena, "c", arena.daemon.namespace(), chance(3))),
            scope.spawn(|| raw::live(arena, "d", &other, chance(4))),
        ];
        let length = Duration::from_secs_f64(settings.minutes * 60.0);
        let every = Duration::from_secs_f64(settings.kill_every);
        arena.kill_and_restart(length, &Killing { every, points: settings.points }, chance(5));
        clients.map(|client| client.join().expect("a client that ends well")).into()
    })
}
