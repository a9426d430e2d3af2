//! Parent proxies: a tunnel by CONNECT with credentials, or by SOCKS 5.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header, request, response};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    LinkError, Shared, dial,
    settings::{ParentProxy, Settings},
    tap::Stream,
};
use crate::{
    auth::scheme::{AuthError, AuthScheme, BodyPlan, Hop, LinkState, Outgoing, Ready, Reply, Round, Trace, Verdict},
    clock::{self, Clock},
    console::record::{CURRENT, SendKind, SendRecording},
    secret::Secret,
    target::{Host, Target},
};

/// Sends after the first one for which credentials may be improved.
pub(super) const MAX_EXTRA_SENDS: u8 = 3;
/// Bytes of a refusal that are read to keep its connection.
pub(super) const MAX_REFUSAL_BYTES: usize = 64 << 10;

/// The name by which this process calls itself in `Via`. A request that arrives with it has come back to us.
pub fn pseudonym() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let mut id = [0; 8];
        clock::random(&mut id);
        format!("countersign-{:016x}", u64::from_ne_bytes(id))
    })
}

/// True if a request has passed through this process before.
pub fn came_from_us(headers: &http::HeaderMap) -> bool {
    headers
        .get_all(header::VIA)
        .iter()
        .any(|value| memchr::memmem::find(value.as_bytes(), pseudonym().as_bytes()).is_some())
}

/// The `Via` entry for requests to a parent proxy.
pub(super) fn via() -> HeaderValue {
    static VALUE: OnceLock<HeaderValue> = OnceLock::new();
    VALUE
        .get_or_init(|| {
            HeaderValue::from_str(&format!("1.1 {}", pseudonym()))
                .unwrap_or_else(|_| HeaderValue::from_static("1.1 countersign"))
        })
        .clone()
}

type ConnectSender = http1::SendRequest<Empty<Bytes>>;

/// Asks the parent for a tunnel to the target. Answers its 407 as often as its credential finds something new.
pub(super) async fn connect(
    shared: &Shared,
    settings: &Arc<Settings>,
    proxy: &ParentProxy,
    io: Stream,
    target: &Target,
) -> Result<Stream, LinkError> {
    let mut sender = start(io, settings, target).await?;
    let mut round = Round::default();
    let mut state = LinkState::Fresh;
    loop {
        let mut head = connect_head(target)?;
        let mut trace = Trace::default();
        if let Some(auth) = &proxy.auth {
            let lent =
                Lent { head: &mut head, target, proxy: &proxy.host, state, has_body: false, trace: Some(&mut trace) };
            authorize(&**auth, shared, lent, &mut round).await?;
        }
        let recording = CURRENT.try_with(Clone::clone).ok().flatten().map(|current| current.send(SendKind::Connect));
        if let Some(recording) = &recording {
            recording.request(&head, target, &target.host_port(), trace);
        }
        let sent = sender.send_request(Request::from_parts(head.clone(), Empty::new())).await;
        let answer = sent.map_err(|error| {
            let why = error.to_string();
            note(recording.as_ref(), |recording| recording.failed(&why));
            LinkError::Connect { target: target.host_port(), why: format!("parent proxy {}: {why}", proxy.host_port()) }
        })?;
        let (reply, body) = answer.into_parts();
        note(recording.as_ref(), |recording| {
            recording.reply(&reply);
            recording.end();
        });
        if reply.status.is_success() {
            return tunnel(Response::from_parts(reply, body), target).await;
        }
        let again = match &proxy.auth {
            Some(auth) => improves(&**auth, &reply, &head, target, &mut round).await?,
            None => false,
        };
        if !again {
            return Err(refusal(proxy, reply.status));
        }
        (sender, state) = keep_or_redial(sender, body, settings, proxy, target).await?;
    }
}

fn note(recording: Option<&SendRecording>, write: impl FnOnce(&SendRecording)) {
    if let Some(recording) = recording {
        write(recording);
    }
}

fn refusal(proxy: &ParentProxy, status: StatusCode) -> LinkError {
    let why = match status {
        StatusCode::PROXY_AUTHENTICATION_REQUIRED if proxy.auth.is_none() => {
            format!("{status}; set `proxy.upstream.auth` to a credential for it")
        }
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            format!("{status}; check the credential that `proxy.upstream.auth` names")
        }
        status => status.to_string(),
    };
    LinkError::ParentRefused { proxy: proxy.host_port(), why }
}

/// A request for the parent, for its credential to write on.
pub(super) struct Lent<'a> {
    pub(super) head: &'a mut request::Parts,
    pub(super) target: &'a Target,
    pub(super) proxy: &'a Host,
    pub(super) state: LinkState,
    pub(super) has_body: bool,
    pub(super) trace: Option<&'a mut Trace>,
}

/// Waits for the credential and writes it onto the head. Says which body is to leave.
pub(super) async fn authorize(
    auth: &dyn AuthScheme,
    shared: &Shared,
    lent: Lent<'_>,
    round: &mut Round,
) -> Result<BodyPlan, LinkError> {
    if let Ready::After(work) = auth.ready(&shared.clock, round) {
        work.await?;
    }
    round.link = lent.state;
    round.proved = false;
    let mut out = Outgoing::new(lent.head, lent.target, Hop::ParentProxy, None, &shared.clock, lent.trace)
        .on(lent.state, None)
        .to(lent.proxy)
        .with_body(lent.has_body);
    auth.apply(&mut out, round)?;
    Ok(out.into_plan())
}

/// Shows an answer of the parent to its credential. True if another send makes sense.
pub(super) async fn improves(
    auth: &dyn AuthScheme,
    reply: &response::Parts,
    head: &request::Parts,
    target: &Target,
    round: &mut Round,
) -> Result<bool, LinkError> {
    let hop = Hop::ParentProxy;
    round.challenges.clear();
    if reply.status == hop.refusal() {
        round.challenges = crate::auth::challenge::parse(&reply.headers, &hop.challenge());
    }
    let shown = Reply::new(reply.status, &reply.headers, hop, head, target);
    let verdict = auth.review(&shown, round);
    if round.attempt >= MAX_EXTRA_SENDS {
        return Ok(false);
    }
    let again = match verdict {
        Verdict::Deliver | Verdict::Refuse => false,
        Verdict::Retry | Verdict::Continue => true,
        Verdict::Renew => auth.renew(round).await?,
    };
    round.attempt += 1;
    Ok(again)
}

/// Reads a refusal to its end so that its connection can be used again, or opens another. Says which.
async fn keep_or_redial(
    mut sender: ConnectSender,
    body: Incoming,
    settings: &Arc<Settings>,
    proxy: &ParentProxy,
    target: &Target,
) -> Result<(ConnectSender, LinkState), LinkError> {
    let drained = Limited::new(body, MAX_REFUSAL_BYTES).collect().await.is_ok();
    if drained && sender.ready().await.is_ok() {
        return Ok((sender, LinkState::Continued));
    }
    let (io, _) = dial::dial_parent(settings, proxy).await?;
    Ok((start(io, settings, target).await?, LinkState::Fresh))
}

async fn start(io: Stream, settings: &Settings, target: &Target) -> Result<ConnectSender, LinkError> {
    let failed = |error: hyper::Error| LinkError::Connect { target: target.host_port(), why: error.to_string() };
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(settings.limits.head_bytes.max(super::pool::MIN_BUFFER))
        .handshake(TokioIo::new(io))
        .await
        .map_err(failed)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to the parent proxy ended");
        }
    });
    Ok(sender)
}

fn connect_head(target: &Target) -> Result<request::Parts, LinkError> {
    let authority = target.host_port();
    let failed = |error: http::Error| LinkError::Connect { target: target.host_port(), why: error.to_string() };
    let uri = Uri::builder().authority(authority.as_str()).build().map_err(failed)?;
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(uri)
        .header(header::HOST, authority)
        .header(header::VIA, via())
        .body(())
        .map_err(failed)?;
    Ok(request.into_parts().0)
}

async fn tunnel(answer: Response<Incoming>, target: &Target) -> Result<Stream, LinkError> {
    let failed = |why: String| LinkError::Connect { target: target.host_port(), why };
    let upgraded = hyper::upgrade::on(answer).await.map_err(|error| failed(error.to_string()))?;
    let parts =
        upgraded.downcast::<TokioIo<Stream>>().map_err(|_| failed("the tunnel could not be taken over".to_owned()))?;
    Ok(parts.io.into_inner().rewind(parts.read_buf))
}

/// Asks a SOCKS 5 proxy for a tunnel (RFC 1928); it resolves names itself.
pub(super) async fn socks5(mut io: Stream, proxy: &ParentProxy, target: &Target) -> Result<Stream, LinkError> {
    let broke = |error: io::Error| LinkError::Connect {
        target: target.host_port(),
        why: format!("SOCKS proxy {}: {error}", proxy.host_port()),
    };
    let refused = |why: &str| LinkError::ParentRefused { proxy: proxy.host_port(), why: why.to_owned() };
    let login = match (&proxy.socks_login, &proxy.auth) {
        (None, Some(auth)) => Some(login_of(auth.as_ref()).await?),
        (login, _) => login.clone(),
    };
    let methods: &[u8] = if login.is_some() { &[5, 2, 0, 2] } else { &[5, 1, 0] };
    io.write_all(methods).await.map_err(broke)?;
    let mut choice = [0; 2];
    io.read_exact(&mut choice).await.map_err(broke)?;
    match (choice, &login) {
        ([5, 0], _) => {}
        ([5, 2], Some((name, password))) => {
            let login = login_message(name, password.expose())
                .ok_or_else(|| refused("name and password for SOCKS must have 1 to 255 bytes each"))?;
            io.write_all(&login).await.map_err(broke)?;
            let mut verdict = [0; 2];
            io.read_exact(&mut verdict).await.map_err(broke)?;
            if verdict[1] != 0 {
                return Err(refused("it does not accept name and password"));
            }
        }
        ([5, _], None) => return Err(refused("it wants a login; set `proxy.upstream.auth` to a basic credential")),
        ([5, _], Some(_)) => return Err(refused("it accepts no login by name and password")),
        _ => return Err(refused("it does not speak SOCKS 5")),
    }
    io.write_all(&connect_message(target)).await.map_err(broke)?;
    let mut head = [0; 4];
    io.read_exact(&mut head).await.map_err(broke)?;
    if head[0] != 5 || head[1] != 0 {
        return Err(refused(socks_reason(head[1])));
    }
    let rest = match head[3] {
        1 => 4,
        4 => 16,
        3 => usize::from(io.read_u8().await.map_err(broke)?),
        _ => return Err(refused("its answer has an unknown kind of address")),
    };
    let mut bound = [0; 255 + 2];
    io.read_exact(&mut bound[..rest + 2]).await.map_err(broke)?;
    Ok(io)
}

/// The user name and password of a credential (RFC 1929 knows nothing else).
async fn login_of(auth: &dyn AuthScheme) -> Result<(String, Secret), LinkError> {
    if let Ready::After(fetching) = auth.ready(&Clock::system(), &Round::default()) {
        fetching.await?;
    }
    let login = auth.login().ok_or_else(|| {
        AuthError::missing(
            "a SOCKS 5 proxy takes a user name and a password: `proxy.upstream.auth` must name a `basic` credential",
        )
    })?;
    Ok(login)
}

fn login_message(name: &str, password: &str) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    let (name_length, password_length) = (u8::try_from(name.len()).ok()?, u8::try_from(password.len()).ok()?);
    if name_length == 0 || password_length == 0 {
        return None;
    }
    let mut message = zeroize::Zeroizing::new(Vec::with_capacity(3 + name.len() + password.len()));
    message.extend_from_slice(&[1, name_length]);
    message.extend_from_slice(name.as_bytes());
    message.push(password_length);
    message.extend_from_slice(password.as_bytes());
    Some(message)
}

fn connect_message(target: &Target) -> Vec<u8> {
    let mut message = vec![5, 1, 0];
    match &target.host {
        Host::Ip(IpAddr::V4(ip)) => {
            message.push(1);
            message.extend_from_slice(&ip.octets());
        }
        Host::Ip(IpAddr::V6(ip)) => {
            message.push(4);
            message.extend_from_slice(&ip.octets());
        }
        Host::Name(name) => {
            // A canonical name has at most 253 bytes.
            message.push(3);
            message.push(name.len().try_into().unwrap_or(u8::MAX));
            message.extend_from_slice(name.as_bytes());
        }
    }
    message.extend_from_slice(&target.port.to_be_bytes());
    message
}

/// The reply codes of RFC 1928 section 6.
fn socks_reason(code: u8) -> &'static str {
    match code {
        1 => "general failure",
        2 => "its rules do not allow the connection",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "the connection took too long",
        7 => "it does not know CONNECT",
        8 => "it does not know this kind of address",
        _ => "unknown failure",
    }
}
