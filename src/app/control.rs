//! What the control interface sees of a running proxy.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, Method};
use serde_json::{Value, json};

use super::{Core, rfc3339};
use crate::{
    console::{record::Console, redact::Redactor},
    control::{
        ControlState,
        replay::{self, Entrance},
        tokens::{Desk, pending_json},
    },
    metrics::Format,
    proxy::prepare::typed,
    rules::Lookup,
    secret::Secret,
};

/// Time for a replayed exchange to be recorded once its answer is there.
const SETTLE: Duration = Duration::from_secs(2);

impl ControlState for Core {
    fn status(&self) -> Value {
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
            "token_store": json!({ "kind": self.first.tokens.store.name(), "trouble": self.desk.tokens.trouble() }),
            "reload_error": reload.failure.map(|failure| self.redactor.mask_text(&failure.message).into_owned()),
            "connections": self.proxy.tasks.len(),
            "logins": self.desk.logins.open().iter().map(|pending| pending_json(pending)).collect::<Vec<_>>(),
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

    fn metrics(&self, format: Format) -> String {
        format.render(self.families())
    }

    fn metrics_token(&self) -> BoxFuture<'_, Option<Secret>> {
        Box::pin(async {
            let text = self.first.console.metrics_token.as_ref()?;
            let token = self.loader.context()?.sources.read(text).await;
            token.inspect_err(|error| tracing::warn!(%error, "`console.metrics_token` cannot be read")).ok()
        })
    }

    fn is_stale(&self) -> bool {
        self.reloader.store().status().failure.is_some()
    }

    fn console(&self) -> &Console {
        &self.proxy.console
    }

    fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    fn rules(&self) -> Value {
        json!({
            "rules": self.proxy.snapshot().rules.to_json(),
            "files": self.config().files,
            "generation": self.reloader.store().status().generation,
            "reload_error": self.reloader.store().status().failure.map(|failure| self.redactor.mask_text(&failure.message).into_owned()),
        })
    }

    fn explain(&self, detail: &Value) -> Value {
        let url = detail["url"].as_str().and_then(|url| typed(url).ok());
        let method = detail["method"].as_str().and_then(|method| method.parse::<Method>().ok());
        let (Some((url, target)), Some(method)) = (url, method) else { return Value::Null };
        let mut headers = HeaderMap::new();
        for field in detail["request"]["headers"].as_array().into_iter().flatten() {
            let text = |at: usize| field.get(at).and_then(Value::as_str).unwrap_or_default();
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(text(0).as_bytes()), text(1).parse()) {
                headers.append(name, value);
            }
        }
        let lookup = Lookup {
            target: &target,
            method: &method,
            path_and_query: url.path_and_query().map_or("/", |path| path.as_str()),
            headers: &headers,
            client: detail["client"]["name"].as_str(),
        };
        let explanation = self.proxy.snapshot().rules.explain(&lookup);
        serde_json::to_value(&explanation).unwrap_or_default()
    }

    fn replay(&self, detail: Value, edits: Value) -> BoxFuture<'_, Result<Value, String>> {
        let entrance = Entrance {
            proxy: self.base.proxy_address,
            login: self.base.login.clone(),
            authority: self.base.own_ca.clone(),
        };
        Box::pin(async move {
            let done = replay::replay(&entrance, &detail, &edits).await?;
            let (console, from) = (self.proxy.console.clone(), done.from.to_string());
            let find = move || {
                let store = console.store()?;
                store.settle(SETTLE);
                store.newest_of(&from)
            };
            let id = tokio::task::spawn_blocking(find).await.ok().flatten();
            Ok(replay::answer(id, &done))
        })
    }

    fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire) && !self.proxy.closing.is_cancelled()
    }

    fn reload(&self) -> BoxFuture<'_, Result<String, String>> {
        let reloader = Arc::clone(&self.reloader);
        Box::pin(async move {
            let status =
                tokio::task::spawn_blocking(move || reloader.reload()).await.map_err(|error| error.to_string())?;
            match status.failure {
                Some(failure) => Err(self.redactor.mask_text(&failure.message).into_owned()),
                None => Ok(format!("generation {} is in force", status.generation)),
            }
        })
    }

    fn tokens(&self) -> &Desk {
        &self.desk
    }

    fn stop(&self) {
        self.stopping.cancel();
    }
}
