//! How schemes reach the network: requests to token endpoints go through the same upstream stack as everything else
//! (parent proxy, extra roots, limits) and show up in the console.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::scheme::Binding;

/// Sends requests on behalf of schemes. Implemented over the upstream stack, and by fakes in tests.
pub trait Fetch: Send + Sync + 'static {
    /// Sends one request with an absolute URI and reads the whole answer. Follows no redirect.
    fn fetch(
        &self,
        request: http::Request<Bytes>,
        options: FetchOptions,
    ) -> BoxFuture<'static, Result<http::Response<Bytes>, FetchError>>;

    /// The same for a metadata service of this machine: never through a parent proxy, and at
    /// [`METADATA_ADDRESSES`] whatever `deny_addresses` says. The URL must not come from a client or a configuration.
    fn fetch_metadata(
        &self,
        request: http::Request<Bytes>,
        options: FetchOptions,
    ) -> BoxFuture<'static, Result<http::Response<Bytes>, FetchError>> {
        self.fetch(request, options)
    }

    /// Runs a future to its end whatever becomes of the caller, under the caller's recording.
    fn detach(&self, work: BoxFuture<'static, ()>);

    /// The same for work that would be lost if the program stopped in the middle of it: a stop waits for it.
    fn carry_out(&self, work: BoxFuture<'static, ()>) {
        self.detach(work);
    }
}

/// Where cloud platforms give credentials to what runs on them, over plain HTTP: instance metadata of EC2, then the
/// endpoints of containers in ECS and EKS.
pub const METADATA_ADDRESSES: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

/// Limits and identity of one fetch.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// The credential on whose behalf this is, for the console.
    pub credential: Arc<str>,
    /// Time for the whole exchange.
    pub timeout: Duration,
    /// Bytes of body accepted.
    pub max_body_bytes: usize,
    /// Client certificate for this connection.
    pub binding: Option<Arc<Binding>>,
}

/// Why a fetch failed. Holds no header, body or query of the request.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection: DNS, TCP, parent proxy, or TLS verification.
    #[error("could not connect: {0}")]
    Connect(String),
    /// No complete answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The answer is longer than allowed.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(usize),
    /// The connection broke or the answer was not HTTP.
    #[error("the exchange failed: {0}")]
    Protocol(String),
}
