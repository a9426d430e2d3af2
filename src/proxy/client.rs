//! Who may use the proxy: the same user on this machine, or a client that names itself (RFC 9110 section 11.7).

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, header};

use crate::secret::{Secret, constant_time_eq};

/// The names and passwords that clients may give.
#[derive(Debug, Default)]
pub struct Clients {
    known: Vec<(Arc<str>, Secret)>,
}

/// What a request says about its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nothing.
    None,
    /// A known name with its password.
    Known(Arc<str>),
    /// Something that is wrong.
    Wrong,
}

impl Clients {
    /// Clients by name and password.
    pub fn new(known: Vec<(Arc<str>, Secret)>) -> Self {
        Self { known }
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.known.iter().map(|(name, _)| &**name)
    }

    /// Reads `Proxy-Authorization: Basic`. Every password is compared, each in constant time.
    pub fn claim(&self, headers: &HeaderMap) -> Claim {
        let mut fields = headers.get_all(header::PROXY_AUTHORIZATION).iter();
        let Some(field) = fields.next() else { return Claim::None };
        if fields.next().is_some() {
            return Claim::Wrong;
        }
        let Some((name, password)) = field.to_str().ok().and_then(basic) else { return Claim::Wrong };
        let mut found = Claim::Wrong;
        for (known, secret) in &self.known {
            let same = constant_time_eq(known.as_bytes(), name.as_bytes())
                & constant_time_eq(secret.expose().as_bytes(), password.as_bytes());
            if same {
                found = Claim::Known(Arc::clone(known));
            }
        }
        found
    }
}

fn basic(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (name, password) = decoded.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_a_known_name_with_its_password_is_known() {
        let clients = Clients::new(vec![("ci".into(), Secret::new("p:w")), ("dev".into(), Secret::new("x"))]);
        let claim = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::PROXY_AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            clients.claim(&headers)
        };
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(clients.claim(&HeaderMap::new()), Claim::None);
        assert_eq!(claim(&basic("ci:p:w")), Claim::Known("ci".into()));
        assert_eq!(claim(&basic("ci:x")), Claim::Wrong);
        assert_eq!(claim(&basic("nobody:x")), Claim::Wrong);
        assert_eq!(claim("Bearer x"), Claim::Wrong);
        assert_eq!(claim("Basic !"), Claim::Wrong);
    }
}
