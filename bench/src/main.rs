//! Measures this containerd and another in turn (A B A B ...) and prints median, minimum and the ratio of medians.
//!
//! A figure counts only as a ratio taken in one run on one machine. Nothing is asserted here: tests hold what is
//! promised, benches print figures. `cargo xtask bench` builds and calls this.

#![forbid(unsafe_code)]

mod cri;
mod many;
mod pulls;
mod rows;
mod sides;
mod statistics;
mod timed;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use rows::ROWS;
use sides::{Programs, Sides};
use statistics::Figures;

/// A row's name and the unit of its figures.
pub type Name = (&'static str, &'static str);

/// Rows that are taken together.
struct Group {
    rows: &'static [Name],
    /// None, said aloud, where they cannot be taken.
    measure: fn(&Programs) -> Result<Option<Vec<Figures>>>,
}

const GROUPS: &[Group] = &[
    Group {
        rows: &many::ROWS,
        measure: |programs| many::measure(&Sides::start(programs)).map(|figures| Some(figures.into())),
    },
    Group { rows: &cri::life::ONE, measure: cri::life::one },
    Group { rows: &cri::life::FOUR, measure: cri::life::four },
    Group { rows: &cri::life::SIXTEEN, measure: cri::life::sixteen },
    Group { rows: &cri::own::ROWS, measure: cri::own::measure },
    Group { rows: &cri::own::BUILTIN, measure: cri::own::builtin },
    Group { rows: &cri::thousand::MEMORY, measure: cri::thousand::memory },
    Group { rows: &cri::thousand::RESTART, measure: cri::thousand::restart },
    Group { rows: &cri::thousand::RECORDS, measure: cri::thousand::records },
    Group { rows: &cri::thousand::USAGE, measure: cri::thousand::usage },
];

/// What the command line says.
#[derive(Debug, Default)]
struct Options {
    programs: Programs,
    json: Option<PathBuf>,
    rows: Vec<String>,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|word| names(word, name))
    }
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(done) = timed::in_place(&arguments) {
        return done;
    }
    let options = parse(arguments.into_iter().skip(1).map(|word| word.to_string_lossy().into_owned()))?;
    let single = || ROWS.iter().chain(pulls::ROWS);
    let together = GROUPS.iter().flat_map(|group| group.rows).map(|(name, _)| *name);
    let known: Vec<_> = single().map(|row| row.name).chain(together).collect();
    if let Some(name) = options.rows.iter().find(|name| !known.iter().any(|row| names(name, row))) {
        bail!("there is no row {name}; there are: {}", known.join(" "));
    }
    print_head(&options.programs);
    let mut report = Vec::new();
    for row in single().filter(|row| options.wants(row.name)) {
        let sides = Sides::start(&options.programs);
        let figures = (row.measure)(&sides).with_context(|| format!("measure {}", row.name))?;
        report.push(tell((row.name, row.unit), &figures));
    }
    for group in GROUPS {
        let wanted = || group.rows.iter().filter(|(name, _)| options.wants(name));
        let Some((first, _)) = wanted().next() else { continue };
        let figures = (group.measure)(&options.programs).with_context(|| format!("measure {first}"))?;
        let rows = group.rows.iter().zip(figures.into_iter().flatten());
        report.extend(
            rows.filter(|((name, _), _)| options.wants(name)).map(|(name, figures)| tell(*name, &figures)),
        );
    }
    if let Some(path) = options.json {
        let text = serde_json::to_string_pretty(&json!({"version": 1, "rows": report}))?;
        std::fs::write(&path, text + "\n").with_context(|| format!("write {}", path.display()))?;
        println!("\nwritten: {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--ours" => options.programs.ours = value()?.into(),
            "--peer" => options.programs.peer = value()?.into(),
            "--json" => options.json = Some(value()?.into()),
            _ if word.starts_with('-') => bail!("unknown flag {word}"),
            _ => options.rows.push(word),
        }
    }
    if [&options.programs.ours, &options.programs.peer].iter().any(|dir| dir.as_os_str().is_empty()) {
        bail!("usage: bench --ours DIR --peer DIR [--json FILE] [ROW...]");
    }
    Ok(options)
}

/// Whether a word of the command line names a row; `many-*` names all that begin so.
fn names(word: &str, row: &str) -> bool {
    word.strip_suffix('*').map_or(word == row, |begin| row.starts_with(begin))
}

fn print_head(programs: &Programs) {
    println!("ours: {}\npeer: {}\n", programs.ours.display(), programs.peer.display());
    println!(
        "{:<32} {:>6} {:>12} {:>12} {:>12} {:>12} {:>8}",
        "row", "unit", "ours", "min", "peer", "min", "ratio"
    );
}

/// Prints a row, and gives it as the report has it.
fn tell((name, unit): Name, figures: &Figures) -> Value {
    println!(
        "{name:<32} {unit:>6} {:>12.2} {:>12.2} {:>12.2} {:>12.2} {:>7.2}x",
        figures.ours.median(),
        figures.ours.minimum(),
        figures.peer.median(),
        figures.peer.minimum(),
        figures.ratio()
    );
    json!({
        "row": name,
        "unit": unit,
        "ours": {"median": figures.ours.median(), "minimum": figures.ours.minimum(), "samples": figures.ours.values()},
        "peer": {"median": figures.peer.median(), "minimum": figures.peer.minimum(), "samples": figures.peer.values()},
        "ratio": figures.ratio(),
    })
}
