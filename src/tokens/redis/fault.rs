//! Why Redis did not do what it was asked for, and what to do about it.

use ::redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::tokens::StoreError;

/// A failure of one attempt. Its text holds no secret.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    text: String,
    /// Worth another attempt in a moment.
    pub(super) brief: bool,
    /// The connection is of no more use.
    pub(super) reconnect: bool,
    /// It ends without anybody changing our configuration.
    passing: bool,
    /// User and password were refused.
    pub(super) unknown_user: bool,
}

impl Fault {
    /// Something that a person has to change.
    pub(super) fn lasting(text: impl Into<String>) -> Self {
        Self { text: text.into(), brief: false, reconnect: true, passing: false, unknown_user: false }
    }

    /// No answer in time.
    pub(super) fn timeout() -> Self {
        let text = "it did not answer in time: it is paused, overloaded, or the network is cut".into();
        Self { text, brief: true, reconnect: true, passing: true, unknown_user: false }
    }

    /// As an error of the store at `place`.
    pub(super) fn at(&self, place: &str) -> StoreError {
        let text = format!("Redis at {place}: {}", self.text);
        if self.passing { StoreError::Down(text) } else { StoreError::Unavailable(text) }
    }
}

impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Self {
        let detail = error.detail().unwrap_or_default().to_owned();
        let server = |what: &str| format!("{what} ({})", detail.trim());
        let fault =
            |text: String, brief, reconnect, passing| Self { text, brief, reconnect, passing, unknown_user: false };
        match (error.kind(), error.code().unwrap_or_default()) {
            (ErrorKind::Server(ServerErrorKind::BusyLoading), _) => {
                fault("it is still loading its data; it answers when it is done".into(), true, false, true)
            }
            (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => fault(
                "it is a replica that takes no writes; name the primary, or let Sentinels name it (`redis+sentinel://`)".into(),
                true,
                true,
                true,
            ),
            (
                ErrorKind::Server(ServerErrorKind::MasterDown | ServerErrorKind::ClusterDown | ServerErrorKind::TryAgain),
                _,
            ) => fault(server("the primary is out of reach or being replaced"), true, false, true),
            (ErrorKind::MasterNameNotFoundBySentinel, _) => {
                fault("the Sentinels know no working primary of this name".into(), true, true, true)
            }
            (ErrorKind::ClusterConnectionNotFound, _) => {
                fault("no node of the cluster answers".into(), true, true, true)
            }
            // A script is told in other words than a command.
            (ErrorKind::Server(kind), _)
                if kind == ServerErrorKind::NoPerm
                    || detail.contains("ACL failure")
                    || detail.contains("can't run this command") =>
            {
                fault(
                    server("the user of the URL may not do this; docs/tokens.md says what its ACL has to allow"),
                    false,
                    false,
                    false,
                )
            }
            (_, "NOAUTH" | "WRONGPASS") | (ErrorKind::AuthenticationFailed, _) => Self {
                unknown_user: true,
                ..Self::lasting("it refuses the user and password of `tokens.store.redis.url`, or wants some")
            },
            (_, "OOM") => fault(
                "it is full: `maxmemory` is reached and nothing may be evicted. Raise `maxmemory` or remove other data".into(),
                false,
                false,
                true,
            ),
            (_, "MISCONF") => fault(
                server("it cannot write its data to disk; see whether the disk of the server is full"),
                false,
                false,
                true,
            ),
            (_, "NOREPLICAS") => fault(
                "it has fewer replicas than `min-replicas-to-write` asks for; bring them back".into(),
                true,
                false,
                true,
            ),
            (ErrorKind::RESP3NotSupported, _) => Self::lasting("it is too old: version 6 or newer is needed"),
            (ErrorKind::InvalidClientConfig, _) => Self::lasting(format!("the connection cannot be set up: {error}")),
            (ErrorKind::Io | ErrorKind::Parse, _) if error.is_timeout() => Self::timeout(),
            (ErrorKind::Io | ErrorKind::Parse, _) => fault(format!("no connection: {error}"), true, true, true),
            _ => fault(format!("it refused: {error}"), false, false, true),
        }
    }
}
