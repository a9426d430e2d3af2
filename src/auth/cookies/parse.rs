//! Reading cookies: one line of `Set-Cookie` (RFC 6265bis section 5.6), dates as servers write them, and the files that
//! curl and browser extensions export.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::{Date, Month, PrimitiveDateTime, Time};

/// What a server said in one line of `Set-Cookie`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SetCookie {
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// Lower case, without a leading dot.
    pub(super) domain: Option<String>,
    /// Begins with `/`.
    pub(super) path: Option<Vec<u8>>,
    pub(super) secure: bool,
    pub(super) expires: Option<SystemTime>,
    /// Seconds; zero or less deletes. Wins over `expires`.
    pub(super) max_age: Option<i64>,
}

impl SetCookie {
    /// Reads a line. `None` for one without a name, and for what no cookie may hold.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return None;
        }
        let mut parts = line.split(|byte| *byte == b';');
        let pair = parts.next()?;
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        if name.is_empty() || name.len() + value.len() > MAX_PAIR {
            return None;
        }
        let mut cookie = Self { name: name.to_vec(), value: value.to_vec(), ..Self::default() };
        for attribute in parts {
            cookie.attribute(attribute);
        }
        Some(cookie)
    }

    /// The last one of a name counts; unknown ones are ignored.
    fn attribute(&mut self, attribute: &[u8]) {
        let (name, value) = match attribute.iter().position(|byte| *byte == b'=') {
            Some(equals) => (attribute[..equals].trim_ascii(), attribute[equals + 1..].trim_ascii()),
            None => (attribute.trim_ascii(), &b""[..]),
        };
        if value.len() > MAX_ATTRIBUTE {
            return;
        }
        match name.to_ascii_lowercase().as_slice() {
            b"expires" => self.expires = date(value).or(self.expires),
            b"max-age" => self.max_age = max_age(value).or(self.max_age),
            b"domain" => {
                let value = value.strip_prefix(b".").unwrap_or(value);
                self.domain = std::str::from_utf8(value).ok().map(str::to_ascii_lowercase);
            }
            b"path" => self.path = value.starts_with(b"/").then(|| value.to_vec()),
            b"secure" => self.secure = true,
            _ => {}
        }
    }
}

/// Bytes of a name and its value.
const MAX_PAIR: usize = 4096;
const MAX_ATTRIBUTE: usize = 1024;

fn max_age(value: &[u8]) -> Option<i64> {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let negative = digits.len() < value.len();
    let seconds = std::str::from_utf8(digits).ok()?.parse().unwrap_or(i64::MAX);
    Some(if negative { -seconds } else { seconds })
}

/// A date as any server writes it (RFC 6265 section 5.1.1): the parts may come in any order.
pub(super) fn date(text: &[u8]) -> Option<SystemTime> {
    let is_delimiter = |byte: &u8| matches!(byte, 0x09 | 0x20..=0x2f | 0x3b..=0x40 | 0x5b..=0x60 | 0x7b..=0x7e);
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for token in text.split(is_delimiter).filter(|token| !token.is_empty()) {
        if time.is_none()
            && let Some(found) = clock(token)
        {
            time = Some(found);
        } else if day.is_none()
            && let Some(found) = number(token, 1, 2)
        {
            day = Some(found);
        } else if month.is_none()
            && let Some(found) = month_of(token)
        {
            month = Some(found);
        } else if year.is_none()
            && let Some(found) = number(token, 2, 4)
        {
            year = Some(found);
        }
    }
    let year = match year? {
        year @ 70..=99 => year + 1900,
        year @ 0..=69 => year + 2000,
        year => year,
    };
    if year < 1601 {
        return None;
    }
    let date = Date::from_calendar_date(i32::try_from(year).ok()?, month?, u8::try_from(day?).ok()?).ok()?;
    let (hour, minute, second) = time?;
    let time = Time::from_hms(hour, minute, second).ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_utc().into())
}

/// A number of `least` to `most` digits at the beginning; what follows must not be a digit.
fn number(token: &[u8], least: usize, most: usize) -> Option<u32> {
    let digits = token.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits < least || digits > most {
        return None;
    }
    std::str::from_utf8(&token[..digits]).ok()?.parse().ok()
}

/// `hh:mm:ss`, each of one or two digits.
fn clock(token: &[u8]) -> Option<(u8, u8, u8)> {
    let mut fields = token.splitn(3, |byte| *byte == b':');
    let mut field = |last: bool| {
        let field = fields.next()?;
        let found = number(field, 1, 2)?;
        (last || field.iter().all(u8::is_ascii_digit)).then_some(())?;
        u8::try_from(found).ok()
    };
    Some((field(false)?, field(false)?, field(true)?))
}

fn month_of(token: &[u8]) -> Option<Month> {
    const NAMES: [&[u8]; 12] =
        [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
    let start = token.get(..3)?.to_ascii_lowercase();
    let at = NAMES.iter().position(|name| *name == start)?;
    Month::try_from(u8::try_from(at + 1).ok()?).ok()
}

/// A cookie of an imported file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Imported {
    pub(super) domain: String,
    pub(super) host_only: bool,
    pub(super) path: Vec<u8>,
    pub(super) secure: bool,
    /// `None` for the length of a session.
    pub(super) expires: Option<SystemTime>,
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// Reads the format of Netscape's `cookies.txt`: seven fields between tabs in each line. Errors name the line and never
/// what stands in it.
pub(super) fn netscape(text: &str) -> Result<Vec<Imported>, String> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_end_matches('\r');
        let line = line.strip_prefix("#HttpOnly_").unwrap_or(line);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why: &str| format!("line {} {why}", at + 1);
        let fields: Vec<&str> = line.split('\t').collect();
        let (domain, subdomains, path, secure, expires, name, value) = match fields[..] {
            [a, b, c, d, e, f, g] => (a, b, c, d, e, f, g),
            // curl leaves the last tab away where the value is empty.
            [a, b, c, d, e, f] => (a, b, c, d, e, f, ""),
            _ => return Err(wrong("has not the seven fields of a Netscape cookie file, with tabs between them")),
        };
        let truth = |text: &str| match text.to_ascii_uppercase().as_str() {
            "TRUE" => Ok(true),
            "FALSE" => Ok(false),
            _ => Err(wrong("has a flag that is neither TRUE nor FALSE")),
        };
        // Some write the end as a fraction; a session is 0 or -1.
        let ends: f64 = expires.trim().parse().map_err(|_| wrong("has an end that is not a number of seconds"))?;
        let bad = |text: &str| text.contains(|c: char| c == ';' || c.is_control());
        if name.is_empty() || name.contains('=') || bad(name) || bad(value) {
            return Err(wrong("has a name or a value that no cookie may have"));
        }
        let whole = if ends > 0.0 { Duration::try_from_secs_f64(ends.min(MAX_END)).ok() } else { None };
        found.push(Imported {
            domain: domain.trim_start_matches('.').to_ascii_lowercase(),
            host_only: !truth(subdomains)?,
            path: if path.starts_with('/') { path.as_bytes().to_vec() } else { b"/".to_vec() },
            secure: truth(secure)?,
            expires: whole.map(|end| UNIX_EPOCH + end),
            name: name.as_bytes().to_vec(),
            value: value.as_bytes().to_vec(),
        });
    }
    Ok(found)
}

/// The end of the year 9999.
const MAX_END: f64 = 253_402_300_799.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        date(text.as_bytes()).map(|at| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    #[test]
    fn dates_are_read_as_servers_write_them() {
        for text in [
            "Wed, 09 Jun 2021 10:18:14 GMT",
            "Wednesday, 09-Jun-21 10:18:14 GMT",
            "Wed Jun  9 10:18:14 2021",
            "10:18:14 9 june 2021",
            "09-Jun-2021 10:18:14garbage",
        ] {
            assert_eq!(seconds(text), Some(1_623_233_894), "{text}");
        }
        for text in [
            "",
            "tomorrow",
            "Wed, 09 Jun 2021",
            "32 Jun 2021 10:18:14",
            "9 Jun 1600 10:18:14",
            "9 Jun 2021 24:00:00",
            "9 Jun 2021 1:2",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn attributes_are_read_and_the_last_one_counts() {
        let line =
            b" a = b c ;Path=/x;path=/y ; DOMAIN=.Example.COM; secure; max-age=-5; Max-Age=x; foo=bar; expires=never";
        let cookie = SetCookie::parse(line).unwrap();
        assert_eq!((cookie.name.as_slice(), cookie.value.as_slice()), (&b"a"[..], &b"b c"[..]));
        assert_eq!((cookie.domain.as_deref(), cookie.path.as_deref()), (Some("example.com"), Some(&b"/y"[..])));
        assert_eq!((cookie.secure, cookie.max_age, cookie.expires), (true, Some(-5), None));
        for bad in [&b""[..], b"novalue", b"=x", b"a=\x01", b"; a=b"] {
            assert_eq!(SetCookie::parse(bad), None);
        }
        assert!(SetCookie::parse(&[b"a=".to_vec(), vec![b'x'; 4096]].concat()).is_none());
    }

    #[test]
    fn netscape_files_are_read_and_wrong_lines_named_without_their_content() {
        let text = "# Netscape HTTP Cookie File\n\n.example.com\tTRUE\t/\tFALSE\t0\ta\t1\r\n\
            #HttpOnly_app.example.com\tFALSE\t/x\tTRUE\t1900000000.5\tb\t2=3\napp.example.com\tFALSE\t/\tFALSE\t-1\tc\n";
        let cookies = netscape(text).unwrap();
        assert_eq!(cookies.len(), 3);
        assert_eq!(
            (cookies[0].domain.as_str(), cookies[0].host_only, cookies[0].expires),
            ("example.com", false, None)
        );
        assert!(cookies[1].host_only && cookies[1].secure && cookies[1].expires.is_some());
        assert_eq!(cookies[1].value, b"2=3");
        for bad in [
            "CANARY",
            "h\tTRUE\t/\tFALSE\tsoon\ta\tCANARY",
            "h\tyes\t/\tFALSE\t0\ta\tCANARY",
            "h\tTRUE\t/\tFALSE\t0\ta\tCANARY;",
        ] {
            let error = netscape(&format!("# x\n{bad}\n")).unwrap_err();
            assert!(error.starts_with("line 2 ") && !error.contains("CANARY"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(line in proptest::collection::vec(proptest::num::u8::ANY, 0..80), text in "\\PC{0,80}") {
            let _ = SetCookie::parse(&line);
            let _ = date(&line);
            let _ = netscape(&text);
        }
    }
}
