//! The way to origins: dialling, TLS, parent proxies, and a pool of connections.
//!
//! A [`Link`] is a leased connection. Links are shared only between requests that agree on everything that may not be
//! shared: target, hop chain, TLS policy and identity.

pub mod body;
pub mod dial;
pub mod fetch;
pub mod pool;
pub mod tap;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use body::SendBody;
use http::{Request, Response, Version};
use hyper::body::Incoming;

use crate::{
    auth::scheme::{Binding, Hop, LinkState},
    target::Target,
    tls::client::TlsPolicy,
};

/// What a connection must be.
#[derive(Clone, Copy, Debug)]
pub struct Want<'a> {
    /// Where to.
    pub target: &'a Target,
    /// Identity of the connection, if it carries one.
    pub binding: Option<&'a Arc<Binding>>,
    /// Whom to trust.
    pub tls: &'a TlsPolicy,
    /// Upgrades and some schemes exist on HTTP/1.1 only.
    pub http1_only: bool,
    /// A rule names the address, so `deny_addresses` does not hold.
    pub named: bool,
    /// Do not take a pooled connection (a resend after a stale one).
    pub fresh: bool,
}

/// What is known of a connection, for the console.
#[derive(Clone, Debug)]
pub struct LinkInfo {
    /// Whom we are connected to (the parent proxy, if there is one).
    pub peer: Option<SocketAddr>,
    /// HTTP/1.1 or HTTP/2.
    pub version: Version,
    /// `TLS 1.3`, cipher suite, and the issuer of the certificate.
    pub tls: Option<TlsInfo>,
    /// The parent proxy as `host:port`.
    pub via: Option<String>,
    /// Time for name resolution; zero on a reused connection.
    pub dns: Duration,
    /// Time for TCP and the parent proxy's CONNECT.
    pub connect: Duration,
    /// Time for the TLS handshake.
    pub tls_time: Duration,
    /// When it was opened.
    pub opened: Instant,
}

/// TLS as negotiated with an upstream.
#[derive(Clone, Debug)]
pub struct TlsInfo {
    /// `TLS 1.3`
    pub version: String,
    /// Name of the cipher suite.
    pub suite: String,
    /// Issuer of the leaf: organisation or common name.
    pub issuer: String,
    /// Subject of the leaf.
    pub subject: String,
}

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    /// DNS or TCP.
    #[error("could not connect to {target}: {why}")]
    Connect {
        /// Whom.
        target: String,
        /// What the operating system said.
        why: String,
    },
    /// TLS handshake or verification.
    #[error("TLS with {target} failed: {why}")]
    Tls {
        /// Whom.
        target: String,
        /// What rustls said.
        why: String,
    },
    /// `connect_timeout` has passed.
    #[error("no connection to {target} within {after:?}")]
    Timeout {
        /// Whom.
        target: String,
        /// How long.
        after: Duration,
    },
    /// Every address of the target is in `deny_addresses`, or one of several is.
    #[error("{target} leads to {address}, which `proxy.deny_addresses` holds")]
    Denied {
        /// Whom.
        target: String,
        /// The refused address.
        address: String,
    },
    /// The address is one of our own listeners.
    #[error("{target} is this proxy itself")]
    Loop {
        /// Whom.
        target: String,
    },
    /// The parent proxy refused our credentials or has none for us.
    #[error("the parent proxy {proxy} refused: {why}")]
    ParentRefused {
        /// Whom.
        proxy: String,
        /// Status and reason.
        why: String,
    },
    /// A credential for the parent proxy could not be had.
    #[error(transparent)]
    Auth(#[from] crate::auth::AuthError),
}

/// A leased connection.
#[derive(Debug)]
pub struct Link {}

/// Why a send failed, and the request itself if no byte of it was written.
#[derive(Debug)]
pub struct SendError {
    /// What went wrong.
    pub error: hyper::Error,
    /// The request, if it can be sent again as it is.
    pub unsent: Option<Box<Request<SendBody>>>,
}

impl Link {
    /// What is known of the connection.
    pub fn info(&self) -> &LinkInfo {
        todo!()
    }

    /// True if an earlier exchange used it.
    pub fn is_reused(&self) -> bool {
        todo!()
    }

    /// Whom requests on it address: a parent proxy wants absolute form and its own credentials.
    pub fn hop(&self) -> Hop {
        todo!()
    }

    /// Whether an earlier request on it was accepted under its binding.
    pub fn state(&self) -> LinkState {
        todo!()
    }

    /// Sends one request and waits for the head of its answer.
    pub async fn send(&mut self, _request: Request<SendBody>) -> Result<Response<Incoming>, SendError> {
        todo!()
    }
}
