//! Docker's `config.json`: passwords, identity tokens and credential helpers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use types::{Class, Error, Result, ResultExt};

use super::credentials::{Ask, Credential, Credentials};
use crate::failure::clean;
use crate::repository::DOCKER_HUB;

/// Credentials as `docker login` left them. Helpers are programs named `docker-credential-<name>` in PATH.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DockerConfig {
    auths: BTreeMap<String, Entry>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// Never shows a secret.
impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entry(…)")
    }
}

/// What docker calls its own registry.
const HUB: &str = "https://index.docker.io/v1/";

/// How long a helper may take, and how much it may say.
const HELPER_TIME: Duration = Duration::from_secs(60);
const HELPER_MOST: u64 = 1 << 20;

impl DockerConfig {
    /// Where docker looks: `$DOCKER_CONFIG/config.json`, or `.docker/config.json` in the home directory.
    pub fn default_path() -> Option<PathBuf> {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let directory = set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")))?;
        Some(directory.join("config.json"))
    }

    /// Reads `path`; a file that is not there knows nobody. Blocks.
    pub fn read(path: &Path) -> Result<Self> {
        match std::fs::read(path) {
            Ok(text) => Self::parse(&text).context(|| format!("read {}", path.display())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e).context(|| format!("read {}", path.display())),
        }
    }

    /// The configuration in `text`.
    pub fn parse(text: &[u8]) -> Result<Self> {
        // The error's text could repeat a secret: only where it is may be told.
        serde_json::from_slice(text)
            .map_err(|e| Error::invalid(format!("not docker's configuration: line {}", e.line())))
    }

    /// What stands in the file itself about `host`.
    fn entry(&self, host: &str) -> Result<Option<Credential>> {
        let names = names(host);
        let found = self.auths.iter().find(|(key, _)| names.iter().any(|name| bare(key) == bare(name)));
        let Some((key, entry)) = found else { return Ok(None) };
        entry.credential().context(|| format!("docker's credentials for {}", clean(key, 256)))
    }

    /// The helper for `host` and the name by which it knows it.
    fn helper(&self, host: &str) -> Option<(&str, String)> {
        let names = names(host);
        let own = names.iter().find_map(|name| Some((self.cred_helpers.get(name)?.as_str(), name.clone())));
        let hub = is_hub(host);
        let store = (!self.creds_store.is_empty()).then_some(self.creds_store.as_str());
        own.or_else(|| Some((store?, if hub { HUB.to_owned() } else { host.to_owned() })))
    }
}

fn is_hub(host: &str) -> bool {
    [DOCKER_HUB, "docker.io", "index.docker.io"].contains(&host)
}

/// By what names the file may know `host`, the likeliest first.
fn names(host: &str) -> Vec<String> {
    if is_hub(host) {
        return [HUB, "index.docker.io", "docker.io", DOCKER_HUB].map(str::to_owned).to_vec();
    }
    vec![host.to_owned(), format!("https://{host}"), format!("http://{host}")]
}

/// A key of the file without scheme and path.
fn bare(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    key.split('/').next().unwrap_or_default()
}

impl Entry {
    fn credential(&self) -> Result<Option<Credential>> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credential::RefreshToken(self.identitytoken.clone())));
        }
        if !self.registrytoken.is_empty() {
            return Ok(Some(Credential::Header(format!("Bearer {}", self.registrytoken))));
        }
        let (user, secret) = if self.auth.is_empty() {
            (self.username.clone(), self.password.clone())
        } else {
            decode(&self.auth)?
        };
        Ok((!user.is_empty()).then_some(Credential::Basic { user, secret }))
    }
}

fn decode(auth: &str) -> Result<(String, String)> {
    let bad = || Error::invalid("auth is not base64 of user:password");
    let bytes = STANDARD.decode(auth.trim()).map_err(|_| bad())?;
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    let (user, secret) = text.split_once(':').ok_or_else(bad)?;
    Ok((user.to_owned(), secret.trim_end_matches('\0').to_owned()))
}

#[async_trait]
impl Credentials for DockerConfig {
    /// A helper's word counts more than the file's, as docker has it. What was refused is not said twice.
    async fn credentials(&self, ask: &Ask<'_>) -> Result<Option<Credential>> {
        if ask.refused > 0 {
            return Ok(None);
        }
        if let Some((helper, name)) = self.helper(ask.host)
            && let Some(found) = run(helper, &name).await?
        {
            return Ok(Some(found));
        }
        self.entry(ask.host)
    }
}

/// What the helper `name` says about `server`.
async fn run(name: &str, server: &str) -> Result<Option<Credential>> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(Error::invalid(format!("invalid name of a credential helper {:?}", clean(name, 64))));
    }
    let program = format!("docker-credential-{name}");
    let doing = || format!("run {program}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context(doing)?;
    let talking = async {
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that does not read its question answers no question.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
        let mut said = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(HELPER_MOST).read_to_end(&mut said).await?;
        }
        Ok::<_, std::io::Error>((child.wait().await?, said))
    };
    let late = || Error::deadline(format!("{program} did not answer within {HELPER_TIME:?}"));
    let (status, said) =
        tokio::time::timeout(HELPER_TIME, talking).await.map_err(|_| late())?.context(doing)?;
    if !status.success() {
        // The protocol has these words for somebody unknown, and no other sign.
        let unknown = String::from_utf8_lossy(&said).contains("credentials not found");
        return if unknown {
            Ok(None)
        } else {
            Err(Error::new(Class::Unauthenticated, format!("{program}: {status}")))
        };
    }
    answer(&said).context(doing)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Said {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

fn answer(said: &[u8]) -> Result<Option<Credential>> {
    let said: Said = serde_json::from_slice(said).map_err(|_| Error::invalid("its answer is not JSON"))?;
    Ok(match said {
        Said { secret, .. } if secret.is_empty() => None,
        // Helpers mark a token by this name.
        Said { username, secret } if username == "<token>" => Some(Credential::RefreshToken(secret)),
        Said { username: user, secret } => Some(Credential::Basic { user, secret }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> DockerConfig {
        DockerConfig::parse(text.as_bytes()).unwrap()
    }

    fn basic(user: &str, secret: &str) -> Credential {
        Credential::Basic { user: user.into(), secret: secret.into() }
    }

    #[test]
    fn docker_hub_is_known_by_its_old_name() {
        let config = config(r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOjE="}}}"#);
        assert_eq!(config.entry("registry-1.docker.io").unwrap(), Some(basic("u", "p:1")));
        assert_eq!(config.entry("r.example").unwrap(), None);
    }

    #[test]
    fn tokens_count_more_than_passwords() {
        let config = config(
            r#"{"auths":{"https://r.example/v2/":{"auth":"dTpw","identitytoken":"t"},
            "s.example:5000":{"username":"u","password":"p"},"t.example":{"registrytoken":"x"}}}"#,
        );
        assert_eq!(config.entry("r.example").unwrap(), Some(Credential::RefreshToken("t".into())));
        assert_eq!(config.entry("s.example:5000").unwrap(), Some(basic("u", "p")));
        assert_eq!(config.entry("s.example").unwrap(), None, "the port belongs to the name");
        assert_eq!(config.entry("t.example").unwrap(), Some(Credential::Header("Bearer x".into())));
    }

    #[test]
    fn a_host_has_its_own_helper_before_the_store() {
        let config = config(r#"{"credsStore":"all","credHelpers":{"r.example":"own"}}"#);
        assert_eq!(config.helper("r.example"), Some(("own", "r.example".into())));
        assert_eq!(config.helper("s.example"), Some(("all", "s.example".into())));
        assert_eq!(config.helper("registry-1.docker.io"), Some(("all", HUB.into())));
    }

    #[tokio::test]
    async fn a_helper_is_a_name_and_no_path() {
        for bad in ["", "../x", "a/b", "a b"] {
            assert!(run(bad, "r.example").await.is_err(), "{bad}");
        }
    }

    #[test]
    fn a_helpers_answer_may_be_a_token() {
        let said = answer(br#"{"ServerURL":"x","Username":"<token>","Secret":"t"}"#).unwrap();
        assert_eq!(said, Some(Credential::RefreshToken("t".into())));
        assert_eq!(answer(br#"{"Username":"u","Secret":""}"#).unwrap(), None);
        assert!(answer(b"no").is_err());
    }

    #[test]
    fn an_error_does_not_repeat_a_secret() {
        let error = DockerConfig::parse(br#"{"auths":{"h":{"auth":["c2VjcmV0"]}}}"#).unwrap_err().to_string();
        assert!(!error.contains("c2VjcmV0"), "{error}");
    }
}
