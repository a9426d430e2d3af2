//! Logins that a person completes: in a browser that comes back to this machine, by pasting the address where it ended,
//! or by typing a code elsewhere.
//!
//! A scheme that can log in implements [`Interactive`]; everything else is here and knows no scheme: the listener for
//! the browser's return, one pending login per credential however many requests wait for it, and who hears of it.
//! `countersign login` and the first request that needs a login use the same path.

mod browser;
mod listener;
mod pending;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use url::Url;

pub use self::{
    browser::open as open_browser,
    pending::{Logins, Pending},
};
use super::scheme::AuthError;
use crate::secret::Secret;

/// A credential that a person can log in.
pub trait Interactive: Send + Sync + 'static {
    /// Its name in the configuration.
    fn credential(&self) -> &str;

    /// How the person's answer comes back.
    fn comes_back(&self) -> BoxFuture<'_, Result<Return, AuthError>>;

    /// Begins a login: makes what the person has to see.
    fn begin<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Begun, AuthError>>;

    /// True if there are tokens now: another process may have logged in.
    fn is_logged_in<'a>(&'a self, client: Option<&'a Arc<str>>) -> BoxFuture<'a, bool>;

    /// How long a request waits for a login.
    fn wait(&self) -> Duration;

    /// How long a login that was begun can be completed.
    fn timeout(&self) -> Duration;

    /// Whether the proxy opens a browser by itself.
    fn opens_browser(&self) -> bool {
        false
    }
}

/// How a person's answer comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Return {
    /// To a listener of ours at this address; without a port any free one is taken.
    Loopback {
        /// `127.0.0.1`, `[::1]` or `localhost`, as it is to stand in the address.
        host: String,
        /// A fixed port.
        port: Option<u16>,
        /// Path, from `/`.
        path: String,
    },
    /// To an address that is not ours: the person pastes it.
    Elsewhere(String),
    /// Not at all: the scheme asks the server whether it is done.
    Polled,
}

impl Return {
    /// Reads a redirect URI. Without one, or with one that names no port, a free port of this machine is used (RFC 8252
    /// section 7.3).
    pub fn of(uri: Option<&str>) -> Result<Self, String> {
        let Some(text) = uri else {
            return Ok(Self::Loopback { host: "127.0.0.1".into(), port: None, path: "/callback".into() });
        };
        let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
        let host = url.host_str().unwrap_or_default();
        let ours = ["127.0.0.1", "localhost", "[::1]"].contains(&host) && url.scheme() == "http";
        if !ours || url.query().is_some() {
            return Ok(Self::Elsewhere(text.to_owned()));
        }
        Ok(Self::Loopback {
            host: host.to_owned(),
            port: url.port().filter(|port| *port != 0),
            path: url.path().into(),
        })
    }
}

/// What a login is asked for.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// The client of the proxy whose tokens these will be, where each has its own.
    pub client: Option<Arc<str>>,
    /// Where the browser is to come back to.
    pub redirect_uri: Option<String>,
    /// What a resource demands of the login.
    pub step_up: Option<StepUp>,
}

/// What a resource demands of a login (RFC 9470).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepUp {
    /// `acr_values`
    pub acr_values: Option<String>,
    /// `max_age` in seconds.
    pub max_age: Option<u64>,
}

/// A login that has begun.
pub struct Begun {
    /// What the person has to see.
    pub prompt: Prompt,
    /// What brings it to its end.
    pub rest: Rest,
}

/// What the person has to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// An address to visit.
    Visit {
        /// The address.
        url: String,
    },
    /// An address to visit, and a code to type there.
    Code {
        /// The address.
        url: String,
        /// The code.
        code: String,
        /// An address with the code in it, if the server has one.
        complete: Option<String>,
    },
}

impl Prompt {
    /// The address for a browser.
    pub fn url(&self) -> &str {
        match self {
            Self::Visit { url } | Self::Code { complete: Some(url), .. } | Self::Code { url, .. } => url,
        }
    }
}

/// What brings a login to its end.
pub enum Rest {
    /// The parameters with which the browser comes back.
    Answer(Box<dyn Answer>),
    /// This future, which asks the server until it is done.
    Done(BoxFuture<'static, Result<(), AuthError>>),
}

/// Judges the parameters with which a browser comes back, and does the rest.
pub trait Answer: Send + Sync {
    /// True if they come in the fragment, which only a script can read.
    fn in_fragment(&self) -> bool {
        false
    }

    /// True if they answer this login (`state`), in constant time. Anything else is a stranger's and changes nothing.
    fn is_ours(&self, params: &Params) -> bool;

    /// Checks the parameters, gets the tokens and keeps them.
    fn finish(self: Box<Self>, params: Params) -> BoxFuture<'static, Result<(), AuthError>>;
}

/// Parameters of an address, decoded.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, Secret)>);

impl Params {
    /// Reads a query or a fragment, without `?` or `#`. One name given twice makes it unusable: `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let pairs: Vec<_> = url::form_urlencoded::parse(text.as_bytes())
            .take(MAX_PARAMS)
            .map(|(name, value)| (name.into_owned(), Secret::new(value.into_owned())))
            .collect();
        let twice = pairs.iter().enumerate().any(|(at, (name, _))| pairs[..at].iter().any(|(other, _)| other == name));
        (!twice).then_some(Self(pairs))
    }

    /// Reads the address where a browser ended, as it is pasted. Also a query alone.
    pub fn pasted(text: &str) -> Option<Self> {
        let text = text.trim();
        let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
        let query = before.split_once('?').map(|(_, query)| query);
        match (query, fragment) {
            // Some servers append an empty fragment of their own (`#_=_`).
            (None, fragment) if fragment.contains('=') => Self::parse(fragment),
            (Some(_), fragment) if fragment.contains("state=") => Self::parse(fragment),
            (Some(query), _) => Self::parse(query),
            (None, _) if before.contains('=') && !before.contains('/') => Self::parse(before),
            _ => None,
        }
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The value of a parameter that is no secret.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).map(Secret::expose)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

const MAX_PARAMS: usize = 64;

#[cfg(test)]
mod tests;
