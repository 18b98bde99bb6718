//! What was asked for by CRI calls and not fetched yet: by a token, once, within a minute.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::cri::{AttachRequest, ExecRequest, PortForwardRequest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use types::{Class, Error, Result};

/// How long a token is good.
pub const LIFETIME: Duration = Duration::from_secs(60);
/// How many there may be.
const MOST: usize = 1000;

/// What a token stands for.
#[derive(Clone, Debug)]
pub enum Asked {
    /// Exec.
    Exec(ExecRequest),
    /// Attach.
    Attach(AttachRequest),
    /// PortForward.
    PortForward(PortForwardRequest),
}

#[derive(Debug, Default)]
struct Known {
    asked: HashMap<String, (Instant, Asked)>,
    /// From the oldest on. Some are fetched already.
    order: VecDeque<(Instant, String)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Tokens(Mutex<Known>);

impl Tokens {
    /// Keeps `asked` and returns its token: 8 characters that a URL can have.
    pub fn insert(&self, asked: Asked) -> Result<String> {
        self.insert_at(asked, Instant::now())
    }

    fn insert_at(&self, asked: Asked, now: Instant) -> Result<String> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((since, _)) = known.order.front()
            && (now.duration_since(*since) > LIFETIME || known.order.len() > 4 * MOST)
        {
            if let Some((_, token)) = known.order.pop_front() {
                known.asked.remove(&token);
            }
        }
        if known.asked.len() >= MOST {
            let message = "maximum number of in-flight requests exceeded";
            return Err(Error::new(Class::ResourceExhausted, message));
        }
        let token = loop {
            let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 6]>());
            if !known.asked.contains_key(&token) {
                break token;
            }
        };
        known.order.push_back((now, token.clone()));
        known.asked.insert(token.clone(), (now, asked));
        Ok(token)
    }

    /// What `token` stands for, if it is not fetched yet, nor too old.
    pub fn fetch(&self, token: &str) -> Option<Asked> {
        self.fetch_at(token, Instant::now())
    }

    fn fetch_at(&self, token: &str, now: Instant) -> Option<Asked> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, asked) = known.asked.remove(token)?;
        (now.duration_since(since) <= LIFETIME).then_some(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(container: &str) -> Asked {
        Asked::Exec(ExecRequest { container_id: container.to_owned(), ..Default::default() })
    }

    #[test]
    fn a_token_is_good_once() {
        let tokens = Tokens::default();
        let token = tokens.insert(exec("c")).unwrap();
        assert_eq!(token.len(), 8);
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        assert!(tokens.fetch("other").is_none());
        assert!(matches!(tokens.fetch(&token), Some(Asked::Exec(exec)) if exec.container_id == "c"));
        assert!(tokens.fetch(&token).is_none());
    }

    #[test]
    fn a_token_is_good_for_a_minute() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let (early, late) =
            (tokens.insert_at(exec("a"), now).unwrap(), tokens.insert_at(exec("b"), now).unwrap());
        assert!(tokens.fetch_at(&early, now + LIFETIME).is_some());
        assert!(tokens.fetch_at(&late, now + LIFETIME + Duration::from_millis(1)).is_none());
    }

    #[test]
    fn there_are_a_thousand_at_most() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let first = tokens.insert_at(exec("first"), now).unwrap();
        for _ in 1..MOST {
            tokens.insert_at(exec("c"), now).unwrap();
        }
        let refused = tokens.insert_at(exec("c"), now).unwrap_err();
        assert_eq!(refused.class(), Class::ResourceExhausted);
        assert!(tokens.fetch_at(&first, now).is_some());
        tokens.insert_at(exec("c"), now).unwrap();
        tokens.insert_at(exec("c"), now + 2 * LIFETIME).unwrap();
        assert_eq!(tokens.0.lock().unwrap().asked.len(), 1);
    }

    #[test]
    fn fetched_tokens_leave_nothing() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        for _ in 0..10 * MOST {
            let token = tokens.insert_at(exec("c"), now).unwrap();
            tokens.fetch_at(&token, now).unwrap();
        }
        assert!(tokens.0.lock().unwrap().order.len() <= 4 * MOST + 1);
    }
}
