//! `edgegrid`: requests to Akamai's APIs are signed with EG1-HMAC-SHA256.
//!
//! `sign` is the arithmetic, `edgerc` reads Akamai's own credential files. Only the first bytes of a POST go into the
//! signature, so the rest of a large body streams. A server refuses a time that is more than half a minute off; then
//! its `Date` corrects our clock, once.

mod edgerc;
mod sign;
#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, Method, StatusCode, header, request::Parts};
use schemars::JsonSchema;
use serde::Deserialize;

use self::{
    edgerc::Section,
    sign::{Inputs, Tokens},
};
use super::{
    AuthError, AuthScheme, Build, BuildContext,
    held::{Field, Held, header_value, not_ready},
    scheme::{BodyUse, Outgoing, Ready, Reply, Round, Slot, Verdict, origin_form},
    skew::Skew,
    sources::Sources,
};
use crate::{
    clock::Clock,
    config::{
        read::{ConfigPath, OneOrMany},
        text::{Reference, Text},
        units::ByteSize,
    },
    secret::Secret,
    target::{Scheme, Target},
};

/// `edgegrid:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EdgegridConfig {
    /// Client token of the API client.
    #[serde(default)]
    pub client_token: Text,
    /// Client secret of the API client.
    #[serde(default)]
    pub client_secret: Text,
    /// Access token of the API client.
    #[serde(default)]
    pub access_token: Text,
    /// A credential file of Akamai's tools, in place of the three above.
    #[serde(default)]
    pub edgerc: Option<EdgercConfig>,
    /// Fixed nonce; default: random. Servers refuse a repeated one.
    #[serde(default)]
    pub nonce: Option<String>,
    /// Fixed time, as `20231114T22:13:20+0000`; default: now.
    #[serde(default)]
    pub timestamp: Option<String>,
    /// Its host is signed in place of the request's.
    #[serde(default)]
    pub base_url: Option<String>,
    /// Names of headers that go into the signature, in this order: a list, or text with commas.
    #[serde(default)]
    pub headers_to_sign: OneOrMany<String>,
    /// How much of the body of a POST goes into the signature; default `128KiB`.
    #[serde(default)]
    pub max_body: Option<ByteSize>,
}

/// Where the tokens stand in a credential file.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EdgercConfig {
    /// The file; Akamai's tools use `~/.edgerc`.
    pub file: ConfigPath,
    /// The section in it.
    #[serde(default = "default_section")]
    pub section: String,
}

fn default_section() -> String {
    "default".to_owned()
}

/// What Akamai's servers hash of a body.
const DEFAULT_MAX_BODY: usize = 131_072;
/// Bytes of a refusal that are searched for a complaint about the time.
const MAX_COMPLAINT: usize = 16 << 10;

impl Build for EdgegridConfig {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let mut errors = Vec::new();
        let own_headers = names(self.headers_to_sign.0.iter().map(String::as_str));
        for name in own_headers.iter().filter(|name| HeaderName::try_from(name.as_str()).is_err()) {
            errors.push(format!("`headers_to_sign`: `{}` is not a name for a header", name.escape_debug()));
        }
        for (key, text) in [("nonce", &self.nonce), ("timestamp", &self.timestamp)] {
            if text.as_deref().is_some_and(|text| text.contains(|c: char| c.is_control() || c == ';')) {
                errors.push(format!("`{key}` holds a `;` or a control character"));
            }
        }
        let host = match self.base_url.as_deref().filter(|url| !url.is_empty()).map(host_of) {
            None => None,
            Some(Ok(host)) => Some(host),
            Some(Err(error)) => {
                errors.push(error);
                None
            }
        };
        let keys = self.keys(name, &context.sources).map_err(|found| errors.extend(found)).ok();
        let Some(keys) = keys.filter(|_| errors.is_empty()) else { return Err(errors) };
        let fixed = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Ok(Arc::new(Edgegrid {
            credential: name.into(),
            nonce: fixed(&self.nonce),
            timestamp: fixed(&self.timestamp),
            host,
            headers: own_headers,
            max_body: self.max_body.map(ByteSize::get),
            slots: [Slot::Header(header::AUTHORIZATION)],
            keys,
            skew: Skew::default(),
            clock: context.clock.clone(),
        }))
    }
}

impl EdgegridConfig {
    /// The tokens, from the configuration or from a file.
    fn keys(&self, name: &str, sources: &Arc<Sources>) -> Result<Held<Section>, Vec<String>> {
        let own = [
            ("client_token", &self.client_token),
            ("access_token", &self.access_token),
            ("client_secret", &self.client_secret),
        ];
        let credential: Arc<str> = name.into();
        if let Some(edgerc) = &self.edgerc {
            if let Some((key, _)) = own.iter().find(|(_, text)| !text.is_empty()) {
                return Err(vec![format!("`{key}` and `edgerc` cannot stand together")]);
            }
            return edgerc.keys(&credential, sources);
        }
        let missing: Vec<String> = own
            .iter()
            .filter(|(_, text)| text.is_empty())
            .map(|(key, _)| format!("`{key}` is missing; set it, or name a file of Akamai's tools under `edgerc`"))
            .collect();
        if !missing.is_empty() {
            return Err(missing);
        }
        let fields = own.iter().map(|(_, text)| Field::secret(text)).collect();
        Held::new(name, fields, sources, move |secrets| {
            let [client_token, access_token, client_secret] = secrets else { return Err(not_ready(&credential)) };
            for (value, key) in secrets.iter().zip(["client_token", "access_token", "client_secret"]) {
                if value.is_empty() || value.expose().contains(|c: char| c.is_control() || c == ';') {
                    return Err(AuthError::missing(format!(
                        "credential `{credential}`: `{key}` is empty or holds a character that no token has"
                    )));
                }
            }
            let tokens = Tokens {
                client_token: client_token.clone(),
                access_token: access_token.clone(),
                client_secret: client_secret.clone(),
            };
            Ok(Section { tokens, host: None, max_body: None, headers_to_sign: Vec::new() })
        })
    }
}

impl EdgercConfig {
    fn keys(&self, credential: &Arc<str>, sources: &Arc<Sources>) -> Result<Held<Section>, Vec<String>> {
        let (owner, path, wanted) = (credential.clone(), self.file.0.clone(), self.section.clone());
        let known = sources.clone();
        let text = Text::reference(Reference::File(path.clone()));
        let keys = Held::new(credential, vec![Field::open(&text)], sources, move |texts| {
            let [text] = texts else { return Err(not_ready(&owner)) };
            let section = edgerc::section(text.expose(), &wanted).map_err(|why| {
                AuthError::missing(format!("credential `{owner}`: `{}` cannot be used: {why}", path.display()))
            })?;
            let Tokens { client_token, access_token, client_secret } = &section.tokens;
            [client_token, access_token, client_secret].into_iter().for_each(|secret| known.learn(secret));
            Ok(section)
        })?;
        // A broken file should be an error of the configuration; a missing one may come later.
        if let Some(text) = read(&self.file.0) {
            keys.seed(vec![text]).map_err(|error| vec![error.message])?;
        }
        Ok(keys)
    }
}

/// A file as references read it.
fn read(path: &Path) -> Option<Secret> {
    let read = std::fs::read_to_string(path).ok()?;
    Some(Secret::new(read.strip_suffix('\n').map_or(read.as_str(), |read| read.strip_suffix('\r').unwrap_or(read))))
}

/// Names of headers, also from texts with commas.
fn names<'t>(texts: impl Iterator<Item = &'t str>) -> Vec<String> {
    texts.flat_map(|text| text.split(',')).map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The host of a URL, with its port unless it is the scheme's.
fn host_of(url: &str) -> Result<String, String> {
    let wrong = |why: String| format!("`base_url`: {why}; write it as `https://HOST`");
    if !url.contains("://") {
        let bare = url.trim_end_matches('/');
        return Target::from_authority(Scheme::Https, bare)
            .map(|target| target.authority())
            .map_err(|error| wrong(error.to_string()));
    }
    let uri: http::Uri = url.parse().map_err(|_| wrong("this is not a URL".to_owned()))?;
    Target::from_uri(&uri).map(|target| target.authority()).map_err(|error| wrong(error.to_string()))
}

struct Edgegrid {
    credential: Arc<str>,
    nonce: Option<String>,
    timestamp: Option<String>,
    /// From `base_url`.
    host: Option<String>,
    headers: Vec<String>,
    max_body: Option<usize>,
    slots: [Slot; 1],
    keys: Held<Section>,
    skew: Skew,
    clock: Clock,
}

/// What one exchange remembers.
#[derive(Default)]
struct Memory {
    /// What was known of the server's clock when the last send was signed.
    offset: i64,
    /// The clock was corrected once.
    corrected: bool,
}

impl AuthScheme for Edgegrid {
    fn name(&self) -> &'static str {
        "edgegrid"
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn signs(&self) -> bool {
        true
    }

    fn body_use(&self, head: &Parts) -> BodyUse {
        // One byte tells whether there is a body at all.
        if head.method == Method::POST { BodyUse::Prefix(self.max_body().max(1)) } else { BodyUse::Replay }
    }

    fn ready<'a>(&'a self, _: &'a Clock, _: &'a Round) -> Ready<'a> {
        self.keys.ready()
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        let current = self.keys.current();
        let keys = current.as_ref().ok_or_else(|| not_ready(&self.credential))?;
        round.stamp = keys.stamp;
        let Section { tokens, host: home, headers_to_sign, .. } = &keys.value;
        let authority = out.target().authority();
        if let Some(home) = home.as_ref().filter(|home| **home != authority && self.host.is_none()) {
            out.note(|| {
                format!("edgegrid: the section in `edgerc` is for {home}, and this request is for another host")
            });
        }
        let now = self.skew.at(out.target(), out.now());
        let timestamp = self.timestamp.clone().unwrap_or_else(|| sign::timestamp(now.into()));
        let nonce = self.nonce.clone().unwrap_or_else(|| out.clock().nonce_hex(16));
        let wanted = if self.headers.is_empty() { headers_to_sign } else { &self.headers };
        let head = out.head();
        let headers = sign::canonical_headers(wanted.iter().map(String::as_str), &head.headers, &authority);
        let content_hash = self.content_hash(out)?;
        let inputs = Inputs {
            timestamp: &timestamp,
            nonce: &nonce,
            method: head.method.as_str(),
            scheme: out.target().scheme.as_str(),
            host: self.host.as_deref().unwrap_or(&authority),
            path_and_query: origin_form(&head.uri),
            headers: &headers,
            content_hash: &content_hash,
        };
        let prefix = inputs.prefix(tokens);
        let data = inputs.data_to_sign(&prefix);
        let line = format!("{prefix}signature={}", inputs.signature(tokens, &data));
        out.canonical("edgegrid", "data_to_sign", || data);
        round.state_mut::<Memory>().offset = self.skew.offset(out.target());
        out.authorize(header_value(&self.credential, "nonce", &line)?);
        Ok(())
    }

    fn reply_prefix(&self, status: StatusCode, headers: &HeaderMap, _: &Round) -> usize {
        let json = headers.get(header::CONTENT_TYPE).is_some_and(|value| {
            let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
            value.split(';').next().is_some_and(|media_type| media_type.trim_end().ends_with("json"))
        });
        if self.timestamp.is_none() && COMPLAINTS.contains(&status) && json { MAX_COMPLAINT } else { 0 }
    }

    fn review(&self, reply: &Reply<'_>, round: &mut Round) -> Verdict {
        let memory = round.state_mut::<Memory>();
        if self.timestamp.is_none() && !memory.corrected && complains_about_time(reply) {
            memory.corrected = true;
            self.skew.learn_date(reply, self.clock.now());
            // Another exchange may have learnt the same in the meantime.
            if self.skew.offset(reply.target) != memory.offset {
                round
                    .notes
                    .push("edgegrid: the server refused the time; sent again with the time of its `Date`".into());
                return Verdict::Retry;
            }
        }
        if reply.is_refusal() && self.keys.is_rereadable() { Verdict::Renew } else { Verdict::Deliver }
    }

    fn renew<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        Box::pin(self.keys.renew(round.stamp))
    }

    fn has_stale(&self) -> bool {
        self.keys.is_made()
    }

    fn describe(&self) -> String {
        let token = self.keys.current().as_ref().map(|keys| super::held::mask(keys.value.tokens.client_token.expose()));
        format!("edgegrid {}", token.as_deref().unwrap_or("?"))
    }
}

/// The statuses under which Akamai's servers refuse a signature.
const COMPLAINTS: [StatusCode; 3] = [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];

fn complains_about_time(reply: &Reply<'_>) -> bool {
    COMPLAINTS.contains(&reply.status) && String::from_utf8_lossy(reply.body).to_ascii_lowercase().contains("timestamp")
}

impl Edgegrid {
    fn max_body(&self) -> usize {
        let from_file = || self.keys.current().as_ref().and_then(|keys| keys.value.max_body);
        self.max_body.or_else(from_file).unwrap_or(DEFAULT_MAX_BODY)
    }

    fn content_hash(&self, out: &Outgoing<'_>) -> Result<String, AuthError> {
        let method = out.head().method.as_str();
        if out.head().method != Method::POST {
            return Ok(String::new());
        }
        let max_body = self.max_body();
        match out.body() {
            // The file was read only after the body, and wants more of it.
            Some(body) if !out.body_complete() && body.len() < max_body => Err(AuthError::missing(format!(
                "credential `{}`: `max_body` in `edgerc` has grown while this request was read; send it once more",
                self.credential
            ))),
            Some(body) => Ok(sign::content_hash(method, body, max_body)),
            None => {
                Err(AuthError::missing(format!("credential `{}`: the body to be hashed was not read", self.credential)))
            }
        }
    }
}

impl std::fmt::Debug for Edgegrid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edgegrid")
            .field("credential", &self.credential)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}
