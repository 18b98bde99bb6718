//! The record of a death in place of a shim that was gone before it could write one: what the daemon knows, and how.
//!
//! Less than a shim's: nobody was there. No timeline, no figures of the control group; of the output only what waited on disk for a
//! reader. Memory that ran out before is told where the shim had still written that down.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::{Value, json};
use sys::pidfd::Ended;
use types::task::Deleted;
use types::{Result, ResultExt, version};

use super::{NAME, usable};
use crate::bundle::Bundle;
use crate::key::TaskKey;

/// What the shim writes when memory runs out.
const OOM: &str = "oom.json";
/// So many bytes of a stream are kept, as of a shim's record.
const KEPT: u64 = 64 << 10;

/// Who knows how init ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Witness {
    /// It is no death that anybody was told of: of a task that was never made.
    None,
    /// The kernel.
    Kernel(Ended),
    /// Its shim, if it had written that down; else nobody.
    Bundle,
}

/// Writes the record into the work directory of a bundle that is about to go, unless its shim has.
pub(crate) fn write(key: &TaskKey, bundle: &Bundle, end: Deleted, witness: Witness) -> Result<()> {
    let path = bundle.work.join(NAME);
    // Without a number it never ran.
    let is_death = witness != Witness::None && end.pid != 0;
    if !is_death || path.exists() || !bundle.work.is_dir() {
        return Ok(());
    }
    let doing = || format!("write {path:?}");
    let text = record(key, bundle, end, witness).to_string();
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&path).context(doing)?;
    file.write_all(text.as_bytes()).context(doing)
}

fn record(key: &TaskKey, bundle: &Bundle, end: Deleted, witness: Witness) -> Value {
    let (how, source, status) = match witness {
        Witness::Kernel(ended) => (ended.to_string(), "kernel", ended.status()),
        Witness::Bundle | Witness::None if bundle.knows_exit() => {
            (format!("ended with status {}", end.exit.status), "shim", end.exit.status)
        }
        Witness::Bundle | Witness::None => {
            (format!("ended with status {}, which is a guess", end.exit.status), "estimate", end.exit.status)
        }
    };
    let oom = bundle.work.join(OOM);
    let oom = usable(&oom).then(|| std::fs::read(&oom).ok()).flatten();
    let oom = oom.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let memory = if oom.is_some() { ", after memory ran out" } else { "" };
    let mut record = json!({
        "version": 1,
        "namespace": key.namespace().as_str(),
        "id": key.id(),
        "pid": end.pid,
        "reason": format!("{how}{memory}; its shim was gone"),
        "exit_status": status,
        "status_from": source,
        "oom_killed": oom.is_some(),
        "exited_at": types::time::rfc3339(end.exit.at),
        "written_by": format!("containerd {}", version::VERSION),
        "output": output(&bundle.work.join("spool")),
    });
    if let Witness::Kernel(Ended::Signal(signal)) = witness {
        record["signal"] = signal.into();
    }
    if let Some(oom) = oom {
        record["oom"] = oom;
    }
    record
}

/// The last of what init said and nobody read.
fn output(spool: &Path) -> Vec<Value> {
    ["stdout", "stderr"]
        .into_iter()
        .filter_map(|stream| {
            let bytes =
                last_of(&spool.join(format!("init.{stream}"))).ok().filter(|bytes| !bytes.is_empty())?;
            Some(json!({ "from": stream, "text": String::from_utf8_lossy(&bytes) }))
        })
        .collect()
}

/// Without what is a hole: that was delivered.
fn last_of(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap_or(length);
    file.seek(SeekFrom::Start(hole.max(length.saturating_sub(KEPT))))?;
    let mut bytes = Vec::new();
    file.take(KEPT).read_to_end(&mut bytes)?;
    let delivered = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.drain(..delivered);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use types::task::Exit;

    use super::*;
    use crate::bundle::Layout;

    fn written(witness: Witness, prepare: impl FnOnce(&Bundle)) -> Option<Value> {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(&dir.path().join("root"), &dir.path().join("state"));
        layout.prepare().unwrap();
        let key = TaskKey::new(&"default".parse().unwrap(), "c").unwrap();
        let bundle = layout.bundle(&key);
        bundle.create(None).unwrap();
        prepare(&bundle);
        let end = Deleted { pid: 7, exit: Exit { status: 137, at: SystemTime::now() } };
        write(&key, &bundle, end, witness).unwrap();
        let text = std::fs::read(bundle.work.join(NAME)).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    #[test]
    fn a_record_says_who_knew_how_it_ended() {
        let kernel = written(Witness::Kernel(Ended::Code(43)), |_| ()).unwrap();
        assert_eq!(kernel["reason"], "exited with code 43; its shim was gone");
        assert_eq!((&kernel["exit_status"], &kernel["status_from"]), (&43.into(), &"kernel".into()));
        let guess = written(Witness::Bundle, |_| ()).unwrap();
        assert_eq!(guess["status_from"], "estimate");
        let wrote = |bundle: &Bundle| std::fs::write(bundle.path.join("init.exit"), "137 1 1\n").unwrap();
        assert_eq!(written(Witness::Bundle, wrote).unwrap()["status_from"], "shim");
        assert_eq!(written(Witness::None, |_| ()), None);
    }

    #[test]
    fn it_has_what_nobody_read_and_the_memory_that_ran_out() {
        let record = written(Witness::Kernel(Ended::Signal(9)), |bundle| {
            std::fs::create_dir(bundle.work.join("spool")).unwrap();
            std::fs::write(bundle.work.join("spool/init.stdout"), b"\0\0said last\n").unwrap();
            std::fs::write(bundle.work.join(OOM), r#"{"at":"T"}"#).unwrap();
        });
        let record = record.unwrap();
        assert_eq!(record["output"], json!([{ "from": "stdout", "text": "said last\n" }]));
        assert_eq!((&record["signal"], &record["oom"]["at"]), (&9.into(), &"T".into()));
        assert_eq!(record["reason"], "killed by signal 9, after memory ran out; its shim was gone");
    }

    #[test]
    fn a_shims_own_record_stays() {
        let shims = |bundle: &Bundle| std::fs::write(bundle.work.join(NAME), r#"{"shim":"x"}"#).unwrap();
        assert_eq!(written(Witness::Bundle, shims).unwrap(), json!({ "shim": "x" }));
    }
}
