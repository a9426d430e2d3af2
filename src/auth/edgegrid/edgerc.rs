//! `.edgerc` files: sections of `key = value` lines, as Akamai's own tools read them.

use crate::secret::Secret;

use super::sign::Tokens;

/// One section.
pub(super) struct Section {
    pub(super) tokens: Tokens,
    /// The host that this API client belongs to.
    pub(super) host: Option<String>,
    pub(super) max_body: Option<usize>,
    pub(super) headers_to_sign: Vec<String>,
}

/// Finds a section and what has to be in it. Messages name keys, never values.
pub(super) fn section(text: &str, wanted: &str) -> Result<Section, String> {
    let entries = entries(text, wanted)?;
    // `max-body` is how older files write it. The last of several lines counts.
    let find = |key: &str| {
        let found = entries.iter().rev().find(|(known, _)| known.replace('-', "_").eq_ignore_ascii_case(key));
        found.map(|(_, value)| *value).filter(|value| !value.is_empty())
    };
    let secret = |key: &str| {
        let value = find(key).ok_or_else(|| format!("its section `[{wanted}]` has no `{key}`"))?;
        if value.contains(char::is_control) || value.contains(';') {
            return Err(format!("`{key}` in its section `[{wanted}]` holds a character that no token has"));
        }
        Ok(Secret::new(value))
    };
    let tokens = Tokens {
        client_token: secret("client_token")?,
        access_token: secret("access_token")?,
        client_secret: secret("client_secret")?,
    };
    let max_body = match find("max_body").map(str::parse) {
        None => None,
        Some(Ok(bytes)) => Some(bytes),
        Some(Err(_)) => return Err(format!("`max_body` in its section `[{wanted}]` is not a number of bytes")),
    };
    let host = find("host").map(|host| host.trim_start_matches("https://").trim_end_matches('/').to_ascii_lowercase());
    let headers_to_sign = super::names(find("headers_to_sign").into_iter());
    Ok(Section { tokens, host, max_body, headers_to_sign })
}

/// The lines of a section, comments aside.
fn entries<'t>(text: &'t str, wanted: &str) -> Result<Vec<(&'t str, &'t str)>, String> {
    let mut found = false;
    let mut inside = false;
    let mut others = Vec::new();
    let mut entries = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = name.trim() == wanted;
            found |= inside;
            others.push(name.trim());
        } else if inside && let Some((key, value)) = line.split_once(['=', ':']) {
            entries.push((key.trim(), value.trim()));
        }
    }
    if found {
        return Ok(entries);
    }
    let others =
        if others.is_empty() { "no section".to_owned() } else { format!("the sections {}", others.join(", ")) };
    Err(format!("it has no section `[{wanted}]`, it has {others}"))
}
