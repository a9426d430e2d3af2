//! The request as it is about to leave, as schemes see it: what they may read, and what they may change.

use std::{borrow::Cow, fmt, sync::Arc, time::SystemTime};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header, request::Parts};

use super::{
    scheme::{AuthError, Hop, LinkState, Slot},
    token_facts::TokenFacts,
};
use crate::{
    clock::Clock,
    target::{Host, Scheme, Target},
};

/// The request as it is about to leave, lent to a scheme.
pub struct Outgoing<'a> {
    head: &'a mut Parts,
    target: &'a Target,
    hop: Hop,
    body: Option<&'a Bytes>,
    complete: bool,
    has_body: Option<bool>,
    clock: &'a Clock,
    trace: Option<&'a mut Trace>,
    link: LinkState,
    peer_host: Option<&'a Host>,
    peer_certificate: Option<&'a [u8]>,
    plan: BodyPlan,
}

/// Which body leaves with one send.
#[derive(Debug, Default)]
pub enum BodyPlan {
    /// The client's.
    #[default]
    AsIs,
    /// None this time: the send is a leg of a handshake, and the body waits for a later one.
    Withheld,
    /// Another one, in memory.
    Replaced(Bytes),
    /// The client's, rewritten while it streams.
    Reframed(Box<dyn Reframe>),
}

/// Rewrites a body while it streams, piece by piece: a framing of the body's own with signatures in it.
pub trait Reframe: Send + fmt::Debug {
    /// Takes the next piece of the client's body, of any length, and adds to `out` what leaves for it.
    ///
    /// # Errors
    /// The body does not have the form it should have. The request breaks off.
    fn data(&mut self, piece: &[u8], out: &mut BytesMut) -> Result<(), AuthError>;

    /// The client's body has ended, with these trailers. Adds what is still to leave.
    ///
    /// # Errors
    /// The body ended too early. The request breaks off.
    fn end(&mut self, trailers: Option<&HeaderMap>, out: &mut BytesMut) -> Result<(), AuthError>;
}

/// What schemes wrote, and how they came to it. Kept only when someone looks.
#[derive(Debug, Default)]
pub struct Trace {
    /// Every place that was filled.
    pub injected: Vec<Slot>,
    /// `(scheme, label, text)`: canonical requests, base strings and strings to sign.
    pub canonical: Vec<(&'static str, &'static str, String)>,
    /// Remarks for a person.
    pub notes: Vec<String>,
    /// What is known of the tokens that were written.
    pub tokens: Vec<Arc<TokenFacts>>,
}

impl<'a> Outgoing<'a> {
    /// Lends a request. `head.uri` is in absolute form; `body` is given for [`BodyUse::Whole`].
    pub fn new(
        head: &'a mut Parts,
        target: &'a Target,
        hop: Hop,
        body: Option<&'a Bytes>,
        clock: &'a Clock,
        trace: Option<&'a mut Trace>,
    ) -> Self {
        Self {
            head,
            target,
            hop,
            body,
            complete: true,
            has_body: None,
            clock,
            trace,
            link: LinkState::Fresh,
            peer_host: None,
            peer_certificate: None,
            plan: BodyPlan::AsIs,
        }
    }

    /// Says which connection the request will leave on; `certificate` is the peer's own, in DER.
    #[must_use]
    pub fn on(mut self, link: LinkState, certificate: Option<&'a [u8]>) -> Self {
        self.link = link;
        self.peer_certificate = certificate;
        self
    }

    /// Says who is at the other end, if it is not the target: the parent proxy.
    #[must_use]
    pub fn to(mut self, host: &'a Host) -> Self {
        self.peer_host = Some(host);
        self
    }

    /// Says that `body` is only the beginning of the body.
    #[must_use]
    pub fn beginning(mut self, is_beginning: bool) -> Self {
        self.complete = !is_beginning;
        self
    }

    /// Says whether the client sends a body; without this the head tells.
    #[must_use]
    pub fn with_body(mut self, has_body: bool) -> Self {
        self.has_body = Some(has_body);
        self
    }

    /// Which body is to leave.
    pub fn into_plan(self) -> BodyPlan {
        self.plan
    }

    /// Method, URI and headers as they stand.
    pub fn head(&self) -> &Parts {
        self.head
    }

    /// The one destination.
    pub fn target(&self) -> &Target {
        self.target
    }

    /// Whom the credential is for.
    pub fn hop(&self) -> Hop {
        self.hop
    }

    /// The request-target as that hop will see it: path and query for an origin, absolute form or `host:port` for a
    /// parent proxy, `*` for a server-wide OPTIONS.
    pub fn request_target(&self) -> Cow<'_, str> {
        request_target(self.head, self.target, self.hop)
    }

    /// All of the body for a scheme that asked for [`BodyUse::Whole`](super::scheme::BodyUse::Whole), or at least the
    /// asked bytes of its beginning for [`BodyUse::Prefix`](super::scheme::BodyUse::Prefix). In a list of credentials
    /// it can be longer than asked for.
    pub fn body(&self) -> Option<&Bytes> {
        match &self.plan {
            BodyPlan::Replaced(body) => Some(body),
            _ => self.body,
        }
    }

    /// True if the request has a body, whether it can be seen or not.
    pub fn has_body(&self) -> bool {
        self.has_body.unwrap_or_else(|| {
            let length = self.head.headers.get(header::CONTENT_LENGTH);
            self.head.headers.contains_key(header::TRANSFER_ENCODING)
                || length.is_some_and(|length| length.as_bytes() != b"0")
                || self.body.is_some_and(|body| !body.is_empty())
        })
    }

    /// False if [`body`](Self::body) is only the beginning.
    pub fn body_complete(&self) -> bool {
        self.complete
    }

    /// The host that judges the credential: that of the target, or the parent proxy's.
    pub fn peer_host(&self) -> &Host {
        self.peer_host.unwrap_or(&self.target.host)
    }

    /// What was proved on the connection before.
    pub fn link(&self) -> LinkState {
        self.link
    }

    /// The certificate that the server showed on this connection, in DER; `None` without TLS.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.peer_certificate
    }

    /// True if somebody looks, so that texts for a person are worth making.
    pub fn watched(&self) -> bool {
        self.trace.is_some()
    }

    /// Lets this send leave with `Content-Length: 0`; the body is kept for a later one. For a scheme whose
    /// [`body_use`](super::AuthScheme::body_use) keeps the body.
    pub fn withhold_body(&mut self) {
        self.plan = BodyPlan::Withheld;
        self.head.headers.remove(header::TRANSFER_ENCODING);
        self.head.headers.remove(header::EXPECT);
        self.head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    }

    /// Lets another body leave, and sets `Content-Length`. For a scheme that asked for all of the body. A body that
    /// another credential withholds stays withheld.
    pub fn replace_body(&mut self, body: Bytes) {
        if matches!(self.plan, BodyPlan::Withheld) {
            return;
        }
        self.head.headers.remove(header::TRANSFER_ENCODING);
        self.head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        self.plan = BodyPlan::Replaced(body);
    }

    /// Lets the body be rewritten while it streams. `length` is the length of what leaves, if it is known beforehand;
    /// else the body leaves chunked.
    pub fn reframe(&mut self, reframe: Box<dyn Reframe>, length: Option<u64>) {
        if matches!(self.plan, BodyPlan::Withheld) {
            return;
        }
        self.head.headers.remove(header::TRANSFER_ENCODING);
        match length {
            Some(length) => self.head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length)),
            None => self.head.headers.remove(header::CONTENT_LENGTH),
        };
        self.plan = BodyPlan::Reframed(reframe);
    }

    /// The current time.
    pub fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// The clock itself, for nonces.
    pub fn clock(&self) -> &Clock {
        self.clock
    }

    /// Puts `value` into the `Authorization` field of this hop, in place of any other.
    pub fn authorize(&mut self, value: HeaderValue) {
        self.set_header(self.hop.authorization(), value);
    }

    /// Tells what is known of the token that was written.
    pub fn token(&mut self, facts: &Arc<TokenFacts>) {
        if let Some(trace) = self.trace.as_deref_mut() {
            trace.tokens.push(Arc::clone(facts));
        }
    }

    /// Sets a header field to one value, in place of any other. Mark secret values sensitive.
    pub fn set_header(&mut self, name: HeaderName, value: HeaderValue) {
        if let Some(trace) = self.trace.as_deref_mut() {
            trace.injected.push(Slot::Header(name.clone()));
        }
        self.head.headers.insert(name, value);
    }

    /// Takes a header field away: one that is not true any more of the body that leaves.
    pub fn remove_header(&mut self, name: &HeaderName) {
        self.head.headers.remove(name);
    }

    /// Appends a query parameter; only the new name and value are percent-encoded, nothing else is touched.
    pub fn append_query(&mut self, name: &str, value: &str) -> Result<(), AuthError> {
        self.head.uri = super::slots::append_query(&self.head.uri, name, value)?;
        if let Some(trace) = self.trace.as_deref_mut() {
            trace.injected.push(Slot::Query(name.to_owned()));
        }
        Ok(())
    }

    /// Replaces the whole query, or removes it; for a scheme that has to clean or to respell what the client sent.
    pub fn set_query(&mut self, query: Option<&str>) -> Result<(), AuthError> {
        self.head.uri = super::slots::replace_query(&self.head.uri, query)?;
        Ok(())
    }

    /// Records that a parameter was added to the form that the body is.
    pub fn filled_form(&mut self, name: &str) {
        if let Some(trace) = self.trace.as_deref_mut() {
            trace.injected.push(Slot::Form(name.to_owned()));
        }
    }

    /// Adds a cookie to the one `Cookie` field.
    pub fn set_cookie(&mut self, name: &str, value: &str) -> Result<(), AuthError> {
        super::slots::add_cookie(&mut self.head.headers, name, value)?;
        if let Some(trace) = self.trace.as_deref_mut() {
            trace.injected.push(Slot::Cookie(name.to_owned()));
        }
        Ok(())
    }

    /// Puts a whole `Cookie` field in place; `filled` are the cookies in it that are ours.
    pub fn set_cookie_field(&mut self, value: HeaderValue, filled: &[Slot]) {
        if let Some(trace) = self.trace.as_deref_mut() {
            trace.injected.extend_from_slice(filled);
        }
        self.head.headers.insert(header::COOKIE, value);
    }

    /// Records that the connection carries the credential.
    pub fn bound_by_tls(&mut self) {
        if let Some(trace) = self.trace.as_deref_mut() {
            trace.injected.push(Slot::Tls);
        }
    }

    /// Keeps the text that was signed, for `explain` and the console. The closure runs only if someone looks.
    pub fn canonical(&mut self, scheme: &'static str, label: &'static str, text: impl FnOnce() -> String) {
        if let Some(trace) = self.trace.as_deref_mut() {
            trace.canonical.push((scheme, label, text()));
        }
    }

    /// Keeps a remark for a person. The closure runs only if someone looks.
    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = self.trace.as_deref_mut() {
            trace.notes.push(text());
        }
    }
}

/// The request-target as `hop` will see it (RFC 9112 section 3.2). `head.uri` is in absolute form, or in authority form
/// for CONNECT.
pub fn request_target<'p>(head: &'p Parts, target: &Target, hop: Hop) -> Cow<'p, str> {
    if head.method == http::Method::CONNECT {
        return Cow::Owned(target.host_port());
    }
    let path = origin_form(&head.uri);
    match (hop, target.scheme) {
        // A plain request to a parent proxy goes in absolute form; a TLS one travels inside CONNECT.
        (Hop::ParentProxy, Scheme::Http) => Cow::Owned(format!("{target}{path}")),
        _ => Cow::Borrowed(path),
    }
}

/// Path and query as sent to an origin; `/` if there is none.
pub fn origin_form(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
}
