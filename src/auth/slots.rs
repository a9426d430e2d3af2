//! The places credentials fill: adding a value, and taking away what a client put there.

use http::{HeaderMap, Uri};

use super::scheme::AuthError;

/// Appends `name=value` to the query.
pub fn append_query(_uri: &Uri, _name: &str, _value: &str) -> Result<Uri, AuthError> {
    todo!()
}

/// Adds a cookie to the one `Cookie` field.
pub fn add_cookie(_headers: &mut HeaderMap, _name: &str, _value: &str) -> Result<(), AuthError> {
    todo!()
}
