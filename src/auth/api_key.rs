//! `api_key`: a value in a header, a query parameter or a cookie (as in OpenAPI's `apiKey`).

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, request::Parts};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    AuthError, AuthScheme, Build, BuildContext,
    held::{Field, Held, header_value, mask, named, not_ready},
    scheme::{BodyUse, Outgoing, Ready, Reply, Round, Slot, Verdict},
};
use crate::{
    clock::Clock,
    config::text::Text,
    secret::Secret,
    target::{Host, Scheme, Target},
};

/// `api_key:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// Name of the header, query parameter or cookie.
    pub name: String,
    /// The key, sent as it is.
    #[serde(default)]
    pub value: Text,
    /// Where it goes.
    #[serde(default, rename = "in")]
    pub place: Place,
}

/// Where an API key goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A header field.
    #[default]
    Header,
    /// A query parameter.
    Query,
    /// A cookie.
    Cookie,
}

impl Build for ApiKeyConfig {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let slot = match self.place {
            Place::Header => Slot::Header(header_name(&self.name)?),
            Place::Query if !self.name.is_empty() => Slot::Query(self.name.clone()),
            Place::Cookie if is_cookie_name(&self.name) => Slot::Cookie(self.name.clone()),
            Place::Query => return Err(vec!["`name` is empty".to_owned()]),
            Place::Cookie => return Err(vec![format!("`name`: `{}` cannot name a cookie", self.name.escape_debug())]),
        };
        if self.value.is_empty() {
            return Err(vec!["`value` is missing".to_owned()]);
        }
        build("api_key", name, slot, Vec::new(), &self.value, false, context)
    }
}

/// Fills `slot` with a configured value, under the name of the scheme that asks for it, and empties `clears`. With `tls_only` a query goes
/// only where [`require_tls`] allows it.
pub(crate) fn build(
    scheme: &'static str,
    name: &str,
    slot: Slot,
    clears: Vec<Slot>,
    value: &Text,
    tls_only: bool,
    context: &BuildContext,
) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
    let in_header = matches!(slot, Slot::Header(_));
    let credential: Arc<str> = name.into();
    let owner = credential.clone();
    let value = Held::new(name, vec![Field::secret(value)], &context.sources, move |secrets| {
        let [secret] = secrets else { return Err(not_ready(&owner)) };
        let header = if in_header { Some(header_value(&owner, "value", secret.expose())?) } else { None };
        Ok(Key { secret: secret.clone(), header })
    })?;
    Ok(Arc::new(ApiKey { scheme, credential, slots: [slot], clears, tls_only, value }))
}

/// Refuses a token in the query of a plain http request, unless it stays on this machine (RFC 6750 section 5.3).
pub(crate) fn require_tls(credential: &str, target: &Target) -> Result<(), AuthError> {
    let here = match &target.host {
        Host::Ip(ip) => ip.is_loopback(),
        Host::Name(name) => name.as_ref() == "localhost" || name.ends_with(".localhost"),
    };
    if target.scheme == Scheme::Https || here {
        return Ok(());
    }
    Err(AuthError::missing(format!(
        "credential `{credential}`: `add_to: query` would show the token to everyone between here and {target}; use \
         https, or `add_to: header`, or write `allow_plaintext: true`"
    )))
}

/// A header name that a credential may fill.
pub(crate) fn header_name(name: &str) -> Result<HeaderName, Vec<String>> {
    let parsed = HeaderName::try_from(name)
        .map_err(|_| vec![format!("`{}` is not a name for a header", name.escape_debug())])?;
    let framing = ["host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "expect"];
    if framing.contains(&parsed.as_str()) {
        return Err(vec![format!("the header `{name}` belongs to the connection and cannot carry a credential")]);
    }
    Ok(parsed)
}

/// True for a token of RFC 9110, which is what a cookie's name has to be.
pub(crate) fn is_cookie_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[derive(Debug)]
struct ApiKey {
    scheme: &'static str,
    credential: Arc<str>,
    slots: [Slot; 1],
    clears: Vec<Slot>,
    tls_only: bool,
    value: Held<Key>,
}

struct Key {
    secret: Secret,
    header: Option<HeaderValue>,
}

impl AuthScheme for ApiKey {
    fn name(&self) -> &'static str {
        self.scheme
    }

    fn clears(&self) -> &[Slot] {
        &self.clears
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn body_use(&self, _: &Parts) -> BodyUse {
        self.value.body_use()
    }

    fn ready<'a>(&'a self, _: &'a Clock, _: &'a Round) -> Ready<'a> {
        self.value.ready()
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        let current = self.value.current();
        let entry = current.as_ref().ok_or_else(|| not_ready(&self.credential))?;
        round.stamp = entry.stamp;
        match (&self.slots[0], &entry.value) {
            (Slot::Header(name), Key { header: Some(value), .. }) => out.set_header(name.clone(), value.clone()),
            (Slot::Query(name), key) => {
                if self.tls_only {
                    require_tls(&self.credential, out.target())?;
                }
                out.append_query(name, key.secret.expose()).map_err(|error| named(&self.credential, error))?;
            }
            (Slot::Cookie(name), key) => {
                out.set_cookie(name, key.secret.expose()).map_err(|error| named(&self.credential, error))?
            }
            _ => return Err(not_ready(&self.credential)),
        }
        Ok(())
    }

    fn review(&self, reply: &Reply<'_>, _: &mut Round) -> Verdict {
        self.value.review(reply)
    }

    fn renew<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        self.value.renewed(round)
    }

    fn has_stale(&self) -> bool {
        self.value.is_made()
    }

    fn describe(&self) -> String {
        let shown = self.value.current().as_ref().map_or_else(|| "?".into(), |entry| mask(entry.value.secret.expose()));
        let slot = &self.slots[0];
        format!("{} {} {} {shown}", self.scheme, slot.place(), slot.name())
    }
}
