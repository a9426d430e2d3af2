//! Connections that belong to one connection of a client: a client that logs in by itself, to the connection and not to
//! the server, must find its own connection again, and nobody else may ever have it (RFC 4559 section 6).

use std::sync::{Mutex, PoisonError};

use super::{Upstream, Want, link::Link};

/// Targets that one connection of a client can be logged in to at once.
const MOST: usize = 8;

/// The connections upstream of one connection of a client, between two requests. They close with it.
#[derive(Debug, Default)]
pub struct Pins(Mutex<Vec<Link>>);

impl Pins {
    /// Keeps a connection whose exchange is over, in place of an older one to the same target.
    pub fn put(&self, link: Link) {
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|other| !other.is_like(&link));
        if links.len() >= MOST {
            links.remove(0);
        }
        links.push(link);
    }

    /// The connection that fits, if it is still open.
    pub fn take(&self, upstream: &Upstream, want: &Want<'_>) -> Option<Link> {
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let settings = upstream.0.settings.load();
        let at = links.iter().position(|link| link.fits(&settings, want))?;
        Some(links.remove(at)).filter(|link| !link.is_closed())
    }
}
