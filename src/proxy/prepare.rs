//! What becomes of a request before anything waits: its rule, whether it may pass, its credential, connection fields
//! off, slots empty.
//!
//! [`exchange`](super::exchange) does this with every request. The command `explain` does the same with nothing behind
//! it, so that what it shows is what would leave.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Uri, header, request::Parts};

use super::{
    Snapshot,
    browser::{self, Access},
    error::{ErrorId, ProxyError},
    framing::mend,
    hop::{self, Stripped},
    slots::{ambiguous_path, make_room},
};
use crate::{
    auth::{AuthError, AuthScheme, scheme::Round},
    config::{OnUnavailable, Unmatched},
    console::record::Recording,
    rules::{Lookup, Rule},
    target::{Host, Target, split_authority},
};

/// One request that is to be made ready, and what stands fast for it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What is in force.
    pub snapshot: &'a Snapshot,
    /// Where it goes.
    pub target: &'a Target,
    /// The name that the client gave.
    pub client: Option<&'a Arc<str>>,
    /// Who looks.
    pub recording: Option<&'a Recording>,
}

/// What a request may leave with.
#[derive(Debug)]
pub struct Admitted<'a> {
    /// Its credential.
    pub auth: Option<&'a dyn AuthScheme>,
    /// What its connection fields said.
    pub stripped: Stripped,
}

/// A request goes on although its credential cannot be had.
#[derive(Debug)]
pub struct GoesOn {
    /// Without the credential; else with an old one.
    pub bare: bool,
    /// Why, for a person.
    pub note: String,
}

impl<'a> Asked<'a> {
    /// What the request shows to the rules.
    pub fn lookup<'r, B>(&'r self, request: &'r Request<B>) -> Lookup<'r> {
        Lookup {
            target: self.target,
            method: request.method(),
            path_and_query: request.uri().path_and_query().map_or("/", |path| path.as_str()),
            headers: request.headers(),
            client: self.client.map(AsRef::as_ref),
        }
    }

    /// Decides whether the request may pass and with which credential, and takes its connection fields off.
    ///
    /// # Errors
    /// It may not pass.
    pub fn admit<B>(&self, request: &mut Request<B>, rule: Option<&'a Rule>) -> Result<Admitted<'a>, ProxyError> {
        self.may_pass(rule)?;
        // The framing has refused these over HTTP/1.1 already.
        if request.uri().path() == "*" && request.method() != Method::OPTIONS {
            return Err(ProxyError::new(ErrorId::BadRequest, "`*` is a target of OPTIONS only"));
        }
        hop::settle_length(request.headers_mut()).map_err(|why| ProxyError::new(ErrorId::BadRequest, why))?;
        let auth = self.choose_auth(request, rule)?;
        let version = request.version();
        let stripped = hop::strip_request(request.headers_mut(), version);
        if stripped.trailers {
            request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
        }
        Ok(Admitted { auth, stripped })
    }

    /// Makes the head ready for its credential; gives the credential back unless the client's own value is to stay.
    ///
    /// # Errors
    /// A value of the client that the rule does not allow.
    pub fn make_room(
        &self,
        head: &mut Parts,
        rule: Option<&Rule>,
        auth: Option<&'a dyn AuthScheme>,
    ) -> Result<(Option<&'a dyn AuthScheme>, Round), ProxyError> {
        let client = self.client.filter(|name| **name != self.snapshot.settings.own_client).cloned();
        let mut round = Round { client, ..Round::new() };
        let auth = make_room(head, self.target, rule, auth, &mut round, self.recording)?;
        Ok((auth, round))
    }

    /// What no rule matches passes or is refused, as configured.
    fn may_pass(&self, rule: Option<&Rule>) -> Result<(), ProxyError> {
        if rule.is_none() && self.snapshot.settings.unmatched == Unmatched::Deny {
            let detail = format!("no rule matches a request to {} and `proxy.unmatched` is `deny`", self.target);
            return Err(ProxyError::new(ErrorId::Denied, detail));
        }
        Ok(())
    }

    /// The credential that this request gets. A preflight gets none; a foreign page, TRACE and a path that might be
    /// another are refused.
    fn choose_auth<B>(
        &self,
        request: &Request<B>,
        rule: Option<&'a Rule>,
    ) -> Result<Option<&'a dyn AuthScheme>, ProxyError> {
        let Some((rule, auth)) = rule.and_then(|rule| rule.auth.as_deref().map(|auth| (rule, auth))) else {
            return Ok(None);
        };
        if request.method() == Method::TRACE {
            let detail = "TRACE sends the request back, credentials included, so no rule allows it";
            return Err(ProxyError::new(ErrorId::Denied, detail));
        }
        if self.snapshot.rules.is_ambiguous(&self.lookup(request), rule) {
            return Err(ProxyError::new(ErrorId::BadRequest, ambiguous_path(rule)));
        }
        match browser::access(request.method(), request.headers(), self.target, rule) {
            Access::Allowed => Ok(Some(auth)),
            Access::Preflight => Ok(None),
            Access::Foreign => {
                let detail = format!(
                    "a page of another site asked for {}; list its origin under `origins` of rule `{}` to allow it",
                    self.target, rule.name
                );
                Err(ProxyError::new(ErrorId::CrossSite, detail))
            }
        }
    }
}

/// What becomes of a request whose credential cannot be had now, as the rule's `on_unavailable` says.
///
/// # Errors
/// It is refused.
pub fn without(error: AuthError, auth: &dyn AuthScheme, rule: Option<&Rule>) -> Result<GoesOn, ProxyError> {
    match rule.map_or(OnUnavailable::Refuse, |rule| rule.on_unavailable) {
        OnUnavailable::Stale if auth.has_stale() => {
            Ok(GoesOn { bare: false, note: format!("{error}; using the old one") })
        }
        OnUnavailable::Refuse | OnUnavailable::Stale => Err(error.into()),
        OnUnavailable::Pass => {
            let note = format!("{error}; sent without, as `on_unavailable: pass` says");
            Ok(GoesOn { bare: true, note })
        }
    }
}

/// A body is too long for a credential that needs all of it.
pub fn body_too_large(limit: usize) -> ProxyError {
    let detail = format!("the credential signs the body, which is longer than `limits.body_buffer` ({limit} bytes)");
    ProxyError::new(ErrorId::BodyTooLarge, detail).closing()
}

/// Asks again for the switch of protocols that the client asked for: the fields went with its connection's.
pub fn ask_upgrade(headers: &mut HeaderMap, protocol: &HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol.clone());
}

/// Says over HTTP/1.1 that `TE` is for the next hop alone (RFC 9110 section 10.1.4).
pub fn name_te(headers: &mut HeaderMap) {
    if headers.contains_key(header::TE) {
        headers.append(header::CONNECTION, HeaderValue::from_static("TE"));
    }
}

/// A URL as a person types it, as a client would ask for it: without its fragment, the host in ASCII, and what cannot
/// stand in a URI percent-encoded.
///
/// # Errors
/// Why it is no URL that a request can be for.
pub fn typed(url: &str) -> Result<(Uri, Target), String> {
    let bad = || "is not a URL like https://host/path".to_owned();
    let url = url.split('#').next().unwrap_or_default();
    let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let authority = if authority.is_ascii() {
        authority.to_owned()
    } else {
        let (host, port) = split_authority(authority).map_err(|error| error.to_string())?;
        let host = Host::parse_unicode(host).map_err(|error| error.to_string())?;
        port.map_or_else(|| host.to_string(), |port| format!("{host}:{port}"))
    };
    let root: &[u8] = if path.starts_with('/') { b"" } else { b"/" };
    let mended = [scheme.as_bytes(), b"://", authority.as_bytes(), root, &mend(path.as_bytes())].concat();
    let uri = Uri::try_from(mended).map_err(|_| bad())?;
    let target = Target::from_uri(&uri).map_err(|error| format!("is no URL for a request: {error}"))?;
    Ok((uri, target))
}
