//! What differs between the head the client sent and the head that left.

use http::{HeaderMap, HeaderValue, header};

use super::record::RequestHead;

/// What happened to a header field on its way through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Sent as it came.
    Same,
    /// We added it.
    Added,
    /// We removed it.
    Removed,
    /// We changed its value.
    Changed,
}

impl Change {
    /// The mark in front of the line.
    pub(super) fn mark(self) -> char {
        match self {
            Self::Same => '>',
            Self::Added => '+',
            Self::Removed => '-',
            Self::Changed => '~',
        }
    }

    /// The word for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
        }
    }
}

/// One header field with what happened to it.
pub(super) type Line<'h> = (Change, &'h str, &'h HeaderValue);

/// The fields that left, in order, then those that did not.
pub(super) fn changes<'h>(client: Option<&'h RequestHead>, sent: &'h HeaderMap) -> Vec<Line<'h>> {
    let mut lines = Vec::with_capacity(sent.len() + 4);
    let came = client.map(|head| &head.headers);
    for (name, value) in sent {
        let change = match came {
            None => Change::Same,
            Some(came) if came.get_all(name).iter().eq(sent.get_all(name).iter()) => Change::Same,
            Some(came) if came.contains_key(name) => Change::Changed,
            // HTTP/2 clients name the host in `:authority`.
            Some(_) if name == header::HOST => Change::Same,
            Some(_) => Change::Added,
        };
        lines.push((change, name.as_str(), value));
    }
    for (name, value) in came.into_iter().flatten() {
        if !sent.contains_key(name) && name != header::HOST {
            lines.push((Change::Removed, name.as_str(), value));
        }
    }
    lines
}

/// What happened to path and query.
pub(super) fn target_change(client: Option<&RequestHead>, sent: &RequestHead) -> Change {
    let changed = client.is_some_and(|client| path(&client.request_target) != path(&sent.request_target));
    if changed { Change::Changed } else { Change::Same }
}

/// Path and query of a request-target in any form.
fn path(request_target: &str) -> &str {
    let rest = match request_target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => rest.find(['/', '?']).map_or("", |at| &rest[at..]),
        _ => request_target,
    };
    if rest.is_empty() { "/" } else { rest }
}
