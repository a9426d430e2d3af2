//! The requests that the demo sends by itself, and what must come of each.

use http::{Method, Uri};

use super::{
    api::{Api, Counts},
    client::{Answer, Ask},
};

/// One request with its explanation.
pub(super) struct Step {
    pub(super) title: &'static str,
    /// What to look at in the dump.
    pub(super) why: &'static str,
    pub(super) ask: Ask,
    /// All tokens are refused before it is sent.
    pub(super) revoke_first: bool,
    expect: Expect,
}

/// What makes a step a success.
struct Expect {
    status: u16,
    /// Part of the body.
    says: &'static str,
    /// How many requests the API sees, and how many tokens it gives out.
    counts: Counts,
}

impl Step {
    /// Why the step did not go as it should, or nothing.
    pub(super) fn complaint(&self, answer: &Answer, before: Counts, api: &Api) -> Option<String> {
        let after = api.counts();
        let Expect { status, says, counts } = &self.expect;
        if answer.status.as_u16() != *status {
            return Some(format!("{status} was expected"));
        }
        if !answer.body.contains(says) {
            return Some(format!("the answer does not say {says}"));
        }
        let seen = Counts { requests: after.requests - before.requests, tokens: after.tokens - before.tokens };
        (seen != *counts).then(|| {
            format!(
                "the API saw {} requests and gave out {} tokens, where {} and {} were expected",
                seen.requests, seen.tokens, counts.requests, counts.tokens
            )
        })
    }
}

/// All steps in order, for an API at these addresses.
pub(super) fn steps(http: &str, https: &str) -> Result<Vec<Step>, http::uri::InvalidUri> {
    let get = |base: &str, path: &str| ask(Method::GET, base, path, "");
    Ok(vec![
        step(
            "No rule adds anything",
            "it leaves as it came",
            get(http, "/public")?,
            expect(200, r#""hello":"stranger""#, 1, 0),
        ),
        step(
            "API key",
            "the key joins the query",
            get(http, "/weather?city=Oslo")?,
            expect(200, r#""hello":"subscriber""#, 1, 0),
        ),
        step(
            "Basic",
            "name and password are in the first request",
            get(http, "/reports")?,
            expect(200, r#""hello":"reporter""#, 1, 0),
        ),
        step(
            "Digest",
            "the server asks for a proof, the proxy gives it; the client sees only the last answer",
            get(http, "/vault")?,
            expect(200, r#""hello":"keeper""#, 2, 0),
        ),
        step(
            "OAuth 2.0",
            "the proxy first fetches a token",
            get(http, "/orders")?,
            expect(200, r#""hello":"robot""#, 1, 1),
        ),
        step(
            "OAuth 2.0 over https",
            "the proxy opens the TLS, and the token is still good: none is fetched",
            get(https, "/orders")?,
            expect(200, r#""hello":"robot""#, 1, 0),
        ),
        Step {
            revoke_first: true,
            ..step(
                "OAuth 2.0, after the server has revoked the token",
                "refused, a new token, and the same request again with its body",
                ask(Method::POST, http, "/orders", "item=tea")?,
                expect(201, r#""ordered":"item=tea""#, 2, 1),
            )
        },
        step(
            "A secret is missing",
            "the request is refused with the reason; it is never sent without its credential",
            get(http, "/lost")?,
            expect(502, "urn:countersign:error:credential-missing", 0, 0),
        ),
    ])
}

fn ask(method: Method, base: &str, path: &str, body: &'static str) -> Result<Ask, http::uri::InvalidUri> {
    Ok(Ask { method, url: format!("{base}{path}").parse::<Uri>()?, body })
}

fn step(title: &'static str, why: &'static str, ask: Ask, expect: Expect) -> Step {
    Step { title, why, ask, revoke_first: false, expect }
}

fn expect(status: u16, says: &'static str, requests: u32, tokens: u32) -> Expect {
    Expect { status, says, counts: Counts { requests, tokens } }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::cli::demo::files::Secrets;

    fn complaint(expect: Expect, status: u16, body: &str) -> Option<String> {
        let api = Api::new(Secrets::random().unwrap());
        let ask = ask(Method::GET, "http://127.0.0.1:1", "/orders", "").unwrap();
        let answer = Answer { status: StatusCode::from_u16(status).unwrap(), body: body.to_owned() };
        step("t", "w", ask, expect).complaint(&answer, api.counts(), &api)
    }

    #[test]
    fn a_step_is_right_only_if_answer_and_traffic_are() {
        assert_eq!(complaint(expect(200, "robot", 0, 0), 200, "hello robot"), None);
        assert!(complaint(expect(200, "robot", 0, 0), 401, "hello robot").unwrap().contains("200 was expected"));
        assert!(complaint(expect(200, "robot", 0, 0), 200, "hello").unwrap().contains("does not say robot"));
        assert!(complaint(expect(200, "robot", 1, 1), 200, "robot").unwrap().contains("saw 0 requests"));
    }
}
