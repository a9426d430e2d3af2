//! Published known answers, the recipes of `config/examples`, and what templates can and cannot do.

use std::time::UNIX_EPOCH;

use http::{HeaderMap, Method};
use serde_json::{Value as Json, json};

use super::*;
use crate::{
    auth::{
        SchemeConfig,
        outgoing::{BodyPlan, Trace},
        scheme::Hop,
        tests::{NoNetwork, context_with, ready},
    },
    target::Target,
};

/// One request and what becomes of it.
struct Request {
    head: Parts,
    body: Option<Bytes>,
}

impl Request {
    fn new(method: &str, url: &str, headers: &[(&str, &str)], body: Option<&str>) -> Self {
        let mut head = http::Request::builder().uri(url).method(method).body(()).unwrap().into_parts().0;
        for (name, value) in headers {
            head.headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        Self { head, body: body.map(|body| Bytes::from(body.to_owned())) }
    }

    fn header(&self, name: &str) -> &str {
        self.head.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

struct Signer {
    context: BuildContext,
    scheme: Arc<dyn AuthScheme>,
}

impl Signer {
    fn new(keys: Json, at_ms: u64, nonce: Option<&str>) -> Result<Self, String> {
        let clock = Clock::fixed(UNIX_EPOCH + Duration::from_millis(at_ms), nonce.map(str::to_owned));
        let context = context_with(Arc::new(NoNetwork), clock);
        let config = SchemeConfig::from_json("hmac", texts(keys))?;
        let scheme = config.build("signer", &context).map_err(|errors| errors.join("\n"))?;
        Ok(Self { context, scheme })
    }

    /// Signs and gives back what was signed.
    async fn sign(&self, request: &mut Request) -> Result<String, AuthError> {
        ready(&*self.scheme, &self.context).await?;
        for slot in self.scheme.slots() {
            super::super::slots::strip(&mut request.head, slot);
        }
        let target = Target::from_uri(&request.head.uri).unwrap();
        let empty = Bytes::new();
        let whole = self.scheme.body_use(&request.head) == BodyUse::Whole;
        let body = whole.then(|| request.body.as_ref().unwrap_or(&empty)).cloned();
        let mut trace = Trace::default();
        let mut out = Outgoing::new(
            &mut request.head,
            &target,
            Hop::Origin,
            body.as_ref(),
            &self.context.clock,
            Some(&mut trace),
        );
        self.scheme.apply(&mut out, &mut Round::default())?;
        if let BodyPlan::Replaced(body) = out.into_plan() {
            request.body = Some(body);
        }
        Ok(trace.canonical.pop().unwrap().2)
    }
}

/// YAML allows numbers where texts are meant.
fn texts(value: Json) -> Json {
    match value {
        Json::Number(number) => Json::String(number.to_string()),
        Json::Array(items) => items.into_iter().map(texts).collect(),
        Json::Object(entries) => entries.into_iter().map(|(key, value)| (key, texts(value))).collect(),
        other => other,
    }
}

fn example(file: &str, credential: &str) -> Json {
    let text = std::fs::read_to_string(format!("config/examples/{file}")).unwrap();
    let file: Json = serde_yaml::from_str(&text).unwrap();
    let mut keys = file["credentials"][credential].clone();
    assert_eq!(keys.as_object_mut().unwrap().remove("type").unwrap(), "hmac");
    keys
}

#[tokio::test]
async fn published_known_answers() {
    let file: Json = serde_json::from_str(include_str!("../../../tests/vectors/hmac.json")).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 12, "none is skipped");
    for vector in vectors {
        let id = vector["id"].as_str().unwrap();
        let mut keys = example(vector["example"].as_str().unwrap(), vector["credential"].as_str().unwrap());
        for (key, value) in vector["keys"].as_object().into_iter().flatten() {
            keys[key] = value.clone();
        }
        let signer = Signer::new(keys, vector["at_ms"].as_u64().unwrap_or(0), vector["nonce"].as_str()).unwrap();
        let given = &vector["in"];
        let mut headers = Vec::new();
        for (name, value) in given["headers"].as_object().into_iter().flatten() {
            let lines = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
            headers.extend(lines.iter().map(|line| (name.clone(), line.as_str().unwrap().to_owned())));
        }
        let headers: Vec<(&str, &str)> = headers.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let (method, url) = (given["method"].as_str().unwrap(), given["url"].as_str().unwrap());
        let mut request = Request::new(method, url, &headers, given["body"].as_str());
        signer.sign(&mut request).await.unwrap();
        if let Some(query) = vector["out"]["query"].as_str() {
            assert_eq!(request.head.uri.query().unwrap(), query, "{id}");
        }
        for (name, value) in vector["out"]["headers"].as_object().into_iter().flatten() {
            assert_eq!(request.header(name), value, "{id}");
        }
    }
}

/// The official AWS suite for version 4, to show how far templates go.
#[tokio::test]
async fn even_aws_signature_version_4_can_be_written() {
    let keys = json!({
        "key": "AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "key_id": "AKIDEXAMPLE", "timestamp": "iso8601_basic",
        "derive": ["{timestamp:%Y%m%d}", "us-east-1", "service", "aws4_request"],
        "lists": {
            "query": {"of": "query", "decode": true, "each": "{name|urlencode}={value|urlencode}"},
            "fields": {"of": "headers", "only": ["host", "x-amz-*"], "each": "{name}:{value|collapse}\n"},
            "names": {"of": "headers", "only": ["host", "x-amz-*"], "each": "{name}", "join": ";"},
        },
        "parts": {"request": "{method}\n{path}\n{lists.query}\n{lists.fields}\n{lists.names}\n{body|sha256|hex}",
            "scope": "{timestamp:%Y%m%d}/us-east-1/service/aws4_request"},
        "sign": "AWS4-HMAC-SHA256\n{timestamp}\n{parts.scope}\n{parts.request|sha256|hex}",
        "set": {"headers": {"X-Amz-Date": "{timestamp}", "Authorization": "AWS4-HMAC-SHA256 \
            Credential={key_id}/{parts.scope}, SignedHeaders={lists.names}, Signature={signature}"}},
    });
    let signer = Signer::new(keys, 1_440_938_160_000, None).unwrap();
    let url = "https://example.amazonaws.com/?Param2=value2&Param1=value1";
    let mut request = Request::new("GET", url, &[("host", "example.amazonaws.com")], None);
    signer.sign(&mut request).await.unwrap();
    // get-vanilla-query-order-key-case of the suite.
    assert_eq!(
        request.header("authorization"),
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature=b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"
    );
}

#[tokio::test]
async fn azure_signs_its_fields_and_its_resource() {
    let signer = Signer::new(example("hmac-azure-storage.yaml", "storage"), 1_700_000_000_000, None).unwrap();
    let url = "https://devstoreaccount1.blob.core.windows.net/c%20d/b?Comp=metadata&z=2&timeout=20&z=1%2B";
    let headers =
        [("content-length", "11"), ("x-ms-meta-b", " a   b "), ("x-ms-blob-type", "BlockBlob"), ("range", "x")];
    let mut request = Request::new("PUT", url, &headers, Some("hello world"));
    assert_eq!(signer.scheme.body_use(&request.head), BodyUse::Replay, "an upload is not held in memory");
    let signed = signer.sign(&mut request).await.unwrap();
    assert_eq!(
        signed,
        "PUT\n\n\n11\n\n\n\n\n\n\n\nx\nx-ms-blob-type:BlockBlob\nx-ms-date:Tue, 14 Nov 2023 22:13:20 GMT\n\
         x-ms-meta-b:a   b\nx-ms-version:2021-08-06\n/devstoreaccount1/c%20d/b\ncomp:metadata\ntimeout:20\nz:1+,2"
    );
    assert!(request.header("authorization").starts_with("SharedKey devstoreaccount1:"));
    let mut own = Request::new("GET", url, &[("x-ms-version", "2019-12-12"), ("content-length", "0")], None);
    let signed = signer.sign(&mut own).await.unwrap();
    assert!(signed.starts_with("GET\n\n\n\n\n") && signed.contains("x-ms-version:2019-12-12\n"), "{signed}");
}

#[tokio::test]
async fn kraken_gets_its_nonce_into_the_form() {
    let signer = Signer::new(example("hmac-exchanges.yaml", "kraken"), 1_616_492_376_594, None).unwrap();
    let form = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
    let url = "https://api.kraken.com/0/private/AddOrder";
    let mut request = Request::new("POST", url, &form, Some("nonce=7&pair=XBTUSD&n%6fnce=8&x=a+b"));
    signer.sign(&mut request).await.unwrap();
    assert_eq!(request.body.as_deref(), Some(&b"pair=XBTUSD&x=a+b&nonce=1616492376594"[..]));
    assert_eq!(request.header("content-length"), "37");
    let mut bare = Request::new("POST", url, &[], None);
    signer.sign(&mut bare).await.unwrap();
    assert_eq!(bare.body.as_deref(), Some(&b"nonce=1616492376595"[..]));
    assert_eq!(bare.header("content-type"), "application/x-www-form-urlencoded");
    let mut other = Request::new("POST", url, &[("content-type", "application/json")], Some("{}"));
    let error = signer.sign(&mut other).await.unwrap_err();
    assert!(error.message.contains("credential `signer`: `set: form`"), "{error}");
}

fn plain(sign: &str) -> Json {
    json!({"key": "k", "sign": sign, "set": {"headers": {"X-Sign": "{signature}"}}})
}

async fn signed(sign: &str, request: &mut Request) -> String {
    Signer::new(plain(sign), 0, Some("n")).unwrap().sign(request).await.unwrap()
}

#[tokio::test]
async fn every_value_and_filter_gives_what_it_says() {
    let url = "https://H.test:8443/a%2Fb/../c?q=%7e+1&&e=&x=y%20z";
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("x-two", "1"),
        ("x-two", " 2 "),
        ("content-length", "7"),
    ];
    let mut request = Request::new("PATCH", url, &headers, Some("f=a+%2B"));
    for (template, wanted) in [
        ("{method} {method|lower} {scheme}", "PATCH patch https"),
        ("{host} {port} {authority}", "h.test 8443 h.test:8443"),
        ("{path} {query}", "/a%2Fb/../c q=%7e+1&&e=&x=y%20z"),
        ("{target}", "/a%2Fb/../c?q=%7e+1&&e=&x=y%20z"),
        ("{url}", "https://h.test:8443/a%2Fb/../c?q=%7e+1&&e=&x=y%20z"),
        ("{body} {length} {form:f}", "f=a+%2B 7 a +"),
        ("{header:X-TWO} {header:none}|{header:none|or:-}", "1,2 |-"),
        ("{param:x} {param:q} {param:none}", "y z ~+1 "),
        ("{nonce} {timestamp} {timestamp:rfc3339} {expires}", "n 0 1970-01-01T00:00:00Z 300"),
        ("{open}{close}", "{}"),
        ("{param:x|urlencode} {param:x|formencode} {path|pathencode}", "y%20z y+z /a%252Fb/../c"),
        ("{path|urldecode} {method|blank:PATCH}.", "/a/b/../c ."),
        ("{query|prefix:?} {param:none|prefix:?}{nonce|suffix:!}", "?q=%7e+1&&e=&x=y%20z n!"),
        ("{nonce|hex} {nonce|HEX} {nonce|base64} {nonce|base64url_nopad}", "6e 6E bg== bg"),
        ("{nonce|md5|hex}", "7b8b965ad4bca0e41ab51de7b31363a1"),
        ("{nonce|sha1|hex}", "d1854cae891ec7b29161ccaf79a24b00c274bdaa"),
        ("{param:none|sha256|base64url}", "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU="),
        ("{nonce|sha512}", ""),
        ("{header:x-two|collapse|trim|upper}", "1,2"),
    ] {
        let text = signed(template, &mut request).await;
        if wanted.is_empty() {
            assert!(text.contains("\\x"), "bytes that are no text are shown as such: {text}");
        } else {
            assert_eq!(text, wanted, "{template}");
        }
    }
    let missing = Signer::new(plain("{header:x-id|required}"), 0, None).unwrap();
    let error = missing.sign(&mut request).await.unwrap_err();
    assert!(error.message.contains("needs the header `x-id`"), "{error}");
}

#[tokio::test]
async fn lists_are_chosen_sorted_and_merged() {
    let url = "https://h.test/?b=2&a=1&B=3&a=%20&flag&c=9";
    let mut request = Request::new("GET", url, &[("x-b", "2"), ("X-A", "1"), ("other", "0")], None);
    for (list, wanted) in [
        (json!({"of": "query"}), "B=3&a=%20&a=1&b=2&c=9&flag="),
        (json!({"of": "query", "sort": false, "join": ";"}), "b=2;a=1;B=3;a=%20;flag=;c=9"),
        (json!({"of": "query", "lower": true, "decode": true, "merge": ","}), "a= ,1&b=2,3&c=9&flag="),
        (json!({"of": "query", "only": ["flag", "a*"], "empty": "{name}", "before": "?"}), "?a=%20&a=1&flag"),
        (json!({"of": "query", "only": ["none"], "before": "?"}), ""),
        (json!({"of": "query", "except": ["a", "b*"], "each": "<{name|upper}:{value}>"}), "<B:3>&<C:9>&<FLAG:>"),
        (json!({"of": "headers", "only": ["X-*"]}), "x-a:1\nx-b:2\n"),
    ] {
        let mut keys = plain("{lists.l}");
        keys["lists"] = json!({"l": list});
        assert_eq!(Signer::new(keys, 0, None).unwrap().sign(&mut request).await.unwrap(), wanted, "{list}");
    }
}

#[tokio::test]
async fn all_algorithms_encodings_and_keys() {
    // RFC 2202 and RFC 4231, second test cases.
    for (algorithm, wanted) in [
        ("md5", "750c783e6ab0b503eaa86e310a5db738"),
        ("sha1", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
        ("sha256", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        ("sha384", "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649"),
        (
            "sha512",
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
        ),
    ] {
        for (key, encoding) in [("Jefe", "text"), ("SmVmZQ==", "base64"), ("SmVmZQ", "base64url"), ("4a656665", "hex")]
        {
            let mut keys = plain("what do ya want for nothing?");
            (keys["algorithm"], keys["key"], keys["key_encoding"]) = (json!(algorithm), json!(key), json!(encoding));
            let mut request = Request::new("GET", "https://h.test/", &[], None);
            Signer::new(keys, 0, None).unwrap().sign(&mut request).await.unwrap();
            assert_eq!(request.header("x-sign"), wanted, "{algorithm} {encoding}");
        }
    }
    // RFC 2202, case 6: a key longer than a block.
    assert_eq!(
        hex(&hmac_md5(&[0xaa; 80], b"Test Using Larger Than Block-Size Key - Hash Key First")),
        "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd"
    );
    for (encoding, wanted) in [("HEX", "0AFE"), ("base64", "Cv4="), ("base64url", "Cv4="), ("base64url_nopad", "Cv4")] {
        let encoding: Encoding = serde_json::from_value(json!(encoding)).unwrap();
        assert_eq!(encoding.write(&[0x0a, 0xfe]), wanted);
    }
    let mut bad = plain("x");
    (bad["key"], bad["key_encoding"]) = (json!("CANARY!"), json!("hex"));
    let error = Signer::new(bad, 0, None).map(drop).unwrap_err();
    assert!(
        error.contains("`key` is not an even number of hexadecimal digits") && !error.contains("CANARY"),
        "{error}"
    );
}

#[test]
fn what_cannot_work_is_refused_when_it_is_read() {
    for (change, said) in [
        (json!({"sign": "{parts.hed}", "parts": {"head": "x"}}), "there is no part `hed`; did you mean `head`?"),
        (json!({"sign": "{lists.x}"}), "there is no list `x`"),
        (json!({"parts": {"a": "{parts.b}", "b": "{parts.a}"}}), "the part `a` needs itself"),
        (json!({"parts": {"a": "{lists.l}"}, "lists": {"l": {"of": "query", "each": "{parts.a}"}}}), "needs itself"),
        (json!({"set": {"headers": {"X": "{method}"}}}), "does not place `{signature}`"),
        (json!({"set": {"headers": {"Host": "{signature}"}}}), "belongs to the connection"),
        (json!({"set": {"headers": {"a b": "{signature}"}}}), "not a name for a header"),
        (json!({"key": ""}), "`key` is empty"),
        (json!({"sign": "{signature}"}), "can only stand below `set`"),
        (json!({"timestamp": "unixms"}), "did you mean `unix_ms`"),
        (json!({"encoding": "Hex"}), "Hex"),
        (json!({"set": {"header": {}}}), "unknown field `header`"),
        (json!({"lists": {"l": {"of": "query", "olny": []}}}), "unknown field `olny`"),
    ] {
        let mut keys = plain("x");
        for (key, value) in change.as_object().unwrap() {
            keys[key] = value.clone();
        }
        let error = Signer::new(keys, 0, None).map(drop).unwrap_err();
        assert!(error.contains(said), "{change}: {error}");
    }
}

#[test]
fn an_unknown_placeholder_is_shown_at_its_place_with_a_suggestion() {
    let text = "version: 1\ncredentials:\n  c:\n    type: hmac\n    key: k\n    sign: \"{method}{pth}\"\n    set:\n      \
        headers: {X: \"{signature}\"}\n";
    let errors = crate::config::load::load_text("c.yaml", text).unwrap_err().to_string();
    assert!(errors.contains("c.yaml:6:11") && errors.contains("did you mean `path`"), "{errors}");
    assert!(errors.contains("at character 9"), "{errors}");
}

#[tokio::test]
async fn references_are_secrets_and_never_templates() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pass");
    std::fs::write(&path, "CANARY{method}").unwrap();
    let mut keys = plain("{nonce}");
    keys["set"]["headers"]["X-Pass"] = json!(format!("${{file:{}}}", path.display()));
    let signer = Signer::new(keys, 0, Some("n")).unwrap();
    let mut request = Request::new("GET", "https://h.test/", &[("x-pass", "theirs")], None);
    signer.sign(&mut request).await.unwrap();
    assert_eq!(request.header("x-pass"), "CANARY{method}");
    assert!(request.head.headers["x-pass"].is_sensitive() && request.head.headers["x-sign"].is_sensitive());
    assert!(!format!("{:?} {}", signer.scheme, signer.scheme.describe()).contains("CANARY"));
}

#[tokio::test]
async fn a_clock_that_is_off_is_corrected_once() {
    let mut keys = plain("{timestamp}");
    keys["set"]["headers"]["X-Time"] = json!("{timestamp}");
    let signer = Signer::new(keys.clone(), 1_000_000_000_000, None).unwrap();
    let mut request = Request::new("GET", "https://h.test/", &[], None);
    signer.sign(&mut request).await.unwrap();
    assert_eq!(request.header("x-time"), "1000000000");
    let mut headers = HeaderMap::new();
    headers.insert("date", TimeFormat::Rfc1123.write(UNIX_EPOCH + Duration::from_secs(1_000_000_600)).parse().unwrap());
    let target = Target::from_uri(&request.head.uri).unwrap();
    let review = |signer: &Signer, round: &mut Round| {
        let reply = Reply::new(StatusCode::FORBIDDEN, &headers, Hop::Origin, &request.head, &target);
        signer.scheme.review(&reply, round)
    };
    let mut round = Round::default();
    assert_eq!(review(&signer, &mut round), Verdict::Retry);
    round.attempt = 1;
    assert_eq!(review(&signer, &mut round), Verdict::Deliver);
    let mut again = Request::new("GET", "https://h.test/", &[], None);
    signer.sign(&mut again).await.unwrap();
    assert_eq!(again.header("x-time"), "1000000600");
    keys["clock_correction"] = json!(false);
    let stubborn = Signer::new(keys, 1_000_000_000_000, None).unwrap();
    assert_eq!(review(&stubborn, &mut Round::default()), Verdict::Deliver);
}

#[test]
fn only_what_signs_the_body_holds_it() {
    let usage = |sign: &str, length: Option<&'static str>| {
        let mut request = Request::new("POST", "https://h.test/", &[], None);
        request.head.method = Method::POST;
        if let Some(length) = length {
            request.head.headers.insert("content-length", HeaderValue::from_static(length));
        }
        Signer::new(plain(sign), 0, None).unwrap().scheme.body_use(&request.head)
    };
    assert_eq!(usage("{path}", None), BodyUse::Pass);
    assert_eq!(usage("{timestamp}", None), BodyUse::Replay);
    assert_eq!(usage("{body}", None), BodyUse::Whole);
    assert_eq!(usage("{form:x}", None), BodyUse::Whole);
    assert_eq!(usage("{length}", Some("5")), BodyUse::Pass);
    assert_eq!(usage("{length}", None), BodyUse::Whole, "there may be one without a length");
}
