//! `hmac`: a signature made as a template says: which parts of the request are signed, how, with what, and where it goes.
//!
//! `config` is what the user writes, `template` the language, `list` writes sorted fields and parameters, `stamp` times and
//! nonces, `eval` puts a request in, `sign` is the arithmetic. One send goes like this: what `set` writes without
//! `{signature}` is written first, so that it can be signed; then `sign` is filled and signed; then the rest of `set` is
//! written.

mod config;
mod eval;
mod list;
mod sign;
mod stamp;
mod template;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, StatusCode, header, request::Parts};
use indexmap::IndexMap;
use zeroize::Zeroizing;

pub(crate) use self::sign::unhex;
pub use self::{
    config::{HmacConfig, SetConfig},
    list::{Kind, ListConfig},
    sign::{Algorithm, Encoding, KeyEncoding},
    stamp::{NonceFormat, TimeFormat},
    template::{Each, Signed, Template, Written},
};
use self::{
    config::{check, is_final},
    eval::{View, tells_length},
    list::List,
    stamp::Nonces,
    template::Value,
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
    config::text::{Reference, Text},
    secret::Secret,
};

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
        } else if self.corrects_clock() {
            BodyUse::Replay
        } else {
            self.material.body_use()
        }
    }

    fn ready<'a>(&'a self, _: &'a Clock, _: &'a Round) -> Ready<'a> {
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
