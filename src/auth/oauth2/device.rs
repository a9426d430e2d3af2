//! Logins by a code that is typed on another device (RFC 8628).

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{
    accounts::Account,
    answer::{self, Failure, plain, seconds},
    client::Facts,
    discovery::Place,
    grants::Ask as TokenAsk,
    request::Form,
};
use crate::{
    auth::{
        AuthError,
        login::{Begun, Prompt, Rest},
    },
    secret::Secret,
};

/// What the device endpoint gave.
struct Grant {
    code: Secret,
    interval: Duration,
    life: Duration,
}

/// Asks for a code; the rest waits until somebody has typed it.
pub(super) async fn begin(account: &Arc<Account>) -> Result<Begun, AuthError> {
    let client = &account.client;
    let facts = client.facts().await?;
    let Some(url) = client.place(Place::Device, &facts).await? else {
        return Err(client.missing("the issuer's metadata names no device_authorization_endpoint; set `device_url`"));
    };
    let mut form = Form::default();
    form.add_some("scope", facts.scope.as_deref());
    if facts.identity.auth == super::config::ClientAuth::Basic {
        form.add("client_id", &facts.identity.id);
    }
    let params = client.read_params(&client.config.auth_params).await?;
    let request = client.proved(&facts, &url, &mut form, &params, None)?;
    let response = client.send(request, &url).await?;
    let members = answer::object(&response, client.context.clock.now(), &|text| client.masked(text, &params))
        .map_err(|failure| client.explain_endpoint(failure, &facts, &url, "device_url"))?;
    let text = |name: &str| members.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let bad = |what: &str| client.endpoint_error(&format!("the answer of the device endpoint holds no {what}"), None);
    let code = Secret::new(text("device_code").ok_or_else(|| bad("device_code"))?);
    client.context.sources.learn(&code);
    let shown = |name: &str| text(name).filter(|url| is_web(url)).map(plain);
    // Some servers still write it as the draft did.
    let url = shown("verification_uri").or_else(|| shown("verification_url")).ok_or_else(|| bad("verification_uri"))?;
    let prompt = Prompt::Code {
        url,
        code: plain(text("user_code").ok_or_else(|| bad("user_code"))?),
        complete: shown("verification_uri_complete"),
    };
    let number = |name: &str| members.get(name).and_then(seconds);
    let grant = Grant {
        code,
        interval: members.get("interval").and_then(Value::as_f64).map_or(PACE, pace),
        life: Duration::from_secs(number("expires_in").unwrap_or(1800)),
    };
    Ok(Begun { prompt, rest: Rest::Done(poll(account.clone(), facts, grant)) })
}

/// Asks the token endpoint at the pace that it wants until there is an answer.
fn poll(account: Arc<Account>, facts: Facts, grant: Grant) -> BoxFuture<'static, Result<(), AuthError>> {
    Box::pin(async move {
        let client = &account.client;
        let key = client.proof_key(None).await?;
        let end = Instant::now() + grant.life;
        let mut interval = grant.interval;
        loop {
            tokio::time::sleep(interval.min(end.saturating_duration_since(Instant::now()))).await;
            if Instant::now() >= end {
                return Err(client.login_failed("nobody typed the code in time; begin again"));
            }
            let (ask, sent) = (TokenAsk::Device(&grant.code), client.context.clock.now());
            match client.ask(&facts, &ask, key.as_ref()).await {
                Ok(tokens) => return account.keep(&facts, tokens, sent, key.as_ref()).await,
                Err(Failure::Refused(refusal)) => match refusal.code.as_str() {
                    "authorization_pending" => {}
                    "slow_down" => interval = slower(interval, refusal.interval),
                    "access_denied" => return Err(client.login_failed("the person said no")),
                    "expired_token" => return Err(client.login_failed("the code has ended; begin again")),
                    _ => return Err(client.explain(Failure::Refused(refusal), &facts, &ask)),
                },
                // No answer, or one that passes: less often from now on.
                Err(Failure::Unsent(error)) if error.retry_after.is_some() => interval = doubled(interval),
                Err(Failure::Passing { .. }) => interval = doubled(interval),
                Err(failure) => return Err(client.explain(failure, &facts, &ask)),
            }
        }
    })
}

/// An interval that a server names, within reason.
fn pace(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(PACE).min(SLOWEST)
}

/// Five seconds more for good, or what the server names.
fn slower(interval: Duration, asked: Option<u64>) -> Duration {
    (interval + SLOWER).max(asked.map_or(Duration::ZERO, Duration::from_secs)).min(SLOWEST)
}

fn doubled(interval: Duration) -> Duration {
    (interval * 2).min(SLOWEST)
}

/// Only addresses of the web are shown to a person.
fn is_web(text: &str) -> bool {
    let text = Zeroizing::new(text.to_owned());
    url::Url::parse(&text).is_ok_and(|url| ["http", "https"].contains(&url.scheme()))
}

/// RFC 8628 section 3.2.
const PACE: Duration = Duration::from_secs(5);
/// RFC 8628 section 3.5.
const SLOWER: Duration = Duration::from_secs(5);
const SLOWEST: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_the_servers_and_only_gets_slower() {
        let seconds = |interval: Duration| interval.as_secs();
        assert_eq!((seconds(pace(2.0)), seconds(pace(-1.0)), seconds(pace(9999.0))), (2, 5, 300));
        assert_eq!((seconds(slower(PACE, None)), seconds(slower(PACE, Some(60)))), (10, 60));
        assert_eq!((seconds(doubled(PACE)), seconds(doubled(SLOWEST))), (10, 300));
    }
}
