//! What other processes may ask of a running proxy.

use std::sync::{Arc, atomic::Ordering};

use futures_util::future::BoxFuture;
use serde_json::json;

use super::{Core, rfc3339};
use crate::control::ControlState;

impl ControlState for Core {
    fn status(&self) -> serde_json::Value {
        let snapshot = self.proxy.snapshot();
        let config = self.config();
        let reload = self.reloader.store().status();
        let counts = self.proxy.console.counts();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "started": rfc3339(self.begun),
            "proxy": self.base.proxy_address.to_string(),
            "console": self.base.console_address.to_string(),
            "files": config.files,
            "environment": config.environment,
            "rules": snapshot.rules.rules_count(),
            "hosts": snapshot.rules.hosts_count(),
            "generation": reload.generation,
            "in_force_since": rfc3339(reload.since),
            "reload_error": reload.failure.map(|failure| failure.message),
            "connections": self.proxy.tasks.len(),
            "idle_upstream_connections": self.proxy.upstream.idle_connections(),
            "exchanges": {
                "total": counts.exchanges,
                "answered": counts.answered,
                "refused": counts.refused,
                "broken": counts.broken,
                "tunnels": counts.tunnels,
                "token_requests": counts.token_requests,
                "not_shown": counts.not_shown,
            },
        })
    }

    fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire)
    }

    fn reload(&self) -> BoxFuture<'_, Result<String, String>> {
        let reloader = Arc::clone(&self.reloader);
        Box::pin(async move {
            let status =
                tokio::task::spawn_blocking(move || reloader.reload()).await.map_err(|error| error.to_string())?;
            match status.failure {
                Some(failure) => Err(failure.message),
                None => Ok(format!("generation {} is in force", status.generation)),
            }
        })
    }

    fn stop(&self) {
        self.stopping.cancel();
    }
}
