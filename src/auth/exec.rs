//! `exec`: a command of the user prints the credential. It is kept until it ends or a server refuses it.
//!
//! The command prints a bare token, or a JSON object: `token` or `headers`, and `expires_at` (RFC 3339) or
//! `expires_in` (seconds).

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, header};
use schemars::JsonSchema;
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    AuthError, AuthScheme, Build, BuildContext,
    api_key::header_name,
    bearer::prefixed,
    command,
    held::{header_value, mask, not_ready},
    refreshing::{Fetched, Refreshing},
    scheme::{BodyUse, Outgoing, Ready, Reply, Round, Slot, Verdict},
    sources::Sources,
    vitals::Vitals,
};
use crate::{clock::Clock, config::units::HumanDuration, secret::Secret};

/// `exec:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecConfig {
    /// Program and arguments; no shell is involved.
    pub command: Vec<String>,
    /// How long it may take.
    #[serde(default = "ten_seconds")]
    pub timeout: HumanDuration,
    /// What stands before a token in `Authorization`; empty for the token alone.
    #[serde(default = "bearer")]
    pub prefix: String,
    /// The headers that the command prints, if it prints `headers`: what a client sends there is removed. A token
    /// always goes to `Authorization`.
    #[serde(default)]
    pub headers: Vec<String>,
}

fn ten_seconds() -> HumanDuration {
    HumanDuration(Duration::from_secs(10))
}

fn bearer() -> String {
    "Bearer".to_owned()
}

impl Build for ExecConfig {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let mut errors = Vec::new();
        if self.command.first().is_none_or(|program| program.is_empty()) {
            errors.push("`command` is empty; write it as a list: `[program, argument]`".to_owned());
        }
        if self.timeout.get().is_zero() {
            errors.push("`timeout` is zero".to_owned());
        }
        let mut names = Vec::new();
        for header in &self.headers {
            match header_name(header) {
                Ok(header) => names.push(header),
                Err(error) => errors.extend(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        if names.is_empty() {
            names.push(header::AUTHORIZATION);
        }
        let printer = Arc::new(Printer {
            credential: name.into(),
            config: self.clone(),
            names: names.clone(),
            sources: context.sources.clone(),
            clock: context.clock.clone(),
        });
        let credential = printer.credential.clone();
        let wait = self.timeout.get() + Duration::from_secs(5);
        let output = Refreshing::new(name, &context.clock, &context.fetch, true, wait, move |_| {
            let printer = printer.clone();
            Box::pin(async move { printer.run().await })
        });
        let slots = names.into_iter().map(Slot::Header).collect();
        Ok(Arc::new(Exec { credential, clock: context.clock.clone(), slots, output }))
    }
}

/// Runs the command and reads what it prints.
struct Printer {
    credential: Arc<str>,
    config: ExecConfig,
    names: Vec<HeaderName>,
    sources: Arc<Sources>,
    clock: Clock,
}

/// What the command printed, ready to be sent.
#[derive(PartialEq)]
struct Output {
    token: Option<Secret>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Deserialize)]
struct Printed {
    token: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    expires_at: Option<String>,
    expires_in: Option<f64>,
}

impl Printer {
    async fn run(&self) -> Result<Fetched<Output>, AuthError> {
        let argv: Vec<&str> = self.config.command.iter().map(String::as_str).collect();
        let before = self.clock.now();
        let text = command::run(&argv, self.config.timeout.get())
            .await
            .map_err(|why| self.failed(&format!("its command `{}` failed: {why}", argv[0])))?;
        self.read(&text, before)
    }

    fn read(&self, text: &Secret, before: SystemTime) -> Result<Fetched<Output>, AuthError> {
        let text = text.expose().trim();
        if text.is_empty() {
            return Err(self.failed("its command printed nothing"));
        }
        if !text.starts_with('{') {
            return Ok(Fetched { value: self.token(text)?, end: None });
        }
        // serde's messages quote what they did not expect, so they stay here.
        let printed: Printed = serde_json::from_str(text).map_err(|_| {
            self.failed(
                "its command printed JSON of another form than `{\"token\": \"...\"}` or `{\"headers\": {...}}` with \
                 `expires_at` (RFC 3339) or `expires_in` (seconds)",
            )
        })?;
        let end = match (&printed.expires_at, printed.expires_in) {
            (Some(at), _) => Some(self.end_at(at)?),
            (None, Some(seconds)) => end_after(before, seconds),
            (None, None) => None,
        };
        let value = match (printed.token, printed.headers) {
            (Some(token), None) => self.token(&token)?,
            (None, Some(headers)) => self.headers(&headers)?,
            _ => return Err(self.failed("its command has to print either `token` or `headers`")),
        };
        Ok(Fetched { value, end })
    }

    fn end_at(&self, time: &str) -> Result<SystemTime, AuthError> {
        let end: SystemTime = OffsetDateTime::parse(time, &Rfc3339)
            .map_err(|_| self.failed("its command printed an `expires_at` that is not an RFC 3339 time"))?
            .into();
        if end <= self.clock.now() {
            return Err(self.failed("its command printed a credential that has already ended, by its `expires_at`"));
        }
        Ok(end)
    }

    fn token(&self, token: &str) -> Result<Output, AuthError> {
        if token.trim().is_empty() {
            return Err(self.failed("its command printed an empty `token`"));
        }
        let secret = Secret::new(token);
        self.sources.learn(&secret);
        let value = header_value(&self.credential, "command", &prefixed(&self.config.prefix, token))?;
        if !self.names.contains(&header::AUTHORIZATION) {
            return Err(self.failed("its command printed a token, but `headers` does not list `Authorization`"));
        }
        Ok(Output { token: Some(secret), headers: vec![(header::AUTHORIZATION, value)] })
    }

    fn headers(&self, printed: &BTreeMap<String, String>) -> Result<Output, AuthError> {
        if printed.is_empty() {
            return Err(self.failed("its command printed `headers` without a header in it"));
        }
        let mut headers = Vec::with_capacity(printed.len());
        for (name, value) in printed {
            let parsed = HeaderName::try_from(name).ok().filter(|name| self.names.contains(name)).ok_or_else(|| {
                self.failed(&format!(
                    "its command printed the header `{}`, which is not listed under `headers`",
                    name.escape_debug()
                ))
            })?;
            self.sources.learn(&Secret::new(value.as_str()));
            headers.push((parsed, header_value(&self.credential, "command", value)?));
        }
        Ok(Output { token: None, headers })
    }

    fn failed(&self, why: &str) -> AuthError {
        AuthError::missing(format!("credential `{}`: {why}", self.credential))
    }
}

/// `seconds` after `start`: none or less count as unknown, too many as a year.
pub(crate) fn end_after(start: SystemTime, seconds: f64) -> Option<SystemTime> {
    if seconds.is_nan() || seconds <= 0.0 {
        return None;
    }
    start.checked_add(Duration::from_secs_f64(seconds.min(MAX_LIFE)))
}

const MAX_LIFE: f64 = 365.0 * 86_400.0;

#[derive(Debug)]
struct Exec {
    credential: Arc<str>,
    clock: Clock,
    slots: Vec<Slot>,
    output: Refreshing<Output>,
}

impl AuthScheme for Exec {
    fn name(&self) -> &'static str {
        "exec"
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn body_use(&self, _: &http::request::Parts) -> BodyUse {
        BodyUse::Replay
    }

    fn ready<'a>(&'a self, clock: &'a Clock, _: &'a Round) -> Ready<'a> {
        self.output.ready(clock.now())
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        let current = self.output.current();
        let current = current.as_ref().ok_or_else(|| not_ready(&self.credential))?;
        round.stamp = current.stamp;
        for (name, value) in &current.value.headers {
            // A token goes where this hop wants it.
            if *name == header::AUTHORIZATION {
                out.authorize(value.clone());
            } else {
                out.set_header(name.clone(), value.clone());
            }
        }
        Ok(())
    }

    fn review(&self, reply: &Reply<'_>, _: &mut Round) -> Verdict {
        if reply.is_refusal() { Verdict::Renew } else { Verdict::Deliver }
    }

    fn renew<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        Box::pin(self.output.reject(round.stamp))
    }

    fn has_stale(&self) -> bool {
        self.output.current().is_some()
    }

    fn token<'a>(&'a self, refused: Option<&'a Secret>) -> BoxFuture<'a, Result<Option<Secret>, AuthError>> {
        Box::pin(async move {
            if let Ready::After(wait) = self.output.ready(self.clock.now()) {
                wait.await?;
            }
            let Some(current) = self.output.current().as_ref().cloned() else { return Ok(None) };
            if let (Some(token), Some(refused)) = (&current.value.token, refused)
                && refused.expose().contains(token.expose())
            {
                self.output.reject(current.stamp).await?;
            }
            Ok(self.output.current().as_ref().and_then(|current| current.value.token.clone()))
        })
    }

    fn vitals(&self) -> Option<Vitals> {
        Some(self.output.vitals())
    }

    fn describe(&self) -> String {
        let current = self.output.current();
        let token = current.as_ref().and_then(|current| current.value.token.as_ref());
        format!("exec {}", token.map_or_else(|| "***".to_owned(), |token| mask(token.expose())))
    }
}
