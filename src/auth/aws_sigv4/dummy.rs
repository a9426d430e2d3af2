//! What the client's own signature says. An SDK that was given dummy keys knows its service, its region and how it sends
//! the body; only its keys count for nothing.

use std::borrow::Cow;

use http::{HeaderMap, header, request::Parts};
use percent_encoding::percent_decode_str;

use super::{
    asymmetric,
    sign::{ALGORITHM, CONTENT_SHA256, TERMINATOR},
};

/// What was read from a request before the values of the client were taken out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dummy {
    /// Service and region of the credential scope. The region is absent with the asymmetric algorithm.
    pub(super) scope: Option<(String, Option<String>)>,
    /// The asymmetric algorithm was used.
    pub(super) asymmetric: bool,
    /// `X-Amz-Region-Set`
    pub(super) region_set: Option<String>,
    /// `X-Amz-Content-Sha256`
    pub(super) payload: Option<Claim>,
}

/// What a client says of its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Its SHA-256: 64 lower-case hexadecimal digits.
    Hash(String),
    /// `UNSIGNED-PAYLOAD`
    Unsigned,
    /// It comes as `aws-chunked`.
    Chunks {
        /// Each chunk has a signature.
        signed: bool,
        /// Trailers follow the last chunk.
        trailer: bool,
    },
    /// It is a stream of events, each with a signature of its own.
    Events,
}

impl Dummy {
    /// Reads the header, or else the query.
    pub(super) fn of(head: &Parts) -> Self {
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let authorization = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let param = |name: &str| head.uri.query().and_then(|query| param(query, name));
        let in_header = authorization.and_then(|value| value.split_once(' ')).filter(|(word, _)| is_algorithm(word));
        let (algorithm, credential) = match in_header {
            Some((algorithm, rest)) => (Some(Cow::Borrowed(algorithm)), field(rest, "Credential").map(Cow::Borrowed)),
            None => (param("X-Amz-Algorithm"), param("X-Amz-Credential")),
        };
        let asymmetric = algorithm.as_deref() == Some(asymmetric::ALGORITHM);
        let signed = algorithm.as_deref().is_some_and(is_algorithm);
        Self {
            scope: credential.filter(|_| signed).and_then(|credential| scope(&credential, asymmetric)),
            asymmetric,
            region_set: text("x-amz-region-set")
                .map(Cow::Borrowed)
                .or_else(|| param("X-Amz-Region-Set"))
                .filter(|set| is_region_set(set))
                .map(Cow::into_owned),
            payload: claim(&head.headers),
        }
    }
}

fn is_algorithm(word: &str) -> bool {
    word == ALGORITHM || word == asymmetric::ALGORITHM
}

/// A field of `Authorization`: `Name=value`, separated by commas.
fn field<'a>(fields: &'a str, name: &str) -> Option<&'a str> {
    fields.split(',').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
}

fn param<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let value = query.split('&').find_map(|pair| pair.split_once('=').filter(|(known, _)| *known == name))?.1;
    percent_decode_str(value).decode_utf8().ok()
}

/// `key/day/region/service/aws4_request`, without the region for the asymmetric algorithm.
fn scope(credential: &str, asymmetric: bool) -> Option<(String, Option<String>)> {
    let mut parts = credential.rsplit('/');
    if parts.next() != Some(TERMINATOR) {
        return None;
    }
    let service = parts.next().filter(|service| is_word(service))?.to_owned();
    if asymmetric {
        return Some((service, None));
    }
    let region = parts.next().filter(|region| is_word(region))?;
    Some((service, Some(region.to_owned())))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_region_set(text: &str) -> bool {
    let in_set = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'*' | b',');
    !text.is_empty() && text.len() <= 256 && text.bytes().all(in_set)
}

fn claim(headers: &HeaderMap) -> Option<Claim> {
    let value = headers.get(CONTENT_SHA256)?.to_str().ok()?;
    if value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some(Claim::Hash(value.to_ascii_lowercase()));
    }
    match value {
        "STREAMING-AWS4-HMAC-SHA256-EVENTS" | "STREAMING-AWS4-ECDSA-P256-SHA256-EVENTS" => Some(Claim::Events),
        "UNSIGNED-PAYLOAD" => Some(Claim::Unsigned),
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Some(Claim::Chunks { signed: false, trailer: true }),
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" | "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD" => {
            Some(Claim::Chunks { signed: true, trailer: false })
        }
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" | "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER" => {
            Some(Claim::Chunks { signed: true, trailer: true })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn dummy(uri: &str, headers: &[(&str, &str)]) -> Dummy {
        let mut builder = Request::get(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        Dummy::of(&builder.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn the_scope_of_a_header_with_any_key() {
        for key in ["AKID", "test/with/slashes", ""] {
            let value = format!(
                "AWS4-HMAC-SHA256 Credential={key}/20240102/eu-west-1/s3/aws4_request,SignedHeaders=host, Signature=0"
            );
            let found = dummy("http://h/", &[("authorization", &value), ("x-amz-content-sha256", "UNSIGNED-PAYLOAD")]);
            assert_eq!(found.scope, Some(("s3".into(), Some("eu-west-1".into()))), "{key}");
            assert_eq!((found.payload, found.asymmetric), (Some(Claim::Unsigned), false));
        }
    }

    #[test]
    fn the_scope_of_a_presigned_query() {
        let found = dummy(
            "http://h/?X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256&X-Amz-Credential=k%2F20240102%2Fs3%2Faws4_request&\
             X-Amz-Region-Set=us-%2A",
            &[],
        );
        assert_eq!(found.scope, Some(("s3".into(), None)));
        assert_eq!((found.asymmetric, found.region_set.as_deref()), (true, Some("us-*")));
    }

    #[test]
    fn what_is_no_signature_says_nothing() {
        for value in [
            "Bearer Credential=a/20240102/eu-west-1/s3/aws4_request",
            "AWS4-HMAC-SHA256 Credential=a/20240102/eu-west-1/s3/other, Signature=0",
            "AWS4-HMAC-SHA256 Credential=a/20240102/s3/buck et/aws4_request, Signature=0",
            "AWS4-HMAC-SHA256 Credential=aws4_request",
            "AWS4-HMAC-SHA256",
        ] {
            assert_eq!(dummy("http://h/", &[("authorization", value)]).scope, None, "{value}");
        }
        assert_eq!(dummy("http://h/?X-Amz-Credential=a/1/eu-west-1/s3/aws4_request", &[]), Dummy::default());
        assert_eq!(dummy("http://h/", &[("x-amz-content-sha256", "rubbish")]).payload, None);
    }
}
