//! Finding the token endpoint of an issuer: OpenID Connect Discovery 1.0 section 4, then RFC 8414 section 3.

use url::Url;

/// Where the metadata of `issuer` may be, in the order to try.
pub(super) fn metadata_urls(issuer: &Url) -> [Url; 2] {
    let path = issuer.path().trim_end_matches('/');
    let at = |path: String| {
        let mut url = issuer.clone();
        url.set_query(None);
        url.set_path(&path);
        url
    };
    [
        at(format!("{path}/.well-known/openid-configuration")),
        at(format!("/.well-known/oauth-authorization-server{path}")),
    ]
}

/// The token endpoint named by a metadata document. The document has to be about `issuer`.
pub(super) fn token_endpoint(document: &[u8], issuer: &str) -> Result<String, String> {
    let document: serde_json::Value = serde_json::from_slice(document).map_err(|_| "is not JSON".to_owned())?;
    let named = document.get("issuer").and_then(|issuer| issuer.as_str()).ok_or("names no issuer")?;
    if named.trim_end_matches('/') != issuer.trim_end_matches('/') {
        return Err(format!(
            "is about another issuer, `{}`; write that as `issuer` if it is the right one",
            named.chars().filter(|c| !c.is_control()).take(200).collect::<String>()
        ));
    }
    let endpoint = document.get("token_endpoint").and_then(|url| url.as_str());
    endpoint.map(str::to_owned).ok_or_else(|| "names no token_endpoint".to_owned())
}
