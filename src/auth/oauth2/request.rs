//! Writing requests to a token endpoint (RFC 6749 sections 2.3 and 3.2): the `oauth2` crate writes the standard ones,
//! and what it has no words for is changed afterwards.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, header};
use oauth2::{
    AuthType, ClientId, ClientSecret, HttpRequest, StandardRevocableToken,
    basic::{BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse},
};
use url::{Url, form_urlencoded};

use super::{BasicEncoding, ClientAuth, ParamPlace, answer::Tokens};
use crate::secret::Secret;

/// As `BasicClient`, with an ID token.
type StandardClient = oauth2::Client<
    BasicErrorResponse,
    Tokens,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
>;

/// A parameter with its value read.
pub(super) struct ReadParam {
    pub(super) name: String,
    pub(super) value: Secret,
    pub(super) place: ParamPlace,
}

/// Who asks.
pub(super) struct Identity {
    pub(super) id: String,
    pub(super) secret: Option<Secret>,
    pub(super) auth: ClientAuth,
    pub(super) encoding: BasicEncoding,
}

impl Identity {
    /// The value of `Authorization` without `Basic `; an empty secret still has its colon.
    pub(super) fn basic(&self) -> Secret {
        let secret = self.secret.as_ref().map_or("", Secret::expose);
        let pair = match self.encoding {
            BasicEncoding::Rfc6749 => format!("{}:{}", form_encoded(&self.id), form_encoded(secret)),
            BasicEncoding::Raw => format!("{}:{secret}", self.id),
        };
        Secret::new(BASE64_STANDARD.encode(pair))
    }

    /// The client that writes the standard requests.
    pub(super) fn standard(&self) -> StandardClient {
        let way = if self.auth == ClientAuth::Basic { AuthType::BasicAuth } else { AuthType::RequestBody };
        let client = StandardClient::new(ClientId::new(self.id.clone())).set_auth_type(way);
        match &self.secret {
            Some(secret) => client.set_client_secret(ClientSecret::new(secret.expose().to_owned())),
            None => client,
        }
    }
}

/// `application/x-www-form-urlencoded` as in RFC 6749 appendix B.
pub(super) fn form_encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// A URL that tokens may be asked of: https, or http on this machine unless `allow_plaintext` says otherwise. The
/// error begins with a verb.
pub(super) fn endpoint(text: &str, allow_plaintext: bool) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or password; use `client_id` and `client_secret`".to_owned());
    }
    if url.fragment().is_some() {
        return Err("holds a fragment (`#...`)".to_owned());
    }
    let on_loopback = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => return Err("has no host".to_owned()),
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if on_loopback || allow_plaintext => Ok(url),
        "http" => Err("is plain http, which would show the client secret to everyone on the way; use https, or write \
                       `allow_plaintext: true`"
            .to_owned()),
        other => Err(format!("begins with `{other}:`; only https and http can be used")),
    }
}

/// Makes of a standard request the one that is configured. Standard and `extra` parameters give way to configured ones
/// of the same name.
pub(super) fn amended(
    standard: HttpRequest,
    identity: &Identity,
    extra: &[(&str, &str)],
    params: &[ReadParam],
) -> Result<Request<Bytes>, String> {
    let (mut head, body) = standard.into_parts();
    let at = |place: ParamPlace| params.iter().filter(move |param| param.place == place);
    let mut form = form_urlencoded::Serializer::new(String::new());
    let extra = extra.iter().map(|&(name, value)| (name.into(), value.into()));
    let pairs = form_urlencoded::parse(&body).chain(extra);
    form.extend_pairs(pairs.filter(|(name, _)| at(ParamPlace::Body).all(|param| param.name != *name)));
    form.extend_pairs(at(ParamPlace::Body).map(|param| (&param.name, param.value.expose())));
    if at(ParamPlace::Url).next().is_some() {
        let mut url = Url::parse(&head.uri.to_string()).map_err(|_| "the URL cannot be used".to_owned())?;
        url.query_pairs_mut().extend_pairs(at(ParamPlace::Url).map(|param| (&param.name, param.value.expose())));
        head.uri = url.as_str().parse().map_err(|_| "the URL cannot be used".to_owned())?;
    }
    if identity.auth == ClientAuth::Basic {
        let basic = sensitive(&format!("Basic {}", identity.basic().expose()), "client_secret")?;
        head.headers.insert(header::AUTHORIZATION, basic);
    }
    let mut replaced: Vec<HeaderName> = Vec::new();
    for param in at(ParamPlace::Header) {
        let name =
            HeaderName::try_from(param.name.as_str()).map_err(|_| format!("`{}` cannot name a header", param.name))?;
        let value = sensitive(param.value.expose(), &param.name)?;
        if replaced.contains(&name) {
            head.headers.append(name, value);
        } else {
            head.headers.insert(name.clone(), value);
            replaced.push(name);
        }
    }
    Ok(Request::from_parts(head, form.finish().into()))
}

fn sensitive(text: &str, key: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_bytes(text.as_bytes())
        .map_err(|_| format!("the value of `{key}` holds a line break or another control character"))?;
    value.set_sensitive(true);
    Ok(value)
}
