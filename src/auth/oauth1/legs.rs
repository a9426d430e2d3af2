//! The requests of a login and what their answers say (RFC 5849 section 2): temporary credentials, the address for the
//! person, and the exchange for a token.

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};

use super::{
    Oauth1Config,
    parameters::{Consumer, Message, Token},
    sign::{base_uri, encode, pairs},
    unix,
};
use crate::{
    auth::scheme::origin_form,
    clock::Clock,
    secret::Secret,
    target::{Scheme, Target},
};

/// A signed POST without a body: for temporary credentials with `callback`, for a token with `token` and `verifier`.
pub(super) fn request(
    config: &Oauth1Config,
    consumer: &Consumer,
    url: &str,
    token: &Token,
    callback: &str,
    verifier: &str,
    clock: &Clock,
) -> Result<Request<Bytes>, String> {
    let (uri, target) = endpoint(url)?;
    let nonce = config.nonce.clone().unwrap_or_else(|| clock.nonce_hex(16));
    let message = Message {
        method: "POST",
        base_uri: &base_uri(&target, origin_form(&uri)),
        query: uri.query().unwrap_or_default(),
        form: None,
        content: None,
        timestamp: &config.timestamp.clone().unwrap_or_else(|| unix(clock.now()).to_string()),
        nonce: &nonce,
        callback,
        verifier,
    };
    let signed = consumer.sign(config, token, &message)?;
    let line = signed.header(config.realm.as_deref(), true);
    let mut value = http::HeaderValue::from_str(&line).map_err(|_| "the request's header cannot be written")?;
    value.set_sensitive(true);
    let request = Request::post(uri)
        .header(header::HOST, target.authority())
        .header(header::AUTHORIZATION, value)
        .header(header::CONTENT_LENGTH, 0)
        .header(header::ACCEPT, "application/x-www-form-urlencoded, */*")
        .body(Bytes::new());
    request.map_err(|_| "the request cannot be written".to_owned())
}

/// An address of the server: https, or http on this machine.
fn endpoint(url: &str) -> Result<(Uri, Target), String> {
    let uri: Uri = url.parse().map_err(|_| "is not a URL")?;
    let target = Target::from_uri(&uri).map_err(|error| format!("is not a URL for requests: {error}"))?;
    let here = target.host.ip().is_some_and(|ip| ip.is_loopback());
    if target.scheme == Scheme::Http && !here {
        return Err("has to be https, since its answer holds a secret".to_owned());
    }
    Ok((uri, target))
}

/// The credentials in an answer. Temporary ones come with a confirmation, without which anybody's consent would do
/// (OAuth Core 1.0 revision A).
pub(super) fn answer(status: StatusCode, body: &[u8], temporary: bool) -> Result<Token, String> {
    let text = std::str::from_utf8(body).unwrap_or_default();
    if !status.is_success() {
        let problem = param(text, "oauth_problem").map(|problem| problem.expose().to_owned());
        let word =
            |problem: &String| problem.len() <= 60 && problem.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let problem = problem.filter(word).map(|problem| format!(" (oauth_problem={problem})")).unwrap_or_default();
        return Err(format!("the server answered {}{problem}", status.as_u16()));
    }
    let token = Token::read(text).ok_or("the answer holds no `oauth_token` with its `oauth_token_secret`")?;
    let confirmed = param(text, "oauth_callback_confirmed").is_some_and(|said| said.expose() == "true");
    if temporary && !confirmed {
        return Err("the answer does not say `oauth_callback_confirmed=true`: the server speaks OAuth 1.0 without \
                    revision A, which is not safe"
            .to_owned());
    }
    Ok(token)
}

/// The address where a person agrees.
pub(super) fn authorize_url(url: &str, temporary: &Token) -> Result<String, String> {
    let mut url = url::Url::parse(url).map_err(|error| format!("is not a URL: {error}"))?;
    if !["https", "http"].contains(&url.scheme()) {
        return Err("has to be https".to_owned());
    }
    let query = url.query().filter(|query| !query.is_empty()).map(|query| format!("{query}&")).unwrap_or_default();
    url.set_query(Some(&format!("{query}oauth_token={}", encode(temporary.token.expose().as_bytes()))));
    Ok(url.into())
}

impl Token {
    /// As it is kept: the form in which servers give it.
    pub(super) fn written(&self) -> Secret {
        let [token, secret] = [&self.token, &self.secret].map(|secret| encode(secret.expose().as_bytes()));
        Secret::new(format!("oauth_token={token}&oauth_token_secret={secret}"))
    }

    /// Reads that form; `None` without both halves. The secret may be empty.
    pub(super) fn read(form: &str) -> Option<Self> {
        let token = param(form, "oauth_token").filter(|token| !token.is_empty())?;
        Some(Self { token, secret: param(form, "oauth_token_secret")? })
    }
}

/// A parameter of a form.
fn param(form: &str, name: &str) -> Option<Secret> {
    let (_, value) = pairs(form.trim().as_bytes()).find(|(known, _)| known == name.as_bytes())?;
    String::from_utf8(value).ok().map(Secret::new)
}
