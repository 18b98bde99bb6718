//! The shims of all tasks: which version, and whether they answer.

use std::collections::BTreeMap;

use runtime::inspect::{self, Inspected, Inspection};
use types::Class;

use super::PATIENCE;
use super::report::{Area, Report};

/// How it is with a task's shim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// It answers; its number, 0 if it does not tell.
    Answers(u32),
    /// It is there, and silent.
    Silent,
    /// Nobody is there.
    Gone,
}

/// Asks the shim of every bundle, all at the same time. In the order of the bundles.
pub async fn look(inspection: &Inspection, report: &mut Report) -> Vec<Life> {
    let asked = inspection.bundles.iter().map(|bundle| {
        let bundle = bundle.clone();
        tokio::spawn(async move { ask(&bundle).await })
    });
    let (mut lives, mut versions) = (Vec::new(), BTreeMap::<String, usize>::new());
    for (bundle, asked) in inspection.bundles.iter().zip(asked.collect::<Vec<_>>()) {
        let (life, version) = asked.await.unwrap_or((Life::Silent, String::new()));
        let name = format!("{}/{}", bundle.namespace, bundle.id);
        match life {
            Life::Answers(_) => *versions.entry(version).or_default() += 1,
            Life::Silent => report.problem(
                Area::Shims,
                format!("the shim of {name} does not answer within {PATIENCE:?}: SIGKILL ends it, and the daemon cleans up"),
            ),
            // The ledger tells.
            Life::Gone => {}
        }
        lives.push(life);
    }
    for (version, count) in versions {
        let version = if version.is_empty() { "another project's" } else { version.as_str() };
        report.ok(Area::Shims, format!("{count} tasks with shims of version {version} answer"));
    }
    lives
}

async fn ask(bundle: &Inspected) -> (Life, String) {
    let Some(address) = &bundle.address else { return (Life::Gone, String::new()) };
    match inspect::ask(bundle, address, PATIENCE).await {
        Ok(answer) => (Life::Answers(answer.pid), answer.version),
        Err(error) if matches!(error.class(), Class::DeadlineExceeded | Class::ResourceExhausted) => {
            (Life::Silent, String::new())
        }
        Err(_) => (Life::Gone, String::new()),
    }
}
