//! What ctr fetches or pushes by itself, as upstream's ctr draws it: a line for each piece of content.
//!
//! On a terminal it is drawn in place. Elsewhere it is printed when something has begun or ended; upstream prints it ten times
//! a second.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use images::pull::reference;
use images::{Event, Progress};
use types::{Digest, Result};

use super::bar::{amount, bar, sum, whole};
use super::screen::Screen;
use crate::go::Columns;

/// How often it is drawn at the most.
const OFTEN: Duration = Duration::from_millis(100);

/// Which way content moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moving {
    /// From a registry.
    Down,
    /// To a registry.
    Up,
}

/// What there is to do, and how far it has come.
pub struct Jobs {
    moving: Moving,
    /// What is resolved first, if anything.
    name: Option<String>,
    begun: Instant,
    jobs: Mutex<Vec<Job>>,
}

struct Job {
    digest: Digest,
    name: String,
    state: State,
    at: u64,
    size: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Moving,
    Done,
    Exists,
}

impl Jobs {
    /// Nothing to do yet but to resolve `name`.
    pub fn new(moving: Moving, name: Option<&str>) -> Arc<Self> {
        let name = name.map(str::to_owned);
        Arc::new(Self { moving, name, begun: Instant::now(), jobs: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Job>> {
        // Each change is of one job.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws what happens while `work` goes on, and once more when it has ended well.
    pub async fn drawn_while<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut screen = Screen::stdout();
        let mut shown = None;
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => {
                    let done = done?;
                    self.lock().iter_mut().filter(|job| job.state != State::Exists).for_each(Job::end);
                    screen.draw(&self.text())?;
                    return Ok(done);
                }
                () = tokio::time::sleep(OFTEN) => {
                    let states = Some(self.states());
                    if screen.is_terminal() || states != shown {
                        screen.draw(&self.text())?;
                        shown = states;
                    }
                }
            }
        }
    }

    fn states(&self) -> Vec<State> {
        self.lock().iter().map(|job| job.state).collect()
    }

    fn text(&self) -> String {
        let jobs = self.lock();
        let mut table = Columns::narrow();
        if let Some(name) = &self.name {
            let (state, full) = if jobs.is_empty() { ("resolving", false) } else { ("resolved", true) };
            table.line(format!("{name}:\t{state}\t{}\t", whole(full)));
        }
        jobs.iter().for_each(|job| table.line(job.line(self.moving)));
        table.line(sum(self.begun.elapsed(), jobs.iter().map(|job| job.at).sum()).trim_end_matches('\n'));
        table.finish()
    }
}

impl Job {
    fn end(&mut self) {
        (self.state, self.at) = (State::Done, self.size);
    }

    fn line(&self, moving: Moving) -> String {
        let Self { name, at, size, .. } = self;
        match (self.state, moving) {
            (State::Moving, Moving::Up) if at == size => format!("{name}:\tcommitting\t{}\t", whole(true)),
            (State::Moving, moving) => {
                let state = if moving == Moving::Down { "downloading" } else { "uploading" };
                format!("{name}:\t{state}\t{}\t{}\t", bar(*at, *size), amount(*at, *size))
            }
            (State::Waiting, _) => format!("{name}:\twaiting\t{}\t", whole(false)),
            // Upstream's push does not tell what was there from what was sent.
            (State::Done, _) | (State::Exists, Moving::Up) => format!("{name}:\tdone\t{}\t", whole(true)),
            (State::Exists, Moving::Down) => format!("{name}:\texists\t{}\t", whole(true)),
        }
    }
}

impl Progress for Jobs {
    fn report(&self, event: Event<'_>) {
        let mut jobs = self.lock();
        let (digest, state) = match event {
            Event::Found(content, _) => {
                if !jobs.iter().any(|job| job.digest == content.digest) {
                    let (digest, name) = (content.digest.clone(), reference(content));
                    let size = content.size.unsigned_abs();
                    jobs.push(Job { digest, name, state: State::Waiting, at: 0, size });
                }
                return;
            }
            Event::Exists(digest) => (digest, State::Exists),
            Event::Fetching(digest, ..) | Event::Sending(digest, ..) => (digest, State::Moving),
            Event::Fetched(digest) | Event::Sent(digest) => (digest, State::Done),
            _ => return,
        };
        let Some(job) = jobs.iter_mut().find(|job| job.digest == *digest) else { return };
        match event {
            Event::Fetching(_, at, _) | Event::Sending(_, at, _) => job.at = at,
            Event::Fetched(_) | Event::Sent(_) => job.at = job.size,
            _ => {}
        }
        job.state = state;
    }
}

#[cfg(test)]
mod tests {
    use types::oci::Descriptor;
    use types::oci::image::media;

    use super::*;

    #[test]
    fn jobs_read_as_upstream_prints_them() {
        // Columns are padded by their widest cell, which is not what this is about.
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let jobs = Jobs::new(Moving::Down, Some("r.io/x:1"));
        assert!(words(&jobs.text()).starts_with("r.io/x:1: resolving |"), "{}", jobs.text());
        let layer = |text: &[u8]| Descriptor::new(media::OCI_LAYER, Digest::of(text), 4 << 20);
        let (one, two, three) = (layer(b"1"), layer(b"2"), layer(b"3"));
        for content in [&one, &two, &three, &one] {
            jobs.report(Event::Found(content, None));
        }
        jobs.report(Event::Exists(&one.digest));
        jobs.report(Event::Fetching(&two.digest, 1 << 20, 4 << 20));
        let text = jobs.text();
        let lines: Vec<String> = text.lines().map(words).collect();
        assert_eq!(lines.len(), 5);
        assert!(lines[1].starts_with(&format!("layer-{}: exists |", one.digest)), "{text}");
        assert!(lines[2].contains(" downloading ") && lines[2].contains(" 1.0 MiB/4.0 MiB"), "{text}");
        assert!(lines[3].contains(" waiting "));
        assert!(lines[4].starts_with("elapsed: ") && lines[4].contains("total: 1.0 Mi ("), "{text}");
        jobs.report(Event::Fetched(&two.digest));
        assert!(jobs.text().contains(": done "));
    }

    #[tokio::test]
    async fn what_has_ended_well_is_done_and_an_error_is_handed_on() {
        let jobs = Jobs::new(Moving::Up, None);
        let layer = Descriptor::new(media::OCI_LAYER, Digest::of(b"x"), 4);
        jobs.report(Event::Found(&layer, None));
        jobs.drawn_while(async { Ok(()) }).await.unwrap();
        assert!(jobs.states() == [State::Done]);
        let failed = jobs.drawn_while(async { Err::<(), _>(types::Error::unavailable("x")) }).await;
        assert!(failed.is_err());
    }
}
