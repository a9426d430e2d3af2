//! A strict authorization server with an API behind it, which behaves like one or another that people use.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::Response;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    Origin, Proxy, Seen, canary,
    origin::{Body, full, text},
    token::form,
    within,
};

/// How the server behaves.
#[derive(Clone, Default)]
pub struct Manners {
    /// Path of the issuer, without a slash at its end.
    pub issuer: &'static str,
    /// The issuer calls itself with a slash at its end.
    pub slash: bool,
    /// Identifiers and secrets of clients; without a secret it is public.
    pub clients: Vec<(&'static str, Option<String>)>,
    /// The secret has to be in the form, else in the header.
    pub secret_in_body: bool,
    /// The API takes only tokens that were asked for with this.
    pub audience: Option<&'static str>,
    /// No code without PKCE.
    pub pkce: bool,
    /// Token requests need this `Origin`.
    pub origin: Option<&'static str>,
    /// Refreshes are answered here alone.
    pub refresh_path: Option<&'static str>,
    /// Refresh tokens come only with this scope.
    pub offline: Option<&'static str>,
    /// Seconds that access tokens live; not told if there is none.
    pub lifetime: Option<u64>,
    /// `iss` and `scope` of assertions.
    pub assertion: Option<(&'static str, &'static str)>,
}

#[derive(Default)]
struct State {
    /// Challenge, audience, scope and redirect URI by code.
    codes: HashMap<String, HashMap<String, String>>,
    /// End and audience by access token.
    access: HashMap<String, (Option<Instant>, Option<String>)>,
    /// What was granted with the one refresh token that is good.
    refresh: HashMap<String, HashMap<String, String>>,
    spent: Vec<String>,
    revoked: bool,
    issued: Vec<String>,
    grants: Vec<String>,
}

/// The server.
pub struct Idp {
    pub origin: Origin,
    state: Arc<Mutex<State>>,
}

impl Idp {
    pub async fn start(manners: Manners) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let held = state.clone();
        let origin = Origin::plain_with(move |seen| answer(&manners, &mut held.lock().unwrap(), &seen)).await;
        Self { origin, state }
    }

    pub fn base(&self) -> String {
        self.origin.base()
    }

    /// `grant_type` of every token request that was answered with tokens.
    pub fn grants(&self) -> Vec<String> {
        self.state.lock().unwrap().grants.clone()
    }

    /// Every token ever given out.
    pub fn issued(&self) -> Vec<String> {
        self.state.lock().unwrap().issued.clone()
    }

    /// All access tokens are refused from now on; refresh tokens stay good.
    pub fn end_sessions(&self) {
        self.state.lock().unwrap().access.clear();
    }

    /// True if a spent refresh token came again.
    pub fn reused(&self) -> bool {
        self.state.lock().unwrap().revoked
    }

    /// Nothing that was given out may show in the proxy's output.
    pub fn register(&self, proxy: &Proxy) {
        self.issued().iter().for_each(|token| proxy.register_canary(token));
    }
}

fn json(status: u16, value: &serde_json::Value) -> Response<Body> {
    Response::builder().status(status).header("content-type", "application/json").body(full(value.to_string())).unwrap()
}

fn error(code: &str, description: &str) -> Response<Body> {
    json(400, &serde_json::json!({ "error": code, "error_description": description }))
}

fn answer(manners: &Manners, state: &mut State, seen: &Seen) -> Response<Body> {
    let base = format!("http://{}", seen.header("host").unwrap());
    let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
    let issuer = format!("{base}{}", manners.issuer);
    if path == format!("{}/.well-known/openid-configuration", manners.issuer) {
        let slash = if manners.slash { "/" } else { "" };
        return json(
            200,
            &serde_json::json!({
                "issuer": format!("{issuer}{slash}"),
                "authorization_endpoint": format!("{issuer}/authorize"),
                "token_endpoint": format!("{issuer}/token"),
                "revocation_endpoint": format!("{issuer}/revoke"),
            }),
        );
    }
    match path {
        _ if path.ends_with("/authorize") => authorize(manners, state, form(query.as_bytes()).into_iter().collect()),
        _ if path.ends_with("/revoke") => {
            state.refresh.clear();
            state.access.clear();
            json(200, &serde_json::json!({}))
        }
        _ if path.ends_with("/token") || manners.refresh_path == Some(path) => token(manners, state, path, seen),
        _ => api(manners, state, seen),
    }
}

fn authorize(manners: &Manners, state: &mut State, asked: HashMap<String, String>) -> Response<Body> {
    let known = manners.clients.iter().any(|(id, _)| asked.get("client_id").is_some_and(|asked| asked == id));
    if !known || asked.get("response_type").map(String::as_str) != Some("code") {
        return text(400, "unknown client or response type");
    }
    if manners.pkce && asked.get("code_challenge_method").map(String::as_str) != Some("S256") {
        return text(400, "PKCE with S256 is demanded");
    }
    let code = canary("code");
    let to = format!("{}?code={code}&state={}", asked["redirect_uri"], asked["state"]);
    state.codes.insert(code, asked);
    Response::builder().status(302).header("location", to).body(full("")).unwrap()
}

fn token(manners: &Manners, state: &mut State, path: &str, seen: &Seen) -> Response<Body> {
    let asked: HashMap<String, String> = form(&seen.body).into_iter().collect();
    let field = |name: &str| asked.get(name).map(String::as_str);
    let grant = field("grant_type").unwrap_or_default().to_owned();
    if manners.refresh_path.is_some_and(|own| (grant == "refresh_token") != (path == own)) {
        return error("invalid_request", "not at this address");
    }
    if manners.origin.is_some() && seen.header("origin") != manners.origin {
        return error(
            "invalid_request",
            "AADSTS9002327: Tokens issued for the 'Single-Page Application' client-type may only be redeemed via \
             cross-origin requests.",
        );
    }
    if grant.ends_with("jwt-bearer") {
        let Some(claims) = field("assertion").and_then(claims) else { return error("invalid_grant", "no assertion") };
        let (iss, scope) = manners.assertion.unwrap_or_default();
        if claims["iss"] != iss || claims["scope"] != scope || claims["exp"].as_u64() <= claims["iat"].as_u64() {
            return error("invalid_grant", "the assertion is wrong");
        }
        return issue(manners, state, &grant, &HashMap::new(), false);
    }
    if !is_client(manners, seen, &asked) {
        return json(401, &serde_json::json!({ "error": "invalid_client" }));
    }
    match grant.as_str() {
        "client_credentials" => issue(manners, state, &grant, &asked, false),
        "authorization_code" => {
            let Some(granted) = field("code").and_then(|code| state.codes.remove(code)) else {
                return error("invalid_grant", "no such code");
            };
            let hash = |verifier: &str| {
                URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes()))
            };
            if granted.get("code_challenge") != field("code_verifier").map(hash).as_ref()
                || granted.get("redirect_uri").map(String::as_str) != field("redirect_uri")
            {
                return error("invalid_grant", "the verifier or the redirect_uri differs");
            }
            issue(manners, state, &grant, &granted, true)
        }
        "refresh_token" => {
            let Some(token) = field("refresh_token") else { return error("invalid_request", "no token") };
            let Some(granted) = state.refresh.remove(token) else {
                if state.spent.iter().any(|spent| spent == token) {
                    state.revoked = true;
                    state.refresh.clear();
                }
                return error("invalid_grant", "the refresh token is spent");
            };
            state.spent.push(token.to_owned());
            issue(manners, state, &grant, &granted, true)
        }
        _ => error("unsupported_grant_type", ""),
    }
}

fn is_client(manners: &Manners, seen: &Seen, asked: &HashMap<String, String>) -> bool {
    manners.clients.iter().any(|(id, secret)| match (secret, manners.secret_in_body) {
        (None, _) => asked.get("client_id").is_some_and(|own| own == id) && !asked.contains_key("client_secret"),
        (Some(secret), true) => {
            asked.get("client_id").is_some_and(|own| own == id)
                && asked.get("client_secret") == Some(secret)
                && seen.header("authorization").is_none()
        }
        (Some(secret), false) => {
            let basic = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
            seen.header("authorization") == Some(basic.as_str()) && !asked.contains_key("client_secret")
        }
    })
}

fn issue(
    manners: &Manners,
    state: &mut State,
    grant: &str,
    granted: &HashMap<String, String>,
    may_refresh: bool,
) -> Response<Body> {
    let access = canary("access");
    let end = manners.lifetime.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    state.access.insert(access.clone(), (end, granted.get("audience").cloned()));
    state.issued.push(access.clone());
    state.grants.push(grant.rsplit(':').next().unwrap().to_owned());
    let mut answer = serde_json::json!({ "access_token": access, "token_type": "Bearer" });
    if let Some(seconds) = manners.lifetime {
        answer["expires_in"] = seconds.into();
    }
    let scopes = granted.get("scope").cloned().unwrap_or_default();
    if may_refresh && manners.offline.is_none_or(|wanted| scopes.split(' ').any(|scope| scope == wanted)) {
        let refresh = canary("refresh");
        state.refresh.insert(refresh.clone(), granted.clone());
        state.issued.push(refresh.clone());
        answer["refresh_token"] = refresh.into();
    }
    json(200, &answer)
}

fn api(manners: &Manners, state: &State, seen: &Seen) -> Response<Body> {
    let token = seen.header("authorization").and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let good = state.access.get(token).is_some_and(|(end, audience)| {
        end.is_none_or(|end| Instant::now() < end)
            && (manners.audience.is_none() || audience.as_deref() == manners.audience)
    });
    if good {
        return text(200, "welcome");
    }
    let mut refusal = text(401, "no");
    refusal.headers_mut().insert("www-authenticate", "Bearer error=\"invalid_token\"".parse().unwrap());
    refusal
}

/// The claims of a JWT.
pub fn claims(token: &str) -> Option<serde_json::Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?).ok()
}

/// One GET without a proxy: status, `Location`, body.
pub async fn visit(url: &str) -> (u16, Option<String>, String) {
    let rest = url.strip_prefix("http://").expect("http");
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let mut stream = TcpStream::connect(authority).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let location = head.lines().find_map(|line| line.strip_prefix("location: ")).map(str::to_owned);
    (head.split(' ').nth(1).unwrap().parse().unwrap(), location, body.to_owned())
}

/// A person who logs in at once: follows the server's answer back to the listener. What the last page says.
pub async fn log_in_at(url: &str) -> String {
    let (status, location, body) = visit(url).await;
    assert_eq!(status, 302, "{body}");
    visit(&location.expect("a way back")).await.2
}
