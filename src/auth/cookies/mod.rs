//! `cookies`: fixed cookies, and a jar that keeps what servers set (RFC 6265bis), both merged into the one `Cookie` field.
//!
//! `parse` reads what servers and files say, `jar` decides what is kept and what is sent. A jar belongs to a credential
//! and to one client of the proxy: nobody gets a session that another one began, unless the configuration says so.

mod jar;
mod parse;
#[cfg(test)]
mod tests;

/// What the fuzzer calls.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    use std::time::SystemTime;

    use super::{jar::Jar, parse::netscape};
    use crate::target::Target;

    /// The cookies of an imported file that go to a request: names and values.
    pub fn imported(text: &str, uri: &http::Uri) -> Result<Vec<(Vec<u8>, Vec<u8>)>, String> {
        let target = Target::from_uri(uri).map_err(|error| error.to_string())?;
        let (mut jar, now) = (Jar::default(), SystemTime::UNIX_EPOCH);
        jar.import(&netscape(text)?, 1, now);
        let found = jar.cookies(&target, uri, now).into_iter();
        Ok(found.map(|(name, value)| (name.to_vec(), value.to_vec())).collect())
    }
}

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, header, request::Parts};
use schemars::JsonSchema;
use serde::Deserialize;

use self::{
    jar::Jar,
    parse::{Imported, SetCookie, netscape},
};
use super::{
    AuthError, AuthScheme, Build, BuildContext,
    api_key::is_cookie_name,
    held::{Field, Held, not_ready},
    scheme::{BodyUse, Outgoing, Ready, Reply, Round, Slot, Verdict},
    slots,
};
use crate::{
    clock::Clock,
    config::{
        read::ConfigPath,
        text::{Reference, Text},
    },
    secret::Secret,
};

/// `cookies:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CookiesConfig {
    /// Fixed cookies: name to value.
    #[serde(default)]
    pub cookies: BTreeMap<String, Text>,
    /// Whether cookies that servers set are kept and sent.
    #[serde(default)]
    pub cookie_jar: CookieJar,
    /// What becomes of the client's own cookies.
    #[serde(default)]
    pub mode: Mode,
    /// Whose cookie is sent where the client and we have one of the same name (`mode: merge`).
    #[serde(default)]
    pub prefer: Prefer,
    /// A file in Netscape's format, as curl and browser extensions write it, that fills the jar. Read again when it changes.
    #[serde(default)]
    pub import: Option<ConfigPath>,
    /// One jar for all clients of the proxy, not one for each.
    #[serde(default)]
    pub share_between_clients: bool,
}

/// Whether cookies that servers set are kept and sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CookieJar {
    /// They are not.
    #[default]
    Off,
    /// One jar for the rules that name this credential.
    PerRule,
}

/// What becomes of the client's own cookies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They are sent together with ours, and answers still set cookies at the client.
    #[default]
    Merge,
    /// They are removed, and `Set-Cookie` is removed from answers: the session is ours alone.
    Isolate,
}

/// Whose cookie is sent where both have one of the same name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Prefer {
    /// Ours.
    #[default]
    Ours,
    /// The client's.
    Client,
}

impl Build for CookiesConfig {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let errors = self.errors();
        if !errors.is_empty() {
            return Err(errors);
        }
        let credential: Arc<str> = name.into();
        let values = self.values(&credential, context)?;
        Ok(Arc::new(Cookies {
            slots: self.slots(),
            names: self.cookies.keys().cloned().collect(),
            config: self.clone(),
            values,
            jars: Mutex::default(),
            clock: context.clock.clone(),
            credential,
        }))
    }
}

impl CookiesConfig {
    fn errors(&self) -> Vec<String> {
        let wrong = |name: &&String| !is_cookie_name(name);
        let mut errors: Vec<String> = (self.cookies.keys().filter(wrong))
            .map(|name| format!("`cookies`: `{}` cannot name a cookie", name.escape_debug()))
            .collect();
        let jar = self.cookie_jar == CookieJar::PerRule;
        if self.cookies.is_empty() && !jar {
            errors.push("there are neither `cookies` nor a jar (`cookie_jar: per_rule`)".to_owned());
        }
        if self.import.is_some() && !jar {
            errors.push("`import` fills a jar: add `cookie_jar: per_rule`".to_owned());
        }
        if self.mode == Mode::Isolate && self.prefer == Prefer::Client {
            errors.push(
                "`prefer: client` has no meaning with `mode: isolate`, which removes the client's cookies".to_owned(),
            );
        }
        errors
    }

    /// What the client may not send. What the jar will hold is not known yet, so that is sorted out in `apply`.
    fn slots(&self) -> Vec<Slot> {
        match (self.mode, self.prefer) {
            (Mode::Isolate, _) => vec![Slot::Header(header::COOKIE)],
            (Mode::Merge, Prefer::Ours) => self.cookies.keys().cloned().map(Slot::Cookie).collect(),
            (Mode::Merge, Prefer::Client) => Vec::new(),
        }
    }

    fn values(&self, credential: &Arc<str>, context: &BuildContext) -> Result<Held<Values>, Vec<String>> {
        let mut fields: Vec<Field> = self.cookies.values().map(Field::secret).collect();
        let import = self.import.as_ref().map(|path| Text::reference(Reference::File(path.0.clone())));
        fields.extend(import.as_ref().map(Field::secret_list));
        let names: Vec<String> = self.cookies.keys().cloned().collect();
        let (owner, has_file, sources) = (credential.clone(), import.is_some(), context.sources.clone());
        Held::new(credential, fields, &context.sources, move |secrets| {
            let (fixed, file) = secrets.split_at(names.len());
            for (name, secret) in names.iter().zip(fixed) {
                if secret.expose().contains(|c: char| c == ';' || c.is_control()) {
                    return Err(AuthError::missing(format!(
                        "credential `{owner}`: the value of the cookie `{name}` holds a control character or `;`, which \
                         no cookie may hold"
                    )));
                }
            }
            let mut imported = Vec::new();
            if let Some(file) = file.first().filter(|_| has_file) {
                imported = netscape(file.expose())
                    .map_err(|why| AuthError::missing(format!("credential `{owner}`: `import`: {why}")))?;
                // Short ones would mask half of what is shown; the field is masked by its name anyway.
                for cookie in imported.iter().filter(|cookie| cookie.value.len() >= 8) {
                    sources.learn(&Secret::new(String::from_utf8_lossy(&cookie.value)));
                }
            }
            Ok(Values { fixed: fixed.to_vec(), imported })
        })
    }
}

/// What is configured, as it is now.
struct Values {
    fixed: Vec<Secret>,
    imported: Vec<Imported>,
}

struct Cookies {
    credential: Arc<str>,
    config: CookiesConfig,
    slots: Vec<Slot>,
    /// Names of the fixed cookies, in the order of their values.
    names: Vec<String>,
    values: Held<Values>,
    /// By the name of the proxy's client.
    jars: Mutex<HashMap<Option<Arc<str>>, Jar>>,
    clock: Clock,
}

/// What is in the jars is as secret as a password.
impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cookies")
            .field("credential", &self.credential)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Cookies {
    fn has_jar(&self) -> bool {
        self.config.cookie_jar == CookieJar::PerRule
    }

    /// Works on the jar of the client that asks.
    fn jar<T>(&self, round: &Round, work: impl FnOnce(&mut Jar) -> T) -> T {
        let owner = round.client.clone().filter(|_| !self.config.share_between_clients);
        let mut jars = self.jars.lock().unwrap_or_else(PoisonError::into_inner);
        if jars.len() >= MAX_JARS && !jars.contains_key(&owner) {
            // Only configured clients have names, so this is not met in practice; the smallest loses the least.
            let smallest = jars.iter().min_by_key(|(_, jar)| jar.len()).map(|(owner, _)| owner.clone());
            smallest.and_then(|smallest| jars.remove(&smallest));
        }
        work(jars.entry(owner).or_default())
    }

    /// The whole `Cookie` field: the client's cookies, then ours.
    fn field(&self, out: &Outgoing<'_>, values: &Values, stamp: u64, round: &Round) -> Vec<u8> {
        let head = out.head();
        let mut ours: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        if self.has_jar() {
            self.jar(round, |jar| {
                if jar.imported != stamp {
                    jar.import(&values.imported, stamp, out.now());
                }
                let found = jar.cookies(out.target(), &head.uri, out.now());
                ours.extend(found.into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())));
            });
        }
        let is_fixed = |name: &[u8]| self.names.iter().any(|fixed| fixed.as_bytes() == name);
        ours.retain(|(name, _)| !is_fixed(name));
        let fixed = self.names.iter().zip(&values.fixed);
        ours.extend(fixed.map(|(name, value)| (name.clone().into_bytes(), value.expose().as_bytes().to_vec())));
        let theirs: Vec<&[u8]> = slots::cookies(&head.headers).collect();
        let mut all: Vec<Vec<u8>> = Vec::new();
        let clashes = |name: &[u8]| ours.iter().any(|(known, _)| known == name);
        let client_first = self.config.prefer == Prefer::Client;
        all.extend(
            theirs.iter().filter(|pair| client_first || !clashes(slots::cookie_name(pair))).map(|pair| pair.to_vec()),
        );
        let sent = |name: &[u8]| theirs.iter().any(|pair| slots::cookie_name(pair) == name);
        all.extend(
            ours.iter()
                .filter(|(name, _)| !client_first || !sent(name))
                .map(|(name, value)| [name.as_slice(), value].join(&b'=')),
        );
        all.join(&b"; "[..])
    }
}

impl AuthScheme for Cookies {
    fn name(&self) -> &'static str {
        "cookies"
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn body_use(&self, _: &Parts) -> BodyUse {
        self.values.body_use()
    }

    fn ready<'a>(&'a self, _: &'a Clock, _: &'a Round) -> Ready<'a> {
        self.values.ready()
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        let current = self.values.current();
        let entry = current.as_ref().ok_or_else(|| not_ready(&self.credential))?;
        round.stamp = entry.stamp;
        let field = self.field(out, &entry.value, entry.stamp, round);
        if field.is_empty() {
            return Ok(());
        }
        let mut value = HeaderValue::from_bytes(&field).map_err(|_| {
            AuthError::missing(format!("credential `{}`: a cookie holds a control character", self.credential))
        })?;
        value.set_sensitive(true);
        out.set_cookie_field(value, &self.slots);
        Ok(())
    }

    fn review(&self, reply: &Reply<'_>, round: &mut Round) -> Verdict {
        if self.has_jar() && reply.headers.contains_key(header::SET_COOKIE) {
            let now = self.clock.now();
            self.jar(round, |jar| {
                for line in reply.headers.get_all(header::SET_COOKIE) {
                    if let Some(cookie) = SetCookie::parse(line.as_bytes()) {
                        jar.store(cookie, reply.target, &reply.request.uri, now);
                    }
                }
            });
        }
        self.values.review(reply)
    }

    fn tidy(&self, headers: &mut HeaderMap, _: &Round) {
        if self.config.mode == Mode::Isolate {
            headers.remove(header::SET_COOKIE);
        }
    }

    fn renew<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        self.values.renewed(round)
    }

    fn has_stale(&self) -> bool {
        self.values.is_made()
    }

    fn describe(&self) -> String {
        let fixed = self.names.join(", ");
        match (self.has_jar(), fixed.is_empty()) {
            (false, _) => format!("cookies {fixed}"),
            (true, true) => "cookies from the jar".to_owned(),
            (true, false) => format!("cookies {fixed} and from the jar"),
        }
    }
}

/// Jars of one credential: one for each named client.
const MAX_JARS: usize = 256;
