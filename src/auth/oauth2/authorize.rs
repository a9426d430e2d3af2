//! The authorization request, for a person's browser, and the answer that comes back (RFC 6749 sections 4.1 and 4.2,
//! RFC 7636, RFC 9126, RFC 9207, RFC 9470).

use std::{sync::Arc, time::SystemTime};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::future::BoxFuture;
use http::StatusCode;
use oauth2::{PkceCodeChallenge, PkceCodeVerifier};
use serde_json::{Map, Value};
use url::Url;

use super::{
    accounts::Account,
    answer::{self, Refusal, plain},
    check::is_verifier,
    client::{Client, Facts},
    config::{Grant, PkceMethod, ResponseType, UseToken},
    discovery::Place,
    dpop::ProofKey,
    explain::advice,
    grants::Ask as TokenAsk,
    id_token::Expected,
    request::{Form, ReadParam},
};
use crate::{
    auth::{
        AuthError, AuthErrorKind,
        login::{Answer, Ask, Begun, Params, Prompt, Rest},
    },
    clock::Clock,
    secret::{Secret, constant_time_eq},
};

/// A login between its request and its answer.
pub(super) struct Flow {
    account: Arc<Account>,
    pub(super) facts: Facts,
    state: Secret,
    nonce: Option<Secret>,
    verifier: Option<Secret>,
    redirect_uri: Option<String>,
    pub(super) key: Option<ProofKey>,
    /// Set for `implicit`.
    response_type: Option<ResponseType>,
    begun: SystemTime,
}

/// Begins a login in a browser.
pub(super) async fn begin(account: &Arc<Account>, ask: &Ask) -> Result<Begun, AuthError> {
    let client = &account.client;
    let facts = client.facts().await?;
    let Some(auth_url) = client.place(Place::Authorization, &facts).await? else {
        return Err(client.missing("the issuer's metadata names no authorization_endpoint; set `auth_url`"));
    };
    let flow = client.flow(account, facts, ask).await?;
    let form = client.authorization_form(&flow, ask);
    let params = client.read_params(&client.config.auth_params).await?;
    let url = client.authorization_url(&flow, auth_url, form, &params).await?;
    Ok(Begun { prompt: Prompt::Visit { url: url.into() }, rest: Rest::Answer(Box::new(flow)) })
}

impl Client {
    async fn flow(&self, account: &Arc<Account>, facts: Facts, ask: &Ask) -> Result<Flow, AuthError> {
        let clock = &self.context.clock;
        let state = match &self.config.state {
            Some(text) => self.read_open(text).await?,
            None => random(clock),
        };
        let implicit = self.config.grant == Some(Grant::Implicit);
        let response_type = implicit.then(|| self.response_type());
        let openid = facts.scope.as_deref().is_some_and(|scope| scope.split(' ').any(|one| one == "openid"));
        let wants_id = response_type.is_some_and(|kind| kind != ResponseType::Token);
        let pkce = &self.config.pkce;
        let verifier = match (&pkce.verifier, pkce.method) {
            _ if implicit => None,
            (_, PkceMethod::Off) => None,
            (Some(text), _) => Some(self.read(text).await?),
            (None, _) => Some(random(clock)),
        };
        if verifier.as_ref().is_some_and(|verifier| !is_verifier(verifier.expose())) {
            return Err(self.missing("`pkce.verifier` must be 43 to 128 of the characters `A-Z a-z 0-9 - . _ ~`"));
        }
        verifier.iter().for_each(|verifier| self.context.sources.learn(verifier));
        Ok(Flow {
            account: account.clone(),
            state,
            nonce: (openid || wants_id).then(|| random(clock)),
            verifier,
            redirect_uri: ask.redirect_uri.clone(),
            key: self.proof_key(None).await?,
            response_type,
            begun: clock.now(),
            facts,
        })
    }

    fn response_type(&self) -> ResponseType {
        let default = match self.config.use_token {
            UseToken::AccessToken => ResponseType::Token,
            UseToken::IdToken => ResponseType::IdTokenToken,
        };
        self.config.response_type.unwrap_or(default)
    }

    fn authorization_form(&self, flow: &Flow, ask: &Ask) -> Form {
        let facts = &flow.facts;
        let mut form = Form::new(
            "response_type",
            match flow.response_type {
                None => "code",
                Some(ResponseType::Token) => "token",
                Some(ResponseType::IdToken) => "id_token",
                Some(ResponseType::IdTokenToken) => "id_token token",
            },
        );
        form.add("client_id", &facts.identity.id);
        form.add_some("redirect_uri", flow.redirect_uri.as_deref());
        form.add_some("scope", facts.scope.as_deref());
        form.add("state", flow.state.expose());
        if let Some(verifier) = &flow.verifier {
            let method = self.config.pkce.method;
            form.add("code_challenge", &challenge(verifier.expose(), method));
            form.add("code_challenge_method", if method == PkceMethod::Plain { "plain" } else { "S256" });
        }
        form.add_some("nonce", flow.nonce.as_ref().map(Secret::expose));
        if let Some(thumbprint) = flow.key.as_ref().and_then(ProofKey::thumbprint) {
            form.add("dpop_jkt", &thumbprint);
        }
        if let Some(step_up) = &ask.step_up {
            form.add_some("acr_values", step_up.acr_values.as_deref());
            form.add_some("max_age", step_up.max_age.map(|age| age.to_string()).as_deref());
        }
        form
    }

    /// The address for the browser, with the parameters in it or pushed to the server before.
    async fn authorization_url(
        &self,
        flow: &Flow,
        auth_url: Url,
        mut form: Form,
        params: &[ReadParam],
    ) -> Result<Url, AuthError> {
        let facts = &flow.facts;
        let demanded = facts.metadata.as_ref().is_some_and(|metadata| metadata.require_pushed_authorization_requests);
        let mut url = auth_url;
        if self.config.par_url.is_some() || demanded {
            let request_uri = self.push(flow, form, params).await?;
            let mut short = Form::new("client_id", &facts.identity.id);
            short.add("request_uri", &request_uri);
            short.append_to(&mut url);
            return Ok(url);
        }
        form.add_all("audience", &facts.audience);
        form.add_all("resource", &facts.resource);
        form.overrule(&params.iter().collect::<Vec<_>>());
        form.append_to(&mut url);
        Ok(url)
    }

    /// Judges what a browser came back with; gives the code or the tokens in it.
    fn checked_answer(&self, flow: &Flow, params: &Params) -> Result<(), AuthError> {
        let facts = &flow.facts;
        match (params.text("iss"), facts.issuer()) {
            (Some(iss), Some(issuer)) if iss != issuer => {
                return Err(self.login_failed(&format!(
                    "the answer names the issuer `{}`, not `{issuer}`: another server may be trying to pass for it",
                    plain(&self.masked(iss, &[]))
                )));
            }
            // An ID token in the answer says it in its place (RFC 9207 section 2.4).
            (None, Some(_))
                if params.get("id_token").is_none()
                    && facts
                        .metadata
                        .as_ref()
                        .is_some_and(|metadata| metadata.authorization_response_iss_parameter_supported) =>
            {
                return Err(
                    self.login_failed("the answer names no issuer, though this server says that it always does")
                );
            }
            _ => {}
        }
        if let Some(code) = params.text("error") {
            let refusal = Refusal {
                status: StatusCode::BAD_REQUEST,
                code: plain(&self.masked(code, &[])),
                description: params.text("error_description").map(|text| plain(&self.masked(text, &[]))),
                interval: None,
            };
            let said = refusal.description.as_ref().map_or_else(String::new, |text| format!(" ({text})"));
            let advice = advice(&self.config, &refusal, facts, None);
            return Err(self.login_failed(&format!("the server refused with `{}`{said}. {advice}", refusal.code)));
        }
        Ok(())
    }

    pub(super) fn login_failed(&self, why: &str) -> AuthError {
        AuthError::new(AuthErrorKind::LoginNeeded, format!("credential `{}`: {why}", self.credential))
    }
}

impl Answer for Flow {
    fn in_fragment(&self) -> bool {
        self.response_type.is_some()
    }

    fn is_ours(&self, params: &Params) -> bool {
        params
            .get("state")
            .is_some_and(|state| constant_time_eq(state.expose().as_bytes(), self.state.expose().as_bytes()))
    }

    fn finish(self: Box<Self>, params: Params) -> BoxFuture<'static, Result<(), AuthError>> {
        Box::pin(async move {
            let client = &self.account.client;
            client.checked_answer(&self, &params)?;
            let (tokens, sent) = match self.response_type {
                Some(kind) => (client.fragment_tokens(&params, kind)?, self.begun),
                None => self.redeem(&params).await?,
            };
            let expected = Expected {
                nonce: self.nonce.as_ref(),
                issuer: self.facts.issuer(),
                client_id: &self.facts.identity.id,
            };
            if let Some(id_token) = &tokens.id_token {
                client.context.sources.learn(id_token);
                expected
                    .check(id_token, &tokens.access_token, client.context.clock.now())
                    .map_err(|why| client.login_failed(&format!("the ID token {why}")))?;
            }
            self.account.keep(&self.facts, tokens, sent, self.key.as_ref()).await
        })
    }
}

impl Flow {
    /// The code for tokens.
    async fn redeem(&self, params: &Params) -> Result<(answer::Answer, SystemTime), AuthError> {
        let client = &self.account.client;
        let Some(code) = params.get("code") else {
            return Err(client.login_failed("the answer holds neither a code nor an error"));
        };
        client.context.sources.learn(code);
        let ask = TokenAsk::Code { code, redirect_uri: self.redirect_uri.as_deref(), verifier: self.verifier.as_ref() };
        let sent = client.context.clock.now();
        let tokens = client.ask(&self.facts, &ask, self.key.as_ref()).await;
        Ok((tokens.map_err(|failure| client.explain(failure, &self.facts, &ask))?, sent))
    }
}

impl Client {
    /// The tokens of an implicit login.
    fn fragment_tokens(&self, params: &Params, kind: ResponseType) -> Result<answer::Answer, AuthError> {
        let mut members: Map<String, Value> =
            params.iter().map(|(name, value)| (name.to_owned(), value.expose().into())).collect();
        if kind == ResponseType::IdToken {
            members.insert(answer::ID_TOKEN_ALONE.to_owned(), true.into());
        }
        // Whatever came along, an implicit login brings no refresh token.
        members.remove("refresh_token");
        let tokens = answer::from_members(&members, "the address").map_err(|why| self.login_failed(&why))?;
        if kind != ResponseType::Token && tokens.id_token.is_none() {
            return Err(self.login_failed("the answer holds no id_token"));
        }
        Ok(tokens)
    }
}

/// The challenge of a verifier (RFC 7636 section 4.2).
pub(super) fn challenge(verifier: &str, method: PkceMethod) -> String {
    match method {
        PkceMethod::S256 => {
            let verifier = PkceCodeVerifier::new(verifier.to_owned());
            PkceCodeChallenge::from_code_verifier_sha256(&verifier).as_str().to_owned()
        }
        PkceMethod::Plain | PkceMethod::Off => verifier.to_owned(),
    }
}

/// 256 bits, base64url: 43 characters.
fn random(clock: &Clock) -> Secret {
    let mut bytes = [0; 32];
    clock.fill_random(&mut bytes);
    Secret::new(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}
