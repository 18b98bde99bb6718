//! What is drawn while something takes its time: bars while an archive is imported or layers are unpacked, where the output
//! is a terminal; [`tree`] and [`jobs`] as upstream's ctr draws transfers and what it fetches itself.

mod bar;
pub mod jobs;
mod screen;
pub mod tree;

use std::io::IsTerminal;

use images::{Event, Progress, Silent};
use indicatif::{ProgressBar, ProgressStyle};

/// Draws one bar on stderr, so that stdout stays what scripts expect.
struct Bar(ProgressBar);

impl Bar {
    fn boxed(total: Option<u64>, template: &str) -> Box<dyn Progress> {
        if !std::io::stdout().is_terminal() || !std::io::stderr().is_terminal() {
            return Box::new(Silent);
        }
        let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Box::new(Self(bar))
    }
}

impl Progress for Bar {
    fn report(&self, event: Event<'_>) {
        match event {
            Event::Member(name, _) => self.0.set_message(name.to_owned()),
            Event::Stored(bytes) => self.0.inc(bytes),
            Event::Unpacking(digest, _) => {
                self.0.set_message(digest.hex().chars().take(12).collect::<String>())
            }
            Event::Unpacked(_) => self.0.inc(1),
            // Of pulls, which are drawn otherwise.
            Event::Found(..)
            | Event::Exists(_)
            | Event::Fetching(..)
            | Event::Fetched(_)
            | Event::Sending(..)
            | Event::Sent(_)
            | Event::Extracting(..) => {}
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// For the import of an archive of `size` bytes, where that is known.
pub fn of_import(size: Option<u64>) -> Box<dyn Progress> {
    let template = match size {
        Some(_) => "importing [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {msg}",
        None => "importing {spinner} {bytes} {bytes_per_sec} {msg}",
    };
    Bar::boxed(size, template)
}

/// For so many layers of an image.
pub fn of_unpack(layers: usize) -> Box<dyn Progress> {
    Bar::boxed(Some(layers as u64), "unpacking [{bar:30}] {pos}/{len} {elapsed} {msg}")
}
