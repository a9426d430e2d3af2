//! The page: files that are part of the program, served under a policy that lets nothing else run.
//!
//! Plain modules without a build step; `lit-html` is vendored beside them (BSD-3-Clause, see its head).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::{body::ControlBody, server::respond};

/// Every file of the page.
const FILES: [(&str, &str, &str); 20] = [
    ("act.js", JS, include_str!("page/act.js")),
    ("api.js", JS, include_str!("page/api.js")),
    ("auth.js", JS, include_str!("page/auth.js")),
    ("compare.js", JS, include_str!("page/compare.js")),
    ("console.css", "text/css; charset=utf-8", include_str!("page/console.css")),
    ("detail.js", JS, include_str!("page/detail.js")),
    ("draft.js", JS, include_str!("page/draft.js")),
    ("edit.js", JS, include_str!("page/edit.js")),
    ("format.js", JS, include_str!("page/format.js")),
    ("icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("list.js", JS, include_str!("page/list.js")),
    ("lit-html.js", JS, include_str!("page/lit-html.js")),
    ("main.js", JS, include_str!("page/main.js")),
    ("panels.js", JS, include_str!("page/panels.js")),
    ("parts.js", JS, include_str!("page/parts.js")),
    ("rows.js", JS, include_str!("page/rows.js")),
    ("rules.js", JS, include_str!("page/rules.js")),
    ("setup.js", JS, include_str!("page/setup.js")),
    ("state.js", JS, include_str!("page/state.js")),
    ("tokens.js", JS, include_str!("page/tokens.js")),
];

const JS: &str = "text/javascript; charset=utf-8";
const INDEX: &str = include_str!("page/index.html");

/// Scripts and styles from this port alone, no inline code, nobody may frame it, and text becomes HTML only through
/// the one library that needs it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
    trusted-types lit-html";

/// The page itself.
pub(super) fn index() -> Response<ControlBody> {
    with_policy(respond(StatusCode::OK, "text/html; charset=utf-8", Bytes::from_static(INDEX.as_bytes())))
}

/// One of its files.
pub(super) fn file(name: &str) -> Option<Response<ControlBody>> {
    let (_, kind, text) = FILES.iter().find(|(known, ..)| *known == name)?;
    Some(with_policy(respond(StatusCode::OK, kind, Bytes::from_static(text.as_bytes()))))
}

fn with_policy(mut response: Response<ControlBody>) -> Response<ControlBody> {
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
