//! What holds for every query, form and answer.

use http::StatusCode;
use proptest::prelude::*;

use super::{
    legs,
    parameters::{self, Token, without_protocol},
    problem::Problem,
    sign::{base_string, encode, normalized_query, pairs},
};
use crate::{auth::challenge, secret::Secret};

fn query() -> impl Strategy<Value = String> {
    proptest::string::string_regex("([a-c%+~!é]|%7e|%C3|&|=|oauth_token=|oauth_nonce){0,20}").unwrap()
}

proptest! {
    #[test]
    fn encoding_and_decoding_are_inverse(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let encoded = encode(&bytes);
        prop_assert!(encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)));
        let back: Vec<_> = pairs(encoded.as_bytes()).collect();
        let expected = if bytes.is_empty() { vec![] } else { vec![(bytes, vec![])] };
        prop_assert_eq!(back, expected);
    }

    #[test]
    fn a_respelt_query_says_the_same_and_stays(query in query()) {
        let once = normalized_query(&query);
        let said = |query: &str| pairs(query.as_bytes()).collect::<Vec<_>>();
        prop_assert_eq!(said(&once), said(&query));
        prop_assert_eq!(normalized_query(&once), once);
    }

    #[test]
    fn the_order_of_parameters_does_not_matter(query in query(), other in query()) {
        let sign = |a: &str, b: &str| base_string("get", "http://h/", pairs(a.as_bytes()).chain(pairs(b.as_bytes())));
        prop_assert_eq!(sign(&query, &other), sign(&other, &query));
    }

    #[test]
    fn cleaning_takes_the_protocol_and_nothing_else(query in query()) {
        let others = |raw: &[u8]| pairs(raw).filter(|(name, _)| !parameters::is_protocol(name)).collect::<Vec<_>>();
        if let Some(left) = without_protocol(query.as_bytes()) {
            prop_assert_eq!(pairs(&left).collect::<Vec<_>>(), others(query.as_bytes()));
            prop_assert!(without_protocol(&left).is_none());
        } else {
            prop_assert_eq!(pairs(query.as_bytes()).count(), others(query.as_bytes()).len());
        }
    }

    #[test]
    fn answers_are_read_from_anything(status in 100_u16..600, body in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = legs::answer(StatusCode::from_u16(status).unwrap(), &body, true);
    }

    #[test]
    fn a_token_is_kept_as_it_is(token in "\\PC{1,20}", secret in "\\PC{0,20}") {
        let token = Token { token: Secret::new(token), secret: Secret::new(secret) };
        prop_assert_eq!(Token::read(token.written().expose()), Some(token));
    }

    #[test]
    fn problems_are_read_from_anything(body in proptest::collection::vec(any::<u8>(), 0..80), text in "\\PC{0,40}") {
        let _ = Problem::of(&[], &body);
        let said = format!("oauth_problem=timestamp_refused&oauth_acceptable_timestamps={text}");
        let _ = Problem::of(&challenge::parse_line(&format!("OAuth {text}")), said.as_bytes());
    }
}
