//! Plugins whose caller was killed: programs that go on with a container, and of which nobody reads the answer.
//!
//! An ADD that ended after the DEL of somebody else would leave an address behind. So whoever takes over a container from a caller
//! that is gone ends them before he detaches it. What they have done by then is for DEL, as with one that was killed for its
//! time.
//!
//! They are known by their environment, which a program that they have started themselves (`host-local` of `bridge`) has, too.

use std::time::{Duration, Instant};

use sys::pidfd::PidFd;
use tracing::warn;
use types::{Error, Result, ResultExt};

/// How long one may take to go that was killed: it may be in a call of the kernel.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kills all plugins that attach `container`, and waits until they are gone. It blocks, and reads the environment of every process:
/// a millisecond or two for a hundred.
pub fn end(container: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    // One may have started another one just before it was killed.
    loop {
        let found = plugins_of(container)?;
        if found.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let pid = found.first().map_or(0, PidFd::pid);
            return Err(Error::deadline(format!(
                "plugin {pid} still attaches {container}, and does not die"
            )));
        }
        for plugin in found {
            warn!(container, pid = plugin.pid(), "ending a plugin whose caller is gone");
            let ended = plugin.kill().and_then(|()| plugin.await_end(1000));
            ended.context(|| format!("end plugin {}", plugin.pid()))?;
        }
    }
}

fn plugins_of(container: &str) -> Result<Vec<PidFd>> {
    let id = format!("CNI_CONTAINERID={container}");
    let candidates = sys::process::all()?.filter(|pid| attaches(*pid, &id));
    // The number may be somebody else's by the time that it is opened.
    let opened = candidates.filter_map(|pid| PidFd::open(pid).ok().filter(|_| attaches(pid, &id)));
    Ok(opened.collect())
}

/// Whether a process has this among its variables, and is an ADD. One that has ended has none.
fn attaches(pid: u32, id: &str) -> bool {
    let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else { return false };
    let has = |wanted: &str| environment.split(|byte| *byte == 0).any(|word| word == wanted.as_bytes());
    has(id) && has("CNI_COMMAND=ADD")
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn plugin(container: &str, verb: &str) -> Child {
        let mut command = Command::new("sleep");
        command.arg("1000").env("CNI_CONTAINERID", container).env("CNI_COMMAND", verb);
        command.stdin(Stdio::null()).spawn().unwrap()
    }

    #[test]
    fn one_that_attaches_this_container_is_ended_and_nobody_else() {
        let id = format!("abandoned-{}", std::process::id());
        let mut mine = plugin(&id, "ADD");
        let mut others = [plugin(&format!("{id}0"), "ADD"), plugin(&id, "DEL")];
        end(&id).unwrap();
        assert!(!mine.wait().unwrap().success());
        for other in &mut others {
            assert!(other.try_wait().unwrap().is_none());
            other.kill().unwrap();
            other.wait().unwrap();
        }
        end(&id).unwrap();
    }
}
