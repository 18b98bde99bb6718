//! `ctr content check`: is what the daemon calls committed whole, and with `--repair`, making it so.
//!
//! ```text
//!  blobs    each blob of every namespace: its size, its digest             broken: dropped, the next pull fetches it
//!  layers   each committed snapshot: its layer's archive, entry by entry   broken: extracted again from the blob, in place
//!  files    blobs on the disk that no namespace knows                      broken: removed
//! ```
//!
//! Only the containerd API is used, and the directories that mounts name: so it also serves on containerd's own daemon,
//! which is where empty files come from. Nothing whole is touched, and no layer that is mounted.

mod blobs;
mod layers;
mod mend;
mod users;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use api::containerd::services::introspection::v1::PluginsRequest;
use api::containerd::services::namespaces::v1::ListNamespacesRequest;
use clap::Args;
use remote::from_status;
use serde::Serialize;
use types::{Error, Result};

use crate::cli::Globals;
use crate::client::Client;
use crate::commands::print;
use crate::go;

/// How long what the check itself makes is kept, should it not come to its end.
const LEASE: Duration = Duration::from_secs(60 * 60);
/// The exit code if something is broken and stays so.
const BROKEN: u8 = 2;

/// `ctr content check`.
#[derive(Args, Debug)]
pub struct Flags {
    /// Drop broken blobs, so that the next pull fetches them, and extract broken layers again
    #[arg(long)]
    repair: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What was found; the JSON answer.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// How many blobs were read, and how many bytes they have.
    blobs: usize,
    bytes: u64,
    /// How many layers were compared, and how many entries they have.
    layers: usize,
    entries: u64,
    /// Committed snapshots of which no blob is there to compare with.
    unverified: usize,
    broken: Vec<Broken>,
    notes: Vec<String>,
}

/// Something that is not whole.
#[derive(Debug, Serialize)]
struct Broken {
    /// `blob`, `layer` or `file`.
    kind: &'static str,
    id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    namespaces: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    snapshotter: String,
    reason: String,
    done: Done,
    /// Why it was not mended, where that was wanted.
    #[serde(skip_serializing_if = "String::is_empty")]
    because: String,
}

/// What was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Done {
    Nothing,
    Dropped,
    Mended,
}

/// One namespace, under a lease of ours.
struct Space {
    name: String,
    client: Client,
}

/// Checks, and answers the exit code.
pub async fn run(globals: &Globals, flags: Flags) -> Result<u8> {
    let client = Client::open(globals)?;
    let (spaces, leases) = spaces(&client).await?;
    let looked = tokio::select! {
        looked = look(&client, &spaces, &flags) => looked,
        _ = tokio::signal::ctrl_c() => Err(Error::new(types::Class::Canceled, "interrupted")),
    };
    // containerd's daemon removes the files of what was dropped with its next collection, and would hand them out until then.
    let dropped = |report: &Report| report.broken.iter().any(|broken| broken.done == Done::Dropped);
    let collect = looked.as_ref().is_ok_and(dropped);
    for lease in leases {
        if collect { lease.collect().await? } else { lease.release().await? }
    }
    let report = looked?;
    print(if flags.json { go::json::shown(&report)? } else { text(&report, flags.repair) })?;
    let left = report.broken.iter().any(|broken| broken.done == Done::Nothing);
    Ok(if left { BROKEN } else { 0 })
}

async fn look(client: &Client, spaces: &[Space], flags: &Flags) -> Result<Report> {
    let mut report = Report::default();
    let plugins = roots(client).await?;
    let blobs = blobs::check(spaces, &mut report).await?;
    for (snapshotter, _) in plugins.iter().filter_map(|((kind, id), root)| {
        (kind == "io.containerd.snapshotter.v1").then_some((id.as_str(), root))
    }) {
        for space in spaces {
            layers::check(space, snapshotter, (&blobs, flags.repair), &mut report).await?;
        }
    }
    let content = plugins.iter().find(|((kind, _), _)| kind == "io.containerd.content.v1");
    if let Some((_, root)) = content.filter(|(_, root)| !root.is_empty()) {
        blobs::strays(root, &blobs, flags.repair, &mut report)?;
    }
    if flags.repair {
        blobs::drop_broken(spaces, &blobs, &mut report).await?;
    }
    Progress::end();
    Ok(report)
}

/// Every namespace, each with a lease under which the check makes its views.
async fn spaces(client: &Client) -> Result<(Vec<Space>, Vec<crate::client::Leased>)> {
    let request = ListNamespacesRequest::default();
    let listed = client.namespaces().list(request).await.map_err(from_status)?.into_inner().namespaces;
    let (mut spaces, mut leases) = (Vec::new(), Vec::new());
    for namespace in listed {
        let leased = client.in_namespace(&namespace.name)?.lease(None, LEASE).await?;
        spaces.push(Space { name: namespace.name, client: leased.client.clone() });
        leases.push(leased);
    }
    Ok((spaces, leases))
}

/// The stores that are loaded, by type and id, with their directories where they tell.
async fn roots(client: &Client) -> Result<BTreeMap<(String, String), String>> {
    let request = PluginsRequest { filters: Vec::new() };
    let plugins = client.introspection().plugins(request).await.map_err(from_status)?.into_inner().plugins;
    let loaded = plugins.into_iter().filter(|plugin| plugin.init_err.is_none());
    Ok(loaded
        .map(|mut plugin| {
            let root = plugin.exports.remove("root").unwrap_or_default();
            ((plugin.r#type, plugin.id), root)
        })
        .collect())
}

/// The result for people.
fn text(report: &Report, repair: bool) -> String {
    let mut text = String::new();
    for broken in &report.broken {
        let place = [broken.snapshotter.clone()].into_iter().chain(broken.namespaces.iter().cloned());
        let place: Vec<String> = place.filter(|part| !part.is_empty()).collect();
        let place = if place.is_empty() { String::new() } else { format!(" ({})", place.join(", ")) };
        let done = match (broken.done, broken.because.as_str()) {
            (Done::Dropped, _) if broken.kind == "file" => "removed".to_owned(),
            (Done::Dropped, _) => "dropped: pull its image again".to_owned(),
            (Done::Mended, _) => "mended".to_owned(),
            (Done::Nothing, "") => "broken".to_owned(),
            (Done::Nothing, because) => format!("still broken: {because}"),
        };
        text += &format!("{} {}{place}: {}; {done}\n", broken.kind, broken.id, broken.reason);
    }
    for note in &report.notes {
        text += &format!("note: {note}\n");
    }
    let left = report.broken.iter().filter(|broken| broken.done == Done::Nothing).count();
    let size = go::size::binary(report.bytes);
    text += &format!(
        "checked {} blobs ({size}) and {} layers ({} entries)",
        report.blobs, report.layers, report.entries
    );
    if report.unverified > 0 {
        text += &format!(", {} more layers only by the number of their files", report.unverified);
    }
    text += &match (report.broken.len(), left) {
        (0, _) => ": all are whole\n".to_owned(),
        (all, 0) => format!(": {all} were broken, and are no more\n"),
        (_, left) if repair => format!(": {left} are still broken\n"),
        (_, left) => format!(": {left} are broken, `ctr content check --repair` mends what can be mended\n"),
    };
    text
}

/// A line on the terminal about what is being looked at.
struct Progress;

impl Progress {
    fn at(what: &str, number: usize, of: usize) {
        if std::io::stderr().is_terminal() {
            // Who does not see it misses nothing.
            drop(write!(std::io::stderr(), "\r\x1b[Kchecking {what} {number} of {of}"));
        }
    }

    fn end() {
        if std::io::stderr().is_terminal() {
            drop(write!(std::io::stderr(), "\r\x1b[K"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(done: Done, because: &str) -> Report {
        let broken = Broken {
            kind: "layer",
            id: "sha256:1".into(),
            namespaces: vec!["default".into()],
            snapshotter: "overlayfs".into(),
            reason: "12 of 40 entries differ: etc/passwd is empty instead of 7 bytes".into(),
            done,
            because: because.into(),
        };
        Report { layers: 1, entries: 40, broken: vec![broken], ..Report::default() }
    }

    #[test]
    fn the_text_says_what_is_broken_and_what_became_of_it() {
        let whole = text(&Report { blobs: 2, bytes: 2048, ..Report::default() }, false);
        assert_eq!(whole, "checked 2 blobs (2.0 KiB) and 0 layers (0 entries): all are whole\n");
        let line = "layer sha256:1 (overlayfs, default): 12 of 40 entries differ: etc/passwd is empty instead of 7 bytes; ";
        let left = text(&broken(Done::Nothing, ""), false);
        assert!(left.starts_with(&format!("{line}broken\n")), "{left}");
        assert!(
            left.ends_with("1 are broken, `ctr content check --repair` mends what can be mended\n"),
            "{left}"
        );
        let used = text(&broken(Done::Nothing, "it is mounted at /x"), true);
        assert!(used.starts_with(&format!("{line}still broken: it is mounted at /x\n")), "{used}");
        let mended = text(&broken(Done::Mended, ""), true);
        assert!(mended.ends_with(": 1 were broken, and are no more\n"), "{mended}");
    }
}
