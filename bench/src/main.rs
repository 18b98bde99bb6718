//! Measures this containerd and another in turn (A B A B ...) and prints median, minimum and the ratio of medians.
//!
//! A figure counts only as a ratio taken in one run on one machine. Nothing is asserted here: tests hold what is
//! promised, benches print figures. `cargo xtask bench` builds and calls this.

#![forbid(unsafe_code)]

mod many;
mod pulls;
mod rows;
mod sides;
mod statistics;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use rows::ROWS;
use sides::Sides;
use statistics::Figures;

/// What the command line says.
#[derive(Debug, Default)]
struct Options {
    ours: PathBuf,
    peer: PathBuf,
    json: Option<PathBuf>,
    rows: Vec<String>,
}

fn main() -> Result<()> {
    let options = parse(std::env::args().skip(1))?;
    let rows = || ROWS.iter().chain(pulls::ROWS);
    let known: Vec<_> = rows().map(|row| row.name).chain(many::ROWS.map(|(name, _)| name)).collect();
    if let Some(name) = options.rows.iter().find(|name| !known.iter().any(|row| names(name, row))) {
        bail!("there is no row {name}; there are: {}", known.join(" "));
    }
    println!("ours: {}\npeer: {}\n", options.ours.display(), options.peer.display());
    println!(
        "{:<26} {:>6} {:>12} {:>12} {:>12} {:>12} {:>8}",
        "row", "unit", "ours", "min", "peer", "min", "ratio"
    );
    let mut report = Vec::new();
    let wanted = |name: &str| options.rows.is_empty() || options.rows.iter().any(|word| names(word, name));
    for row in rows().filter(|row| wanted(row.name)) {
        let sides = Sides::start(&options.ours, &options.peer);
        let figures = (row.measure)(&sides).with_context(|| format!("measure {}", row.name))?;
        print_row(row.name, row.unit, &figures);
        report.push(describe(row.name, row.unit, &figures));
    }
    if many::ROWS.iter().any(|(name, _)| wanted(name)) {
        let sides = Sides::start(&options.ours, &options.peer);
        let figures = many::measure(&sides).context("measure ten thousand")?;
        for ((name, unit), figures) in many::ROWS.iter().zip(&figures).filter(|((name, _), _)| wanted(name)) {
            print_row(name, unit, figures);
            report.push(describe(name, unit, figures));
        }
    }
    if let Some(path) = options.json {
        let text = serde_json::to_string_pretty(&json!({"version": 1, "rows": report}))?;
        std::fs::write(&path, text + "\n").with_context(|| format!("write {}", path.display()))?;
        println!("\nwritten: {}", path.display());
    }
    Ok(())
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--ours" => options.ours = value()?.into(),
            "--peer" => options.peer = value()?.into(),
            "--json" => options.json = Some(value()?.into()),
            _ if word.starts_with('-') => bail!("unknown flag {word}"),
            _ => options.rows.push(word),
        }
    }
    if options.ours.as_os_str().is_empty() || options.peer.as_os_str().is_empty() {
        bail!("usage: bench --ours DIR --peer DIR [--json FILE] [ROW...]");
    }
    Ok(options)
}

/// Whether a word of the command line names a row; `many-*` names all that begin so.
fn names(word: &str, row: &str) -> bool {
    word.strip_suffix('*').map_or(word == row, |begin| row.starts_with(begin))
}

fn print_row(name: &str, unit: &str, figures: &Figures) {
    println!(
        "{name:<26} {unit:>6} {:>12.2} {:>12.2} {:>12.2} {:>12.2} {:>7.2}x",
        figures.ours.median(),
        figures.ours.minimum(),
        figures.peer.median(),
        figures.peer.minimum(),
        figures.ratio()
    );
}

fn describe(name: &str, unit: &str, figures: &Figures) -> Value {
    json!({
        "row": name,
        "unit": unit,
        "ours": {"median": figures.ours.median(), "minimum": figures.ours.minimum(), "samples": figures.ours.values()},
        "peer": {"median": figures.peer.median(), "minimum": figures.peer.minimum(), "samples": figures.peer.values()},
        "ratio": figures.ratio(),
    })
}
