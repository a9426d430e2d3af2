//! A proxy that runs, for whoever started it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::Core;
use crate::{
    config::Config,
    console::record::Console,
    control::run_file::{Login, RunFile},
    rules::RuleSet,
};

/// A proxy that runs.
#[derive(Debug)]
pub struct Running {
    pub(super) core: Arc<Core>,
    pub(super) run_file: Option<RunFile>,
}

impl Running {
    /// Where the proxy listens.
    pub fn proxy_address(&self) -> SocketAddr {
        self.core.base.proxy_address
    }

    /// Where the console and the control interface listen.
    pub fn console_address(&self) -> SocketAddr {
        self.core.base.console_address
    }

    /// The process of another proxy that runs with this data folder; until this one ends, commands mean this one.
    pub fn beside(&self) -> Option<u32> {
        self.run_file.as_ref()?.beside
    }

    /// The login for proxy URLs.
    pub fn login(&self) -> &Login {
        &self.core.base.login
    }

    /// Our certificate in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.core.ca_pem
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.core.config()
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<RuleSet> {
        Arc::clone(&self.core.proxy.snapshot().rules)
    }

    /// Environment variables that hold secrets: children must not see them.
    pub fn secret_variables(&self) -> Vec<String> {
        self.core.loader.secret_variables()
    }

    /// Where exchanges are shown.
    pub fn console(&self) -> &Console {
        &self.core.proxy.console
    }

    /// Resolves when the control interface has asked to stop.
    pub async fn asked_to_stop(&self) {
        self.core.stopping.cancelled().await;
    }

    /// Reads the configuration again; the console says what came of it.
    pub async fn reload(&self) {
        let reloader = Arc::clone(&self.core.reloader);
        let _ = tokio::task::spawn_blocking(move || reloader.reload()).await;
    }

    /// Takes no new request, lets running ones finish for at most `proxy.grace`, and returns whether all did. So do
    /// refreshes that no request waits for: a refresh token that was spent would be lost with its successor.
    pub async fn stop(&self) -> bool {
        let proxy = &self.core.proxy;
        proxy.closing.cancel();
        proxy.tasks.close();
        let grace = self.core.config().proxy.grace;
        let all = async {
            proxy.tasks.wait().await;
            proxy.upstream.finish_work().await;
        };
        let finished = tokio::time::timeout(grace, all).await.is_ok();
        self.core.desk.tokens.settle().await;
        let console = proxy.console.clone();
        let _ = tokio::task::spawn_blocking(move || console.flush(Duration::from_secs(2))).await;
        finished
    }
}
