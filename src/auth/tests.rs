//! What tests of schemes share.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{
    BuildContext,
    fetch::{Fetch, FetchError, FetchOptions},
    sources::Sources,
};
use crate::{clock::Clock, tokens::MemoryStore};

/// Reaches nobody, but runs detached work.
pub(crate) struct NoNetwork;

impl Fetch for NoNetwork {
    fn fetch(
        &self,
        _: http::Request<Bytes>,
        _: FetchOptions,
    ) -> BoxFuture<'static, Result<http::Response<Bytes>, FetchError>> {
        Box::pin(async { Err(FetchError::Connect("no network in this test".into())) })
    }

    fn detach(&self, work: BoxFuture<'static, ()>) {
        tokio::spawn(work);
    }
}

/// A context without a network, whose files are looked at on every use.
pub(crate) fn context() -> BuildContext {
    context_with(Arc::new(NoNetwork), Clock::system())
}

/// The same over a fake network and a clock.
pub(crate) fn context_with(fetch: Arc<dyn Fetch>, clock: Clock) -> BuildContext {
    BuildContext {
        clock,
        fetch,
        sources: Arc::new(Sources::new(Duration::from_secs(300), Arc::new(|_| {})).with_eager_files()),
        tokens: Arc::new(MemoryStore::default()),
    }
}
