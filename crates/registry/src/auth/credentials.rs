//! Who a registry is told that we are.

use std::fmt;

use async_trait::async_trait;
use types::Result;

/// What a registry wants to know and why.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The host that asked: `registry-1.docker.io`, or a mirror's name. Never one that we were redirected to.
    pub host: &'a str,
    /// The reference that is pulled or pushed.
    pub reference: &'a str,
    /// The `WWW-Authenticate` header that it asked with.
    pub challenge: &'a str,
    /// How many answers it has refused already.
    pub refused: u32,
}

/// An answer.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name and its password.
    Basic {
        /// The name.
        user: String,
        /// The password.
        secret: String,
    },
    /// A long-lived token, for which short ones are given out.
    RefreshToken(String),
    /// The whole value of the `Authorization` header.
    Header(String),
}

/// Never shows the secret.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { user, .. } => write!(f, "Basic({user:?}, …)"),
            Self::RefreshToken(_) => f.write_str("RefreshToken(…)"),
            Self::Header(_) => f.write_str("Header(…)"),
        }
    }
}

/// Knows credentials. Asked once for each host that wants some, and again if the host refuses the answer.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// The answer to `ask`; none means to go on as nobody.
    async fn credentials(&self, ask: &Ask<'_>) -> Result<Option<Credential>>;
}

/// Knows none.
pub struct Anonymous;

#[async_trait]
impl Credentials for Anonymous {
    async fn credentials(&self, _ask: &Ask<'_>) -> Result<Option<Credential>> {
        Ok(None)
    }
}

/// The same for each host that the files name for the reference.
pub struct Fixed(pub Credential);

#[async_trait]
impl Credentials for Fixed {
    async fn credentials(&self, _ask: &Ask<'_>) -> Result<Option<Credential>> {
        Ok(Some(self.0.clone()))
    }
}
