//! Requests that a web page makes through the user's browser.
//!
//! The browser believes such a request to be anonymous, so an API that allows every origin would hand authenticated
//! answers to any page. A page of another site may therefore not use a rule, unless the rule says so.

use http::{HeaderMap, HeaderName, Method, header};

use crate::{
    rules::Rule,
    target::{Scheme, Target},
};

/// What a request through a browser may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Not a browser, the site itself, or a page that the rule allows.
    Allowed,
    /// A CORS preflight: it goes on without a credential.
    Preflight,
    /// A foreign page.
    Foreign,
}

/// Judges a request that a rule with credentials matches.
pub fn access(method: &Method, headers: &HeaderMap, target: &Target, rule: &Rule) -> Access {
    // Hardly any request has one of these; looking at each name once costs less than asking for them.
    if !headers.keys().any(|name| matches!(name.as_str(), "origin" | "sec-fetch-site")) {
        return Access::Allowed;
    }
    if is_preflight(method, headers) {
        return Access::Preflight;
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    if let Some(origin) = origins.next() {
        let known = origins.next().is_none()
            && origin.to_str().is_ok_and(|origin| is_own(origin, target) || is_listed(origin, rule));
        return if known { Access::Allowed } else { Access::Foreign };
    }
    let site = headers.get(HeaderName::from_static("sec-fetch-site"));
    if site.is_some_and(|site| site.as_bytes().eq_ignore_ascii_case(b"cross-site")) {
        return Access::Foreign;
    }
    Access::Allowed
}

fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn parse(origin: &str) -> Option<Target> {
    let (scheme, authority) = origin.split_once("://")?;
    Target::from_authority(Scheme::parse(scheme)?, authority).ok()
}

fn is_own(origin: &str, target: &Target) -> bool {
    parse(origin).is_some_and(|origin| origin == *target)
}

fn is_listed(origin: &str, rule: &Rule) -> bool {
    !rule.origins.is_empty()
        && parse(origin).is_some_and(|origin| {
            let origin = origin.to_string();
            rule.origins.contains(&origin)
        })
}
