//! Writing requests to a token endpoint (RFC 6749 sections 2.3 and 3.2).

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, header};
use url::{Url, form_urlencoded};

use super::{BasicEncoding, ClientAuth, ParamPlace};
use crate::secret::Secret;

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

/// A POST with a form. `standard` parameters give way to configured ones of the same name.
pub(super) fn post(
    url: &Url,
    identity: &Identity,
    standard: &[(&str, &str)],
    params: &[ReadParam],
) -> Result<Request<Bytes>, String> {
    let mut url = url.clone();
    for param in params.iter().filter(|param| param.place == ParamPlace::Url) {
        url.query_pairs_mut().append_pair(&param.name, param.value.expose());
    }
    let body = form(identity, standard, params);
    let mut request = Request::new(Bytes::from(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.as_str().parse().map_err(|_| "the URL cannot be used".to_owned())?;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    if identity.auth == ClientAuth::Basic {
        headers.insert(
            header::AUTHORIZATION,
            sensitive(&format!("Basic {}", identity.basic().expose()), "client_secret")?,
        );
    }
    let mut replaced: Vec<HeaderName> = Vec::new();
    for param in params.iter().filter(|param| param.place == ParamPlace::Header) {
        let name =
            HeaderName::try_from(param.name.as_str()).map_err(|_| format!("`{}` cannot name a header", param.name))?;
        let value = sensitive(param.value.expose(), &param.name)?;
        if replaced.contains(&name) {
            headers.append(name, value);
        } else {
            headers.insert(name.clone(), value);
            replaced.push(name);
        }
    }
    Ok(request)
}

fn form(identity: &Identity, standard: &[(&str, &str)], params: &[ReadParam]) -> String {
    let configured: Vec<&ReadParam> = params.iter().filter(|param| param.place == ParamPlace::Body).collect();
    let mut form = form_urlencoded::Serializer::new(String::new());
    let mut put = |name: &str, value: &str| {
        if !configured.iter().any(|param| param.name == name) {
            form.append_pair(name, value);
        }
    };
    for (name, value) in standard {
        put(name, value);
    }
    if identity.auth != ClientAuth::Basic {
        put("client_id", &identity.id);
    }
    if identity.auth == ClientAuth::Body {
        put("client_secret", identity.secret.as_ref().map_or("", Secret::expose));
    }
    for param in configured {
        form.append_pair(&param.name, param.value.expose());
    }
    form.finish()
}

fn sensitive(text: &str, key: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_bytes(text.as_bytes())
        .map_err(|_| format!("the value of `{key}` holds a line break or another control character"))?;
    value.set_sensitive(true);
    Ok(value)
}
