//! `hmac`: a signature made as a template says: which parts of the request are signed, how, with what, and where it goes.
//!
//! `template` is the language, `list` writes sorted fields and parameters, `stamp` times and nonces, `eval` puts a request
//! in. One send goes like this: what `set` writes without `{signature}` is written first, so that it can be signed; then
//! `sign` is filled and signed; then the rest of `set` is written.

mod eval;
mod list;
mod stamp;
mod template;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::hmac;
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, StatusCode, header, request::Parts};
use indexmap::IndexMap;
use md5::{Digest, Md5};
use schemars::JsonSchema;
use serde::Deserialize;
use zeroize::Zeroizing;

use self::{
    eval::{View, tells_length},
    list::List,
    stamp::{Nonces, hex},
    template::{Value, unknown},
};
pub use self::{
    list::{Kind, ListConfig},
    stamp::{NonceFormat, TimeFormat},
    template::{Each, Signed, Template, Written},
};
use super::{
    AuthError, AuthScheme, Build, BuildContext,
    api_key::header_name,
    held::{Field, Held, mask, not_ready},
    scheme::{BodyUse, Outgoing, Ready, Reply, Round, Slot, Verdict},
    skew::Skew,
};
use crate::{
    clock::Clock,
    config::{
        text::{Reference, Text},
        units::HumanDuration,
    },
    secret::Secret,
};

/// `hmac:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HmacConfig {
    /// The secret key.
    pub key: Text,
    /// How the key's text becomes bytes.
    #[serde(default)]
    pub key_encoding: KeyEncoding,
    /// The public name of the key, for `{key_id}`. It may be shown; where it must not be, write the reference into `set`.
    #[serde(default)]
    pub key_id: Option<Text>,
    /// The hash function of the HMAC.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How `{signature}` is written.
    #[serde(default)]
    pub encoding: Encoding,
    /// Texts that the key is turned into another one with, one after the other: key = HMAC(key, text).
    #[serde(default)]
    pub derive: Vec<Signed>,
    /// What is signed.
    pub sign: Signed,
    /// Templates with names, for `{parts.name}` in others.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Signed>")]
    pub parts: IndexMap<String, Signed>,
    /// Lists of fields or parameters with names, for `{lists.name}`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, ListConfig>")]
    pub lists: IndexMap<String, ListConfig>,
    /// How `{timestamp}` is written.
    #[serde(default = "unix")]
    pub timestamp: TimeFormat,
    /// How long after `{timestamp}` the time of `{expires}` is.
    #[serde(default = "five_minutes")]
    pub lifetime: HumanDuration,
    /// How `{nonce}` is made, once for each send.
    #[serde(default)]
    pub nonce: NonceFormat,
    /// Where everything goes.
    pub set: SetConfig,
    /// Header fields for requests that lack them, written before anything is signed. What the client sends stays.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Signed>")]
    pub defaults: IndexMap<String, Signed>,
    /// After a 401 or 403, take the server's time from its `Date` and try once more, if ours was wrong.
    #[serde(default = "yes")]
    pub clock_correction: bool,
}

/// How the key's text becomes bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyEncoding {
    /// UTF-8.
    #[default]
    Text,
    /// Base64, padded or not.
    Base64,
    /// Base64 for URLs, padded or not.
    Base64url,
    /// Hexadecimal digits.
    Hex,
}

/// The hash function of the HMAC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
    /// SHA-1, for old servers.
    Sha1,
    /// MD5, for older ones.
    Md5,
}

/// How the signature is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Encoding {
    /// Lower-case hexadecimal digits.
    #[default]
    #[serde(rename = "hex")]
    Hex,
    /// Upper-case hexadecimal digits.
    #[serde(rename = "HEX")]
    HexUpper,
    /// Base64 with padding.
    #[serde(rename = "base64")]
    Base64,
    /// Base64 for URLs with padding.
    #[serde(rename = "base64url")]
    Base64url,
    /// Base64 for URLs without padding.
    #[serde(rename = "base64url_nopad")]
    Base64urlNopad,
}

/// Where everything goes: name to template. What holds no `{signature}` is written before signing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetConfig {
    /// Fields of a form body, after those that are there. Written first.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Written>")]
    pub form: IndexMap<String, Written>,
    /// Query parameters, after those that are there.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Written>")]
    pub query: IndexMap<String, Written>,
    /// Header fields, in place of what is there.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Written>")]
    pub headers: IndexMap<String, Written>,
}

fn unix() -> TimeFormat {
    TimeFormat::Unix(0)
}

fn five_minutes() -> HumanDuration {
    HumanDuration(Duration::from_secs(300))
}

fn yes() -> bool {
    true
}

impl Build for HmacConfig {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let lists: IndexMap<String, List> =
            self.lists.iter().map(|(name, list)| (name.clone(), List::new(list))).collect();
        let mut errors = check(self, &lists);
        let slots = self.slots(&mut errors);
        let mut defaults = Vec::new();
        for (name, template) in &self.defaults {
            match header_name(name) {
                Ok(name) => defaults.push((name, template.clone())),
                Err(why) => errors.extend(why),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let uses = Uses::of(self, &lists);
        let credential: Arc<str> = name.into();
        let material = material(self, &credential, context)?;
        Ok(Arc::new(Hmac {
            credential,
            config: self.clone(),
            lists,
            defaults,
            slots,
            uses,
            material,
            nonces: Nonces::default(),
            skew: Skew::default(),
            clock: context.clock.clone(),
        }))
    }
}

impl HmacConfig {
    fn slots(&self, errors: &mut Vec<String>) -> Vec<Slot> {
        let mut slots = Vec::new();
        for name in self.set.headers.keys() {
            match header_name(name) {
                Ok(name) => slots.push(Slot::Header(name)),
                Err(why) => errors.extend(why),
            }
        }
        slots.extend(self.set.query.keys().map(|name| Slot::Query(name.clone())));
        if self.set.query.contains_key("") || self.set.form.contains_key("") {
            errors.push("`set`: a name is empty".to_owned());
        }
        let all = self.written();
        if !all.clone().any(is_final) {
            errors.push("`set` does not place `{signature}` anywhere".to_owned());
        }
        slots
    }

    fn written(&self) -> impl Iterator<Item = &Written> + Clone {
        self.set.form.values().chain(self.set.query.values()).chain(self.set.headers.values())
    }

    /// Every template but those of lists, as what they ask for.
    fn values<'a>(&'a self, lists: &'a IndexMap<String, List>) -> impl Iterator<Item = &'a Value> {
        let signed = std::iter::once(&self.sign).chain(&self.derive).chain(self.parts.values());
        let signed = signed.chain(self.defaults.values()).flat_map(Template::values);
        let each = lists.values().flat_map(List::templates).flat_map(Template::values);
        signed.chain(each).chain(self.written().flat_map(Template::values))
    }

    fn references<'a>(&'a self, lists: &'a IndexMap<String, List>) -> Vec<Reference> {
        let signed = std::iter::once(&self.sign).chain(&self.derive).chain(self.parts.values());
        let signed = signed.chain(self.defaults.values()).flat_map(Template::references);
        let each = lists.values().flat_map(List::templates).flat_map(Template::references);
        let mut all = Vec::new();
        for reference in signed.chain(each).chain(self.written().flat_map(Template::references)) {
            if !all.contains(reference) {
                all.push(reference.clone());
            }
        }
        all
    }
}

/// True for a template that can be filled only after signing.
fn is_final(template: &Written) -> bool {
    template.values().any(|value| *value == Value::Signature)
}

/// Names that do not exist, and parts that need themselves.
fn check(config: &HmacConfig, lists: &IndexMap<String, List>) -> Vec<String> {
    let mut errors = Vec::new();
    for value in config.values(lists) {
        let found = match value {
            Value::Part(name) if !config.parts.contains_key(name) => {
                unknown("part", name, config.parts.keys().map(String::as_str))
            }
            Value::List(name) if !lists.contains_key(name) => unknown("list", name, lists.keys().map(String::as_str)),
            _ => continue,
        };
        if !errors.contains(&found) {
            errors.push(found);
        }
    }
    for (name, template) in &config.parts {
        if reaches(template, name, config, lists, &mut Vec::new()) {
            errors.push(format!("the part `{name}` needs itself"));
        }
    }
    errors
}

fn reaches<'a, const SCOPE: u8>(
    from: &'a Template<SCOPE>,
    goal: &str,
    config: &'a HmacConfig,
    lists: &'a IndexMap<String, List>,
    seen: &mut Vec<&'a str>,
) -> bool {
    from.values().any(|value| match value {
        Value::Part(name) if name == goal => true,
        Value::Part(name) if !seen.contains(&name.as_str()) => {
            seen.push(name);
            config.parts.get(name).is_some_and(|part| reaches(part, goal, config, lists, seen))
        }
        Value::List(name) => lists
            .get(name)
            .is_some_and(|list| list.templates().into_iter().any(|each| reaches(each, goal, config, lists, seen))),
        _ => false,
    })
}

/// What the templates ask for.
#[derive(Clone, Copy, Debug)]
struct Uses {
    body: bool,
    length: bool,
    time: bool,
    key_id: bool,
}

impl Uses {
    fn of(config: &HmacConfig, lists: &IndexMap<String, List>) -> Self {
        let any = |test: &dyn Fn(&Value) -> bool| config.values(lists).any(test);
        let counted =
            matches!(config.nonce, NonceFormat::IncreasingMs | NonceFormat::IncreasingUs | NonceFormat::IncreasingNs);
        Self {
            body: any(&|value| matches!(value, Value::Body | Value::Form(_)))
                || lists.values().any(|list| list.kind == Kind::Form)
                || !config.set.form.is_empty(),
            length: any(&|value| *value == Value::Length),
            time: any(&|value| {
                matches!(value, Value::Timestamp(_) | Value::Expires(_)) || (counted && *value == Value::Nonce)
            }),
            key_id: any(&|value| *value == Value::KeyId),
        }
    }
}

/// What comes from outside the configuration.
struct Material {
    key: Zeroizing<Vec<u8>>,
    key_id: String,
    references: Vec<(Reference, Secret)>,
}

fn material(config: &HmacConfig, credential: &Arc<str>, context: &BuildContext) -> Result<Held<Material>, Vec<String>> {
    if config.key.is_empty() {
        return Err(vec!["`key` is empty".to_owned()]);
    }
    let lists = config.lists.iter().map(|(name, list)| (name.clone(), List::new(list))).collect();
    let references = config.references(&lists);
    let mut fields = vec![Field::secret(&config.key), Field::open(config.key_id.as_ref().unwrap_or(&Text::default()))];
    let texts: Vec<Text> = references.iter().cloned().map(Text::reference).collect();
    fields.extend(texts.iter().map(Field::secret));
    let (owner, encoding) = (credential.clone(), config.key_encoding);
    Held::new(credential, fields, &context.sources, move |secrets| {
        let [key, key_id, values @ ..] = secrets else { return Err(not_ready(&owner)) };
        let key = encoding.decode(key.expose()).ok_or_else(|| {
            AuthError::missing(format!("credential `{owner}`: `key` is not {}; see `key_encoding`", encoding.what()))
        })?;
        if key.is_empty() {
            return Err(AuthError::missing(format!("credential `{owner}`: `key` is empty")));
        }
        let references = references.iter().cloned().zip(values.iter().cloned()).collect();
        Ok(Material { key, key_id: key_id.expose().to_owned(), references })
    })
}

impl KeyEncoding {
    fn decode(self, text: &str) -> Option<Zeroizing<Vec<u8>>> {
        let bare = text.trim().trim_end_matches('=');
        let bytes = match self {
            Self::Text => text.as_bytes().to_vec(),
            Self::Base64 => BASE64_LENIENT.decode(bare).ok()?,
            Self::Base64url => BASE64_URL_SAFE_NO_PAD.decode(bare).ok()?,
            Self::Hex => unhex(text.trim())?,
        };
        Some(Zeroizing::new(bytes))
    }

    fn what(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Base64 => "base64",
            Self::Base64url => "base64 for URLs",
            Self::Hex => "an even number of hexadecimal digits",
        }
    }
}

const BASE64_LENIENT: base64::engine::GeneralPurpose = base64::prelude::BASE64_STANDARD_NO_PAD;

/// Reads hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect::<Option<_>>()?;
    (digits.len() % 2 == 0).then(|| digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

impl Algorithm {
    /// HMAC of `text` (RFC 2104).
    fn sign(self, key: &[u8], text: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Md5 => return hmac_md5(key, text),
        };
        hmac::sign(&hmac::Key::new(algorithm, key), text).as_ref().to_vec()
    }
}

/// HMAC-MD5, which the crypto library lacks.
fn hmac_md5(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut block = Zeroizing::new([0_u8; 64]);
    if key.len() > block.len() {
        block[..16].copy_from_slice(&Md5::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let pad = |with: u8| Zeroizing::new(block.map(|byte| byte ^ with));
    let inner = Md5::new().chain_update(*pad(0x36)).chain_update(text).finalize();
    Md5::new().chain_update(*pad(0x5c)).chain_update(inner).finalize().to_vec()
}

impl Encoding {
    fn write(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => hex(bytes),
            Self::HexUpper => hex(bytes).to_ascii_uppercase(),
            Self::Base64 => BASE64_STANDARD.encode(bytes),
            Self::Base64url => BASE64_URL_SAFE.encode(bytes),
            Self::Base64urlNopad => BASE64_URL_SAFE_NO_PAD.encode(bytes),
        }
    }
}

#[derive(Debug)]
struct Hmac {
    credential: Arc<str>,
    config: HmacConfig,
    lists: IndexMap<String, List>,
    defaults: Vec<(HeaderName, Signed)>,
    slots: Vec<Slot>,
    uses: Uses,
    material: Held<Material>,
    nonces: Nonces,
    skew: Skew,
    clock: Clock,
}

/// What one send is made with.
struct Send<'a> {
    hmac: &'a Hmac,
    material: &'a Material,
    now: SystemTime,
    nonce: String,
    body: Option<Bytes>,
}

impl Send<'_> {
    fn fill<const SCOPE: u8>(
        &self,
        out: &Outgoing<'_>,
        template: &Template<SCOPE>,
        signature: Option<&str>,
    ) -> Result<Vec<u8>, AuthError> {
        let hmac = self.hmac;
        let view = View {
            head: out.head(),
            target: out.target(),
            body: self.body.as_deref(),
            now: self.now,
            lifetime: hmac.config.lifetime.get(),
            timestamp: &hmac.config.timestamp,
            nonce: &self.nonce,
            key_id: &self.material.key_id,
            references: &self.material.references,
            parts: &hmac.config.parts,
            lists: &hmac.lists,
            signature,
            item: None,
        };
        view.fill(template).map_err(|error| hmac.name(error))
    }

    fn text(
        &self,
        out: &Outgoing<'_>,
        template: &Written,
        signature: Option<&str>,
    ) -> Result<Zeroizing<String>, AuthError> {
        let bytes = self.fill(out, template, signature)?;
        String::from_utf8(bytes).map(Zeroizing::new).map_err(|_| {
            let why = "`set` gives bytes that are not text; add a filter such as `base64`";
            self.hmac.name(AuthError::missing(why))
        })
    }

    /// Writes what `set` says, either all before signing or all that needs the signature.
    fn write(&mut self, out: &mut Outgoing<'_>, signature: Option<&str>) -> Result<(), AuthError> {
        let due = |template: &Written| is_final(template) == signature.is_some();
        let set = &self.hmac.config.set;
        for (name, template) in set.form.iter().filter(|(_, template)| due(template)) {
            let value = self.text(out, template, signature)?;
            self.append_form(name, &value);
        }
        for (name, template) in set.query.iter().filter(|(_, template)| due(template)) {
            out.append_query(name, &self.text(out, template, signature)?)?;
        }
        for ((name, template), slot) in set.headers.iter().zip(&self.hmac.slots) {
            let Slot::Header(header) = slot else { continue };
            if due(template) {
                let text = self.text(out, template, signature)?;
                let mut value = self.hmac.header(name, &text)?;
                value.set_sensitive(
                    signature.is_some() || template.is_literal() || template.references().next().is_some(),
                );
                out.set_header(header.clone(), value);
            }
        }
        Ok(())
    }

    /// Adds a field to the body, in place of any of its name.
    fn append_form(&mut self, name: &str, value: &str) {
        let body = self.body.take().unwrap_or_default();
        let mut fields: Vec<&[u8]> = body
            .split(|byte| *byte == b'&')
            .filter(|field| {
                !field.is_empty()
                    && eval::decoded(field.split(|b| *b == b'=').next().unwrap_or_default(), true) != name.as_bytes()
            })
            .collect();
        let ours = format!("{}={}", eval::form_encoded(name), eval::form_encoded(value));
        fields.push(ours.as_bytes());
        self.body = Some(fields.join(&b'&').into());
    }
}

impl Hmac {
    fn name(&self, error: AuthError) -> AuthError {
        AuthError { message: format!("credential `{}`: {}", self.credential, error.message), ..error }
    }

    fn header(&self, name: &str, text: &str) -> Result<HeaderValue, AuthError> {
        HeaderValue::from_bytes(text.as_bytes()).map_err(|_| {
            self.name(AuthError::missing(format!(
                "the value for the header `{name}` holds a line break or another control character"
            )))
        })
    }

    /// A form can only be added to a form.
    fn check_form(&self, out: &mut Outgoing<'_>) -> Result<(), AuthError> {
        if self.config.set.form.is_empty() {
            return Ok(());
        }
        let kind = out.head().headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes().to_ascii_lowercase());
        match kind {
            Some(kind) if kind.starts_with(b"application/x-www-form-urlencoded") => Ok(()),
            None if out.body().is_none_or(Bytes::is_empty) => {
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                out.set_header(header::CONTENT_TYPE, form);
                Ok(())
            }
            _ => Err(self.name(AuthError::missing(
                "`set: form` adds to the body, and this one is not of type application/x-www-form-urlencoded",
            ))),
        }
    }
}

impl AuthScheme for Hmac {
    fn name(&self) -> &'static str {
        "hmac"
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn body_use(&self, head: &Parts) -> BodyUse {
        if self.uses.body || (self.uses.length && !tells_length(head)) {
            BodyUse::Whole
        } else if self.corrects_clock() || self.material.is_rereadable() {
            BodyUse::Replay
        } else {
            BodyUse::Pass
        }
    }

    fn ready<'a>(&'a self, _: SystemTime, _: &'a Round) -> Ready<'a> {
        self.material.ready()
    }

    fn signs(&self) -> bool {
        true
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        let current = self.material.current();
        let entry = current.as_ref().ok_or_else(|| not_ready(&self.credential))?;
        round.stamp = entry.stamp;
        self.check_form(out)?;
        let mut send = Send {
            hmac: self,
            material: &entry.value,
            now: self.skew.at(out.target(), out.now()),
            nonce: self.nonces.next(self.config.nonce, out.clock()),
            body: out.body().cloned(),
        };
        for (name, template) in &self.defaults {
            if !out.head().headers.contains_key(name) {
                let text = String::from_utf8_lossy(&send.fill(out, template, None)?).into_owned();
                out.set_header(name.clone(), self.header(name.as_str(), &text)?);
            }
        }
        send.write(out, None)?;
        let signed = send.fill(out, &self.config.sign, None)?;
        let mut key = entry.value.key.clone();
        for text in &self.config.derive {
            key = Zeroizing::new(self.config.algorithm.sign(&key, &send.fill(out, text, None)?));
        }
        let signature = self.config.encoding.write(&self.config.algorithm.sign(&key, &signed));
        out.canonical("hmac", "string to sign", || shown(&signed));
        send.write(out, Some(&signature))?;
        if !self.config.set.form.is_empty() {
            out.replace_body(send.body.unwrap_or_default());
        }
        Ok(())
    }

    fn review(&self, reply: &Reply<'_>, round: &mut Round) -> Verdict {
        if !matches!(reply.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Verdict::Deliver;
        }
        if self.corrects_clock() && round.attempt == 0 && self.skew.learn_date(reply, self.clock.now()) {
            return Verdict::Retry;
        }
        if self.material.is_rereadable() { Verdict::Renew } else { Verdict::Deliver }
    }

    fn renew<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        self.material.renewed(round)
    }

    fn has_stale(&self) -> bool {
        self.material.is_made()
    }

    fn describe(&self) -> String {
        let current = self.material.current();
        let key_id = current.as_ref().map(|entry| entry.value.key_id.as_str()).filter(|_| self.uses.key_id);
        match key_id {
            Some(key_id) => format!("hmac {}", mask(key_id)),
            None => "hmac".to_owned(),
        }
    }
}

impl Hmac {
    fn corrects_clock(&self) -> bool {
        self.config.clock_correction && self.uses.time
    }
}

/// What was signed, for a person: bytes that are not text as `\xNN`.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}
