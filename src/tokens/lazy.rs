//! The stores of a data folder, opened when first used: a start must not wait for a keyring that nobody needs.

use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;

use super::{
    StoreError, StoreLock, Stored, TokenStore,
    file::{SecretFile, TokenFile},
    key::KeySources,
};
use crate::{auth::sources::SecretStore, paths::DataDir, secret::Secret};

/// `secrets.enc` and `tokens.enc` of a data folder.
#[derive(Debug)]
pub struct LazyStores {
    dir: DataDir,
    keys: KeySources,
    secrets: OnceLock<SecretFile>,
    tokens: OnceLock<Arc<TokenFile>>,
}

impl LazyStores {
    /// The stores of `dir`, whose key is found by `keys` when it is needed.
    pub fn new(dir: DataDir, keys: KeySources) -> Self {
        Self { dir, keys, secrets: OnceLock::new(), tokens: OnceLock::new() }
    }

    fn secrets(&self) -> Result<&SecretFile, String> {
        if let Some(open) = self.secrets.get() {
            return Ok(open);
        }
        let opened = SecretFile::open(&self.dir, &self.keys).map_err(|error| error.to_string())?;
        Ok(self.secrets.get_or_init(|| opened))
    }

    async fn tokens(&self) -> Result<Arc<TokenFile>, StoreError> {
        if let Some(open) = self.tokens.get() {
            return Ok(Arc::clone(open));
        }
        let (dir, keys) = (self.dir.clone(), self.keys.clone());
        let opened = tokio::task::spawn_blocking(move || TokenFile::open(&dir, &keys))
            .await
            .map_err(|_| StoreError::Unavailable("the token store's task broke off".into()))?
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Arc::clone(self.tokens.get_or_init(|| Arc::new(opened))))
    }
}

impl SecretStore for LazyStores {
    fn get(&self, name: &str) -> Result<Option<Secret>, String> {
        self.secrets()?.get(name).map_err(|error| error.to_string())
    }
}

impl TokenStore for LazyStores {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StoreError>> {
        Box::pin(async move { self.tokens().await?.load(key).await })
    }

    fn save<'a>(
        &'a self,
        key: &'a str,
        stored: &'a Stored,
        replaces: u64,
        fence: u64,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move { self.tokens().await?.save(key, stored, replaces, fence).await })
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<StoreLock, StoreError>> {
        Box::pin(async move { self.tokens().await?.lock(key).await })
    }

    fn settle(&self) -> BoxFuture<'_, ()> {
        match self.tokens.get() {
            Some(open) => open.settle(),
            None => Box::pin(async {}),
        }
    }
}
