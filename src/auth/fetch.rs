//! How schemes reach the network: requests to token endpoints go through the same upstream stack as everything else
//! (parent proxy, extra roots, limits) and show up in the console.

use std::{sync::Arc, time::Duration};

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

    /// Runs a future to its end whatever becomes of the caller, under the caller's recording.
    fn detach(&self, work: BoxFuture<'static, ()>);
}

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
