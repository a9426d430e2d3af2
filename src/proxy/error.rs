//! Our own failures and their single conversion into an answer.
//!
//! An answer of ours repeats nothing of the request but its target: no header, no query, no secret.

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::delivery::OutBody;
use crate::{
    auth::{AuthError, AuthErrorKind},
    upstream::LinkError,
};

/// What failed; the error id of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorId {
    /// The request is malformed or ambiguous.
    BadRequest,
    /// The request names two destinations.
    DestinationMismatch,
    /// The client must name itself.
    ClientAuth,
    /// The body does not fit into the buffer that its scheme needs.
    BodyTooLarge,
    /// The configuration forbids it.
    Denied,
    /// No connection.
    UpstreamConnect,
    /// No trusted connection.
    UpstreamTls,
    /// No answer in time.
    UpstreamTimeout,
    /// The answer is not HTTP, or the connection broke.
    UpstreamProtocol,
    /// A secret is unset or unreadable.
    CredentialMissing,
    /// The credential was refused and there is no better one.
    CredentialRejected,
    /// The token endpoint failed.
    TokenEndpoint,
    /// A person has to log in.
    LoginNeeded,
    /// The request came from ourselves.
    Loop,
    /// A foreign web page asked.
    CrossSite,
    /// Too many connections.
    Overloaded,
}

impl ErrorId {
    /// All of them, by their numbers.
    pub const ALL: [Self; 16] = [
        Self::BadRequest,
        Self::DestinationMismatch,
        Self::ClientAuth,
        Self::BodyTooLarge,
        Self::Denied,
        Self::UpstreamConnect,
        Self::UpstreamTls,
        Self::UpstreamTimeout,
        Self::UpstreamProtocol,
        Self::CredentialMissing,
        Self::CredentialRejected,
        Self::TokenEndpoint,
        Self::LoginNeeded,
        Self::Loop,
        Self::CrossSite,
        Self::Overloaded,
    ];

    /// Its number, for meters.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// As in `x-countersign-error` and `urn:countersign:error:<id>`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::DestinationMismatch => "destination-mismatch",
            Self::ClientAuth => "client-auth",
            Self::BodyTooLarge => "body-too-large",
            Self::Denied => "denied",
            Self::UpstreamConnect => "upstream-connect",
            Self::UpstreamTls => "upstream-tls",
            Self::UpstreamTimeout => "upstream-timeout",
            Self::UpstreamProtocol => "upstream-protocol",
            Self::CredentialMissing => "credential-missing",
            Self::CredentialRejected => "credential-rejected",
            Self::TokenEndpoint => "token-endpoint",
            Self::LoginNeeded => "login-needed",
            Self::Loop => "loop",
            Self::CrossSite => "cross-site",
            Self::Overloaded => "overloaded",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::Loop => StatusCode::BAD_REQUEST,
            Self::DestinationMismatch => StatusCode::MISDIRECTED_REQUEST,
            Self::ClientAuth => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Denied | Self::CrossSite => StatusCode::FORBIDDEN,
            Self::UpstreamConnect
            | Self::UpstreamTls
            | Self::UpstreamProtocol
            | Self::CredentialMissing
            | Self::CredentialRejected
            | Self::TokenEndpoint => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::LoginNeeded => StatusCode::NETWORK_AUTHENTICATION_REQUIRED,
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "The request is malformed or ambiguous",
            Self::DestinationMismatch => "The request names more than one destination",
            Self::ClientAuth => "The proxy does not know this client",
            Self::BodyTooLarge => "The body is larger than the buffer for signing",
            Self::Denied => "The configuration does not allow this destination",
            Self::UpstreamConnect => "No connection to the destination",
            Self::UpstreamTls => "No trusted connection to the destination",
            Self::UpstreamTimeout => "The destination did not answer in time",
            Self::UpstreamProtocol => "The destination broke the protocol or the connection",
            Self::CredentialMissing => "A credential is not available",
            Self::CredentialRejected => "A credential was refused",
            Self::TokenEndpoint => "No token could be fetched",
            Self::LoginNeeded => "A login is needed",
            Self::Loop => "The request leads back to this proxy",
            Self::CrossSite => "A foreign web page may not use this rule",
            Self::Overloaded => "The proxy is at its limit",
        }
    }
}

/// A failure of ours on the way of one request.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {detail}", id.as_str())]
pub struct ProxyError {
    /// What failed.
    pub id: ErrorId,
    /// On what, why, and what to do. Holds nothing of the request but its target.
    pub detail: String,
    /// Seconds after which to try again; turns 502 into 503.
    pub retry_after: Option<u64>,
    /// The connection must not be used for another request.
    pub close: bool,
}

/// The body of an answer of ours (RFC 9457).
#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl ProxyError {
    /// A failure with its explanation.
    pub fn new(id: ErrorId, detail: impl Into<String>) -> Self {
        Self { id, detail: detail.into(), retry_after: None, close: false }
    }

    /// The same, and the connection ends.
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        if self.retry_after.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { self.id.status() }
    }

    /// The answer itself.
    pub fn into_response(self) -> Response<OutBody> {
        let status = self.status();
        let problem = Problem {
            r#type: format!("urn:countersign:error:{}", self.id.as_str()),
            title: self.id.title(),
            status: status.as_u16(),
            detail: &self.detail,
        };
        let mut body = serde_json::to_vec(&problem).unwrap_or_default();
        body.push(b'\n');
        let mut response = Response::new(OutBody::full(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert("x-countersign-error", HeaderValue::from_static(self.id.as_str()));
        if self.id == ErrorId::ClientAuth {
            headers.insert(
                header::PROXY_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"countersign\", charset=\"UTF-8\""),
            );
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<LinkError> for ProxyError {
    fn from(error: LinkError) -> Self {
        let detail = error.to_string();
        let id = match error {
            LinkError::Connect { .. } | LinkError::ParentRefused { .. } => ErrorId::UpstreamConnect,
            LinkError::Tls { .. } => ErrorId::UpstreamTls,
            LinkError::Timeout { .. } => ErrorId::UpstreamTimeout,
            LinkError::Denied { .. } => ErrorId::Denied,
            LinkError::Loop { .. } => ErrorId::Loop,
            LinkError::Auth(error) => return Self::from(error),
        };
        Self::new(id, detail)
    }
}

impl From<AuthError> for ProxyError {
    fn from(error: AuthError) -> Self {
        let id = match error.kind {
            AuthErrorKind::Missing => ErrorId::CredentialMissing,
            AuthErrorKind::Rejected => ErrorId::CredentialRejected,
            AuthErrorKind::TokenEndpoint | AuthErrorKind::TokenStore => ErrorId::TokenEndpoint,
            AuthErrorKind::LoginNeeded => ErrorId::LoginNeeded,
            AuthErrorKind::Request => ErrorId::BadRequest,
            AuthErrorKind::TooLarge => ErrorId::BodyTooLarge,
        };
        Self { id, detail: error.message, retry_after: error.retry_after, close: false }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_says_what_and_is_never_cached() {
        let response = ProxyError::new(ErrorId::TokenEndpoint, "it is down").into_response();
        assert_eq!(response.status(), 502);
        assert_eq!(response.headers()["x-countersign-error"], "token-endpoint");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["type"], "urn:countersign:error:token-endpoint");
        assert_eq!(problem["status"], 502);
        assert_eq!(problem["detail"], "it is down");
    }

    #[test]
    fn every_error_has_a_number_and_a_meter() {
        for (number, id) in ErrorId::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(id.number()), number, "{id:?}");
        }
        assert!(ErrorId::ALL.len() <= crate::metrics::MAX_ERRORS);
    }

    #[test]
    fn a_failure_that_will_pass_is_503() {
        let mut error = AuthError::new(AuthErrorKind::TokenEndpoint, "busy");
        error.retry_after = Some(7);
        let response = ProxyError::from(error).into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "7");
    }
}
