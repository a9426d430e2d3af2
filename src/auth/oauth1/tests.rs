//! Published signatures, what Postman sends, and the conversation about clocks and nonces.

use std::time::Duration;

use aws_lc_rs::signature::{self, KeyPair as _};
use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use super::{
    sign::{Key, base_string, body_hash, pairs},
    *,
};
use crate::{
    auth::{
        BuildContext, SchemeConfig, jose,
        scheme::{BodyPlan, Hop, Trace},
        tests::{NoNetwork, context_with},
    },
    target::Target,
};

const NOW: u64 = 1_700_000_000;

fn file(text: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(text).unwrap();
    file["vectors"].as_array().unwrap().clone()
}

fn vectors() -> Vec<Value> {
    file(include_str!("../../../tests/vectors/oauth1.json"))
}

fn at(seconds: u64) -> BuildContext {
    let clock = Clock::fixed(UNIX_EPOCH + Duration::from_secs(seconds), Some("n0nce".into()));
    context_with(Arc::new(NoNetwork), clock)
}

fn build(keys: Value, context: &BuildContext) -> Arc<dyn AuthScheme> {
    SchemeConfig::from_json("oauth1", keys).unwrap().build("c", context).unwrap()
}

/// The keys of most tests, with some more.
fn keys(more: Value) -> Value {
    let mut keys = json!({"consumer_key": "ck", "consumer_secret": "cs", "token": "tok", "token_secret": "ts"});
    keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    keys
}

struct Left {
    target: String,
    authorization: Option<String>,
    body: Vec<u8>,
    trace: Trace,
    round: Round,
}

/// Applies the scheme to a request as the proxy does.
fn leave(scheme: &dyn AuthScheme, request: Request<&[u8]>, context: &BuildContext) -> Result<Left, AuthError> {
    let (mut head, body) = request.into_parts();
    let body = Bytes::copy_from_slice(body);
    let target = Target::from_uri(&head.uri).unwrap();
    let whole = scheme.body_use(&head) == BodyUse::Whole;
    let (mut trace, mut round) = (Trace::default(), Round::new());
    let lent = Some(&mut trace);
    let mut out = Outgoing::new(&mut head, &target, Hop::Origin, whole.then_some(&body), &context.clock, lent);
    scheme.apply(&mut out, &mut round)?;
    let body = match out.into_plan() {
        BodyPlan::Replaced(body) => body,
        _ => body,
    };
    let authorization = head.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    Ok(Left { target: origin_form(&head.uri).to_owned(), authorization, body: body.to_vec(), trace, round })
}

fn get(url: &str) -> Request<&'static [u8]> {
    Request::get(url).body(&b""[..]).unwrap()
}

fn post_form<'b>(url: &str, body: &'b [u8]) -> Request<&'b [u8]> {
    Request::post(url).header("content-type", "Application/x-www-form-urlencoded; charset=UTF-8").body(body).unwrap()
}

fn param(authorization: &str, name: &str) -> Option<String> {
    let start = authorization.find(&format!("{name}=\""))? + name.len() + 2;
    let value = authorization[start..].split('"').next()?;
    Some(percent_encoding::percent_decode_str(value).decode_utf8().unwrap().into_owned())
}

fn method(name: &str) -> SignatureMethod {
    serde_json::from_value(name.into()).unwrap()
}

#[test]
fn published_base_strings_and_signatures() {
    let mut run = 0;
    for vector in vectors() {
        let (id, given, out) = (&vector["id"], &vector["in"], &vector["out"]);
        let text = |key: &str| given[key].as_str().unwrap_or_default();
        if let Some(expected) = out["base_string_uri"].as_str() {
            let uri: http::Uri = text("url").parse().unwrap();
            assert_eq!(base_uri(&Target::from_uri(&uri).unwrap(), origin_form(&uri)), expected, "{id}");
        } else if let Some(expected) = out["oauth_body_hash"].as_str() {
            assert_eq!(text("hash"), "sha1", "{id}");
            let hash = SignatureMethod::HmacSha1.hash().unwrap();
            assert_eq!(body_hash(hash, text("body").as_bytes()), expected, "{id}");
        } else {
            let named = given["oauth_params"]["oauth_signature_method"].as_str().unwrap_or(text("signature_method"));
            let base = match given["base_string"].as_str() {
                Some(base) => base.to_owned(),
                None => {
                    let pair = |name: &str, value: &Value| {
                        (name.as_bytes().to_vec(), value.as_str().unwrap().as_bytes().to_vec())
                    };
                    let ours = given["oauth_params"].as_object().unwrap().iter().map(|(name, value)| pair(name, value));
                    let theirs = given["request_params"].as_array().unwrap().iter();
                    let theirs = theirs.map(|one| pair(one[0].as_str().unwrap(), &one[1]));
                    let base = base_string(text("method"), text("base_string_uri"), theirs.chain(ours));
                    assert_eq!(base, out["base_string"].as_str().unwrap(), "{id}");
                    base
                }
            };
            let key = match given["private_key_pem"].as_str() {
                Some(pem) => Key::private(method(named), pem).unwrap(),
                None => {
                    let [consumer, token] = ["consumer_secret", "token_secret"].map(|key| Secret::new(text(key)));
                    Key::secrets(method(named), &consumer, &token)
                }
            };
            assert_eq!(key.sign(&base).unwrap(), out["signature"].as_str().unwrap(), "{id}");
        }
        run += 1;
    }
    assert_eq!(run, 17);
}

/// The query and the form of RFC 5849 section 3.4.1.1, decoded from the wire.
#[test]
fn query_and_form_of_the_standard() {
    let all = pairs(b"b5=%3D%253D&a3=a&c%40=&a2=r%20b").chain(pairs(b"c2&a3=2+q"));
    let expected: Vec<_> = [("b5", "=%3D"), ("a3", "a"), ("c@", ""), ("a2", "r b"), ("c2", ""), ("a3", "2 q")]
        .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .to_vec();
    assert_eq!(all.collect::<Vec<_>>(), expected);
}

/// Postman's keys in our own.
fn of_postman(auth: &Value) -> Value {
    let mut keys = json!({});
    for (postman, ours) in [
        ("consumerKey", "consumer_key"),
        ("consumerSecret", "consumer_secret"),
        ("token", "token"),
        ("tokenSecret", "token_secret"),
        ("nonce", "nonce"),
        ("timestamp", "timestamp"),
        ("version", "version"),
        ("signatureMethod", "signature_method"),
        ("privateKey", "private_key"),
        ("callback", "callback"),
        ("verifier", "verifier"),
        ("addEmptyParamsToSign", "sign_empty_params"),
    ] {
        if let Some(value) = auth.get(postman) {
            keys[ours] = value.clone();
        }
    }
    let to = if auth["addParamsToHeader"] == true { "header" } else { "body_or_query" };
    keys["add_to"] = to.into();
    keys["normalize_query"] = true.into();
    keys
}

#[test]
fn the_same_as_postman_sends() {
    let all = file(include_str!("../../../tests/vectors/postman-observed.json"));
    let ours = all.iter().filter(|vector| vector["in"]["auth"]["type"] == "oauth1");
    let mut run = 0;
    for vector in ours {
        let (id, given, out) = (&vector["id"], &vector["in"], &vector["out"]);
        let context = at(NOW);
        let scheme = build(of_postman(&given["auth"]), &context);
        let url = given["url"].as_str().unwrap();
        let body = out["body"].as_str().unwrap_or_default();
        let request = if given["form"].is_array() { post_form(url, body.as_bytes()) } else { get(url) };
        let left = leave(&*scheme, request, &context).unwrap();
        assert_eq!(left.target, out["target"].as_str().unwrap(), "{id}");
        assert_eq!(left.authorization.as_deref(), out["authorization"].as_str(), "{id}");
        assert_eq!(left.body, body.as_bytes(), "{id}");
        run += 1;
    }
    assert_eq!(run, 7);
}

#[test]
fn parameters_stand_where_they_should_and_nowhere_else() {
    let context = at(NOW);
    let form = b"a=1+2&oauth_token=mine&b=%7e&oauth%5Fsignature=x";
    for (add_to, request, place) in [
        ("header", post_form("https://h/p?x=%7e", form), "header"),
        ("body", post_form("https://h/p?x=%7e", form), "body"),
        ("query", post_form("https://h/p?x=%7e", form), "query"),
        ("body_or_query", post_form("https://h/p?x=%7e", form), "body"),
        ("body_or_query", get("https://h/p?x=%7e"), "query"),
    ] {
        let has_form = !request.body().is_empty();
        let scheme = build(keys(json!({"add_to": add_to})), &context);
        let left = leave(&*scheme, request, &context).unwrap();
        let body = String::from_utf8(left.body).unwrap();
        let ours = "oauth_consumer_key=ck&oauth_token=tok&oauth_signature_method=HMAC-SHA1&oauth_timestamp=1700000000&\
                    oauth_nonce=n0nce&oauth_version=1.0&oauth_signature=";
        let (mut target, mut form) =
            ("/p?x=%7e".to_owned(), if has_form { "a=1+2&b=%7e".to_owned() } else { String::new() });
        match place {
            "query" => target = format!("{target}&{ours}"),
            "body" => form = format!("{form}&{ours}"),
            _ => {}
        }
        let starts = |text: &str, start: &str| {
            if start.ends_with('=') { text.starts_with(start) && text.len() > start.len() + 20 } else { text == start }
        };
        assert!(starts(&left.target, &target) && starts(&body, &form), "{add_to}: {} {body}", left.target);
        assert_eq!(left.authorization.is_some(), place == "header", "{add_to}");
        assert!(left.trace.injected.iter().all(|slot| slot.place() == place), "{add_to}: {:?}", left.trace.injected);
    }
}

#[test]
fn what_the_client_says_of_oauth_is_neither_sent_nor_signed() {
    let context = at(NOW);
    let scheme = build(keys(json!({})), &context);
    let bare = leave(&*scheme, get("https://h/p?x=1"), &context).unwrap();
    let said = leave(&*scheme, get("https://h/p?oauth_token=a&x=1&oauth%5fnonce=b"), &context).unwrap();
    assert_eq!((&said.target, &said.authorization), (&bare.target, &bare.authorization));
    assert_eq!(leave(&*scheme, get("https://h/p?oauth_token=a"), &context).unwrap().target, "/p");
    let bare = leave(&*scheme, post_form("https://h/p", b"a=1"), &context).unwrap();
    let said = leave(&*scheme, post_form("https://h/p", b"oauth_verifier=x&a=1"), &context).unwrap();
    assert_eq!((said.body, said.authorization), (bare.body, bare.authorization));
}

#[test]
fn a_form_is_demanded_where_the_parameters_go_into_one() {
    let context = at(NOW);
    let scheme = build(keys(json!({"add_to": "body"})), &context);
    let error = leave(&*scheme, get("https://h/p"), &context).err().unwrap();
    assert!(error.message.contains("credential `c`") && error.message.contains("body_or_query"), "{error}");
    let empty = leave(&*scheme, post_form("https://h/p", b""), &context).unwrap();
    assert!(empty.body.starts_with(b"oauth_consumer_key=ck&"));
}

#[test]
fn bodies_are_hashed_as_the_draft_says() {
    let context = at(NOW);
    let hello = "Lve95gjOVATpfV8EL5X4nxwjKHE=";
    let json =
        || Request::post("https://h/p").header("content-type", "application/json").body(&b"Hello World!"[..]).unwrap();
    let hash = |more: Value, request: Request<&[u8]>| {
        let scheme = build(keys(more), &context);
        param(&leave(&*scheme, request, &context).unwrap().authorization.unwrap(), "oauth_body_hash")
    };
    let on = |more: Value| {
        let mut keys = json!({"include_body_hash": true});
        keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        keys
    };
    assert_eq!(hash(json!({}), json()), None);
    assert_eq!(hash(on(json!({})), json()).as_deref(), Some(hello));
    assert_eq!(hash(on(json!({})), get("https://h/p")).as_deref(), Some("2jmj7l5rSw0yVb/vlWAYkK/YBwk="));
    assert_eq!(hash(on(json!({})), post_form("https://h/p", b"a=1")), None, "forms are signed anyway");
    assert_eq!(hash(on(json!({"callback": "oob"})), json()), None, "not in requests for tokens");
    assert_eq!(hash(on(json!({"signature_method": "PLAINTEXT"})), json()), None);
    let sha256 = hash(on(json!({"signature_method": "HMAC-SHA256"})), json()).unwrap();
    assert_eq!(sha256, "f4OxZX/x/FO5LcGBSKHWXfwtSx+j1ncoSt3SABJtkGk=");
    let fixed = json!({"signature_method": "HMAC-SHA256", "body_hash_algorithm": "sha1"});
    assert_eq!(hash(on(fixed), json()).as_deref(), Some(hello));
    let fixed = json!({"signature_method": "HMAC-SHA1", "body_hash_algorithm": "sha512"});
    assert_eq!(hash(on(fixed), json()).unwrap().len(), 88);
}

#[test]
fn the_header_as_it_is_written() {
    let context = at(NOW);
    let header = |more: Value| {
        leave(&*build(keys(more), &context), get("https://h/p"), &context).unwrap().authorization.unwrap()
    };
    let with_realm = header(json!({"realm": "a \"b\" c/d"}));
    assert!(with_realm.starts_with(r#"OAuth realm="a \"b\" c/d",oauth_consumer_key="ck","#), "{with_realm}");
    let without = header(json!({}));
    assert_eq!(param(&with_realm, "oauth_signature"), param(&without, "oauth_signature"), "a realm is not signed");
    let raw = header(json!({"encode_header_params": false, "token": "a/b"}));
    assert!(raw.contains(r#"oauth_token="a/b""#) && raw.contains("=\"") && !raw.contains("%3D"), "{raw}");
    let bare = header(json!({"version": "", "token": ""}));
    assert!(!bare.contains("oauth_version") && !bare.contains("oauth_token"), "{bare}");
    let signed_empty = header(json!({"version": "", "token": "", "sign_empty_params": true}));
    assert!(!signed_empty.contains("oauth_token"), "{signed_empty}");
    assert_ne!(param(&bare, "oauth_signature"), param(&signed_empty, "oauth_signature"));
    let plain = header(json!({"signature_method": "PLAINTEXT", "consumer_secret": "a&b"}));
    assert!(plain.contains(r#"oauth_signature="a%2526b%26ts""#), "{plain}");
}

#[test]
fn a_query_is_respelt_only_if_asked() {
    let context = at(NOW);
    let url = "https://h/p%2f?q=a+b&r=%7e!&s&t=%c3%a9&&u=";
    let left = leave(&*build(keys(json!({})), &context), get(url), &context).unwrap();
    assert_eq!(left.target, "/p%2f?q=a+b&r=%7e!&s&t=%c3%a9&&u=");
    let respelt = leave(&*build(keys(json!({"normalize_query": true})), &context), get(url), &context).unwrap();
    assert_eq!(respelt.target, "/p%2f?q=a%20b&r=~%21&s&t=%C3%A9&u=");
    assert_eq!(left.authorization, respelt.authorization, "both spellings are signed alike");
}

#[test]
fn every_rsa_method_signs_what_the_public_key_verifies() {
    let (_, pem) = jose::SigningKey::generate(jose::Algorithm::Rs256).unwrap();
    let der = jose::private_key_der(pem.expose()).unwrap();
    let public = signature::RsaKeyPair::from_pkcs8(&der).unwrap();
    for (method, check) in [
        ("RSA-SHA1", &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY),
        ("RSA-SHA256", &signature::RSA_PKCS1_2048_8192_SHA256),
        ("RSA-SHA512", &signature::RSA_PKCS1_2048_8192_SHA512),
    ] {
        let context = at(NOW);
        let scheme = build(keys(json!({"signature_method": method, "private_key": pem.expose()})), &context);
        let left = leave(&*scheme, get("https://h/p?q=1"), &context).unwrap();
        let signature = param(&left.authorization.unwrap(), "oauth_signature").unwrap();
        let signature = jose::lenient_base64(&signature).unwrap();
        let (_, label, base) = &left.trace.canonical[0];
        assert_eq!(*label, "base_string");
        assert!(base.starts_with("GET&https%3A%2F%2Fh%2Fp&oauth_consumer_key%3Dck%26"), "{base}");
        let public = signature::UnparsedPublicKey::new(check, public.public_key().as_ref());
        assert!(public.verify(base.as_bytes(), &signature).is_ok(), "{method}");
        assert!(public.verify(b"other", &signature).is_err(), "{method}");
    }
}

#[test]
fn wrong_configurations_are_named() {
    for (more, said) in [
        (json!({"consumer_key": ""}), "`consumer_key`"),
        (json!({"version": "2.0"}), "`version`"),
        (json!({"timestamp": "soon"}), "`timestamp`"),
        (json!({"signature_method": "RSA-SHA1"}), "`private_key`"),
        (json!({"signature_method": "RSA-SHA1", "private_key": "CANARY"}), "`private_key` cannot be used"),
        (json!({"authorize_url": "https://h/a"}), "`request_token_url`"),
        (
            json!({"authorize_url": "https://h/a", "request_token_url": "https://h/r", "access_token_url": "https://h/t"}),
            "`token` is given",
        ),
    ] {
        let config = SchemeConfig::from_json("oauth1", keys(more)).unwrap();
        let errors = config.build("c", &at(NOW)).unwrap_err();
        assert!(errors[0].contains(said) && !errors[0].contains("CANARY"), "{errors:?}");
    }
}

/// One exchange whose first answer is a refusal.
struct Refused {
    scheme: Arc<dyn AuthScheme>,
    url: &'static str,
    context: BuildContext,
    round: Round,
}

impl Refused {
    fn new(url: &'static str, more: Value) -> Self {
        let context = at(NOW);
        let scheme = build(keys(more), &context);
        let round = leave(&*scheme, get(url), &context).unwrap().round;
        Self { scheme, url, context, round }
    }

    fn review(&mut self, header: Option<&str>, body: &str) -> Verdict {
        let head = get(self.url).into_parts().0;
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert("www-authenticate", header.parse().unwrap());
        }
        let target = Target::from_uri(&head.uri).unwrap();
        let status = if header.is_some() { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
        assert!(self.scheme.reply_prefix(status, &headers, &self.round) >= body.len());
        let reply = Reply { body: body.as_bytes(), ..Reply::new(status, &headers, Hop::Origin, &head, &target) };
        self.scheme.review(&reply, &mut self.round)
    }

    fn next_timestamp(&self) -> u64 {
        let left = leave(&*self.scheme, get(self.url), &self.context).unwrap();
        param(&left.authorization.unwrap(), "oauth_timestamp").unwrap().parse().unwrap()
    }
}

#[test]
fn a_refused_timestamp_is_corrected_once() {
    let said =
        r#"OAuth realm="x", oauth_problem="timestamp_refused", oauth_acceptable_timestamps="1700000500-1700000700""#;
    let mut header = Refused::new("https://h/p", json!({}));
    assert_eq!(header.review(Some(said), ""), Verdict::Retry);
    assert_eq!(header.next_timestamp(), 1_700_000_600);
    assert_eq!(header.review(Some(said), ""), Verdict::Deliver, "once in an exchange");
    let form = "oauth_problem=timestamp_refused&oauth_acceptable_timestamps=1699999000-1699999100\n";
    let mut body = Refused::new("https://h/p", json!({}));
    assert_eq!(body.review(None, form), Verdict::Retry);
    assert_eq!(body.next_timestamp(), 1_699_999_050);
    let mut known = Refused::new("https://h/p", json!({}));
    let fits = "oauth_problem=timestamp_refused&oauth_acceptable_timestamps=1699999000-1700000100";
    assert_eq!(known.review(None, fits), Verdict::Deliver, "our clock is right, so it is something else");
    let far = "oauth_problem=timestamp_refused&oauth_acceptable_timestamps=1-2";
    assert_eq!(Refused::new("https://h/p", json!({})).review(None, far), Verdict::Deliver);
}

#[test]
fn nobody_on_the_way_sets_our_clock() {
    let form = "oauth_problem=timestamp_refused&oauth_acceptable_timestamps=1699999000-1699999100";
    let mut plain = Refused::new("http://h/p", json!({}));
    assert_eq!(plain.review(None, form), Verdict::Deliver);
    assert_eq!(plain.next_timestamp(), NOW);
    assert_eq!(Refused::new("http://127.0.0.1:9/p", json!({})).review(None, form), Verdict::Retry);
}

#[test]
fn a_used_nonce_is_replaced_once_and_fixed_values_stay() {
    let mut used = Refused::new("https://h/p", json!({}));
    assert_eq!(used.review(None, "oauth_problem=nonce_used"), Verdict::Retry);
    assert_eq!(used.review(None, "oauth_problem=nonce_used"), Verdict::Deliver);
    assert_eq!(
        Refused::new("https://h/p", json!({"nonce": "x"})).review(None, "oauth_problem=nonce_used"),
        Verdict::Deliver
    );
    let form = "oauth_problem=timestamp_refused&oauth_acceptable_timestamps=1699999000-1699999100";
    assert_eq!(Refused::new("https://h/p", json!({"timestamp": "1"})).review(None, form), Verdict::Deliver);
    for other in ["oauth_problem=token_expired", "{\"error\":1}", "", "oauth_problem"] {
        assert_eq!(Refused::new("https://h/p", json!({})).review(None, other), Verdict::Deliver);
    }
}

#[test]
fn secrets_are_known_in_the_forms_that_base_strings_hold() {
    let known = Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
    let hook = known.clone();
    let sources = Sources::new(
        Duration::from_secs(300),
        Arc::new(move |secret: &Secret, _| hook.lock().unwrap().push(secret.expose().into())),
    );
    let context = BuildContext { sources: Arc::new(sources), ..at(NOW) };
    build(keys(json!({"token": "t/k"})), &context);
    let known = known.lock().unwrap();
    for form in ["t/k", "t%2Fk", "t%252Fk"] {
        assert!(known.iter().any(|known| known == form), "{form}");
    }
}

fn answered(status: u16, body: &str) -> Result<Token, String> {
    legs::answer(StatusCode::from_u16(status).unwrap(), body.as_bytes(), true)
}

#[test]
fn answers_of_a_login() {
    let good = answered(200, "oauth_token=t%2F1&oauth_token_secret=s+%26&oauth_callback_confirmed=true&x=y\n").unwrap();
    assert_eq!((good.token.expose(), good.secret.expose()), ("t/1", "s &"));
    assert_eq!(Token::read(good.written().expose()).unwrap(), good);
    for (status, body, said) in [
        (200, "oauth_token=t&oauth_token_secret=s", "revision A"),
        (200, "oauth_token=CANARY&oauth_callback_confirmed=true", "no `oauth_token`"),
        (200, "{\"oauth_token\": \"CANARY\"}", "no `oauth_token`"),
        (401, "oauth_problem=consumer_key_unknown", "401 (oauth_problem=consumer_key_unknown)"),
        (500, "oauth_problem=CANARY<script>", "answered 500"),
    ] {
        let error = answered(status, body).unwrap_err();
        assert!(error.contains(said) && !error.contains("CANARY"), "{error}");
    }
    assert!(legs::answer(StatusCode::OK, b"oauth_token=t&oauth_token_secret=", false).is_ok());
}

#[test]
fn the_address_for_the_person() {
    let temporary = Token { token: Secret::new("t/&"), secret: Secret::default() };
    let url = |url: &str| legs::authorize_url(url, &temporary);
    assert_eq!(url("https://h/a").unwrap(), "https://h/a?oauth_token=t%2F%26");
    assert_eq!(url("https://h/a?x=1").unwrap(), "https://h/a?x=1&oauth_token=t%2F%26");
    assert!(url("javascript:alert(1)").is_err() && url("h").is_err());
}

/// The two signed requests of RFC 5849 section 1.2.
#[test]
fn requests_of_a_login() {
    let all = vectors();
    let vector = |id: &str| all.iter().find(|vector| vector["id"] == id).unwrap().clone();
    for (id, verifier) in [("rfc5849-initiate", ""), ("rfc5849-token", "hfdp7dh39dks9884")] {
        let (given, out) = (&vector(id)["in"], &vector(id)["out"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let oauth = &given["oauth_params"];
        let config: Oauth1Config = serde_json::from_value(json!({
            "consumer_key": "", "version": "", "timestamp": oauth["oauth_timestamp"], "nonce": oauth["oauth_nonce"],
            "realm": "Photos"
        }))
        .unwrap();
        let secret = Secret::new(text(&given["consumer_secret"]));
        let consumer = Consumer { key: text(&oauth["oauth_consumer_key"]), secret, private_key: None };
        let token = Token { token: text(&oauth["oauth_token"]).into(), secret: text(&given["token_secret"]).into() };
        let (url, callback) = (text(&given["base_string_uri"]), text(&oauth["oauth_callback"]));
        let request = legs::request(&config, &consumer, &url, &token, &callback, verifier, &Clock::system()).unwrap();
        let header = request.headers()["authorization"].to_str().unwrap();
        assert!(header.starts_with("OAuth realm=\"Photos\",oauth_consumer_key=\"dpf43f3p2l4k3l03\","), "{header}");
        assert_eq!(param(header, "oauth_signature").as_deref(), out["signature"].as_str(), "{id}");
        assert_eq!(request.method(), Method::POST);
        assert!(request.headers()["authorization"].is_sensitive());
        let plain = legs::request(&config, &consumer, "http://h/", &token, &callback, verifier, &Clock::system());
        assert!(plain.unwrap_err().contains("https"));
    }
}
