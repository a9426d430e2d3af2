//! Reading the keys that others give out, strictly: by a command (SDKs and Tools Reference Guide, "Process credential
//! provider"), by a container's endpoint, by instance metadata (EC2 User Guide, "Retrieve security credentials").

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{auth::aws_sigv4::keys::Keys, secret::Secret};

/// Who answers, which decides about the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `Version` is 1, the token is a `SessionToken`.
    Process,
    /// The token is a `Token`, and all keys are temporary.
    Endpoint,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Written {
    version: Option<u64>,
    code: Option<String>,
    message: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    session_token: Option<String>,
    token: Option<String>,
    expiration: Option<When>,
}

/// A time in text, or in seconds since 1970.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum When {
    /// RFC 3339
    Text(String),
    /// Seconds since 1970.
    Seconds(f64),
}

impl When {
    pub(super) fn read(&self) -> Result<SystemTime, String> {
        match self {
            Self::Text(text) => time(text),
            Self::Seconds(seconds) => {
                let sane = *seconds > 0.0 && *seconds < f64::from(u32::MAX);
                if sane { Ok(UNIX_EPOCH + Duration::from_secs_f64(*seconds)) } else { Err(NO_TIME.to_owned()) }
            }
        }
    }
}

/// Reads `2026-01-31T12:00:00Z`.
pub(super) fn time(text: &str) -> Result<SystemTime, String> {
    OffsetDateTime::parse(text.trim(), &Rfc3339).map(Into::into).map_err(|_| NO_TIME.to_owned())
}

/// Reads the answer. The error says what is wrong and repeats nothing secret.
pub(super) fn read(form: Form, body: &[u8]) -> Result<Keys, String> {
    // serde's messages quote what they did not expect, so they stay here.
    let written: Written = serde_json::from_slice(body).map_err(|_| "it is no JSON object with keys".to_owned())?;
    if let Some(code) = written.code.as_deref().filter(|code| *code != "Success") {
        let message = written.message.as_deref().map_or_else(String::new, |text| format!(" ({})", plain(text)));
        return Err(format!("it says `{}`{message}", plain(code)));
    }
    if form == Form::Process && written.version != Some(1) {
        return Err("its `Version` is not 1".to_owned());
    }
    let session_token = match form {
        Form::Process => written.session_token,
        Form::Endpoint => Some(written.token.ok_or("it has no `Token`")?),
    };
    let end = written.expiration.map(|when| when.read()).transpose()?;
    checked(
        written.access_key_id.ok_or("it has no `AccessKeyId`")?,
        written.secret_access_key.ok_or("it has no `SecretAccessKey`")?,
        session_token,
        end,
    )
}

/// Keys that can be signed with and stand in a header. The error names the wrong one and does not repeat it.
pub(super) fn checked(
    access_key: String,
    secret_key: String,
    session_token: Option<String>,
    expires_at: Option<SystemTime>,
) -> Result<Keys, String> {
    let secret_key = Secret::new(secret_key);
    let session_token = session_token.filter(|token| !token.is_empty()).map(Secret::new);
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if access_key.is_empty() || access_key.len() > 128 || !access_key.bytes().all(is_key_byte) {
        return Err("the access key id is empty or holds characters that no access key id has".to_owned());
    }
    if secret_key.is_empty() || !plain(secret_key.expose()) {
        return Err("the secret access key is empty or holds blanks or control characters".to_owned());
    }
    if session_token.as_ref().is_some_and(|token| !plain(token.expose())) {
        return Err("the session token holds blanks or control characters".to_owned());
    }
    Ok(Keys { access_key, secret_key, session_token, expires_at })
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)
}

/// Text of somebody else, made harmless and short.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

const NO_TIME: &str = "its `Expiration` is no time like 2026-01-31T12:00:00Z";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn given(form: Form, body: serde_json::Value) -> Result<Keys, String> {
        read(form, body.to_string().as_bytes())
    }

    #[test]
    fn each_form_has_its_own_token() {
        let end = Some(UNIX_EPOCH + Duration::from_secs(1_769_860_800));
        let process = json!({"Version": 1, "AccessKeyId": "AKIA1", "SecretAccessKey": "s/+=", "SessionToken": "t==",
            "Expiration": "2026-01-31T12:00:00Z", "AccountId": "1"});
        let read = given(Form::Process, process).unwrap();
        assert_eq!((read.access_key.as_str(), read.secret_key.expose()), ("AKIA1", "s/+="));
        assert_eq!((read.session_token.unwrap().expose(), read.expires_at), ("t==", end));
        let endpoint = json!({"Code": "Success", "AccessKeyId": "ASIA1", "SecretAccessKey": "s", "Token": "t",
            "Expiration": "2026-01-31T13:00:00+01:00", "RoleArn": "arn"});
        let read = given(Form::Endpoint, endpoint).unwrap();
        assert_eq!((read.session_token.unwrap().expose(), read.expires_at), ("t", end));
        let lasting = json!({"Version": 1, "AccessKeyId": "AKIA1", "SecretAccessKey": "s"});
        let read = given(Form::Process, lasting).unwrap();
        assert_eq!((read.session_token, read.expires_at), (None, None));
    }

    #[test]
    fn wrong_answers_are_explained_without_repeating_them() {
        let whole = json!({"Version": 1, "AccessKeyId": "AKIA1", "SecretAccessKey": "CANARY", "SessionToken": "CANARY",
            "Token": "CANARY"});
        let with = |name: &str, value: serde_json::Value| {
            let mut answer = whole.clone();
            answer[name] = value;
            answer
        };
        for (form, body, said) in [
            (Form::Process, with("Version", json!(2)), "`Version`"),
            (Form::Process, with("Version", json!("CANARY")), "no JSON object"),
            (Form::Process, with("Expiration", json!("tomorrow")), "`Expiration`"),
            (Form::Process, with("Expiration", json!(-1)), "`Expiration`"),
            (Form::Process, with("AccessKeyId", json!("CANARY\r\nx")), "access key id"),
            (Form::Process, with("AccessKeyId", json!("CANARY/x")), "access key id"),
            (Form::Process, with("AccessKeyId", json!("")), "access key id"),
            (Form::Process, with("SecretAccessKey", json!("CANARY\n")), "secret access key"),
            (Form::Process, with("SecretAccessKey", json!(null)), "`SecretAccessKey`"),
            (Form::Endpoint, with("Token", json!(null)), "`Token`"),
            (Form::Endpoint, with("Token", json!("CANARY x")), "session token"),
            (Form::Endpoint, json!({"Code": "AssumeRoleUnauthorizedAccess", "Message": "no\ntrust"}), "(notrust)"),
            (Form::Endpoint, json!(["CANARY"]), "no JSON object"),
        ] {
            let error = given(form, body).unwrap_err();
            assert!(error.contains(said) && !error.contains("CANARY"), "{said}: {error}");
        }
        assert!(read(Form::Process, b"{\"Version\": 1, \"Version\": 1}").is_err(), "twice the same member");
    }

    proptest! {
        #[test]
        fn any_answer_is_survived(body in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(Form::Process, &body);
        }
    }
}
