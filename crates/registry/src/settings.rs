//! What one pull or push may decide about its way to registries.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// As it stands in an URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Which registries' files, what TLS, what headers. The default is upstream's without any flag.
#[derive(Clone, Default)]
pub struct Settings {
    /// Directories with a directory for each registry host (`hosts.toml` or docker's certificates); the first that
    /// knows the host, or has `_default`, counts.
    pub config_path: Vec<PathBuf>,
    /// The scheme where no file names one. Without it: `https`, and for localhost whatever answers. `--plain-http` is
    /// [`Scheme::Http`].
    pub default_scheme: Option<Scheme>,
    /// Any certificate will do, where no file says otherwise.
    pub skip_verify: bool,
    /// A file with the only authorities to believe in, instead of the system's.
    pub ca: Option<PathBuf>,
    /// Files with the client's certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Sent with each request to a registry, but to nobody whom it redirects to.
    pub headers: HeaderMap,
    /// The `User-Agent`; without one `containerd/<version>`.
    pub user_agent: Option<String>,
    /// Who wants to see requests and answers.
    pub trace: Option<Arc<dyn Trace>>,
    /// How long and how often.
    pub limits: Limits,
}

/// Kinds of notes for a [`Trace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A request or an answer, as on the wire but for bodies and secrets (`--http-dump`).
    Dump,
    /// What happens with connections (`--http-trace`).
    Connection,
}

/// Who looks at the HTTP of a pull. Called from the task that works, so it must not block.
pub trait Trace: Send + Sync {
    /// Takes note of `text`, which ends with a line feed. Secrets are blotted out.
    fn note(&self, kind: Note, text: &str);
}

/// Bounds on what a registry can make us do.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long resolving the name, connecting and the TLS handshake may take.
    pub connect: Duration,
    /// How long an answer's head may take.
    pub headers: Duration,
    /// How long a body may bring nothing, counted only while somebody waits for it.
    pub idle: Duration,
    /// How often a request is sent to a host, and a broken body taken up again without progress.
    pub attempts: u32,
    /// The first wait between two attempts; it doubles.
    pub first_wait: Duration,
    /// The longest single wait, whatever `Retry-After` says.
    pub longest_wait: Duration,
    /// The most redirects of one request.
    pub redirects: usize,
    /// The most bytes of a manifest or an index.
    pub manifest: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            headers: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            attempts: 5,
            first_wait: Duration::from_millis(200),
            longest_wait: Duration::from_secs(15),
            redirects: 10,
            manifest: 8 << 20,
        }
    }
}

impl Limits {
    /// How long to wait before attempt `number` (the first retry is 1): exponential, with jitter so that a
    /// thousand nodes do not come back at once.
    pub(crate) fn wait(&self, number: u32, retry_after: Option<Duration>) -> Duration {
        let grown = self.first_wait.saturating_mul(1 << number.saturating_sub(1).min(16));
        let wait = grown.mul_f64(rand::random_range(0.5..1.0));
        retry_after.map_or(wait, |asked| asked.max(wait)).min(self.longest_wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_bounded_whatever_the_server_asks_for() {
        let limits = Limits::default();
        assert!(limits.wait(1, None) <= limits.first_wait);
        assert!(limits.wait(3, None) > limits.first_wait);
        assert_eq!(limits.wait(40, None), limits.longest_wait);
        assert_eq!(limits.wait(1, Some(Duration::from_secs(3600))), limits.longest_wait);
        assert!(limits.wait(1, Some(Duration::from_secs(2))) >= Duration::from_secs(2));
    }
}
