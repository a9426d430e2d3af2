//! Making room for a credential: the rule's edits, and what the client put where the credential goes, which is removed,
//! kept, or a reason to refuse.

use http::{HeaderName, HeaderValue, Version, header, request::Parts};

use super::{
    error::{ErrorId, ProxyError},
    hop,
};
use crate::{
    auth::{
        AuthScheme,
        scheme::{Round, Slot},
        slots::{present, strip, underscore_twin},
    },
    config::Existing,
    console::record::Recording,
    rules::Rule,
    target::Target,
};

/// Makes a head ready for its credential: cookies in one field, the rule's edits, the slots empty, a `Host`. Gives the
/// credential back unless the client's own value is to stay.
///
/// # Errors
/// A value of the client that the rule does not allow.
pub fn make_room<'a>(
    head: &mut Parts,
    target: &Target,
    rule: Option<&Rule>,
    auth: Option<&'a dyn AuthScheme>,
    round: &mut Round,
    recording: Option<&Recording>,
) -> Result<Option<&'a dyn AuthScheme>, ProxyError> {
    if head.version == Version::HTTP_2 {
        hop::join_cookies(&mut head.headers);
    }
    if let Some(rule) = rule {
        edit_headers(head, rule);
    }
    if let Some(auth) = auth {
        auth.observe(head, round);
    }
    let auth = match (rule, auth) {
        (Some(rule), Some(auth)) => clear_slots(head, auth, rule.existing, recording)?.then_some(auth),
        (Some(Rule { auth: Some(withheld), existing: Existing::Replace, .. }), None) => {
            // A preflight goes without a credential: without the client's own, too.
            for slot in withheld.slots().iter().chain(withheld.clears()) {
                strip(head, slot);
            }
            None
        }
        (_, auth) => auth,
    };
    // A request of HTTP/2 or HTTP/1.0 may come without; an origin of HTTP/1 needs it.
    if !head.headers.contains_key(header::HOST) {
        let host = HeaderValue::from_str(&target.authority())
            .map_err(|_| ProxyError::new(ErrorId::BadRequest, "the host cannot stand in a header"))?;
        head.headers.insert(header::HOST, host);
    }
    Ok(auth)
}

fn edit_headers(head: &mut Parts, rule: &Rule) {
    for name in &rule.remove_headers {
        head.headers.remove(name);
    }
    for (name, value) in &rule.set_headers {
        let name: &HeaderName = name;
        head.headers.insert(name.clone(), value.clone());
    }
}

/// Why a path is refused that servers read in more than one way.
pub fn ambiguous_path(rule: &Rule) -> String {
    format!(
        "the path can be read in two ways (an escaped slash or percent sign, a backslash, `//` or `..;`), and rule `{}` \
         fits one of them only; send the plain path, or let the rule's `path` say `%2F` or end in `**`",
        rule.name
    )
}

/// Empties every slot of a credential. False if the client's own value stays and the credential must not be applied.
fn clear_slots(
    head: &mut Parts,
    auth: &dyn AuthScheme,
    existing: Existing,
    recording: Option<&Recording>,
) -> Result<bool, ProxyError> {
    for slot in auth.slots().iter().chain(auth.clears()) {
        if let Slot::Header(name) = slot
            && underscore_twin(&head.headers, name)
        {
            let detail = format!("the request has a header that some servers read as `{name}`; leave it out");
            return Err(ProxyError::new(ErrorId::BadRequest, detail));
        }
        if !present(head, slot) {
            continue;
        }
        match existing {
            Existing::Keep => return Ok(false),
            Existing::Error => {
                let detail = format!(
                    "the request brings its own {} `{}`, and the rule says `existing: error`",
                    slot.place(),
                    slot.name()
                );
                return Err(ProxyError::new(ErrorId::BadRequest, detail));
            }
            Existing::Replace => {
                strip(head, slot);
                if let Some(recording) = recording {
                    recording.note(format!("removed the client's own {} {}", slot.place(), slot.name()));
                }
            }
        }
    }
    Ok(true)
}
