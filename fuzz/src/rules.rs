//! Configurations, up to the rules that decide about requests.

use std::sync::Arc;

use countersign::{
    auth::{AuthScheme, SchemeConfig, list::List},
    config::{Place, diagnostics::Diagnostic, load, text::Text},
    rules::{Lookup, NamedAddresses, RuleSet, compile::SchemeBuilder},
    secret::Secret,
    target::Target,
};
use http::{HeaderMap, HeaderValue, Method};

use crate::talk::alone;

/// Builds every scheme, and reads no secret.
pub struct Builder;

impl SchemeBuilder for Builder {
    fn build(&self, name: &str, config: &SchemeConfig, _: &Place) -> Result<Arc<dyn AuthScheme>, Vec<Diagnostic>> {
        config.build(name, &alone()).map_err(|errors| errors.into_iter().map(Diagnostic::error).collect())
    }

    fn list(&self, members: Vec<Arc<dyn AuthScheme>>) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        List::new(members).map(|list| Arc::new(list) as Arc<dyn AuthScheme>)
    }

    fn text(&self, text: &Text) -> Result<Secret, String> {
        text.as_literal().map(Secret::new).ok_or_else(|| "no secrets here".to_owned())
    }
}

const ASKED: [&str; 6] = [
    "https://api.example.com/",
    "https://api.example.com/admin/../x//y?q=1",
    "http://127.0.0.1:9000/a%2fb",
    "https://x.internal.example:8443/v1/a;b",
    "http://[::1]/",
    "https://example.com/%61dmin",
];

/// Any text is a list of errors with places, or rules: which decide only about hosts that they name, and alike if they
/// are compiled again.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let loaded = match load::load_text("fuzz.yaml", text) {
        Ok(loaded) => loaded,
        Err(errors) => return assert!(!errors.to_string().is_empty()),
    };
    let set = match RuleSet::compile(&loaded.config, None, &Builder) {
        Ok(set) => set,
        Err(errors) => return assert!(!errors.to_string().is_empty()),
    };
    let again = RuleSet::compile(&loaded.config, Some(&set), &Builder).expect("what was right is right");
    let headers = HeaderMap::from_iter([(http::header::ACCEPT, HeaderValue::from_static("a, b"))]);
    for uri in ASKED {
        let uri: http::Uri = uri.parse().unwrap();
        let target = Target::from_uri(&uri).unwrap();
        for method in [Method::GET, Method::POST] {
            let path_and_query = uri.path_and_query().unwrap().as_str();
            let lookup =
                Lookup { target: &target, method: &method, path_and_query, headers: &headers, client: Some("ci") };
            let found = set.find(&lookup);
            assert_eq!(found.map(|rule| &rule.path), again.find(&lookup).map(|rule| &rule.path));
            if let Some(rule) = found {
                assert!(set.names_host_anywhere(&target.host) && set.names_host(&target.host, target.port), "{target}");
                set.is_ambiguous(&lookup, rule);
            }
        }
    }
}
