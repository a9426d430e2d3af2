//! What a server says when it refuses a signature, in the three languages that AWS services speak: XML, JSON and a
//! header field.

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::names::is_region;

/// A refusal, as far as it could be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Complaint {
    /// The error code, such as `SignatureDoesNotMatch`.
    pub(super) code: String,
    /// What it says to a person.
    pub(super) message: String,
    /// The region that should have been signed for.
    pub(super) region: Option<String>,
    /// The canonical request that the server made.
    pub(super) canonical: Option<String>,
}

/// What can be done about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The clocks differ.
    Clock,
    /// The signature is another one than the server's; with a clock that is far off that may be why.
    Signature,
    /// The keys have ended or are not known.
    Keys,
    /// Something else.
    Other,
}

/// True for answers that may be about the signature.
pub(super) fn is_refusal(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 400 | 401 | 403)
}

impl Complaint {
    /// Reads an answer. `body` may be only its beginning.
    pub(super) fn of(headers: &HeaderMap, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let text = text.trim_start_matches('\u{feff}').trim_start();
        let mut found = if text.starts_with('<') { Self::of_xml(text) } else { Self::of_json(text) };
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(code) = header("x-amzn-errortype") {
            found.code = bare_code(code);
        }
        if let Some(region) = header("x-amz-bucket-region") {
            found.region = Some(region.to_owned());
        }
        found.region = found.region.filter(|region| is_region(region));
        if found.canonical.is_none() {
            found.canonical = quoted_canonical(&found.message);
        }
        found
    }

    fn of_xml(text: &str) -> Self {
        let element = |name: &str| element(text, name).map(unescaped);
        Self {
            code: element("Code").map(|code| bare_code(&code)).unwrap_or_default(),
            message: element("Message").unwrap_or_default(),
            region: element("Region"),
            canonical: element("CanonicalRequest"),
        }
    }

    fn of_json(text: &str) -> Self {
        let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return Self::default() };
        let field = |names: &[&str]| names.iter().find_map(|name| fields.get(*name)?.as_str()).unwrap_or_default();
        Self {
            code: bare_code(field(&["__type", "code", "Code"])),
            message: field(&["message", "Message", "errorMessage"]).to_owned(),
            ..Self::default()
        }
    }

    /// What the refusal is about.
    pub(super) fn fault(&self) -> Fault {
        match self.code.as_str() {
            "RequestTimeTooSkewed" | "RequestInTheFuture" | "RequestExpired" => Fault::Clock,
            "ExpiredToken"
            | "ExpiredTokenException"
            | "TokenRefreshRequired"
            | "InvalidAccessKeyId"
            | "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "InvalidToken"
            | "AuthFailure" => Fault::Keys,
            _ if ["Signature expired", "not yet current", "Signature not yet"]
                .iter()
                .any(|said| self.message.contains(said)) =>
            {
                Fault::Clock
            }
            _ if self.message.contains("security token included in the request is") => Fault::Keys,
            "SignatureDoesNotMatch" | "InvalidSignatureException" => Fault::Signature,
            _ if self.message.contains("signature we calculated does not match") => Fault::Signature,
            _ => Fault::Other,
        }
    }
}

/// `com.amazonaws.x#Code:http://...` is `Code`.
fn bare_code(code: &str) -> String {
    let code = code.rsplit('#').next().unwrap_or_default();
    code.split(':').next().unwrap_or_default().trim().to_owned()
}

/// The text in the first element of this name.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let start = text.find(&format!("<{name}>"))? + name.len() + 2;
    let end = text[start..].find(&format!("</{name}>"))?;
    Some(&text[start..start + end])
}

fn unescaped(text: &str) -> String {
    let plain = text
        .replace("&#xA;", "\n")
        .replace("&#10;", "\n")
        .replace("&#xD;", "")
        .replace("&#13;", "")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&apos;", "'");
    plain.replace("&amp;", "&")
}

/// Services without S3's elements put the canonical request into the message, between quotes.
fn quoted_canonical(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("Canonical String for this request should have been")?;
    let rest = rest.trim_start().strip_prefix('\'')?;
    let end = rest.find("'\n\nThe String-to-Sign").or_else(|| rest.rfind('\''))?;
    Some(rest[..end].to_owned())
}

/// The lines in which two canonical requests differ, `-` for the server's and `+` for ours; none if they are equal.
pub(super) fn difference(server: &str, ours: &str) -> Vec<String> {
    let (theirs, mine): (Vec<&str>, Vec<&str>) = (server.lines().collect(), ours.lines().collect());
    if theirs.len().max(mine.len()) > MAX_LINES {
        return vec!["they are too long to compare".to_owned()];
    }
    // How many lines two endings have in common, at most.
    let mut common = vec![vec![0_usize; mine.len() + 1]; theirs.len() + 1];
    for a in (0..theirs.len()).rev() {
        for b in (0..mine.len()).rev() {
            common[a][b] =
                if theirs[a] == mine[b] { common[a + 1][b + 1] + 1 } else { common[a + 1][b].max(common[a][b + 1]) };
        }
    }
    let (mut a, mut b) = (0, 0);
    let mut lines = Vec::new();
    while a < theirs.len() || b < mine.len() {
        if a < theirs.len() && b < mine.len() && theirs[a] == mine[b] {
            (a, b) = (a + 1, b + 1);
        } else if b == mine.len() || (a < theirs.len() && common[a + 1][b] >= common[a][b + 1]) {
            lines.push(format!("- {}", theirs[a]));
            a += 1;
        } else {
            lines.push(format!("+ {}", mine[b]));
            b += 1;
        }
    }
    lines
}

const MAX_LINES: usize = 500;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(body: &str) -> Complaint {
        Complaint::of(&HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn xml_of_s3() {
        let found = read(
            "<?xml version=\"1.0\"?>\n<Error><Code>SignatureDoesNotMatch</Code><Message>The request signature we \
             calculated does not match</Message><CanonicalRequest>GET\n/a\nx=&amp;lt;1\n</CanonicalRequest></Error>",
        );
        assert_eq!(found.fault(), Fault::Signature);
        assert_eq!(found.canonical.as_deref(), Some("GET\n/a\nx=&lt;1\n"));
        let found = read(
            "<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region is wrong</Message>\
             <Region>eu-west-1</Region></Error>",
        );
        assert_eq!((found.region.as_deref(), found.fault()), (Some("eu-west-1"), Fault::Other));
        assert_eq!(read("<Error><Code>RequestTimeTooSkewed</Code></Error>").fault(), Fault::Clock);
        assert_eq!(read("<Error><Region>../x</Region></Error>").region, None);
    }

    #[test]
    fn json_and_the_header_field() {
        for (body, fault) in [
            (r#"{"__type":"com.amazon.coral.service#ExpiredTokenException","message":"m"}"#, Fault::Keys),
            (r#"{"__type":"InvalidSignatureException","message":"Signature expired: 1 is now earlier"}"#, Fault::Clock),
            (r#"{"message":"Signature not yet current: 1 is still later"}"#, Fault::Clock),
            (r#"{"message":"The security token included in the request is expired"}"#, Fault::Keys),
            (r#"{"__type":"AccessDenied","message":"no"}"#, Fault::Other),
            ("rubbish", Fault::Other),
            ("[1]", Fault::Other),
        ] {
            assert_eq!(read(body).fault(), fault, "{body}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("x-amzn-errortype", HeaderValue::from_static("UnrecognizedClientException:http://x/"));
        assert_eq!(Complaint::of(&headers, b"").fault(), Fault::Keys);
    }

    #[test]
    fn the_canonical_request_in_a_message() {
        let message = "The request signature we calculated does not match the signature you provided.\n\nThe Canonical \
                       String for this request should have been\n'GET\n/it's\n\nhost:h\n\nhost\ne3b0'\n\nThe \
                       String-to-Sign should have been\n'AWS4-HMAC-SHA256\n'\n";
        let found = read(&serde_json::json!({"message": message}).to_string());
        assert_eq!(found.canonical.as_deref(), Some("GET\n/it's\n\nhost:h\n\nhost\ne3b0"));
        assert_eq!(found.fault(), Fault::Signature);
    }

    #[test]
    fn differences_are_shown_line_by_line() {
        assert!(difference("a\nb", "a\nb").is_empty());
        assert_eq!(difference("a\nx\nc\nd", "a\ny\nc"), ["- x", "+ y", "- d"]);
        assert_eq!(difference("", "a"), ["+ a"]);
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_it_panic(body in "\\PC{0,60}|(<Code>|</Code>|&|;|#|:|'|Canonical String for this request should have been){0,12}") {
            let _ = read(&body).fault();
        }
    }
}
