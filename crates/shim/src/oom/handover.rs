//! Watches, handed over with what they have told already.

use std::fs::File;

use api::containerdrs::shim::v1 as wire;
use sys::epoll::Epoll;
use sys::handover::Inherited;
use types::{Result, ResultExt};

use super::{Watch, Watches};
use crate::handover::Kept;

impl Watches {
    /// Puts them into `state`.
    pub fn write_down<'a>(&'a self, state: &mut wire::State, kept: &mut Kept<'a>) {
        // They are numbered anew.
        let Self { open, next: _ } = self;
        let watch = |watch: &'a Watch| {
            let Watch { container, notice, counters, killed, told } = watch;
            wire::Watch {
                container: container.clone(),
                notice: notice.as_ref().map(|fd| kept.add(fd)),
                counters: kept.add(counters),
                killed: *killed,
                told: *told,
            }
        };
        state.watches = open.values().map(watch).collect();
    }

    /// Those of `state`.
    pub fn read_back(state: &mut wire::State, inherited: &mut Inherited, epoll: &Epoll) -> Result<Self> {
        let mut watches = Self::default();
        for watch in std::mem::take(&mut state.watches) {
            let watch = Watch {
                container: watch.container,
                notice: watch.notice.map(|fd| inherited.take(fd)).transpose()?,
                counters: File::from(inherited.take(watch.counters)?),
                killed: watch.killed,
                told: watch.told,
            };
            watches.insert(watch, epoll).context(|| "watch memory")?;
        }
        Ok(watches)
    }
}
