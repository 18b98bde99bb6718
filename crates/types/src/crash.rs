//! Instants at which a test wants the daemon dead, by name: `kill -9` at exactly this line, which no other process
//! could time.
//!
//! ```text
//!   CONTAINERD_RS_CRASH_AT=container-row      the first time somebody comes there
//!   CONTAINERD_RS_CRASH_AT=container-row:3    the third time
//! ```
//!
//! Nothing of this is in a release build: a variable of the environment ends no node.

/// An instant between two steps. In a debug build the process kills itself here if the environment asks for it.
#[inline]
pub fn point(name: &'static str) {
    #[cfg(debug_assertions)]
    asked::reach(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
mod asked {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    /// What the environment asks for.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Asked {
        name: String,
        times: u32,
    }

    pub(super) fn parse(value: &str) -> Asked {
        let counted = value.rsplit_once(':').and_then(|(name, times)| Some((name, times.parse().ok()?)));
        let (name, times) = counted.unwrap_or((value, 1));
        Asked { name: name.to_owned(), times }
    }

    pub(super) fn reach(name: &str) {
        static ASKED: OnceLock<Option<Asked>> = OnceLock::new();
        static REACHED: AtomicU32 = AtomicU32::new(0);
        let asked = ASKED.get_or_init(|| std::env::var("CONTAINERD_RS_CRASH_AT").ok().as_deref().map(parse));
        let Some(asked) = asked.as_ref().filter(|asked| asked.name == name) else { return };
        if REACHED.fetch_add(1, Ordering::SeqCst).wrapping_add(1) == asked.times {
            let _ = kill_process(getpid(), Signal::KILL);
            // The signal is taken on the way out of the call, by any thread: none of this one's steps may follow.
            loop {
                std::thread::park();
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_name_alone_is_the_first_time() {
            assert_eq!(parse("gc-sweep"), Asked { name: "gc-sweep".into(), times: 1 });
            assert_eq!(parse("gc-sweep:3"), Asked { name: "gc-sweep".into(), times: 3 });
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_point_that_nobody_asked_for_is_passed() {
        super::point("nobody asks for this");
    }
}
