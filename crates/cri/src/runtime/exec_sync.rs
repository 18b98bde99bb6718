//! ExecSync.

use std::time::Duration;

use api::cri::{ExecSyncRequest, ExecSyncResponse};
use tokio::sync::watch;
use types::{Result, ResultExt};

use crate::cri::Cri;
use crate::streaming::connection::Gone;
use crate::streaming::process::{self, Alone, Ended, Ends, Patience, Process, Sink};

/// What is kept of each output.
const MOST: usize = 16 << 20;
/// What is answered of both: no kubelet takes an answer of more than 16 MiB.
const ANSWER: usize = MOST - 1024;

/// Answers the call. When its caller goes, the process is killed.
pub async fn run(cri: &Cri, request: ExecSyncRequest) -> Result<ExecSyncResponse> {
    let timeout = u64::try_from(request.timeout).ok().filter(|seconds| *seconds > 0);
    let drain = cri.config.runtime.drain_exec_sync;
    let process = Process {
        args: request.cmd,
        terminal: false,
        timeout: timeout.map(Duration::from_secs),
        alone: Alone::Kill,
        patience: if drain.is_zero() { Patience::DEFAULT } else { Patience { limit: drain, strict: true } },
    };
    // It is dropped with this call.
    let (_wanted, gone) = watch::channel(false);
    let keep = || Sink::Memory(Vec::new(), MOST);
    let ends = Ends { stdin: None, stdout: keep(), stderr: keep(), resize: None, gone: Gone::when(gone) };
    let (task, id) = (cri.clone(), request.container_id);
    let run = tokio::spawn(async move { process::run(&task, &id, process, ends).await });
    let Ended { code, stdout, stderr, .. } =
        process::joined(run.await).context(|| "failed to exec in container")?;
    // As Go converts it.
    let exit_code = code as i32;
    let (mut stdout, mut stderr) = (stdout.kept(), stderr.kept());
    stderr.truncate((ANSWER / 2).max(ANSWER.saturating_sub(stdout.len())));
    stdout.truncate(ANSWER - stderr.len());
    Ok(ExecSyncResponse { stdout, stderr, exit_code })
}
