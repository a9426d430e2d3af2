//! `aws_sigv4`: AWS Signature Version 4 and 4a (AWS IAM User Guide, "AWS Signature Version 4 for API requests"; Amazon S3
//! API Reference, "Authenticating requests").
//!
//! `site` finds out what a request is signed for, `payload` what becomes of its body, `canonical` writes the canonical
//! request, `sign` and `asymmetric` make signatures, `chunked` frames bodies, `answer` reads refusals. `dummy` reads the
//! signature that the client made with keys of its own; `keys` holds ours, which may come from one of `sources`.

mod answer;
mod asymmetric;
pub mod canonical;
mod chunked;
mod config;
mod dummy;
pub mod keys;
mod names;
mod payload;
mod review;
pub mod sign;
mod site;
pub mod sources;
mod table;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::SystemTime};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts};

pub use self::config::{AddTo, Algorithm, AwsSigv4Config, Expires, Payload};
use self::{
    answer::Complaint,
    canonical::{Canonical, PathRules, Placement, has_marks, is_s3, sha256_hex},
    chunked::Chain,
    dummy::Dummy,
    keys::{Keys, Material},
    payload::{Case, DECODED_LENGTH, Plan, Rechunk, Shape, TRAILER},
    sign::{CONTENT_SHA256, DATE, SECURITY_TOKEN, Scope, Signer, SigningKeys, Stamp},
    site::{Bucket, Learnt, Site},
};
use super::{
    AuthError, AuthScheme,
    held::{header_value, not_ready},
    scheme::{BodyUse, Outgoing, Ready, Reply, Round, Slot, Verdict},
    skew::Skew,
    vitals::Vitals,
};
use crate::{clock::Clock, target::Scheme};

/// `x-amz-region-set`
const REGION_SET: HeaderName = HeaderName::from_static("x-amz-region-set");
/// Bytes of a refusal that are read.
const REFUSAL: usize = 64 << 10;

/// The scheme.
#[derive(Debug)]
struct AwsSigv4 {
    credential: Arc<str>,
    config: AwsSigv4Config,
    placement: Placement,
    slots: Vec<Slot>,
    clears: Vec<Slot>,
    material: Material,
    signing_keys: SigningKeys,
    clock: Clock,
    skew: Skew,
    learnt: Learnt,
}

/// What is remembered between the phases of one exchange.
#[derive(Debug, Default)]
struct State {
    dummy: Dummy,
    /// How the last send was signed.
    used: Option<Used>,
    /// Each remedy is tried once.
    tried: Tried,
}

#[derive(Debug)]
struct Used {
    at: SystemTime,
    region: String,
    bucket: Option<Bucket>,
    asymmetric: bool,
    /// The path has characters that servers disagree about, and is encoded once.
    has_marks: bool,
    /// Kept if somebody looks.
    canonical: Option<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tried {
    clock: bool,
    region: bool,
    marks: bool,
    keys: bool,
}

/// What is signed besides the head, and what becomes of the body.
struct Body {
    /// The last line of the canonical request.
    payload: String,
    /// How the body is rewritten.
    reframing: Option<Reframing>,
}

struct Reframing {
    plan: Plan,
    shape: Shape,
    length: Option<u64>,
}

impl AwsSigv4 {
    fn new(name: &str, config: AwsSigv4Config, material: Material, clock: Clock) -> Self {
        let header = Slot::Header;
        let query = |name: &str| Slot::Query(name.to_owned());
        let headers = [header::AUTHORIZATION, DATE, SECURITY_TOKEN, CONTENT_SHA256, REGION_SET].map(header);
        let params = ["Algorithm", "Credential", "Date", "SignedHeaders", "Signature", "Security-Token", "Region-Set"];
        let params = params.map(|name| query(&format!("X-Amz-{name}")));
        // The first few are always written; the others only for some requests.
        let (placement, written, mut clears) = match config.add_to {
            AddTo::Header => (Placement::Header, headers[..2].to_vec(), params.to_vec()),
            AddTo::Query => (Placement::Query, params[..5].to_vec(), headers.to_vec()),
        };
        clears.extend(headers.into_iter().chain(params).filter(|slot| !written.contains(slot)));
        Self {
            credential: name.into(),
            config,
            placement,
            slots: written,
            clears,
            material,
            signing_keys: SigningKeys::default(),
            clock,
            skew: Skew::default(),
            learnt: Learnt::default(),
        }
    }
}

impl AuthScheme for AwsSigv4 {
    fn name(&self) -> &'static str {
        "aws_sigv4"
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn clears(&self) -> &[Slot] {
        &self.clears
    }

    fn observe(&self, head: &Parts, round: &mut Round) {
        round.state_mut::<State>().dummy = Dummy::of(head);
    }

    fn signs(&self) -> bool {
        true
    }

    fn body_use_in(&self, head: &Parts, round: &Round) -> BodyUse {
        let nothing = Dummy::default();
        let dummy = round.state::<State>().map_or(&nothing, |state| &state.dummy);
        let host = head.uri.host().unwrap_or_default().to_ascii_lowercase();
        let service = site::service(&self.config, &host, &head.uri, dummy).unwrap_or_default();
        self.case(dummy, &service, head.uri.scheme_str() == Some("https")).body_use(head)
    }

    fn ready<'a>(&'a self, clock: &'a Clock, _: &'a Round) -> Ready<'a> {
        self.material.ready(clock.now())
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        let (keys, generation) = self.material.current().ok_or_else(|| not_ready(&self.credential))?;
        round.stamp = generation;
        let state = round.state_mut::<State>();
        let site = Site::of(&self.config, &self.credential, out.target(), &out.head().uri, &state.dummy, &self.learnt)?;
        let at = self.skew.at(out.target(), out.now());
        let stamp = Stamp::of(at);
        let signer = if site.asymmetric {
            self.signing_keys.asymmetric(&keys, generation)?
        } else {
            self.signing_keys.symmetric(&keys, generation, stamp.day(), &site.region, &site.service)
        };
        let body = self.prepare_body(out, &state.dummy, &site, &signer)?;
        state.used = Some(self.sign(out, &keys, &site, &signer, &stamp, at, body)?);
        if out.watched()
            && let Some(origin) = self.material.origin()
        {
            out.note(|| format!("aws_sigv4: keys from {origin}"));
        }
        Ok(())
    }

    fn reply_prefix(&self, status: StatusCode, _: &HeaderMap, _: &Round) -> usize {
        if answer::is_refusal(status) { REFUSAL } else { 0 }
    }

    fn review(&self, reply: &Reply<'_>, round: &mut Round) -> Verdict {
        if !answer::is_refusal(reply.status) {
            return Verdict::Deliver;
        }
        let Some(state) = round.state.as_mut().and_then(|state| state.downcast_mut::<State>()) else {
            return Verdict::Deliver;
        };
        let (Some(used), tried) = (&state.used, &mut state.tried) else { return Verdict::Deliver };
        let complaint = Complaint::of(reply.headers, reply.body);
        let (verdict, notes) = self.judge(reply, &complaint, used, tried);
        round.notes.extend(notes);
        verdict
    }

    fn renew<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        Box::pin(self.material.renew(round.stamp))
    }

    fn has_stale(&self) -> bool {
        self.material.has_stale(self.clock.now())
    }

    fn vitals(&self) -> Option<Vitals> {
        self.material.vitals()
    }

    fn describe(&self) -> String {
        match self.material.current() {
            Some((keys, _)) => format!("aws_sigv4 {}", keys.shown()),
            None => "aws_sigv4".to_owned(),
        }
    }
}

impl AwsSigv4 {
    fn case<'a>(&self, dummy: &'a Dummy, service: &'a str, tls: bool) -> Case<'a> {
        Case { payload: self.config.payload, placement: self.placement, service, tls, claim: dummy.payload.as_ref() }
    }

    /// Decides about the body and puts what the head says of it into the form in which it leaves.
    fn prepare_body(
        &self,
        out: &mut Outgoing<'_>,
        dummy: &Dummy,
        site: &Site,
        signer: &Signer,
    ) -> Result<Body, AuthError> {
        let is_known = out.body().is_some() && out.body_complete();
        let is_empty = is_known && out.body().is_some_and(|body| body.is_empty());
        let tls = out.target().scheme == Scheme::Https;
        let plan = self.case(dummy, &site.service, tls).plan(&out.head().headers, is_known, is_empty)?;
        let mut reframing = None;
        let payload = match &plan {
            Plan::Hash => sha256_hex(out.body().map_or(&[][..], |body| body)),
            Plan::Claimed(hash) => hash.clone(),
            Plan::Unsigned => "UNSIGNED-PAYLOAD".to_owned(),
            Plan::AsItCame => chunked::payload_word(None, true).to_owned(),
            Plan::Chunks { signed, framed } => {
                let shape = Shape::of(&out.head().headers, *framed)?;
                let (algorithm, signature) = match signed {
                    true => (Some(signer.algorithm()), Some(signer.signature_len())),
                    false => (None, None),
                };
                let word = shape.word(algorithm).to_owned();
                let length = shape.encoded_len(signature);
                if let Some(coding) = payload::content_encoding(&out.head().headers, true) {
                    out.set_header(header::CONTENT_ENCODING, coding);
                }
                out.set_header(DECODED_LENGTH, HeaderValue::from(shape.data));
                set_length(out, length);
                reframing = Some(Reframing { plan, shape, length });
                word
            }
            Plan::Bare => {
                let shape = Shape::of(&out.head().headers, true)?;
                match payload::content_encoding(&out.head().headers, false) {
                    Some(coding) => out.set_header(header::CONTENT_ENCODING, coding),
                    None => out.remove_header(&header::CONTENT_ENCODING),
                }
                out.remove_header(&DECODED_LENGTH);
                out.remove_header(&TRAILER);
                out.note(|| {
                    "aws_sigv4: the body leaves without its chunks, and without trailers if it had any".to_owned()
                });
                let length = Some(shape.data);
                set_length(out, length);
                reframing = Some(Reframing { plan, shape, length });
                "UNSIGNED-PAYLOAD".to_owned()
            }
        };
        Ok(Body { payload, reframing })
    }

    /// True if the service wants `x-amz-content-sha256`.
    fn tells_payload(&self, site: &Site, payload: &str) -> bool {
        let is_hash = payload.len() == 64;
        match self.placement {
            // A presigned URL of S3 means an unsigned body; every other service hashes the body itself.
            Placement::Query => is_s3(&site.service) && payload != "UNSIGNED-PAYLOAD",
            Placement::Header => {
                !is_hash
                    || is_s3(&site.service)
                    || matches!(site.service.as_str(), "aoss" | "glacier")
                    || self.config.payload == Payload::Signed
            }
        }
    }

    /// Writes the signature, and lets the body be rewritten if it has to.
    #[expect(clippy::too_many_arguments, reason = "everything that a signature is over")]
    fn sign(
        &self,
        out: &mut Outgoing<'_>,
        keys: &Keys,
        site: &Site,
        signer: &Signer,
        stamp: &Stamp,
        at: SystemTime,
        body: Body,
    ) -> Result<Used, AuthError> {
        if self.tells_payload(site, &body.payload) {
            out.set_header(CONTENT_SHA256, self.open_value("payload", &body.payload)?);
        }
        let scope = match site.asymmetric {
            true => Scope::global(stamp, &site.service),
            false => Scope::regional(stamp, &site.region, &site.service),
        };
        self.write_terms(out, keys, site, signer, stamp, &scope)?;
        let rules = self.path_rules(out, site);
        let head = out.head();
        let canonical = Canonical::new(
            &head.method,
            head.uri.path(),
            head.uri.query().unwrap_or_default(),
            &head.headers,
            self.placement,
            rules,
            &body.payload,
        );
        let has_marks = !rules.double_encode && has_marks(head.uri.path());
        let text = sign::string_to_sign(signer.algorithm(), stamp, &scope, &canonical.text);
        let signature = signer.sign(text.as_bytes())?;
        let readable = out.watched().then(|| String::from_utf8_lossy(&canonical.text).into_owned());
        out.canonical("aws_sigv4", "canonical_request", || readable.clone().unwrap_or_default());
        out.canonical("aws_sigv4", "string_to_sign", || text.clone());
        let late_token = keys.session_token.as_ref().filter(|_| self.omits_token(site));
        match self.placement {
            Placement::Header => {
                let algorithm = signer.algorithm();
                let value =
                    sign::authorization(algorithm, &keys.access_key, &scope, &canonical.signed_headers, &signature);
                out.authorize(self.value("access_key", &value)?);
                if let Some(token) = late_token {
                    out.set_header(SECURITY_TOKEN, self.value("session_token", token.expose())?);
                }
            }
            Placement::Query => {
                if let Some(token) = late_token {
                    out.append_query("X-Amz-Security-Token", token.expose())?;
                }
                out.append_query("X-Amz-Signature", &signature)?;
            }
        }
        if let Some(Reframing { plan, shape, length }) = body.reframing {
            let chain = || Chain::new(signer.clone(), stamp.clone(), scope, signature);
            let rechunk = match plan {
                Plan::Chunks { signed, framed } => Rechunk::new(framed, shape, signed.then(chain)),
                _ => Rechunk::bare(shape),
            };
            out.reframe(Box::new(rechunk), length);
        }
        Ok(Used {
            at,
            region: site.region.clone(),
            bucket: site.bucket.clone(),
            asymmetric: site.asymmetric,
            has_marks,
            canonical: readable,
        })
    }

    /// Writes all that is signed: date, token, regions; for a presigned URL all of its parameters but the signature.
    fn write_terms(
        &self,
        out: &mut Outgoing<'_>,
        keys: &Keys,
        site: &Site,
        signer: &Signer,
        stamp: &Stamp,
        scope: &Scope,
    ) -> Result<(), AuthError> {
        let token = keys.session_token.as_ref().filter(|_| !self.omits_token(site));
        if self.placement == Placement::Header {
            out.set_header(DATE, self.open_value("date", stamp.as_str())?);
            if let Some(token) = token {
                out.set_header(SECURITY_TOKEN, self.value("session_token", token.expose())?);
            }
            if site.asymmetric {
                out.set_header(REGION_SET, self.open_value("region_set", &site.region)?);
            }
            return Ok(());
        }
        let names = canonical::signed_headers(&out.head().headers, self.placement);
        out.append_query("X-Amz-Algorithm", signer.algorithm())?;
        out.append_query("X-Amz-Credential", &format!("{}/{}", keys.access_key, scope.as_str()))?;
        out.append_query("X-Amz-Date", stamp.as_str())?;
        if site.asymmetric {
            out.append_query("X-Amz-Region-Set", &site.region)?;
        }
        out.append_query("X-Amz-SignedHeaders", &names)?;
        if !super::slots::present(out.head(), &Slot::Query("X-Amz-Expires".to_owned())) {
            let seconds = self.config.expires.unwrap_or_default().0;
            out.append_query("X-Amz-Expires", &seconds.to_string())?;
        }
        if let Some(token) = token {
            out.append_query("X-Amz-Security-Token", token.expose())?;
        }
        Ok(())
    }

    /// True if the token is added after signing.
    fn omits_token(&self, site: &Site) -> bool {
        self.config.omit_session_token.unwrap_or(site.service == "iotdevicegateway")
    }

    fn path_rules(&self, out: &Outgoing<'_>, site: &Site) -> PathRules {
        let usual = PathRules::of(&site.service);
        PathRules {
            double_encode: self.config.double_encode.unwrap_or(usual.double_encode),
            normalize: self.config.normalize_path.unwrap_or(usual.normalize),
            keep_marks: self.learnt.keeps_marks(out.target()),
        }
    }

    fn value(&self, key: &str, text: &str) -> Result<HeaderValue, AuthError> {
        header_value(&self.credential, key, text)
    }

    /// A value that everybody may see.
    fn open_value(&self, key: &str, text: &str) -> Result<HeaderValue, AuthError> {
        let mut value = self.value(key, text)?;
        value.set_sensitive(false);
        Ok(value)
    }
}

/// Puts the length of what leaves into the head, where it is signed.
fn set_length(out: &mut Outgoing<'_>, length: Option<u64>) {
    match length {
        Some(length) => out.set_header(header::CONTENT_LENGTH, HeaderValue::from(length)),
        None => out.remove_header(&header::CONTENT_LENGTH),
    }
}
