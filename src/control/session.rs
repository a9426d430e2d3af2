//! Who may use the page: a one-time address becomes a cookie.
//!
//! The token of the run file never goes into a browser. `countersign open` asks with it for an address that works once;
//! whoever opens that gets a cookie that scripts cannot read and that no other site's page can send along.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, header};

use super::run_file;
use crate::secret::Secret;

/// The sessions of the page.
#[derive(Debug, Default)]
pub struct Sessions {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    once: VecDeque<(Secret, Instant)>,
    open: VecDeque<(Secret, Instant)>,
}

/// How long an unused address stays good.
const ONCE_LIFE: Duration = Duration::from_secs(10 * 60);
/// How long a cookie stays good.
const SESSION_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Of each kind; the oldest go first.
const MAX_HELD: usize = 32;
/// Cookies do not keep ports apart, so the name does.
fn cookie_name(port: u16) -> String {
    format!("countersign-{port}")
}

impl Sessions {
    /// A new one-time word.
    ///
    /// # Errors
    /// The operating system has no randomness.
    pub fn invite(&self) -> std::io::Result<Secret> {
        let word = run_file::random_secret()?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        push(&mut state.once, word.clone(), ONCE_LIFE);
        Ok(word)
    }

    /// Trades a one-time word for a `Set-Cookie` value; `None` if it is wrong, used or old.
    pub fn trade(&self, word: &str, port: u16) -> Option<HeaderValue> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let word = Secret::new(word);
        let now = Instant::now();
        let at = state.once.iter().position(|(known, since)| *known == word && now - *since <= ONCE_LIFE)?;
        state.once.remove(at);
        let session = run_file::random_secret().ok()?;
        let age = SESSION_LIFE.as_secs();
        let cookie =
            format!("{}={}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict", cookie_name(port), session.expose());
        push(&mut state.open, session, SESSION_LIFE);
        HeaderValue::from_str(&cookie).ok()
    }

    /// True if the request brings the cookie of a session.
    pub fn knows(&self, headers: &HeaderMap, port: u16) -> bool {
        let name = cookie_name(port);
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let mut given = cookies
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(known, _)| *known == name)
            .map(|(_, value)| Secret::new(value));
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        given.any(|given| state.open.iter().any(|(known, since)| *known == given && now - *since <= SESSION_LIFE))
    }
}

fn push(held: &mut VecDeque<(Secret, Instant)>, word: Secret, life: Duration) {
    let now = Instant::now();
    held.retain(|(_, since)| now - *since <= life);
    if held.len() >= MAX_HELD {
        held.pop_front();
    }
    held.push_back((word, now));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_opens_one_session() {
        let sessions = Sessions::default();
        let word = sessions.invite().unwrap();
        assert!(sessions.trade("guess", 81).is_none());
        let cookie = sessions.trade(word.expose(), 81).unwrap();
        assert!(sessions.trade(word.expose(), 81).is_none(), "it worked once already");
        let text = cookie.to_str().unwrap();
        assert!(text.contains("HttpOnly") && text.contains("SameSite=Strict"), "{text}");
        let mut headers = HeaderMap::new();
        assert!(!sessions.knows(&headers, 81));
        let pair = text.split(';').next().unwrap();
        headers.insert(header::COOKIE, format!("other=1; {pair}").parse().unwrap());
        assert!(sessions.knows(&headers, 81));
        assert!(!sessions.knows(&headers, 82));
        headers.insert(header::COOKIE, format!("{}=x", cookie_name(81)).parse().unwrap());
        assert!(!sessions.knows(&headers, 81));
    }
}
