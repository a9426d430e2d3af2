//! Writing requests to token endpoints (RFC 6749 section 3.2): a form, and further parameters in body, URL and header.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, header};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::config::ParamPlace;
use crate::secret::Secret;

/// A parameter with its value read.
#[derive(Clone, Debug)]
pub(super) struct ReadParam {
    pub(super) name: String,
    pub(super) value: Secret,
    pub(super) place: ParamPlace,
    /// Never to be shown, also where a server repeats it.
    pub(super) hidden: bool,
}

/// The parameters of a request in their order. A name may repeat.
#[derive(Clone, Debug, Default)]
pub(super) struct Form(Vec<(String, Secret)>);

impl Form {
    /// A form with one parameter.
    pub(super) fn new(name: &str, value: &str) -> Self {
        let mut form = Self::default();
        form.add(name, value);
        form
    }

    /// Adds one at the end.
    pub(super) fn add(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), Secret::new(value)));
    }

    /// Adds one if there is a value.
    pub(super) fn add_some(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    /// Adds several under one name.
    pub(super) fn add_all(&mut self, name: &str, values: &[String]) {
        values.iter().for_each(|value| self.add(name, value));
    }

    /// Puts configured parameters in place of standard ones with the same name.
    pub(super) fn overrule(&mut self, params: &[&ReadParam]) {
        self.0.retain(|(name, _)| params.iter().all(|param| param.name != *name));
        self.0.extend(params.iter().map(|param| (param.name.clone(), param.value.clone())));
    }

    /// The values that must never be shown.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.0.iter().filter(|(name, _)| SECRETS.contains(&name.as_str())).map(|(_, value)| value)
    }

    /// Takes out all parameters of that name.
    pub(super) fn forget(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    /// `application/x-www-form-urlencoded` as in RFC 6749 appendix B.
    fn encoded(&self) -> Bytes {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(self.0.iter().map(|(name, value)| (name, value.expose())));
        form.finish().into()
    }

    /// Appends the parameters to the query of `url`, beside what it has.
    pub(super) fn append_to(&self, url: &mut Url) {
        if !self.0.is_empty() {
            url.query_pairs_mut().extend_pairs(self.0.iter().map(|(name, value)| (name, value.expose())));
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
    if url.host().is_none() {
        return Err("has no host".to_owned());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) || allow_plaintext => Ok(url),
        "http" => Err("is plain http, which would show the client secret to everyone on the way; use https, or write \
                       `allow_plaintext: true`"
            .to_owned()),
        other => Err(format!("begins with `{other}:`; only https and http can be used")),
    }
}

/// True if the URL's host is this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// Makes the POST. Standard parameters and fields give way to configured ones of the same name.
pub(super) fn post(
    url: &Url,
    mut form: Form,
    fields: Vec<(HeaderName, HeaderValue)>,
    params: &[ReadParam],
) -> Result<Request<Bytes>, String> {
    let at = |place: ParamPlace| params.iter().filter(move |param| param.place == place);
    form.overrule(&at(ParamPlace::Body).collect::<Vec<_>>());
    let mut url = url.clone();
    if at(ParamPlace::Url).next().is_some() {
        url.query_pairs_mut().extend_pairs(at(ParamPlace::Url).map(|param| (&param.name, param.value.expose())));
    }
    let mut request = Request::new(form.encoded());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.as_str().parse().map_err(|_| "the URL cannot be used".to_owned())?;
    let headers = request.headers_mut();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    for (name, value) in fields {
        headers.insert(name, value);
    }
    let mut replaced: Vec<HeaderName> = Vec::new();
    for param in at(ParamPlace::Header) {
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

/// A header value that is never shown nor indexed.
pub(super) fn sensitive(text: &str, key: &str) -> Result<HeaderValue, String> {
    let text = Zeroizing::new(text.as_bytes().to_vec());
    let mut value = HeaderValue::from_bytes(&text)
        .map_err(|_| format!("the value of `{key}` holds a line break or another control character"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Parameters whose values are secrets.
pub(super) const SECRETS: [&str; 11] = [
    "actor_token",
    "assertion",
    "client_assertion",
    "client_secret",
    "code",
    "code_verifier",
    "device_code",
    "password",
    "refresh_token",
    "subject_token",
    "token",
];
