//! What a server said in its challenge, and where that holds: nonces by origin, with their counters.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use http::Uri;
use url::Url;

use super::{
    DigestConfig,
    hash::{Algorithm, Qop},
};
use crate::{
    auth::{
        challenge::{self, Challenge},
        scheme::Hop,
    },
    clock::Clock,
    target::Target,
};

/// The terms of a challenge.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Terms {
    pub(super) realm: String,
    pub(super) nonce: String,
    pub(super) opaque: Option<String>,
    /// How these three stood in the challenge; see [`challenge::bytes`].
    pub(super) latin1: bool,
    pub(super) algorithm: Algorithm,
    /// Whether the challenge named its algorithm; only then we do.
    pub(super) names_algorithm: bool,
    pub(super) qop: Option<Qop>,
    pub(super) userhash: bool,
    /// `charset=UTF-8`: names and passwords in normal form C.
    pub(super) utf8: bool,
    /// Beginnings of paths that share the nonce; none for the whole origin.
    pub(super) domain: Vec<String>,
}

impl Terms {
    /// The first challenge that can be met as configured.
    pub(super) fn choose(challenges: &[Challenge], config: &DigestConfig, request: &Uri) -> Option<Self> {
        challenges.iter().filter(|challenge| challenge.is("digest")).find_map(|challenge| {
            let realm = challenge.param("realm").unwrap_or_default();
            let named = challenge.param("algorithm");
            let algorithm = Algorithm::parse(named.unwrap_or("MD5"))?;
            let wanted = config.algorithm.is_none_or(|wanted| wanted == algorithm)
                && config.realm.as_deref().is_none_or(|wanted| wanted == realm);
            if !wanted {
                return None;
            }
            Some(Self {
                realm: realm.to_owned(),
                nonce: challenge.param("nonce")?.to_owned(),
                opaque: challenge.param("opaque").map(str::to_owned).or_else(|| config.opaque.clone()),
                latin1: challenge.latin1,
                algorithm,
                names_algorithm: named.is_some(),
                qop: choose_qop(challenge.param("qop"), config.qop)?,
                userhash: challenge.param("userhash").is_some_and(|value| value.eq_ignore_ascii_case("true")),
                utf8: challenge.param("charset").is_some_and(|value| value.eq_ignore_ascii_case("utf-8")),
                domain: challenge.param("domain").map(|domain| paths(domain, request)).unwrap_or_default(),
            })
        })
    }

    /// The terms that are configured, if they suffice to send a header without being asked.
    pub(super) fn preset(config: &DigestConfig) -> Option<Self> {
        Some(Self {
            realm: config.realm.clone()?,
            nonce: config.nonce.clone()?,
            opaque: config.opaque.clone(),
            latin1: false,
            algorithm: config.algorithm.unwrap_or(Algorithm::Md5),
            names_algorithm: config.algorithm.is_some(),
            qop: config.qop,
            userhash: false,
            utf8: false,
            domain: Vec::new(),
        })
    }

    /// A value of the challenge as it came.
    pub(super) fn bytes<'v>(&self, value: &'v str) -> Cow<'v, [u8]> {
        challenge::bytes(value, self.latin1)
    }

    fn covers(&self, uri: &Uri) -> bool {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        self.domain.is_empty() || self.domain.iter().any(|prefix| path.starts_with(prefix.as_str()))
    }
}

/// `None` if nothing offered can be used; a list without any known word never means the old form without `qop`.
fn choose_qop(offered: Option<&str>, wanted: Option<Qop>) -> Option<Option<Qop>> {
    let Some(offered) = offered else { return wanted.is_none().then_some(None) };
    let offers = |qop: &Qop| offered.split([',', ' ', '\t']).any(|word| word.trim().eq_ignore_ascii_case(qop.as_str()));
    let candidates = [Qop::Auth, Qop::AuthInt];
    candidates.into_iter().filter(|qop| wanted.is_none_or(|wanted| wanted == *qop)).find(offers).map(Some)
}

/// The paths of a `domain` list that lie on the request's own origin.
fn paths(domain: &str, request: &Uri) -> Vec<String> {
    let Ok(base) = Url::parse(&request.to_string()) else { return Vec::new() };
    let here = |item: &str| {
        let url = base.join(item).ok().filter(|url| url.origin() == base.origin())?;
        Some(url[url::Position::BeforePath..url::Position::AfterQuery].to_owned())
    };
    domain.split_ascii_whitespace().take(MAX_DOMAIN).filter_map(here).collect()
}

/// A nonce in use.
#[derive(Debug)]
pub(super) struct Nonce {
    pub(super) terms: Terms,
    /// Differs for each nonce.
    pub(super) stamp: u64,
    count: AtomicU32,
    /// A session keeps one client nonce, so that both readings of the RFC agree.
    session: OnceLock<String>,
}

impl Nonce {
    /// The count of the next request, as on the wire. No other request gets the same.
    pub(super) fn next_count(&self) -> String {
        format!("{:08x}", self.count.fetch_add(1, Ordering::Relaxed))
    }

    /// The client's nonce for the next request.
    pub(super) fn client_nonce(&self, clock: &Clock, preset: Option<&str>) -> String {
        match preset {
            Some(preset) => preset.to_owned(),
            None if self.terms.algorithm.is_session() => self.session.get_or_init(|| clock.nonce_hex(16)).clone(),
            None => clock.nonce_hex(16),
        }
    }
}

/// The nonces of one credential.
#[derive(Debug, Default)]
pub(super) struct Nonces {
    origins: Mutex<HashMap<Target, Arc<Nonce>>>,
    /// A credential for a parent proxy meets only that.
    proxy: Mutex<Option<Arc<Nonce>>>,
    stamps: AtomicU64,
}

impl Nonces {
    /// The nonce to use for a request, if there is one. One that answers a challenge need not heed `domain`.
    pub(super) fn find(&self, hop: Hop, target: &Target, uri: &Uri, answering: bool) -> Option<Arc<Nonce>> {
        let found = match hop {
            Hop::Origin => self.origins.lock().unwrap_or_else(PoisonError::into_inner).get(target).cloned(),
            Hop::ParentProxy => self.proxy.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        found.filter(|nonce| answering || hop == Hop::ParentProxy || nonce.terms.covers(uri))
    }

    /// Learns the terms of a challenge. The same nonce once more goes on counting.
    pub(super) fn learn(&self, hop: Hop, target: &Target, terms: Terms, first_count: u32) -> Arc<Nonce> {
        let stamp = self.stamps.fetch_add(1, Ordering::Relaxed) + 1;
        let fresh =
            |terms| Arc::new(Nonce { terms, stamp, count: AtomicU32::new(first_count), session: OnceLock::new() });
        match hop {
            Hop::Origin => {
                let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(known) = origins.get(target).filter(|known| known.terms == terms) {
                    return known.clone();
                }
                if origins.len() >= MAX_ORIGINS && !origins.contains_key(target) {
                    let oldest = origins.iter().min_by_key(|(_, nonce)| nonce.stamp).map(|(target, _)| target.clone());
                    oldest.and_then(|oldest| origins.remove(&oldest));
                }
                let nonce = fresh(terms);
                origins.insert(target.clone(), nonce.clone());
                nonce
            }
            Hop::ParentProxy => {
                let mut proxy = self.proxy.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(known) = proxy.as_ref().filter(|known| known.terms == terms) {
                    return known.clone();
                }
                proxy.insert(fresh(terms)).clone()
            }
        }
    }
}

const MAX_ORIGINS: usize = 256;
const MAX_DOMAIN: usize = 64;
