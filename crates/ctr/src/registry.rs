//! How ctr reaches registries: what the flags say about the way there, and who it says that it is.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use registry::{Ask, Credential, Credentials, DockerConfig, Note, Scheme, Settings, Trace};
use rustix::termios::{LocalModes, OptionalActions, isatty, tcgetattr, tcsetattr};
use types::reference::Reference;
use types::{Error, Result, ResultExt};

use crate::cli::Globals;
use crate::commands::{print, refused};
use crate::flags::RegistryFlags;
use crate::{go, log};

/// A registry that ctr speaks with itself, as the flags say.
pub fn client(globals: &Globals, flags: &RegistryFlags) -> Result<registry::Registry> {
    let credentials = Arc::new(Known::of(flags)?);
    registry::Registry::new(settings(globals, flags)?, credentials)
}

/// A reference on the command line.
pub fn reference(text: &str) -> Result<Reference> {
    Reference::parse(text).context(|| format!("failed to resolve reference {}", go::quote(text)))
}

/// The way to registries.
pub fn settings(globals: &Globals, flags: &RegistryFlags) -> Result<Settings> {
    let path = |path: &str| (!path.is_empty()).then(|| PathBuf::from(path));
    let trace = flags.http_dump || flags.http_trace;
    let client = match (path(&flags.tlscert), path(&flags.tlskey)) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        _ => return refused("flags --tlscert and --tlskey must be set together"),
    };
    let ca = path(&flags.tlscacert);
    for file in ca.iter().chain(client.iter().flat_map(|(certificate, key)| [certificate, key])) {
        let shown = go::quote(&file.to_string_lossy());
        std::fs::metadata(file)
            .map_err(|error| go::path_error("open", file, error))
            .context(|| format!("failed to read {shown}"))?;
    }
    Ok(Settings {
        config_path: flags.hosts_dir.split(':').filter_map(path).collect(),
        default_scheme: flags.plain_http.then_some(Scheme::Http),
        skip_verify: flags.skip_verify,
        ca,
        client,
        trace: trace.then(|| {
            let connections = flags.http_trace && globals.debug;
            Arc::new(Lines { dump: flags.http_dump, connections }) as Arc<dyn Trace>
        }),
        ..Settings::default()
    })
}

/// HTTP as lines of the log.
struct Lines {
    dump: bool,
    connections: bool,
}

impl Trace for Lines {
    fn note(&self, kind: Note, text: &str) {
        match kind {
            Note::Dump if self.dump => text.lines().for_each(log::info),
            Note::Connection if self.connections => text.lines().for_each(|line| log::debug(line, &[])),
            Note::Dump | Note::Connection => {}
        }
    }
}

/// What ctr knows of credentials: what the command line says, or else what docker has been told (`docker login`).
pub enum Known {
    /// The same for all hosts.
    Told(Credential),
    /// Looked up by host.
    Docker(DockerConfig),
}

impl Known {
    /// By the flags; asks for a password that is missing.
    pub fn of(flags: &RegistryFlags) -> Result<Self> {
        // As upstream: what begins with a colon is a name.
        let (user, secret) = match flags.user.split_once(':') {
            Some((user, secret)) if !user.is_empty() => (user, secret),
            _ => (flags.user.as_str(), ""),
        };
        if !user.is_empty() {
            let secret = if secret.is_empty() { ask_password()? } else { secret.to_owned() };
            return Ok(Self::Told(Credential::Basic { user: user.to_owned(), secret }));
        }
        if !flags.refresh.is_empty() {
            return Ok(Self::Told(Credential::RefreshToken(flags.refresh.clone())));
        }
        let read = DockerConfig::default_path()
            .map_or_else(|| Ok(DockerConfig::default()), |path| DockerConfig::read(&path));
        Ok(Self::Docker(read.unwrap_or_else(|error| {
            log::warn("docker's credentials are not used", Some(&error));
            DockerConfig::default()
        })))
    }

    /// What to tell a host; `None` for nothing.
    pub async fn answer(&self, host: &str) -> Result<Option<Credential>> {
        self.credentials(&Ask { host, reference: "", challenge: "", refused: 0 }).await
    }
}

#[async_trait]
impl Credentials for Known {
    async fn credentials(&self, ask: &Ask<'_>) -> Result<Option<Credential>> {
        match self {
            // There is no better answer than the one that was refused.
            Self::Told(_) if ask.refused > 0 => Ok(None),
            Self::Told(credential) => Ok(Some(credential.clone())),
            Self::Docker(config) => config.credentials(ask).await,
        }
    }
}

/// Asks on the terminal, and does not show what is typed.
fn ask_password() -> Result<String> {
    print("Password: ")?;
    let secret = {
        let _silent = Silent::begin()?;
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).context(|| "failed to read line")?;
        line.trim_end_matches(['\n', '\r']).to_owned()
    };
    print("\n")?;
    if secret.is_empty() { Err(Error::invalid("failed to read line: EOF")) } else { Ok(secret) }
}

/// The terminal, while it does not show what is typed; what is no terminal never does.
struct Silent(Option<rustix::termios::Termios>);

impl Silent {
    fn begin() -> Result<Self> {
        let stdin = std::io::stdin();
        if !isatty(&stdin) {
            return Ok(Self(None));
        }
        let before = tcgetattr(&stdin).map_err(std::io::Error::from).context(|| "failed to disable echo")?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &silent)
            .map_err(std::io::Error::from)
            .context(|| "failed to disable echo")?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // The terminal has gone, if it does not work.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(user: &str, refresh: &str) -> RegistryFlags {
        RegistryFlags { user: user.into(), refresh: refresh.into(), ..RegistryFlags::default() }
    }

    #[tokio::test]
    async fn the_command_line_says_who_we_are_to_every_host() {
        let answer =
            async |user, refresh| Known::of(&flags(user, refresh)).unwrap().answer("h").await.unwrap();
        let basic = Credential::Basic { user: "u".into(), secret: "p:q".into() };
        assert_eq!(answer("u:p:q", "t").await, Some(basic));
        assert_eq!(answer("", "t").await, Some(Credential::RefreshToken("t".into())));
    }

    #[test]
    fn files_about_tls_must_be_there_and_a_certificate_has_its_key() {
        let globals = || {
            use clap::Parser;
            #[derive(Parser)]
            struct Line {
                #[command(flatten)]
                globals: Globals,
            }
            Line::parse_from(["ctr"]).globals
        };
        let settings = |flags: RegistryFlags| settings(&globals(), &flags);
        let half = RegistryFlags { tlscert: "/x".into(), ..RegistryFlags::default() };
        assert_eq!(
            settings(half).err().unwrap().to_string(),
            "flags --tlscert and --tlskey must be set together"
        );
        let missing = RegistryFlags { tlscacert: "/no/such".into(), ..RegistryFlags::default() };
        let error = settings(missing).err().unwrap().to_string();
        assert_eq!(error, "failed to read \"/no/such\": open /no/such: no such file or directory");
        let dirs = RegistryFlags { hosts_dir: "/a:/b".into(), plain_http: true, ..RegistryFlags::default() };
        let settings = settings(dirs).unwrap();
        assert_eq!(settings.config_path, [PathBuf::from("/a"), "/b".into()]);
        assert_eq!(settings.default_scheme, Some(Scheme::Http));
    }
}
