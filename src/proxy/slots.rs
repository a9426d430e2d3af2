//! Emptying the slots: what the client put where a credential goes is removed, kept, or a reason to refuse.

use http::request::Parts;

use super::error::{ErrorId, ProxyError};
use crate::{
    auth::{
        AuthScheme,
        scheme::Slot,
        slots::{present, strip, underscore_twin},
    },
    config::Existing,
    console::record::Recording,
};

/// Empties every slot of a credential. False if the client's own value stays and the credential must not be applied.
pub fn clear_slots(
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
