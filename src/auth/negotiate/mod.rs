//! `negotiate`: SPNEGO over HTTP (RFC 4559): Kerberos where this program is built with it, and NTLM inside the same envelope.
//!
//! `spnego` is the envelope for NTLM; Kerberos is the system's own GSSAPI, in `kerberos`.

#[cfg(all(feature = "negotiate", unix))]
pub mod kerberos;
pub(crate) mod spnego;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    AuthScheme, Build, BuildContext,
    ntlm::{self, Account, ChannelBinding, Envelope, Ntlm, yes},
};
use crate::config::{read::ConfigPath, text::Text};

/// `negotiate:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NegotiateConfig {
    /// Who we are: `user@REALM`; for NTLM also `DOMAIN\user`. Default for Kerberos: whoever the tickets are for.
    #[serde(default)]
    pub principal: Text,
    /// Password.
    #[serde(default)]
    pub password: Text,
    /// Kerberos: a file with the principal's keys.
    #[serde(default)]
    pub keytab: Option<ConfigPath>,
    /// Kerberos: where the tickets are, as in `KRB5CCNAME`. Default: the user's own.
    #[serde(default)]
    pub ccache: Option<String>,
    /// Name of the service, `HTTP/host` or `HTTP/host@REALM`; default `HTTP/` and the host of the URL.
    #[serde(default)]
    pub spn: Option<String>,
    /// Kerberos: whether an alias of a host is resolved before the service is named after it.
    #[serde(default)]
    pub canonicalize: Canonicalize,
    /// The mechanism.
    #[serde(default)]
    pub mech: Mech,
    /// Kerberos: let the server act in our name elsewhere.
    #[serde(default)]
    pub delegate: bool,
    /// Kerberos: have the server prove itself too, and refuse an answer whose proof is wrong.
    #[serde(default = "yes")]
    pub mutual: bool,
    /// Whether the proof is bound to the server's certificate (Extended Protection).
    #[serde(default)]
    pub channel_binding: ChannelBinding,
}

/// Whether names of hosts are resolved before services are named after them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Canonicalize {
    /// As in the URL.
    #[default]
    None,
    /// The canonical name, by a look-up of the name; never by one of the address.
    Forward,
}

/// The mechanism inside SPNEGO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mech {
    /// Kerberos, and NTLM where there is no ticket to be had; only NTLM where this program is built without Kerberos.
    #[default]
    Auto,
    /// Kerberos alone.
    Kerberos,
    /// NTLM alone.
    Ntlm,
}

impl NegotiateConfig {
    /// The keys that are for Kerberos alone and are set.
    fn kerberos_keys(&self) -> Vec<&'static str> {
        let keys = [
            ("keytab", self.keytab.is_some()),
            ("ccache", self.ccache.is_some()),
            ("delegate", self.delegate),
            ("canonicalize", self.canonicalize != Canonicalize::None),
        ];
        keys.into_iter().filter(|(_, set)| *set).map(|(key, _)| key).collect()
    }

    fn ntlm(&self, name: &str, context: &BuildContext) -> Result<Ntlm, Vec<String>> {
        let nothing = Text::default();
        let account = Account {
            username: &self.principal,
            password: &self.password,
            nt_hash: &nothing,
            domain: &nothing,
            workstation: &nothing,
        };
        let terms = ntlm::Terms {
            retry: true,
            channel_binding: self.channel_binding == ChannelBinding::Auto,
            envelope: Envelope::Negotiate,
            spn: self.spn.clone(),
            mic: true,
            version_1: false,
        };
        Ntlm::new("negotiate", name, &account, terms, context)
    }

    fn has_account(&self) -> bool {
        !self.principal.is_empty() && !self.password.is_empty()
    }
}

/// What to do where Kerberos is wanted and not there.
const NO_KERBEROS: &str = "this program is built without Kerberos (build it with `cargo build --release --features negotiate` \
                           on a system with the Kerberos headers, or use `mech: ntlm`)";

impl Build for NegotiateConfig {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let available = cfg!(all(feature = "negotiate", unix));
        let mut errors = Vec::new();
        if self.mech == Mech::Kerberos && !available {
            errors.push(NO_KERBEROS.to_owned());
        }
        let ntlm_only = self.mech == Mech::Ntlm || !available;
        for key in self.kerberos_keys().into_iter().filter(|_| ntlm_only) {
            let why = if self.mech == Mech::Ntlm { "`mech` is `ntlm`" } else { NO_KERBEROS };
            errors.push(format!("`{key}` is for Kerberos, and {why}"));
        }
        if ntlm_only && self.mech != Mech::Kerberos && !self.has_account() {
            let kerberos = if self.mech == Mech::Auto { format!("; {NO_KERBEROS}") } else { String::new() };
            errors.push(format!("NTLM needs `principal` and `password`{kerberos}"));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        if ntlm_only {
            return Ok(Arc::new(self.ntlm(name, context)?));
        }
        self.with_kerberos(name, context)
    }
}

impl NegotiateConfig {
    #[cfg(all(feature = "negotiate", unix))]
    fn with_kerberos(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let kerberos = kerberos::Kerberos::new(self, name, context)?;
        let ntlm = match self.mech {
            Mech::Auto if self.has_account() => Some(self.ntlm(name, context)?),
            _ => None,
        };
        Ok(Arc::new(kerberos::WithFallback::new(kerberos, ntlm)))
    }

    #[cfg(not(all(feature = "negotiate", unix)))]
    fn with_kerberos(&self, _: &str, _: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        Err(vec![NO_KERBEROS.to_owned()])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::auth::{
        SchemeConfig,
        scheme::Round,
        tests::{apply, context, head},
    };

    #[test]
    fn ntlm_needs_no_kerberos() {
        for mech in ["ntlm", "auto"] {
            if mech == "auto" && cfg!(feature = "negotiate") {
                continue;
            }
            let keys = json!({"principal": "ann@ACME.TEST", "password": "pw", "mech": mech});
            let context = context();
            let scheme = SchemeConfig::from_json("negotiate", keys).unwrap().build("n", &context).unwrap();
            let mut request = head("https://h.test/");
            apply(&*scheme, &mut request, &mut Round::new(), &context).unwrap();
            assert!(request.headers["authorization"].to_str().unwrap().starts_with("Negotiate YE"));
            assert_eq!(scheme.describe(), "negotiate ann@ACME.TEST:***");
            assert!(scheme.binding().unwrap().http1_only);
        }
    }

    #[test]
    fn what_only_kerberos_can_do_is_not_ignored() {
        let account = json!({"principal": "ann", "password": "CANARY", "mech": "ntlm"});
        for (key, value) in [
            ("keytab", json!("k")),
            ("ccache", json!("FILE:/x")),
            ("delegate", json!(true)),
            ("canonicalize", json!("forward")),
        ] {
            let mut keys = account.clone();
            keys[key] = value;
            let config = SchemeConfig::from_json("negotiate", keys).unwrap();
            let errors = config.build("n", &context()).unwrap_err().join("\n");
            assert!(errors.contains(&format!("`{key}` is for Kerberos")) && !errors.contains("CANARY"), "{errors}");
        }
    }

    #[cfg(not(feature = "negotiate"))]
    #[test]
    fn without_kerberos_the_error_says_what_to_do() {
        for keys in [json!({"mech": "kerberos"}), json!({}), json!({"keytab": "k"})] {
            let config = SchemeConfig::from_json("negotiate", keys).unwrap();
            let errors = config.build("n", &context()).unwrap_err().join("\n");
            assert!(errors.contains("--features negotiate"), "{errors}");
        }
    }
}
