//! Programs that may veto a pull: upstream's image verifier `bindir`.
//!
//! ```text
//!  DIRECTORY/PROGRAM -name REF -digest DIGEST -stdin-media-type application/vnd.oci.descriptor.v1+json   < descriptor
//!    exits 0       --> the next one is asked; when all have agreed, the image is pulled
//!    exits else    --> it is not, and what the program printed is the reason
//!    takes too long, cannot be run, dies of a signal --> it is not
//! ```
//!
//! The directory is read for each pull. No directory, or an empty one, vetoes nothing. A program gets a process group of its
//! own, which is killed when its time is up or the caller has gone; of what it prints a bounded part is kept.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tracing::{debug, warn};
use types::oci::Descriptor;
use types::{Class, Error, Result, ResultExt};

use crate::config::Verifier as Settings;

/// The plugin's id, by which errors call it.
const ID: &str = "bindir";
/// The most of a program's output that is kept, in bytes.
const OUTPUT: usize = 32 << 10;
/// What the programs are told about their input.
const DESCRIPTOR: &str = "application/vnd.oci.descriptor.v1+json";

/// What was decided about an image.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Allowed(String),
    Refused(String),
}

/// Asks the programs whether an image may be pulled; an error if it may not.
pub async fn verify(settings: &Settings, name: &str, target: &Descriptor) -> Result<()> {
    let digest = &target.digest;
    let judgement = judge(settings, name, target).await.context(|| {
        format!("blocking pull of {name} with digest {digest}: image verifier {ID} returned error")
    })?;
    match judgement {
        Judgement::Allowed(reason) => {
            debug!(name, %digest, verifier = ID, reason, "image verifier allowed pull");
            Ok(())
        }
        Judgement::Refused(reason) => Err(Error::unknown(format!(
            "image verifier {ID} blocked pull of {name} with digest {digest} for reason: {reason}"
        ))),
    }
}

async fn judge(settings: &Settings, name: &str, target: &Descriptor) -> Result<Judgement> {
    let directory = settings.directory.display();
    let programs = match programs(&settings.directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Judgement::Allowed(format!("image verifier directory {directory} does not exist")));
        }
        programs => programs.context(|| "failed to list directory contents")?,
    };
    if programs.is_empty() {
        return Ok(Judgement::Allowed(format!("no image verifier binaries found in {directory}")));
    }
    let most = usize::try_from(settings.most).unwrap_or(usize::MAX);
    if programs.len() > most {
        warn!(%directory, programs = programs.len(), most, "image verifiers are being skipped: there are more than configured");
    }
    let mut reasons = Vec::new();
    for program in programs.into_iter().take(most) {
        let shown = program.to_string_lossy().into_owned();
        let begun = Instant::now();
        let (code, said) = ask(settings, &program, name, target)
            .await
            .context(|| format!("failed to call verifier {shown} (runtime {:?})", begun.elapsed()))?;
        if code != 0 {
            return Ok(Judgement::Refused(format!(
                "verifier {shown} rejected image (exit code {code}): {said}"
            )));
        }
        reasons.push(format!("{shown} => {said}"));
    }
    Ok(Judgement::Allowed(reasons.join(", ")))
}

/// What is in the directory, in order.
fn programs(directory: &PathBuf) -> std::io::Result<Vec<OsString>> {
    let mut names: Vec<OsString> =
        std::fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Runs one program; answers with its exit code and what it printed.
async fn ask(
    settings: &Settings,
    program: &OsString,
    name: &str,
    target: &Descriptor,
) -> Result<(i32, String)> {
    let mut question = serde_json::to_vec(target)
        .map_err(|error| Error::internal(format!("encode the descriptor: {error}")))?;
    question.push(b'\n');
    let mut command = Command::new(settings.directory.join(program));
    command.args(["-name", name, "-digest", target.digest.as_str(), "-stdin-media-type", DESCRIPTOR]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    let mut running = Running(command.spawn().map_err(Error::from).context(|| "starting process")?);
    let answer = tokio::time::timeout(settings.limit, converse(&mut running.0, &question)).await;
    let late = || Error::new(Class::Unknown, "waiting on command to exit: context deadline exceeded");
    let (status, said, complaints) = answer.map_err(|_| late())??;
    for line in complaints.lines() {
        debug!(image_verifier = %program.to_string_lossy(), stream = "stderr", "{line}");
    }
    match status.code() {
        Some(code) => Ok((code, said)),
        None => Err(Error::unknown(format!("waiting on command to exit: {status}"))),
    }
}

/// A program with all that it has started. Dropping it ends them.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Not collected yet, so the number is still its own; its children are in its group.
        if let Some(group) = self.0.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // Its members have gone, if it does not work.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn converse(child: &mut Child, question: &[u8]) -> Result<(ExitStatus, String, String)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let asked = async {
        if let Some(mut stdin) = stdin
            && let Err(error) = stdin.write_all(question).await
        {
            // One that does not care for the descriptor may have closed its input.
            debug!(%error, "an image verifier did not read all of the descriptor");
        }
    };
    let ((), said, complaints) = tokio::join!(asked, read(stdout), read(stderr));
    let status = child.wait().await.map_err(Error::from).context(|| "waiting on command to exit")?;
    let (said, complaints) = (said?, complaints?);
    Ok((status, text(&said, "(stdout truncated)"), text(&complaints, "(truncated)")))
}

/// Reads to the end, and keeps what there is room for and one byte more.
async fn read(stream: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return Ok(kept) };
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece).await? {
            0 => return Ok(kept),
            count => {
                let room = (OUTPUT + 1).saturating_sub(kept.len()).min(count);
                kept.extend_from_slice(piece.get(..room).unwrap_or_default());
            }
        }
    }
}

fn text(kept: &[u8], truncated: &str) -> String {
    let all = kept.get(..OUTPUT);
    let text = String::from_utf8_lossy(all.unwrap_or(kept)).trim().to_owned();
    if kept.len() > OUTPUT { text + truncated } else { text }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::Duration;

    use types::Digest;

    use super::*;

    /// A program that is just being written cannot be run, nor while a fork of another test still has it open.
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    fn settings(directory: &Path) -> Settings {
        Settings { directory: directory.to_owned(), most: 10, limit: Duration::from_secs(20) }
    }

    fn program(directory: &Path, name: &str, script: &str) {
        let path = directory.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn image() -> Descriptor {
        Descriptor::new("m/t", Digest::of(b"x"), 7)
    }

    #[tokio::test]
    async fn without_programs_nothing_is_vetoed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(verify(&settings(dir.path()), "r", &image()).await.is_ok());
        assert!(verify(&settings(&dir.path().join("none")), "r", &image()).await.is_ok());
    }

    #[tokio::test]
    async fn all_must_agree_and_each_is_told_name_digest_and_descriptor() {
        let _alone = ALONE.lock().await;
        let dir = tempfile::tempdir().unwrap();
        let told = dir.path().join("told");
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        program(&bin, "a", &format!("echo \"$@\" >{0}; cat >>{0}; echo fine", told.display()));
        let settings = settings(&bin);
        let judged = judge(&settings, "r.io/x:1", &image()).await.unwrap();
        assert_eq!(judged, Judgement::Allowed("a => fine".into()));
        let told = std::fs::read_to_string(told).unwrap();
        let digest = Digest::of(b"x");
        let words = format!("-name r.io/x:1 -digest {digest} -stdin-media-type {DESCRIPTOR}\n");
        let input = format!("{{\"mediaType\":\"m/t\",\"digest\":\"{digest}\",\"size\":7}}\n");
        assert_eq!(told, words + &input);
        program(&bin, "b", "echo no signature; exit 3");
        let error = verify(&settings, "r.io/x:1", &image()).await.unwrap_err().to_string();
        assert!(
            error.ends_with("for reason: verifier b rejected image (exit code 3): no signature"),
            "{error}"
        );
        assert!(verify(&Settings { most: 1, ..settings }, "r.io/x:1", &image()).await.is_ok());
    }

    #[tokio::test]
    async fn what_hangs_or_dies_or_cannot_run_is_a_veto_and_leaves_no_process() {
        let _alone = ALONE.lock().await;
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let late = Settings { limit: Duration::from_millis(300), ..settings(&bin) };
        // What it has started would write after a second.
        program(&bin, "a", &format!("(sleep 1; touch {}) & sleep 60", mark.display()));
        let error = verify(&late, "r", &image()).await.unwrap_err().to_string();
        assert!(error.contains("failed to call verifier a") && error.contains("deadline"), "{error}");
        program(&bin, "a", "kill -9 $$");
        let error = verify(&settings(&bin), "r", &image()).await.unwrap_err().to_string();
        assert!(error.contains("waiting on command to exit: signal: 9"), "{error}");
        std::fs::write(bin.join("a"), "no program").unwrap();
        std::fs::set_permissions(bin.join("a"), std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = verify(&settings(&bin), "r", &image()).await.unwrap_err().to_string();
        assert!(error.contains("starting process"), "{error}");
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert!(!mark.exists());
    }

    #[tokio::test]
    async fn much_output_is_cut_short_and_no_input_is_needed() {
        let _alone = ALONE.lock().await;
        let dir = tempfile::tempdir().unwrap();
        program(dir.path(), "a", "exec <&-; head -c 100000 /dev/zero | tr '\\0' x; exit 1");
        let judged = judge(&settings(dir.path()), "r", &image()).await.unwrap();
        let Judgement::Refused(reason) = judged else { panic!("{judged:?}") };
        assert!(reason.ends_with("xx(stdout truncated)") && reason.len() < OUTPUT + 100);
    }
}
