//! The page that the proxy port shows to clients which take it for a web server.
//!
//! It says how to set up and hands out the certificate; it never shows a rule, a name or a secret, and no other site
//! can read it.

use http::{HeaderValue, Method, Response, StatusCode, header};

use super::delivery::OutBody;

/// What the page needs.
#[derive(Debug)]
pub struct Page {
    /// Our certificate in PEM.
    pub ca_pem: String,
    /// The address of the proxy for examples.
    pub proxy: String,
}

impl Page {
    /// Answers an origin-form request.
    pub fn answer(&self, method: &Method, path: &str) -> Response<OutBody> {
        if method != Method::GET && method != Method::HEAD {
            return reply(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", NOT_A_SERVER.into());
        }
        match path.split('?').next().unwrap_or_default() {
            "/ca.pem" => reply(StatusCode::OK, "application/x-pem-file", self.ca_pem.clone()),
            "/" => reply(StatusCode::OK, "text/plain; charset=utf-8", self.welcome()),
            _ => reply(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", NOT_A_SERVER.into()),
        }
    }

    fn welcome(&self) -> String {
        let proxy = &self.proxy;
        format!(
            "This is Countersign, a proxy. Point your tools at it:\n\n  \
             eval \"$(countersign env)\"           wires this shell: proxy and trust, for every tool it knows\n  \
             countersign run -- COMMAND          wires one command\n\n\
             By hand:\n\n  \
             export http_proxy=http://{proxy} https_proxy=http://{proxy}\n  \
             curl -o ca.pem http://{proxy}/ca.pem     the certificate to trust for the hosts that rules name\n"
        )
    }
}

const NOT_A_SERVER: &str = "This is a proxy, not a web server. Set http_proxy to it; GET / says how.\n";

fn reply(status: StatusCode, kind: &'static str, body: String) -> Response<OutBody> {
    let mut response = Response::new(OutBody::full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    response
}
