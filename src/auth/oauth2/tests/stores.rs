//! Stores that fail: what is spent, what is used, and what is kept when they work again.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;

use super::*;
use crate::tokens::{MemoryStore, StoreError, StoreLock, Stored, TokenStore};

/// A store that fails to save from the n-th time on, until it is mended.
#[derive(Debug)]
struct Faulty {
    inner: MemoryStore,
    saves: AtomicUsize,
    good: AtomicUsize,
    /// What was saved last, or was to be.
    key: Mutex<String>,
}

impl Faulty {
    fn after(good: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::default(),
            saves: AtomicUsize::new(0),
            good: AtomicUsize::new(good),
            key: Mutex::default(),
        })
    }

    fn mend(&self) {
        self.good.store(usize::MAX, Ordering::SeqCst);
    }

    fn tries(&self) -> usize {
        self.saves.load(Ordering::SeqCst)
    }
}

impl TokenStore for Faulty {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StoreError>> {
        self.inner.load(key)
    }

    fn save<'a>(
        &'a self,
        key: &'a str,
        stored: &'a Stored,
        replaces: u64,
        fence: u64,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        key.clone_into(&mut self.key.lock().unwrap());
        if self.saves.fetch_add(1, Ordering::SeqCst) >= self.good.load(Ordering::SeqCst) {
            return Box::pin(async { Err(StoreError::Unavailable("cannot write tokens.enc: no space".into())) });
        }
        self.inner.save(key, stored, replaces, fence)
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<StoreLock, StoreError>> {
        self.inner.lock(key)
    }
}

/// A server that rotates: `R0` gives `AT0` and `R1`, and nothing is taken twice.
fn rotating() -> Arc<Endpoint> {
    Endpoint::new(|n, body| match body.contains(&format!("refresh_token=R{n}&")) {
        true => json(200, &format!(r#"{{"access_token":"AT{n}","refresh_token":"R{}","expires_in":100}}"#, n + 1)),
        false => json(400, r#"{"error":"invalid_grant"}"#),
    })
}

fn setup(store: &Arc<Faulty>, endpoint: Arc<Endpoint>) -> Setup {
    let mut setup = Setup::new(endpoint);
    setup.context.tokens = store.clone();
    setup
}

/// What is told of tokens that only this process has.
fn unstored(scheme: &Arc<dyn AuthScheme>) -> Option<String> {
    scheme.holder().unwrap().unstored(None)
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come");
}

/// Waits until a fetch that failed for the first time may be tried again.
async fn ready_again(scheme: &dyn AuthScheme, setup: &Setup) {
    for _ in 0..200 {
        match ready(scheme, &setup.context).await {
            Ok(()) => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("it never got ready");
}

#[tokio::test]
async fn a_refresh_token_is_not_spent_where_its_successor_could_not_be_kept() {
    let store = Faulty::after(0);
    let setup = setup(&store, rotating());
    let scheme = setup.build(seeded());
    let error = ready(&*scheme, &setup.context).await.unwrap_err();
    assert!(error.message.contains("no space"), "{error}");
    assert_eq!((setup.hits(), error.kind, error.retry_after), (0, AuthErrorKind::TokenStore, error.retry_after));
    store.mend();
    ready_again(&*scheme, &setup).await;
    assert_eq!(authorization(&*scheme, &setup.context), "Bearer AT0");
}

#[tokio::test]
async fn the_token_at_hand_is_used_while_the_store_is_broken_and_renewed_when_it_is_mended() {
    let store = Faulty::after(2);
    let setup = setup(&store, rotating());
    let scheme = setup.build(seeded());
    ready(&*scheme, &setup.context).await.unwrap();
    // It is due but good: a renewal is begun, and fails for the store.
    setup.clock.advance(95);
    ready(&*scheme, &setup.context).await.unwrap();
    until("the renewal", || store.tries() == 3).await;
    for _ in 0..3 {
        ready(&*scheme, &setup.context).await.unwrap();
        assert_eq!(authorization(&*scheme, &setup.context), "Bearer AT0");
    }
    assert_eq!((setup.hits(), store.tries()), (1, 3));
    store.mend();
    setup.clock.advance(6);
    ready_again(&*scheme, &setup).await;
    assert_eq!((authorization(&*scheme, &setup.context).as_str(), setup.hits()), ("Bearer AT1", 2));
}

#[tokio::test]
async fn what_could_not_be_stored_is_used_and_stored_later() {
    // The intent goes through, what came of it does not.
    let store = Faulty::after(1);
    let setup = setup(&store, rotating());
    let scheme = setup.build(seeded());
    ready(&*scheme, &setup.context).await.unwrap();
    assert_eq!(authorization(&*scheme, &setup.context), "Bearer AT0");
    assert!(unstored(&scheme).is_some_and(|why| why.contains("no space")));
    until("a second try", || store.tries() >= 3).await;
    let key = store.key.lock().unwrap().clone();
    let locking = tokio::time::timeout(Duration::from_millis(100), store.lock(&key)).await;
    assert!(locking.is_err(), "nobody else may spend what is spent");
    store.mend();
    let tries = store.tries();
    until("the try that succeeds", || store.tries() > tries).await;
    until("the news of it", || unstored(&scheme).is_none()).await;
    // A process that comes now finds all of it, and goes on from there.
    let again = setup.build(seeded());
    ready(&*again, &setup.context).await.unwrap();
    assert_eq!((authorization(&*again, &setup.context).as_str(), setup.hits()), ("Bearer AT0", 1));
    setup.clock.advance(101);
    ready(&*again, &setup.context).await.unwrap();
    assert_eq!((authorization(&*again, &setup.context).as_str(), setup.hits()), ("Bearer AT1", 2));
}

#[tokio::test]
async fn grants_that_can_begin_anew_need_no_store() {
    let store = Faulty::after(0);
    let setup = setup(
        &store,
        Endpoint::new(|n, _| {
            json(200, &format!(r#"{{"access_token":"AT{n}","refresh_token":"R{n}","expires_in":100}}"#))
        }),
    );
    let scheme = setup.build(robot());
    for n in 0..2 {
        ready(&*scheme, &setup.context).await.unwrap();
        assert_eq!(authorization(&*scheme, &setup.context), format!("Bearer AT{n}"));
        assert_eq!(unstored(&scheme), None, "nothing is lost");
        setup.clock.advance(101);
    }
}

#[tokio::test]
async fn a_new_refresh_token_is_kept_whatever_comes_with_it() {
    let store = Faulty::after(usize::MAX);
    let endpoint = Endpoint::new(|n, body| {
        assert!(body.contains(&format!("refresh_token=R{n}&")), "{body}");
        let kind = if n == 0 { "mac" } else { "bearer" };
        json(200, &format!(r#"{{"access_token":"AT{n}","refresh_token":"R{}","token_type":"{kind}"}}"#, n + 1))
    });
    let setup = setup(&store, endpoint);
    let scheme = setup.build(seeded());
    let error = ready(&*scheme, &setup.context).await.unwrap_err();
    assert!(error.message.contains("`mac`"), "{error}");
    ready_again(&*scheme, &setup).await;
    assert_eq!(authorization(&*scheme, &setup.context), "Bearer AT1");
}
