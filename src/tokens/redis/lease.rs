//! The lease: held while one process reads, refreshes and saves, prolonged while it lives, given back when dropped.
//!
//! Tasks of one process queue here, and one of them at a time queues in Redis. Who waits is woken by what the holder
//! publishes, and looks by itself now and then. A lease that ran out was never given back: whoever takes it over waits a
//! little first, so that a holder that is only late can still store what it got.

use std::{
    fmt,
    pin::pin,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{OwnedMutexGuard, broadcast},
    task::JoinHandle,
};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{
    RedisStore,
    link::{BUDGET, Link},
    records::{self, Asked, Names},
};
use crate::tokens::{StoreError, StoreLock, key::hex};

/// A lease of this process.
struct Lease {
    store: RedisStore,
    names: Names,
    token: String,
    fence: u64,
    renewal: JoinHandle<()>,
    /// The place in the queue of this process, and the mark that the lease is still there.
    kept: Option<(OwnedMutexGuard<()>, TaskTrackerToken)>,
}

impl RedisStore {
    pub(super) async fn lease(&self, key: &str) -> Result<StoreLock, StoreError> {
        let names = self.names(key);
        let started = Instant::now();
        let queue =
            self.0.locks.lock().unwrap_or_else(PoisonError::into_inner).entry(names.hash.clone()).or_default().clone();
        let turn = self.turn(queue, key, started).await?;
        self.0.link.survey(&names.record).await?;
        let mut news = self.0.link.news();
        let token = random()?;
        let (fence, clean, generation) = loop {
            match self.ask(&names, &token).await? {
                Asked::Got { fence, clean, generation } => break (fence, clean, generation),
                Asked::Busy(_) if started.elapsed() > WAIT => return Err(StoreError::Locked(key.to_owned())),
                Asked::Busy(left) => hear(&mut news, &names.hash, POLL.min(Duration::from_millis(left.max(1)))).await,
            }
        };
        let renewal = tokio::spawn(renew(self.clone(), names.clone(), token.clone(), fence));
        let kept = Some((turn, self.0.leases.token()));
        let lease = Lease { store: self.clone(), names, token, fence, renewal, kept };
        if !clean {
            self.be_patient(&lease.names, generation, &mut news).await?;
        }
        Ok(StoreLock::new(fence, lease))
    }

    /// Waits for the other tasks of this process; not for long if what they wait for is Redis itself.
    async fn turn(
        &self,
        queue: Arc<tokio::sync::Mutex<()>>,
        key: &str,
        started: Instant,
    ) -> Result<OwnedMutexGuard<()>, StoreError> {
        let mut turn = pin!(queue.lock_owned());
        loop {
            if let Ok(turn) = tokio::time::timeout(POLL, &mut turn).await {
                return Ok(turn);
            }
            match self.0.link.trouble() {
                Some(trouble) if started.elapsed() > BUDGET => return Err(StoreError::Down(trouble)),
                _ if started.elapsed() > WAIT => return Err(StoreError::Locked(key.to_owned())),
                _ => {}
            }
        }
    }

    async fn ask(&self, names: &Names, token: &str) -> Result<Asked, StoreError> {
        let given = Arc::new((names.clone(), token.to_owned()));
        let ask = move |connection| -> futures_util::future::BoxFuture<'static, ::redis::RedisResult<Asked>> {
            let given = given.clone();
            Box::pin(async move { records::acquire(connection, &given.0, &given.1, millis(LIFE)).await })
        };
        self.0.link.run(BUDGET, ask).await
    }

    /// The last holder did not give its lease back: what it may still store comes first.
    async fn be_patient(
        &self,
        names: &Names,
        generation: u64,
        news: &mut broadcast::Receiver<String>,
    ) -> Result<(), StoreError> {
        tracing::info!("the last holder of a lease in Redis did not give it back; waiting for what it may still store");
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if self.current(names).await?.is_some_and(|record| record.generation != generation) {
                break;
            }
            hear(news, &names.hash, POLL).await;
        }
        Ok(())
    }
}

impl Link {
    async fn give_back(&self, names: &Names, token: &str, fence: u64) -> Result<(), StoreError> {
        let given = Arc::new((names.clone(), token.to_owned(), records::channel(self.prefix())));
        let give = move |connection| -> futures_util::future::BoxFuture<'static, ::redis::RedisResult<()>> {
            let given = given.clone();
            Box::pin(async move { records::release(connection, &given.0, &given.1, fence, &given.2).await })
        };
        self.run(Duration::ZERO, give).await
    }
}

/// Prolongs the lease until it is dropped or lost.
async fn renew(store: RedisStore, names: Names, token: String, fence: u64) {
    let given = Arc::new((names, token));
    loop {
        tokio::time::sleep(LIFE / 4).await;
        let given = given.clone();
        let extend = move |connection| -> futures_util::future::BoxFuture<'static, ::redis::RedisResult<bool>> {
            let given = given.clone();
            Box::pin(async move { records::extend(connection, &given.0, &given.1, fence, millis(LIFE)).await })
        };
        match store.0.link.run(Duration::ZERO, extend).await {
            Ok(true) | Err(_) => {}
            Ok(false) => return tracing::warn!("a lease in Redis ran out while it was held"),
        }
    }
}

/// Waits for news of an entry, but not longer than `most`.
async fn hear(news: &mut broadcast::Receiver<String>, hash: &str, most: Duration) {
    let heard = async {
        loop {
            match news.recv().await {
                Ok(told) if told != hash => {}
                // What was missed may have been ours.
                _ => return,
            }
        }
    };
    let _ = tokio::time::timeout(most, heard).await;
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (store, names, token) = (self.store.clone(), self.names.clone(), std::mem::take(&mut self.token));
        let (fence, kept) = (self.fence, self.kept.take());
        runtime.spawn(async move {
            if let Err(error) = store.0.link.give_back(&names, &token, fence).await {
                tracing::debug!(%error, "a lease in Redis was not given back; it ends by itself");
            }
            drop(kept);
        });
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("fence", &self.fence).finish_non_exhaustive()
    }
}

fn random() -> Result<String, StoreError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| StoreError::Unavailable("no randomness".into()))?;
    Ok(hex(&bytes))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How long a lease lasts after its holder was last heard of.
const LIFE: Duration = Duration::from_secs(10);
/// A refresh in another process may take as long as a slow token endpoint.
const WAIT: Duration = Duration::from_secs(30);
/// Who waits looks this often, news or not.
const POLL: Duration = Duration::from_millis(250);
/// What a holder whose lease ran out is still waited for: the time that it may need to connect again, and to notice.
const PATIENCE: Duration = Duration::from_secs(4);
