//! `ctr run --pull`: the image is fetched before the container is made.

use std::io::IsTerminal;

use types::{Error, Result, ResultExt};

use super::flags::{Source, Wanted};
use crate::client::Client;
use crate::commands::images::pull;
use crate::flags::Words;
use crate::transfer::Show;

/// When the image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// If there is none of that name.
    Missing,
    /// In any case.
    Always,
    /// Never, as by upstream.
    Never,
}

impl Policy {
    /// By its word on the command line.
    pub fn of(word: &str) -> Result<Self> {
        match word {
            "missing" => Ok(Self::Missing),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            other => Err(Error::invalid(format!("--pull must be missing, always or never, not {other:?}"))),
        }
    }
}

/// Pulls the image of the container, if it is time to. How it goes is shown where somebody sees it: what is no terminal gets
/// what the container prints, and nothing else.
pub async fn before(client: &Client, policy: Policy, wanted: &Wanted) -> Result<()> {
    let Source::Image(name) = &wanted.source else { return Ok(()) };
    let needed = match policy {
        Policy::Always => true,
        Policy::Never => false,
        Policy::Missing => match client.image(name).await {
            Ok(_) => false,
            Err(error) if error.is_not_found() => true,
            Err(error) => return Err(error),
        },
    };
    if !needed {
        return Ok(());
    }
    let flags = pull::Flags {
        snapshotter: wanted.flags.snapshotter.clone(),
        platform: Some(wanted.run.platform.clone()).filter(|text| !text.is_empty()).into_iter().collect(),
        words: Words { words: vec![name.clone()] },
        ..pull::Flags::default()
    };
    let show = if std::io::stdout().is_terminal() { Show::Progress } else { Show::Nothing };
    pull::by_transfer(client, &flags, show).await.context(|| format!("pull {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_known_by_dockers_words() {
        assert_eq!(Policy::of("missing").unwrap(), Policy::Missing);
        assert_eq!(Policy::of("always").unwrap(), Policy::Always);
        assert_eq!(Policy::of("never").unwrap(), Policy::Never);
        assert_eq!(
            Policy::of("sometimes").unwrap_err().to_string(),
            "--pull must be missing, always or never, not \"sometimes\""
        );
    }
}
