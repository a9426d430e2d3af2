//! Endpoints that repeat what they were sent: none of it reaches a message.

use base64::{Engine, prelude::BASE64_STANDARD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::*;

const SECRET: &str = "CANARY geheim/pässwort+9f2c";

fn at_endpoint(grant: &str, more: Value) -> Value {
    with(value!({"grant": grant, "token_url": "https://idp.test/token", "client_id": "id"}), more)
}

/// Every place that a secret can be sent from.
fn configurations() -> Vec<Value> {
    // A variable that is not set.
    let reference = format!("${{env:CS_NOBODY:-{SECRET}}}");
    vec![
        at_endpoint("client_credentials", value!({"client_secret": SECRET})),
        at_endpoint("client_credentials", value!({"client_secret": SECRET, "client_auth": "body"})),
        at_endpoint("password", value!({"username": "u", "password": SECRET})),
        at_endpoint("jwt_bearer", value!({"assertion": {"token": SECRET}})),
        at_endpoint("token_exchange", value!({"subject": SECRET})),
        at_endpoint("token_exchange", value!({"subject": "S", "actor": SECRET})),
        at_endpoint("client_credentials", value!({"token_params": [{"name": "api_key", "value": reference}]})),
        at_endpoint("client_credentials", value!({"token_params": [{"name": "password", "value": SECRET}]})),
        at_endpoint("refresh_token", value!({"refresh_token": SECRET})),
    ]
}

#[tokio::test]
async fn what_an_endpoint_repeats_is_masked_in_every_form() {
    let forms = [
        SECRET.to_owned(),
        request::form_encoded(SECRET),
        utf8_percent_encode(SECRET, NON_ALPHANUMERIC).to_string(),
        BASE64_STANDARD.encode(SECRET),
        BASE64_STANDARD.encode(format!("id:{SECRET}")),
    ];
    for keys in configurations() {
        for form in &forms {
            // The text is cut at 200 characters: in the middle of the secret too.
            for at in [0, 190 - form.len() / 2, 195] {
                let said = format!("{}{form} is not right", "x".repeat(at));
                let body = value!({"error": "invalid_request", "error_description": said}).to_string();
                let setup = Setup::new(Endpoint::new(move |_, _| json(400, &body)));
                let error = ready(&*setup.build(keys.clone()), &setup.context).await.unwrap_err().message;
                assert!(error.contains("invalid_request") && (at > 0 || error.contains("*** is not right")), "{error}");
                for piece in [&form[..form.len().min(5)], &form[form.len() - 5..], "geheim"] {
                    assert!(!error.contains(piece), "{keys}: {error}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_code_of_an_error_is_masked_too_and_what_is_open_stays() {
    let keys = at_endpoint(
        "password",
        value!({"username": "ann", "password": SECRET,
            "token_params": [{"name": "audience", "value": "${env:CS_NOBODY:-https://api.test}"}]}),
    );
    let said = format!("no `{SECRET}` for ann at https://api.test");
    for body in [
        value!({"error": SECRET, "error_description": said}),
        value!({"error": {"code": SECRET, "message": said}}),
        value!({"error": "temporarily_unavailable", "error_description": said}),
    ] {
        let body = body.to_string();
        let setup = Setup::new(Endpoint::new(move |_, _| json(400, &body)));
        let error = ready(&*setup.build(keys.clone()), &setup.context).await.unwrap_err().message;
        assert!(!error.contains("CANARY"), "{error}");
        assert!(error.contains("no `***` for ann at https://api.test") || error.contains("unavailable"), "{error}");
    }
}
