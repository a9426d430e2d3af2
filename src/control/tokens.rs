//! What the commands `login`, `logout` and `token` ask for: the same words whether a running proxy does it or the
//! command itself, over the same store.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    auth::{
        AuthError, AuthErrorKind, AuthScheme,
        fetch::Fetch,
        holdings::{SharedHolder, Which},
        login::{Ask, Logins, Pending, Prompt},
    },
    secret::Secret,
    tokens::TokenStore,
};

/// What is asked for. `client` is the client of the proxy whose tokens are meant.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", tag = "do", deny_unknown_fields)]
pub enum TokenRequest {
    /// Begins a login, or joins the one that is pending.
    Login {
        /// The credential.
        credential: String,
        /// Whose.
        client: Option<String>,
    },
    /// Waits for a login.
    Await {
        /// The login.
        id: String,
        /// For at most so many seconds.
        seconds: u64,
    },
    /// The address where the person's browser ended.
    Paste {
        /// The login.
        id: String,
        /// The address.
        address: String,
    },
    /// All credentials that hold tokens.
    List,
    /// One of them.
    Show {
        /// The credential.
        credential: String,
        /// Whose.
        client: Option<String>,
    },
    /// A token itself.
    Get {
        /// The credential.
        credential: String,
        /// Whose.
        client: Option<String>,
        /// Which one.
        which: Which,
    },
    /// Fetches new tokens.
    Refresh {
        /// The credential.
        credential: String,
        /// Whose.
        client: Option<String>,
    },
    /// Revokes tokens at the server and forgets them.
    Revoke {
        /// The credential.
        credential: String,
        /// Whose.
        client: Option<String>,
    },
    /// Forgets tokens here.
    Delete {
        /// The credential.
        credential: String,
        /// Whose.
        client: Option<String>,
    },
    /// All that is held, secrets included.
    Export {
        /// The credentials; all of them if there is none.
        credentials: Vec<String>,
    },
    /// Takes what was exported.
    Import {
        /// Texts by credential.
        tokens: Map<String, Value>,
    },
}

impl TokenRequest {
    /// Whose tokens may be fetched for this, and for which client.
    pub fn fetches(&self) -> Option<(String, Option<String>)> {
        match self {
            Self::Get { credential, client, .. } | Self::Refresh { credential, client } => {
                Some((credential.clone(), client.clone()))
            }
            _ => None,
        }
    }
}

impl TokenRequest {
    /// True if the answer holds tokens, or the request brings some.
    pub fn hands_out_secrets(&self) -> bool {
        matches!(self, Self::Get { .. } | Self::Export { .. } | Self::Import { .. })
    }
}

impl fmt::Debug for TokenRequest {
    /// An import holds secrets, a pasted address a code.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenRequest")
    }
}

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct TokenRefusal {
    /// What failed and what to do.
    pub message: String,
    /// A person has to log in first.
    #[serde(default)]
    pub login_needed: bool,
}

impl From<AuthError> for TokenRefusal {
    fn from(error: AuthError) -> Self {
        Self { login_needed: error.kind == AuthErrorKind::LoginNeeded, message: error.message }
    }
}

impl From<String> for TokenRefusal {
    fn from(message: String) -> Self {
        Self { message, login_needed: false }
    }
}

/// Finds a credential by its name.
pub type Find = Box<dyn Fn(&str) -> Option<Arc<dyn AuthScheme>> + Send + Sync>;

/// All names of a kind.
pub type Names = Box<dyn Fn() -> Vec<String> + Send + Sync>;

/// What requests are done with.
pub struct Desk {
    /// Finds a credential by its name.
    pub find: Find,
    /// The names of all credentials.
    pub names: Names,
    /// The names of the proxy's clients.
    pub clients: Names,
    /// Pending logins.
    pub logins: Logins,
    /// Runs what outlives the request.
    pub runner: Arc<dyn Fetch>,
    /// Where tokens are kept.
    pub tokens: Arc<dyn TokenStore>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Desk")
    }
}

impl Desk {
    /// Does what is asked for; the answer is what the commands print.
    pub async fn handle(&self, request: TokenRequest) -> Result<Value, TokenRefusal> {
        match request {
            TokenRequest::Login { credential, client } => self.login(&credential, client.as_deref()).await,
            TokenRequest::Await { id, seconds } => self.wait(&id, seconds).await,
            TokenRequest::Paste { id, address } => {
                let pending = self.logins.get(&id).ok_or_else(over)?;
                pending.paste(&address).await?;
                Ok(json!({}))
            }
            TokenRequest::List => self.list().await,
            TokenRequest::Show { credential, client } => {
                let holding = self.holder(&credential)?.look(client.as_deref()).await?;
                Ok(self.with_vitals(&credential, serde_json::to_value(holding).map_err(|error| error.to_string())?))
            }
            TokenRequest::Get { credential, client, which } => {
                let token = self.holder(&credential)?.obtain(client.as_deref(), which).await?;
                Ok(json!({ "credential": credential, "token": token.expose() }))
            }
            TokenRequest::Refresh { credential, client } => {
                let holder = self.holder(&credential)?;
                holder.renew(client.as_deref()).await?;
                let holding = holder.look(client.as_deref()).await?;
                let until = holding.expires.map_or_else(String::new, |end| format!("; it ends at {end}"));
                let unstored = holder.unstored(client.as_deref());
                let only = unstored.map_or_else(String::new, |why| format!("; it is not stored yet: {why}"));
                Ok(
                    json!({ "credential": credential, "message": format!("`{credential}` has a new token{until}{only}") }),
                )
            }
            TokenRequest::Revoke { credential, client } => {
                let done = self.holder(&credential)?.revoke(client.as_deref()).await?;
                Ok(json!({ "credential": credential, "message": format!("`{credential}`: {done}") }))
            }
            TokenRequest::Delete { credential, client } => {
                let there = self.holder(&credential)?.forget(client.as_deref()).await?;
                let done =
                    if there { "forgotten here; the server still knows the tokens" } else { "there were no tokens" };
                Ok(json!({ "credential": credential, "message": format!("`{credential}`: {done}") }))
            }
            TokenRequest::Export { credentials } => self.export(&credentials).await,
            TokenRequest::Import { tokens } => self.import(&tokens).await,
        }
    }

    async fn login(&self, credential: &str, client: Option<&str>) -> Result<Value, TokenRefusal> {
        let scheme = self.scheme(credential)?;
        let login = scheme.interactive().ok_or_else(|| {
            format!(
                "`{credential}` needs no login: a credential of type `{}` as it is configured gets along without a person",
                scheme.name()
            )
        })?;
        let ask = Ask { client: client.map(Arc::from), ..Ask::default() };
        let pending = self.logins.begin(login, ask, &self.runner).await?;
        Ok(pending_json(&pending))
    }

    async fn wait(&self, id: &str, seconds: u64) -> Result<Value, TokenRefusal> {
        let pending = self.logins.get(id).ok_or_else(over)?;
        match pending.outcome(Duration::from_secs(seconds.min(MAX_WAIT))).await {
            None => Ok(json!({ "state": "pending" })),
            Some(Ok(())) => {
                let holder = self.holder(&pending.credential)?;
                let holding = holder.look(pending.client.as_deref()).await?;
                let mut done = serde_json::to_value(holding).unwrap_or_default();
                done["state"] = "done".into();
                Ok(done)
            }
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// Whose tokens a credential may hold: nobody's in particular, then each client's.
    fn owners(&self, holder: &SharedHolder) -> Vec<Option<String>> {
        let clients = if holder.keeps_clients_apart() { (self.clients)() } else { Vec::new() };
        std::iter::once(None).chain(clients.into_iter().map(Some)).collect()
    }

    /// All credentials; beside their own tokens those of clients that have some.
    async fn list(&self) -> Result<Value, TokenRefusal> {
        let mut all = Vec::new();
        for name in (self.names)() {
            let Some(holder) = (self.find)(&name).and_then(|scheme| scheme.holder()) else { continue };
            for client in self.owners(&holder) {
                let shown = match holder.look(client.as_deref()).await {
                    Ok(holding) if client.is_some() && !holding.holds_something() => continue,
                    Ok(holding) => serde_json::to_value(holding).unwrap_or_default(),
                    Err(error) => json!({
                        "credential": name, "client": client, "state": "unknown", "notes": [error.message]
                    }),
                };
                all.push(self.with_vitals(&name, shown));
            }
        }
        Ok(Value::Array(all))
    }

    /// Adds how the credential is doing in this process, all its owners together.
    fn with_vitals(&self, credential: &str, mut shown: Value) -> Value {
        let Some(vitals) = (self.find)(credential).and_then(|scheme| scheme.vitals()) else { return shown };
        let whole = |at| OffsetDateTime::from(at).replace_nanosecond(0).ok()?.format(&Rfc3339).ok();
        if let Some(last) = vitals.last_refresh.and_then(whole) {
            shown["last_refresh"] = last.into();
        }
        shown["refreshed"] = vitals.refreshed.into();
        shown["failed"] = vitals.failed.into();
        shown["failures"] = vitals.failures.into();
        shown["waiters"] = vitals.waiting.into();
        shown
    }

    async fn export(&self, credentials: &[String]) -> Result<Value, TokenRefusal> {
        let names = if credentials.is_empty() { (self.names)() } else { credentials.to_vec() };
        let mut tokens = Map::new();
        for name in names {
            let holder = match self.holder(&name) {
                Ok(holder) => holder,
                Err(_) if credentials.is_empty() => continue,
                Err(error) => return Err(error),
            };
            let (mut own, mut clients) = (None, Map::new());
            for client in self.owners(&holder) {
                let Some(text) = holder.export(client.as_deref()).await? else { continue };
                match client {
                    None => own = Some(Value::from(text.expose())),
                    Some(client) => drop(clients.insert(client, text.expose().into())),
                }
            }
            let exported = match (own, clients.is_empty()) {
                (own, true) => own,
                (own, false) => Some(json!({ "own": own, "clients": clients })),
            };
            tokens.extend(exported.map(|exported| (name, exported)));
        }
        Ok(Value::Object(tokens))
    }

    async fn import(&self, tokens: &Map<String, Value>) -> Result<Value, TokenRefusal> {
        // All names first: nothing is taken from a file of which a part does not fit.
        let mut known = Vec::new();
        for (name, exported) in tokens {
            let holder = self.holder(name)?;
            for (client, text) in Exported::read(name, exported)?.texts() {
                if client.as_ref().is_some_and(|client| !self.owners(&holder).contains(&Some(client.clone()))) {
                    let client = client.unwrap_or_default();
                    return Err(TokenRefusal::from(format!(
                        "`{name}` keeps no tokens for a client `{client}`: name it in `proxy.clients`, and leave `share` \
                         off; nothing was taken"
                    )));
                }
                known.push((holder.clone(), client, text));
            }
        }
        for (holder, client, text) in known {
            holder.import(client.as_deref(), text).await?;
        }
        let count = tokens.len();
        let noun = if count == 1 { "credential" } else { "credentials" };
        Ok(json!({ "message": format!("the tokens of {count} {noun} were taken") }))
    }

    fn scheme(&self, credential: &str) -> Result<Arc<dyn AuthScheme>, TokenRefusal> {
        (self.find)(credential).ok_or_else(|| {
            let names = (self.names)();
            let near = names.iter().min_by_key(|name| strsim::damerau_levenshtein(name, credential));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            TokenRefusal::from(format!("there is no credential `{credential}`{hint}"))
        })
    }

    /// What is said when a process ends that has fetched tokens which the store would not take.
    pub fn lost(&self, credential: &str, client: Option<&str>) -> Option<String> {
        let why = self.holder(credential).ok()?.unstored(client)?;
        Some(format!(
            "`{credential}` got new tokens that could not be stored, so they are lost: {why}. See to the store; then log \
             in again, or put a new refresh token into the file"
        ))
    }

    fn holder(&self, credential: &str) -> Result<SharedHolder, TokenRefusal> {
        let scheme = self.scheme(credential)?;
        scheme.holder().ok_or_else(|| {
            let kind = scheme.name();
            TokenRefusal::from(format!("`{credential}` holds no tokens that could be managed: it is of type `{kind}`"))
        })
    }
}

/// What is exported of one credential.
#[derive(Deserialize)]
#[serde(untagged)]
enum Exported {
    /// Its own tokens.
    Own(String),
    /// The same, and those of the proxy's clients.
    Apart(Apart),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Apart {
    own: Option<String>,
    clients: std::collections::BTreeMap<String, String>,
}

impl Exported {
    fn read(name: &str, value: &Value) -> Result<Self, TokenRefusal> {
        Self::deserialize(value)
            .map_err(|_| TokenRefusal::from(format!("what is there for `{name}` is not what an export holds")))
    }

    /// Whose, and what.
    fn texts(self) -> Vec<(Option<String>, Secret)> {
        let (own, clients) = match self {
            Self::Own(own) => (Some(own), Default::default()),
            Self::Apart(Apart { own, clients }) => (own, clients),
        };
        let clients = clients.into_iter().map(|(client, text)| (Some(client), Secret::new(text)));
        own.map(|own| (None, Secret::new(own))).into_iter().chain(clients).collect()
    }
}

/// A pending login as commands and `status` show it.
pub fn pending_json(pending: &Pending) -> Value {
    let began = OffsetDateTime::from(pending.began).format(&Rfc3339).unwrap_or_default();
    let mut shown = json!({ "id": pending.id, "credential": pending.credential, "began": began });
    if let Some(client) = &pending.client {
        shown["client"] = (**client).into();
    }
    match &pending.prompt {
        Prompt::Visit { url } => shown["url"] = url.as_str().into(),
        Prompt::Code { url, code, complete } => {
            shown["url"] = url.as_str().into();
            shown["code"] = code.as_str().into();
            if let Some(complete) = complete {
                shown["complete_url"] = complete.as_str().into();
            }
        }
    }
    shown
}

fn over() -> TokenRefusal {
    TokenRefusal::from("this login is over, or the proxy was started anew; begin again".to_owned())
}

/// Commands ask again and again rather than for minutes.
const MAX_WAIT: u64 = 20;
