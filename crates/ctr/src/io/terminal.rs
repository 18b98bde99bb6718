//! This program's terminal, while a process's terminal is behind it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::termios::{OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use types::{Error, Result};

/// A terminal in raw mode; dropping it restores how it was.
pub struct Console {
    file: OwnedFd,
    before: Termios,
}

impl Console {
    /// Puts the terminal of stderr, stdout or stdin into raw mode.
    pub fn raw() -> Result<Self> {
        let (input, output, errors) =
            (rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr());
        let found = [errors, output, input].into_iter().find(|file| isatty(file));
        let found = found.ok_or_else(|| Error::invalid("provided file is not a console"))?;
        let failed =
            |errno: rustix::io::Errno| Error::from(std::io::Error::from(errno)).context("set terminal");
        let file = rustix::io::fcntl_dupfd_cloexec(found, 0).map_err(failed)?;
        let before = tcgetattr(&file).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        // As upstream: what this program itself prints keeps its carriage returns.
        raw.output_modes |= OutputModes::OPOST;
        tcsetattr(&file, OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self { file, before })
    }

    /// Another descriptor of the terminal.
    pub fn file(&self) -> Result<OwnedFd> {
        rustix::io::fcntl_dupfd_cloexec(&self.file, 0).map_err(|errno| std::io::Error::from(errno).into())
    }

    /// Columns and rows.
    pub fn size(&self) -> Option<(u32, u32)> {
        let size = tcgetwinsize(self.file.as_fd()).ok()?;
        Some((size.ws_col.into(), size.ws_row.into()))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        tcsetattr(&self.file, OptionalActions::Now, &self.before).ok();
    }
}
