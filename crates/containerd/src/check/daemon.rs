//! The daemon: whether one runs, whether it answers, what it has been doing for long.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use api::containerdrs::services::diagnosis::v1::{Activity, UnderWayRequest, UnderWayResponse};
use grpc::diagnosis::diagnosis_client::DiagnosisClient;
use remote::Connection;
use types::{Class, Error, Result, Scope};

use crate::config::Config;

use super::report::{Area, Report};
use super::{Evidence, PATIENCE};

/// A call that takes longer is told.
const LONG: u64 = 10_000;
/// Calls that take as long as their caller likes.
const WAITS: [&str; 7] = ["Wait", "Subscribe", "Stream", "Watch", "Transfer", "Read", "Write"];

/// Looks for the daemon of this state, asks it, and says which process it is.
pub async fn look(config: &Config, report: &mut Report, evidence: &mut Evidence) -> Option<u32> {
    let Some(pid) = holder(&config.state) else {
        report.ok(Area::Daemon, format!("none runs on state {}", config.state.display()));
        return None;
    };
    match ask(&config.grpc.address).await {
        Ok(answer) => {
            report.ok(Area::Daemon, format!("pid {pid} answers at {}", config.grpc.address.display()));
            long(&answer, report);
            (evidence.log, evidence.dump) = (answer.log, answer.dump);
        }
        Err(error) if error.class() == Class::Unimplemented => {
            let address = config.grpc.address.display();
            report.ok(
                Area::Daemon,
                format!("pid {pid} answers at {address}, and its service diagnosis is disabled"),
            );
        }
        Err(error) => {
            evidence.dump = crate::debug::threads_of(pid);
            report.problem(
                Area::Daemon,
                format!("pid {pid} does not answer at {}: {error}", config.grpc.address.display()),
            );
        }
    }
    Some(pid)
}

async fn ask(address: &Path) -> Result<UnderWayResponse> {
    let scope = Scope { namespace: "default".parse()?, lease: None };
    let connection = Connection::open(address, scope)?;
    let mut client = DiagnosisClient::new(connection.transport());
    let asked = tokio::time::timeout(PATIENCE, client.under_way(UnderWayRequest {})).await;
    let asked = asked.map_err(|_| Error::deadline(format!("no answer within {PATIENCE:?}")))?;
    Ok(asked.map_err(remote::from_status)?.into_inner())
}

fn long(answer: &UnderWayResponse, report: &mut Report) {
    let waits = |activity: &Activity| {
        activity.what.rsplit_once('/').is_some_and(|(_, method)| WAITS.contains(&method))
    };
    let all = answer.calls.iter().filter(|call| !waits(call)).chain(&answer.changes);
    let mut found = false;
    for Activity { what, namespace, id, milliseconds } in all {
        if *milliseconds > LONG {
            found = true;
            let seconds = milliseconds / 1000;
            report
                .warning(Area::Calls, format!("{what} {namespace}/{id} has been under way for {seconds} s"));
        }
    }
    if !found {
        report.ok(Area::Calls, "nothing takes longer than 10 s");
    }
}

/// Who holds the lock of a state directory: the daemon, by the kernel's word.
fn holder(state: &Path) -> Option<u32> {
    let inode = std::fs::metadata(state).ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let line = locks.lines().find(|line| line.contains("FLOCK") && line.contains(&format!(":{inode} ")))?;
    // `1: FLOCK  ADVISORY  WRITE 123 08:01:456 0 EOF`
    line.split_whitespace().nth(4)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_state_directory_is_its_daemon() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(holder(dir.path()), None);
        let _lock = runtime::lock_state(dir.path()).unwrap();
        assert_eq!(holder(dir.path()), Some(std::process::id()));
    }

    #[test]
    fn calls_that_wait_by_their_nature_are_not_told() {
        let call =
            |what: &str, milliseconds| Activity { what: what.into(), milliseconds, ..Default::default() };
        let told = |calls| {
            let mut report = Report::default();
            long(&UnderWayResponse { calls, ..Default::default() }, &mut report);
            report.exit()
        };
        assert_eq!(told(vec![call("a.Tasks/Wait", 60_000), call("a.Tasks/Kill", 10)]), 0);
        assert_eq!(told(vec![call("a.Tasks/Kill", 11_000)]), 1);
    }
}
