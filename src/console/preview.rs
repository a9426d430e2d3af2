//! Pictures among recorded bodies, for the page's sandbox.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

/// A picture: its media type as its bytes tell it, and its bytes.
pub type Picture = (&'static str, Vec<u8>);

/// The body of the answer to one send, if it is a picture that was kept whole. Only formats without scripts, links or
/// text: what calls itself a picture and is not one of them stays text.
pub fn picture(detail: &Value, send: usize) -> Option<Picture> {
    let answer = &detail["sends"][send]["response"];
    if answer["truncated"] == true {
        return None;
    }
    let bytes = STANDARD.decode(answer["body_base64"].as_str()?).ok()?;
    Some((kind(&bytes)?, bytes))
}

fn kind(bytes: &[u8]) -> Option<&'static str> {
    let is = |mark: &[u8]| bytes.starts_with(mark);
    match () {
        () if is(b"\x89PNG\r\n\x1a\n") => Some("image/png"),
        () if is(b"\xff\xd8\xff") => Some("image/jpeg"),
        () if is(b"GIF87a") || is(b"GIF89a") => Some("image/gif"),
        () if is(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") => Some("image/webp"),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_pictures_are_pictures() {
        let detail = |bytes: &[u8], cut: bool| json!({"sends": [{"response": {"body_base64": STANDARD.encode(bytes), "truncated": cut}}]});
        assert_eq!(picture(&detail(b"GIF89a...", false), 0).unwrap().0, "image/gif");
        assert_eq!(picture(&detail(b"RIFF0000WEBPx", false), 0).unwrap().0, "image/webp");
        assert!(picture(&detail(b"GIF89a...", true), 0).is_none());
        assert!(picture(&detail(b"GIF89a...", false), 1).is_none());
        for other in [&b"<svg onload=alert(1)>"[..], b"<html>", b"", b"RIFF"] {
            assert!(picture(&detail(other, false), 0).is_none());
        }
        assert!(picture(&json!({"sends": [{"response": {"body": "GIF89a"}}]}), 0).is_none());
    }
}
