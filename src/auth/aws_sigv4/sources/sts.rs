//! Roles: `AssumeRole` and `AssumeRoleWithWebIdentity` of the Security Token Service (STS API Reference, version
//! 2011-06-15; the AWS Query protocol).

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::Value;
use url::{Host, Url, form_urlencoded};

use super::{
    Ask,
    answer::{self, When, plain},
    plan::Session,
};
use crate::{
    auth::{
        AuthError, AuthErrorKind,
        aws_sigv4::{keys::Keys, sign::sign_request},
        fetch::{FetchError, FetchOptions},
    },
    secret::Secret,
};

/// For one answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);
/// Variables that name the region, the first that is set.
pub(super) const REGION: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];
/// Variable that names the endpoint.
pub(super) const ENDPOINT: &str = "AWS_ENDPOINT_URL_STS";
/// The name of sessions that nobody has named.
pub(super) const SESSION: &str = "countersign";
const MAX_BODY: usize = 256 << 10;

/// One endpoint of the service.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sts {
    url: Url,
    region: String,
}

impl Sts {
    /// The endpoint that is named, else that of the region, else the global one. The error begins with a verb.
    pub(super) fn of(named: Option<&str>, region: Option<&str>, allow_plaintext: bool) -> Result<Self, String> {
        let is_region = |text: &str| {
            text.len() <= 64
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        if region.is_some_and(|region| !is_region(region)) {
            return Err("cannot be made of a region that is none, such as `eu-west-1`".to_owned());
        }
        let url = match (named, region) {
            (Some(url), _) => endpoint(url, allow_plaintext)?,
            (None, Some(region)) => {
                let domain = DOMAINS.iter().find(|(start, _)| region.starts_with(start));
                let domain = domain.map_or("amazonaws.com", |(_, domain)| domain);
                endpoint(&format!("https://sts.{region}.{domain}"), false)?
            }
            (None, None) => endpoint("https://sts.amazonaws.com", false)?,
        };
        Ok(Self { url, region: region.unwrap_or("us-east-1").to_owned() })
    }

    /// For messages.
    pub(super) fn shown(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

/// Partitions with a domain of their own, by the beginning of their regions.
const DOMAINS: [(&str, &str); 6] = [
    ("cn-", "amazonaws.com.cn"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("eusc-", "amazonaws.eu"),
];

/// A URL that keys may come from: https, or http on this machine unless plain text is allowed. The error begins with a
/// verb.
pub(super) fn endpoint(text: &str, allow_plaintext: bool) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() || url.query().is_some() {
        return Err("holds a user, a query or a fragment; scheme, host and path are enough".to_owned());
    }
    let near = match url.host() {
        Some(Host::Ipv4(ip)) => IpAddr::from(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip).is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => return Err("has no host".to_owned()),
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if near || allow_plaintext => Ok(url),
        "http" => Err("is plain http, which would show the keys to everyone on the way; use https, or write \
                       `allow_plaintext: true` beside `sts_endpoint`"
            .to_owned()),
        other => Err(format!("begins with `{other}:`; only https and http can be used")),
    }
}

/// Seconds that a session may last. The error begins with a verb.
pub(super) fn lifetime(seconds: u64) -> Result<u64, String> {
    if (900..=43_200).contains(&seconds) { Ok(seconds) } else { Err("is not between 15m and 12h".to_owned()) }
}

/// Why STS gave no keys.
#[derive(Debug)]
pub(super) struct Failure {
    /// The keys that asked are refused; others may do.
    pub(super) refuses_keys: bool,
    pub(super) error: AuthError,
}

impl Ask<'_> {
    /// Takes on a role with keys.
    pub(super) async fn assume_role(&self, session: &Session, keys: &Keys) -> Result<Keys, Failure> {
        let mut request = form(session, "AssumeRole", &[]).map_err(unsent)?;
        // The machine's time, also where `explain` stands at another: STS takes no other.
        let now = self.context.clock.wall();
        sign_request(&mut request, keys, &session.sts.region, "sts", now).map_err(unsent)?;
        let secrets = [Some(&keys.secret_key), keys.session_token.as_ref(), session.external_id.as_ref()];
        self.exchange(session, "AssumeRole", request, &secrets).await
    }

    /// Takes on a role with a token of an identity provider.
    pub(super) async fn assume_role_with_web_identity(
        &self,
        session: &Session,
        token: &Secret,
    ) -> Result<Keys, Failure> {
        let request =
            form(session, "AssumeRoleWithWebIdentity", &[("WebIdentityToken", token.expose())]).map_err(unsent)?;
        self.exchange(session, "AssumeRoleWithWebIdentity", request, &[Some(token)]).await
    }

    async fn exchange(
        &self,
        session: &Session,
        action: &str,
        request: Request<Bytes>,
        secrets: &[Option<&Secret>],
    ) -> Result<Keys, Failure> {
        let whom = session.sts.shown();
        let options = FetchOptions {
            credential: self.credential.clone(),
            timeout: TIMEOUT,
            max_body_bytes: MAX_BODY,
            binding: None,
        };
        let answer = self.context.fetch.fetch(request, options).await.map_err(|error| {
            let retry = (!matches!(error, FetchError::TooLarge(_))).then_some(1);
            unsent(failed(format!("the request to {whom} failed: {error}"), retry))
        })?;
        if answer.status().is_success() {
            return read(action, &answer).map_err(|why| {
                unsent(failed(format!("the answer of {whom} to {action} cannot be used: {why}"), None))
            });
        }
        let mut failure = explain(session, action, &answer);
        // A server may repeat what we sent.
        for secret in secrets.iter().flatten().filter(|secret| secret.expose().len() > 3) {
            failure.error.message = failure.error.message.replace(secret.expose(), "***");
        }
        Err(failure)
    }
}

fn unsent(error: AuthError) -> Failure {
    Failure { refuses_keys: false, error }
}

fn failed(message: String, retry_after: Option<u64>) -> AuthError {
    AuthError { kind: AuthErrorKind::TokenEndpoint, message, retry_after }
}

fn form(session: &Session, action: &str, more: &[(&str, &str)]) -> Result<Request<Bytes>, AuthError> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("Action", action).append_pair("Version", VERSION);
    form.append_pair("RoleArn", &session.role_arn).append_pair("RoleSessionName", &session.name);
    if let Some(seconds) = session.duration {
        form.append_pair("DurationSeconds", &seconds.to_string());
    }
    if let Some(policy) = &session.policy {
        form.append_pair("Policy", policy);
    }
    if let Some(id) = &session.external_id {
        form.append_pair("ExternalId", id.expose());
    }
    for (name, value) in more {
        form.append_pair(name, value);
    }
    let request = Request::builder()
        .method(Method::POST)
        .uri(session.sts.url.as_str())
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8"));
    request
        .body(form.finish().into())
        .map_err(|error| AuthError::missing(format!("the request to {} cannot be made: {error}", session.sts.shown())))
}

/// The keys in an answer, XML or JSON. The error repeats nothing of it.
fn read(action: &str, answer: &Response<Bytes>) -> Result<Keys, String> {
    let text = std::str::from_utf8(answer.body()).map_err(|_| "it is not UTF-8")?;
    let path = [format!("{action}Response"), format!("{action}Result"), "Credentials".to_owned()];
    if text.trim_start().starts_with('{') {
        let root: Value = serde_json::from_str(text).map_err(|_| "it is no JSON")?;
        let found = path.iter().try_fold(&root, |value, name| value.get(name)).ok_or(NO_KEYS)?;
        let text = |name: &str| found.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let end = found.get("Expiration").ok_or("it has no `Expiration`")?;
        let end: When = serde_json::from_value(end.clone()).map_err(|_| "its `Expiration` is no time")?;
        return keys(text("AccessKeyId"), text("SecretAccessKey"), text("SessionToken"), end.read()?);
    }
    let document = roxmltree::Document::parse(text).map_err(|_| "it is neither XML nor JSON")?;
    let root = document.root_element();
    let mut node = Some(root).filter(|root| root.has_tag_name_of(&path[0]));
    for name in &path[1..] {
        node = node.and_then(|node| child(node, name));
    }
    let node = node.ok_or(NO_KEYS)?;
    let text = |name: &str| child(node, name).and_then(|child| child.text()).unwrap_or_default().to_owned();
    keys(text("AccessKeyId"), text("SecretAccessKey"), text("SessionToken"), answer::time(&text("Expiration"))?)
}

const NO_KEYS: &str = "it holds no `Credentials`";

fn keys(access: String, secret: String, token: String, end: std::time::SystemTime) -> Result<Keys, String> {
    if token.is_empty() {
        return Err("it has no `SessionToken`".to_owned());
    }
    answer::checked(access, secret, Some(token), Some(end))
}

/// The one child element of that name, whatever its namespace.
fn child<'a, 'i>(node: roxmltree::Node<'a, 'i>, name: &str) -> Option<roxmltree::Node<'a, 'i>> {
    let mut found = node.children().filter(|child| child.has_tag_name_of(name));
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

trait LocalName {
    fn has_tag_name_of(&self, name: &str) -> bool;
}

impl LocalName for roxmltree::Node<'_, '_> {
    fn has_tag_name_of(&self, name: &str) -> bool {
        self.is_element() && self.tag_name().name() == name
    }
}

/// Code and message of a refusal, XML or JSON.
fn refusal(answer: &Response<Bytes>) -> Option<(String, String)> {
    let text = std::str::from_utf8(answer.body()).ok()?;
    if let Ok(root) = serde_json::from_str::<Value>(text) {
        let error = root.get("Error").or_else(|| root.get("ErrorResponse")?.get("Error"))?;
        let text = |name: &str| error.get(name).and_then(Value::as_str).map(plain);
        return Some((text("Code")?, text("Message").unwrap_or_default()));
    }
    let document = roxmltree::Document::parse(text).ok()?;
    let error = document.descendants().find(|node| node.has_tag_name_of("Error"))?;
    let text = |name: &str| child(error, name).and_then(|child| child.text()).map(plain);
    Some((text("Code")?, text("Message").unwrap_or_default()))
}

/// Says what a refusal means and what to look at.
fn explain(session: &Session, action: &str, answer: &Response<Bytes>) -> Failure {
    let (whom, status) = (session.sts.shown(), answer.status());
    let Some((code, message)) = refusal(answer) else {
        let passing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        let why = format!("{whom} answered {status} to {action}, without a reason that can be read");
        return unsent(failed(why, passing.then_some(1)));
    };
    let passing = status.is_server_error() || PASSING.contains(&code.as_str());
    let refuses_keys = REFUSED_KEYS.contains(&code.as_str()) && action == "AssumeRole";
    let advice = match code.as_str() {
        "AccessDenied" => format!(
            "May these keys take on {}? Its trust policy must name them, with `external_id` if it asks for one.",
            session.role_arn
        ),
        "ExpiredToken" | "ExpiredTokenException" if action != "AssumeRole" => {
            "The token has ended; whoever writes it must write another one.".to_owned()
        }
        "InvalidIdentityToken" => "The role's trust policy must name the issuer and audience of the token.".to_owned(),
        "ValidationError" => "Check `role_arn`, `session_name` and `duration`.".to_owned(),
        "RegionDisabledException" => "Choose another `region`.".to_owned(),
        "SignatureDoesNotMatch" | "RequestExpired" | "IncompleteSignature" => {
            "Check the secret key that asks, and this machine's clock.".to_owned()
        }
        _ if refuses_keys => "The keys that ask are unknown or have ended.".to_owned(),
        _ => String::new(),
    };
    let said = if message.is_empty() { String::new() } else { format!(" ({message})") };
    let mut error = failed(
        format!("{whom} refused {action} with `{code}`{said}. {advice}").trim_end().to_owned(),
        passing.then_some(1),
    );
    if !passing && status.is_client_error() {
        error.kind = AuthErrorKind::Rejected;
    }
    Failure { refuses_keys, error }
}

const VERSION: &str = "2011-06-15";
const PASSING: [&str; 5] =
    ["Throttling", "ThrottlingException", "RequestLimitExceeded", "IDPCommunicationError", "ServiceUnavailable"];
const REFUSED_KEYS: [&str; 4] =
    ["ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_answer_is_survived(text in "(<|>|/|&amp;|&#x41;|Credentials|AssumeRoleResponse|Error|Code|\\{|\"|:|\\}|\\PC){0,60}") {
            let answer = Response::new(Bytes::from(text));
            prop_assert!(read("AssumeRole", &answer).is_err());
            let _ = refusal(&answer);
        }
    }

    #[test]
    fn entities_are_not_expanded_without_end() {
        let mut text = "<!DOCTYPE a [<!ENTITY a \"aaaaaaaaaa\">".to_owned();
        for (from, to) in ('a'..='y').zip('b'..='z') {
            text += &format!("<!ENTITY {to} \"&{from};&{from};&{from};&{from};\">");
        }
        let answer = Response::new(Bytes::from(text + "]><AssumeRoleResponse>&z;</AssumeRoleResponse>"));
        assert_eq!(read("AssumeRole", &answer).unwrap_err(), "it is neither XML nor JSON");
    }
}
