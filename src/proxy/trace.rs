//! Trace Context (W3C Recommendation, <https://www.w3.org/TR/trace-context/>): passed on as it came, and named in our own
//! log.

use http::HeaderMap;

/// The trace id of a request: 32 lower-case hex digits, not all zero. `None` if it brings no `traceparent` of a form that
/// is known (section 3.2; versions above 00 may bring more behind it).
pub fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all("traceparent").iter();
    let line = lines.next()?.to_str().ok()?;
    let mut parts = line.split('-');
    let is_hex =
        |text: &str, length| text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_whole = lines.next().is_none() && (version != "00" || parts.next().is_none());
    let is_valid = is_hex(version, 2)
        && version != "ff"
        && is_hex(trace, 32)
        && trace.bytes().any(|digit| digit != b'0')
        && is_hex(parent, 16)
        && is_hex(flags, 2);
    (is_whole && is_valid).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_known_form_has_an_id() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let id = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("traceparent", line.parse().unwrap());
            }
            trace_id(&headers).map(str::to_owned)
        };
        let good = format!("00-{TRACE}-00f067aa0ba902b7-01");
        assert_eq!(id(&[&good]).as_deref(), Some(TRACE));
        assert_eq!(id(&[&format!("cc-{TRACE}-00f067aa0ba902b7-01-what-comes")]).as_deref(), Some(TRACE));
        for bad in [
            "",
            "00",
            &good[3..],
            &format!("{good}-x"),
            &format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            &good.to_uppercase(),
            &format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            &format!("00-{TRACE}-00f067aa0ba902b7-1"),
            &format!("00-{TRACE}\t-00f067aa0ba902b7-01"),
        ] {
            assert_eq!(id(&[bad]), None, "{bad}");
        }
        assert_eq!(id(&[&good, &good]), None);
    }
}
