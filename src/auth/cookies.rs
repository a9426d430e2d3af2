//! `cookies`: fixed cookies, merged into the one `Cookie` field (RFC 6265 section 5.4).

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    AuthError, AuthScheme, Build, BuildContext,
    api_key::is_cookie_name,
    held::{Field, Held, not_ready},
    scheme::{Outgoing, Ready, Reply, Round, Slot, Verdict},
};
use crate::{config::text::Text, secret::Secret};

/// `cookies:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CookiesConfig {
    /// Name to value.
    pub cookies: BTreeMap<String, Text>,
}

impl Build for CookiesConfig {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let mut errors: Vec<String> = self
            .cookies
            .keys()
            .filter(|name| !is_cookie_name(name))
            .map(|name| format!("`cookies`: `{}` cannot name a cookie", name.escape_debug()))
            .collect();
        if self.cookies.is_empty() {
            errors.push("`cookies` is empty".to_owned());
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let slots: Vec<Slot> = self.cookies.keys().cloned().map(Slot::Cookie).collect();
        let fields = self.cookies.values().map(Field::secret).collect();
        let credential: Arc<str> = name.into();
        let names: Vec<String> = self.cookies.keys().cloned().collect();
        let owner = credential.clone();
        let values = Held::new(name, fields, &context.sources, move |secrets| {
            for (name, secret) in names.iter().zip(secrets) {
                if secret.expose().contains(|c: char| c == ';' || c.is_control()) {
                    return Err(AuthError::missing(format!(
                        "credential `{owner}`: the value of the cookie `{name}` holds a control character or `;`, which \
                         no cookie may hold"
                    )));
                }
            }
            Ok(secrets.to_vec())
        })?;
        Ok(Arc::new(Cookies { credential, slots, values }))
    }
}

#[derive(Debug)]
struct Cookies {
    credential: Arc<str>,
    slots: Vec<Slot>,
    values: Held<Vec<Secret>>,
}

impl AuthScheme for Cookies {
    fn name(&self) -> &'static str {
        "cookies"
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn ready<'a>(&'a self, _: SystemTime, _: &'a Round) -> Ready<'a> {
        self.values.ready()
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        let current = self.values.current();
        let entry = current.as_ref().ok_or_else(|| not_ready(&self.credential))?;
        round.stamp = entry.stamp;
        for (slot, value) in self.slots.iter().zip(&entry.value) {
            out.set_cookie(slot.name(), value.expose())?;
        }
        Ok(())
    }

    fn review(&self, reply: &Reply<'_>, _: &mut Round) -> Verdict {
        if reply.is_refusal() && self.values.is_rereadable() { Verdict::Renew } else { Verdict::Deliver }
    }

    fn renew<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        Box::pin(self.values.renew(round.stamp))
    }

    fn has_stale(&self) -> bool {
        self.values.is_made()
    }

    fn describe(&self) -> String {
        let names: Vec<&str> = self.slots.iter().map(Slot::name).collect();
        format!("cookies {}", names.join(", "))
    }
}
