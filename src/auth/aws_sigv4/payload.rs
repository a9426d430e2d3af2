//! How the body takes part in the signature, and how it leaves.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};

use super::{
    canonical::{Placement, is_s3},
    chunked::{Chain, Decoder, Encoder, FramingError, checksum_len, encoded_len, payload_word},
    config::Payload,
    dummy::Claim,
};
use crate::auth::scheme::{AuthError, AuthErrorKind, BodyUse, Reframe};

/// `x-amz-decoded-content-length`
pub(super) const DECODED_LENGTH: HeaderName = HeaderName::from_static("x-amz-decoded-content-length");
/// `x-amz-trailer`
pub(super) const TRAILER: HeaderName = HeaderName::from_static("x-amz-trailer");

/// What decides about a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case<'a> {
    /// As configured.
    pub(super) payload: Payload,
    /// Where the signature goes.
    pub(super) placement: Placement,
    /// Signing name of the service.
    pub(super) service: &'a str,
    /// Nobody on the way can change the body.
    pub(super) tls: bool,
    /// What the client said of its body.
    pub(super) claim: Option<&'a Claim>,
}

/// What is done with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Its hash is signed.
    Hash,
    /// The hash that the client gives is signed; who lies is found out by the server.
    Claimed(String),
    /// It is left out of the signature.
    Unsigned,
    /// It leaves as it came: chunks without signatures.
    AsItCame,
    /// It leaves in chunks of ours.
    Chunks {
        /// They carry signatures.
        signed: bool,
        /// It comes in chunks.
        framed: bool,
    },
    /// It comes in chunks and leaves without them, left out of the signature.
    Bare,
}

/// True if the body comes in the framing of SDKs that sign or checksum while they send.
fn is_framed(claim: Option<&Claim>, headers: &HeaderMap) -> bool {
    match claim {
        Some(claim) => matches!(claim, Claim::Chunks { .. }),
        None => headers.contains_key(DECODED_LENGTH) && codings(headers).any(|coding| coding == AWS_CHUNKED),
    }
}

fn codings(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::CONTENT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|coding| !coding.is_empty())
}

const AWS_CHUNKED: &str = "aws-chunked";

impl Case<'_> {
    /// True where the signature is not over the body by the service's own rules.
    fn is_never_signed(&self) -> bool {
        self.service == "vpc-lattice-svcs" || (self.placement == Placement::Query && is_s3(self.service))
    }

    /// What is needed of the body.
    pub(super) fn body_use(&self, head: &Parts) -> BodyUse {
        let known_length = head.headers.contains_key(header::CONTENT_LENGTH);
        if is_framed(self.claim, &head.headers) {
            return BodyUse::Replay;
        }
        // Such a stream waits for its answer; `plan` refuses it without reading any of it.
        if self.claim == Some(&Claim::Events) {
            return BodyUse::Pass;
        }
        match self.payload {
            Payload::Unsigned => BodyUse::Replay,
            Payload::Streaming if known_length => BodyUse::Replay,
            Payload::Auto if self.is_never_signed() || matches!(self.claim, Some(Claim::Hash(_))) => BodyUse::Replay,
            Payload::Auto if is_s3(self.service) => BodyUse::Most,
            Payload::Auto | Payload::Signed | Payload::Streaming => BodyUse::Whole,
        }
    }

    /// What is done with the body. `is_known`: all of it is in memory; `is_empty`: and it is nothing.
    pub(super) fn plan(&self, headers: &HeaderMap, is_known: bool, is_empty: bool) -> Result<Plan, AuthError> {
        if self.claim == Some(&Claim::Events) {
            return Err(AuthError::new(
                AuthErrorKind::Rejected,
                "each event of this stream carries a signature of its own, and these are not made anew; give the client \
                 real keys and this rule `existing: keep`",
            ));
        }
        if is_framed(self.claim, headers) && !is_empty {
            return Ok(self.plan_framed(headers));
        }
        let can_chunk = headers.contains_key(header::CONTENT_LENGTH) && self.placement == Placement::Header;
        let chunks = Plan::Chunks { signed: true, framed: false };
        match self.payload {
            Payload::Unsigned => Ok(Plan::Unsigned),
            Payload::Auto if self.is_never_signed() => Ok(Plan::Unsigned),
            Payload::Streaming if can_chunk && !is_empty => Ok(chunks),
            _ if is_known => Ok(Plan::Hash),
            Payload::Auto => match self.claim {
                Some(Claim::Hash(hash)) => Ok(Plan::Claimed(hash.clone())),
                _ if self.tls && is_s3(self.service) => Ok(Plan::Unsigned),
                _ if can_chunk && is_s3(self.service) => Ok(chunks),
                _ => Err(too_large()),
            },
            Payload::Signed | Payload::Streaming => Err(too_large()),
        }
    }

    fn plan_framed(&self, headers: &HeaderMap) -> Plan {
        let is_signed = !matches!(self.claim, Some(Claim::Chunks { signed: false, .. }));
        let signed = Plan::Chunks { signed: true, framed: true };
        match self.payload {
            _ if self.placement == Placement::Query => Plan::Bare,
            Payload::Auto | Payload::Unsigned if !is_signed => Plan::AsItCame,
            Payload::Auto | Payload::Signed | Payload::Streaming => signed,
            Payload::Unsigned if headers.contains_key(TRAILER) => Plan::Chunks { signed: false, framed: true },
            Payload::Unsigned => Plan::Bare,
        }
    }
}

fn too_large() -> AuthError {
    AuthError::new(
        AuthErrorKind::TooLarge,
        "the body goes into the signature and is longer than `limits.body_buffer`; raise that, or use `payload: unsigned` \
         or `payload: streaming` where the service takes it",
    )
}

/// The lengths and names that the framing needs beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Bytes of data.
    pub(super) data: u64,
    /// The names of the trailers, if the framing has them.
    pub(super) trailers: Option<Vec<String>>,
}

impl Shape {
    /// Reads the head of a request. `framed`: its body comes in chunks.
    ///
    /// # Errors
    /// The client's header fields are missing or malformed.
    pub(super) fn of(headers: &HeaderMap, framed: bool) -> Result<Self, AuthError> {
        let name = if framed { DECODED_LENGTH } else { header::CONTENT_LENGTH };
        let number = |value: &HeaderValue| {
            let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
            digits.parse().ok()
        };
        let data = headers.get(&name).and_then(number).ok_or_else(|| {
            request_error(format!("a body in `aws-chunked` needs `{name}` with the number of its bytes"))
        })?;
        let lines = headers.get_all(TRAILER).iter().filter_map(|line| line.to_str().ok());
        let names: Vec<String> = lines
            .flat_map(|line| line.split(','))
            .map(|name| name.trim().to_ascii_lowercase())
            .filter(|name| !name.is_empty())
            .collect();
        let trailers = (framed && headers.contains_key(TRAILER)).then_some(names);
        Ok(Self { data, trailers })
    }

    /// The length of the body in our framing; `None` if a trailer has a length that nobody knows beforehand.
    pub(super) fn encoded_len(&self, signature: Option<usize>) -> Option<u64> {
        let Some(names) = &self.trailers else { return Some(encoded_len(self.data, signature, None)) };
        let lengths: Option<Vec<_>> = names.iter().map(|name| Some((name.len(), checksum_len(name)?))).collect();
        Some(encoded_len(self.data, signature, Some(&lengths?)))
    }

    /// What stands in `x-amz-content-sha256`.
    pub(super) fn word(&self, algorithm: Option<&str>) -> &'static str {
        payload_word(algorithm, self.trailers.is_some())
    }
}

/// `Content-Encoding` with `aws-chunked` in front of what is there, or without it; `None` if nothing is left.
pub(super) fn content_encoding(headers: &HeaderMap, chunked: bool) -> Option<HeaderValue> {
    let others = codings(headers).filter(|coding| *coding != AWS_CHUNKED);
    let all: Vec<&str> = chunked.then_some(AWS_CHUNKED).into_iter().chain(others).collect();
    HeaderValue::from_str(&all.join(",")).ok().filter(|value| !value.is_empty())
}

/// Turns a client's body into what leaves, piece by piece.
#[derive(Debug)]
pub(super) struct Rechunk {
    decoder: Option<Decoder>,
    /// Writes our framing; without it the data leaves bare.
    encoder: Option<Encoder>,
    shape: Shape,
    seen: u64,
}

impl Rechunk {
    /// `framed`: the body comes in chunks and leaves in chunks of ours, signed by `chain` if there is one.
    pub(super) fn new(framed: bool, shape: Shape, chain: Option<Chain>) -> Self {
        Self { decoder: framed.then(Decoder::default), encoder: Some(Encoder::new(chain)), shape, seen: 0 }
    }

    /// The body comes in chunks and leaves without.
    pub(super) fn bare(shape: Shape) -> Self {
        Self { decoder: Some(Decoder::default()), encoder: None, shape, seen: 0 }
    }

    /// The trailers as they leave: all that were announced, no other, sorted.
    fn checked(&self, mut trailers: Vec<(String, String)>) -> Result<Option<Vec<(String, String)>>, AuthError> {
        let announced = self.shape.trailers.as_deref().unwrap_or_default();
        let odd =
            |name: &str| request_error(format!("the trailer `{name}` does not fit what `x-amz-trailer` announces"));
        if let Some((name, _)) = trailers.iter().find(|(name, _)| !announced.contains(name)) {
            return Err(odd(name));
        }
        if let Some(name) =
            announced.iter().find(|name| trailers.iter().filter(|(known, _)| known == *name).count() != 1)
        {
            return Err(odd(name));
        }
        if let Some((name, _)) =
            trailers.iter().find(|(name, value)| checksum_len(name).is_some_and(|length| length != value.len()))
        {
            return Err(request_error(format!("the trailer `{name}` is not a checksum of its kind in base64")));
        }
        trailers.sort_unstable();
        Ok(self.shape.trailers.is_some().then_some(trailers))
    }
}

impl Reframe for Rechunk {
    fn data(&mut self, piece: &[u8], out: &mut BytesMut) -> Result<(), AuthError> {
        let Self { decoder, encoder, shape, seen } = self;
        let mut write = |data: &[u8]| {
            *seen += data.len() as u64;
            if *seen > shape.data {
                return Err(length_error(shape.data));
            }
            match encoder {
                Some(encoder) => encoder.push(data, out),
                None => {
                    out.extend_from_slice(data);
                    Ok(())
                }
            }
        };
        match decoder {
            Some(decoder) => decoder.feed(piece, write),
            None => write(piece),
        }
    }

    fn end(&mut self, _: Option<&HeaderMap>, out: &mut BytesMut) -> Result<(), AuthError> {
        let trailers = match &mut self.decoder {
            Some(decoder) => decoder.finish()?,
            None => Vec::new(),
        };
        if self.seen != self.shape.data {
            return Err(length_error(self.shape.data));
        }
        let trailers = self.checked(trailers)?;
        match &mut self.encoder {
            Some(encoder) => encoder.finish(trailers.as_deref(), out),
            None => Ok(()),
        }
    }
}

impl From<FramingError> for AuthError {
    fn from(error: FramingError) -> Self {
        request_error(format!("the body is not what `aws-chunked` should be: {error}"))
    }
}

fn length_error(data: u64) -> AuthError {
    request_error(format!("the body does not have the {data} bytes that its head announces"))
}

fn request_error(message: String) -> AuthError {
    AuthError::new(AuthErrorKind::Request, message)
}
