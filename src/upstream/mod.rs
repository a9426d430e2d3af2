//! The way to origins: dialling, TLS, parent proxies, and a pool of connections.
//!
//! A [`Link`] is a leased connection. Links are shared only between requests that agree on everything that may not be
//! shared: target, hop chain, TLS policy and identity.

pub mod address;
pub mod body;
mod counts;
mod dial;
mod driver;
mod fetch;
mod link;
mod names;
mod parent;
mod pins;
mod pool;
mod settings;
pub mod tap;

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
pub use counts::PoolCounts;
pub use dial::{is_refusal, refusal};
pub use fetch::describe;
use http::Version;
pub use link::{Answered, Link, SendError};
pub use parent::{came_from_us, pseudonym};
pub use pins::Pins;
pub use settings::{ParentProxy, UpstreamSettings};
use tap::Stream;
use tokio_util::task::TaskTracker;

use self::{pool::Pool, settings::Settings};
use crate::{auth::scheme::Binding, clock::Clock, target::Target, tls::client::TlsPolicy};

/// The way to origins: settings, and connections in use and idle. Cheap to clone.
#[derive(Clone)]
pub struct Upstream(Arc<Shared>);

/// What all clones of an [`Upstream`] share.
struct Shared {
    settings: ArcSwap<Settings>,
    pool: Pool,
    clock: Clock,
    /// What a stop waits for.
    work: TaskTracker,
    /// In place of the network.
    #[cfg(feature = "fuzzing")]
    dial: std::sync::OnceLock<fuzzing::Dial>,
}

/// What the fuzzer calls.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    use tokio::io::DuplexStream;

    use super::{Target, Upstream};

    /// Opens a connection to a target in memory; `true` for a tunnel.
    pub type Dial = Box<dyn Fn(&Target, bool) -> DuplexStream + Send + Sync>;

    /// Has all connections from now on opened by `dial`.
    pub fn dial(upstream: &Upstream, dial: Dial) {
        let _ = upstream.0.dial.set(dial);
    }
}

impl Upstream {
    /// With settings that can be replaced later; connects to nobody and reads no file yet.
    pub fn new(settings: UpstreamSettings, clock: Clock) -> Self {
        let settings = ArcSwap::from_pointee(Settings::first(settings));
        Self(Arc::new(Shared {
            settings,
            pool: Pool::default(),
            clock,
            work: TaskTracker::new(),
            #[cfg(feature = "fuzzing")]
            dial: Default::default(),
        }))
    }

    /// Puts other settings in force. Idle connections that the new ones might not allow are closed; running exchanges
    /// end as they began.
    pub fn set(&self, settings: UpstreamSettings) {
        let old = self.0.settings.load_full();
        let new = old.next(settings);
        let changed = new.epoch != old.epoch;
        self.0.settings.store(Arc::new(new));
        if changed {
            self.0.pool.clear();
        }
    }

    /// Leases a pooled connection, if there is one that can take a request at once. `now` may be a little ago: it tells
    /// which connections have been idle for too long.
    pub fn pooled(&self, want: &Want<'_>, now: Instant) -> Result<Option<Link>, LinkError> {
        pool::take(&self.0, self.0.settings.load_full(), want, now)
    }

    /// Leases a connection: a pooled one if it fits, else a new one.
    pub async fn link(&self, want: Want<'_>) -> Result<Link, LinkError> {
        let settings = self.0.settings.load_full();
        pool::lease(&self.0, &settings, &want).await
    }

    /// The same without a parent proxy. Connections are shared only among those leased here.
    async fn direct_link(&self, want: Want<'_>) -> Result<Link, LinkError> {
        let settings = Arc::new(self.0.settings.load().direct());
        pool::lease(&self.0, &settings, &want).await
    }

    /// Opens a connection for bytes of any kind: TCP, or a tunnel through the parent proxy. `want.tls` and
    /// `want.binding` play no part; nothing is pooled.
    pub async fn tunnel(&self, want: Want<'_>) -> Result<Tunnel, LinkError> {
        let settings = self.0.settings.load_full();
        let opened = dial::open_tunnel(&self.0, &settings, &want).await?;
        let info = link::describe(&opened.facts, Version::HTTP_11, Instant::now());
        Ok(Tunnel { io: opened.io, info })
    }

    /// Connections that are open and idle, for `status` and tests.
    pub fn idle_connections(&self) -> usize {
        self.0.pool.idle_count()
    }

    /// What has become of connections so far, for `/metrics`.
    pub fn pool_counts(&self) -> PoolCounts {
        self.0.pool.counts.read(self.idle_connections())
    }

    /// True if requests to the target go through the parent proxy.
    pub fn has_parent_for(&self, target: &Target) -> bool {
        self.0.settings.load().parent_for(target).is_some()
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("idle", &self.idle_connections()).finish_non_exhaustive()
    }
}

/// A way for bytes of any kind.
#[derive(Debug)]
pub struct Tunnel {
    /// [`Stream::Tcp`] where the kernel may copy by itself.
    pub io: Stream,
    /// What is known of the connection.
    pub info: LinkInfo,
}

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
    /// HTTP/1.1 if the target speaks it, because the client does: what leaves is then what came, letter case and all.
    pub prefer_http1: bool,
    /// A rule names the address, so `deny_addresses` does not hold.
    pub named: bool,
    /// The proxy client that asks, if clients are named. An identity that was proved on a connection serves one of them.
    pub client: Option<&'a str>,
    /// Do not take a pooled connection (a resend after a stale one).
    pub fresh: bool,
}

impl Want<'_> {
    fn must_be_http1(&self) -> bool {
        self.http1_only || self.binding.is_some_and(|binding| binding.http1_only)
    }
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

#[cfg(test)]
mod tests;
