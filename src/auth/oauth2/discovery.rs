//! Finding the endpoints of an issuer: OpenID Connect Discovery 1.0 section 4, then RFC 8414 section 3.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use serde::Deserialize;
use url::Url;

use super::{answer::plain, client::Client, config::Discovery, explain::shown};
use crate::auth::AuthError;

/// What an issuer says of itself; other members are not read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Metadata {
    pub(super) issuer: String,
    pub(super) authorization_endpoint: Option<String>,
    pub(super) token_endpoint: Option<String>,
    pub(super) device_authorization_endpoint: Option<String>,
    pub(super) revocation_endpoint: Option<String>,
    pub(super) pushed_authorization_request_endpoint: Option<String>,
    pub(super) require_pushed_authorization_requests: bool,
    pub(super) authorization_response_iss_parameter_supported: bool,
    pub(super) mtls_endpoint_aliases: BTreeMap<String, String>,
}

/// The endpoints that a client may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Authorization,
    Token,
    Device,
    Revocation,
    Pushed,
}

impl Place {
    /// Its name in metadata.
    fn member(self) -> &'static str {
        match self {
            Self::Authorization => "authorization_endpoint",
            Self::Token => "token_endpoint",
            Self::Device => "device_authorization_endpoint",
            Self::Revocation => "revocation_endpoint",
            Self::Pushed => "pushed_authorization_request_endpoint",
        }
    }

    /// The YAML key that gives it.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Authorization => "auth_url",
            Self::Token => "token_url",
            Self::Device => "device_url",
            Self::Revocation => "revoke_url",
            Self::Pushed => "par_url",
        }
    }
}

impl Metadata {
    /// The endpoint; with a client certificate the one that asks for it (RFC 8705 section 5).
    pub(super) fn endpoint(&self, place: Place, with_certificate: bool) -> Option<&str> {
        let own = match place {
            Place::Authorization => &self.authorization_endpoint,
            Place::Token => &self.token_endpoint,
            Place::Device => &self.device_authorization_endpoint,
            Place::Revocation => &self.revocation_endpoint,
            Place::Pushed => &self.pushed_authorization_request_endpoint,
        };
        let alias = self.mtls_endpoint_aliases.get(place.member()).filter(|_| with_certificate);
        alias.or(own.as_ref()).map(String::as_str)
    }
}

/// Where the metadata of `issuer` may be, in the order to try.
pub(super) fn metadata_urls(issuer: &Url, which: Discovery) -> Vec<Url> {
    let path = issuer.path().trim_end_matches('/');
    let at = |path: String| {
        let mut url = issuer.clone();
        url.set_query(None);
        url.set_path(&path);
        url
    };
    let oidc = at(format!("{path}/.well-known/openid-configuration"));
    let oauth = at(format!("/.well-known/oauth-authorization-server{path}"));
    match which {
        Discovery::Auto => vec![oidc, oauth],
        Discovery::Oidc => vec![oidc],
        Discovery::Oauth => vec![oauth],
    }
}

/// Reads a metadata document, which has to be about `issuer`.
fn read(document: &[u8], issuer: &str) -> Result<Metadata, String> {
    let metadata: Metadata =
        serde_json::from_slice(document).map_err(|_| "is not the metadata of an issuer".to_owned())?;
    if metadata.issuer.is_empty() {
        return Err("names no issuer".to_owned());
    }
    if metadata.issuer.trim_end_matches('/') != issuer.trim_end_matches('/') {
        return Err(format!(
            "is about another issuer, `{}`; write that as `issuer` if it is the right one",
            plain(&metadata.issuer)
        ));
    }
    Ok(metadata)
}

impl Client {
    /// The metadata of the issuer, if one is configured; asked for once in a while.
    pub(super) async fn metadata(&self) -> Result<Option<Arc<Metadata>>, AuthError> {
        let Some(issuer) = &self.config.issuer else { return Ok(None) };
        let issuer = self.read_open(issuer).await?;
        let url = self.checked("issuer", issuer.expose())?;
        let mut discovered = self.discovered.lock().await;
        if let Some((at, metadata)) = discovered.as_ref()
            && at.elapsed() < super::client::METADATA_LIFE
        {
            return Ok(Some(metadata.clone()));
        }
        let mut last = self.missing("no metadata");
        for place in metadata_urls(&url, self.config.discovery) {
            let mut request = Request::new(Bytes::new());
            *request.uri_mut() = place.as_str().parse().map_err(|_| self.missing("`issuer` cannot be used"))?;
            request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
            let response = self.send(request, &place).await?;
            if !response.status().is_success() {
                let passing = (response.status().is_server_error()).then_some(1);
                let why = format!(
                    "{} answered {}; set the endpoints (`token_url` and so on) if there is no metadata",
                    shown(&place),
                    response.status()
                );
                last = self.endpoint_error(&why, passing);
                continue;
            }
            match read(response.body(), issuer.expose()) {
                Ok(metadata) => {
                    let metadata = Arc::new(metadata);
                    *discovered = Some((Instant::now(), metadata.clone()));
                    return Ok(Some(metadata));
                }
                Err(why) => last = self.endpoint_error(&format!("the document at {} {why}", shown(&place)), None),
            }
        }
        Err(last)
    }
}
