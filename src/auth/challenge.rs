//! `WWW-Authenticate` and `Proxy-Authenticate` (RFC 9110 section 11.3).

/// One challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme as written; compare without case.
    pub scheme: String,
    /// The token68 form, if it is used.
    pub token68: Option<String>,
    /// Parameters in order, names in lower case, values unquoted.
    pub params: Vec<(String, String)>,
}
