//! `explain`: which rule a request would meet, and how it would leave. Nothing is sent to its target.
//!
//! The request goes through the same steps as in the proxy ([`prepare`](crate::proxy::prepare)), so it is refused here
//! where it would be refused there.

mod show;

use std::{sync::Arc, time::SystemTime};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, Request, header, request::Parts};
use show::Mask;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Failure,
    args::{ExplainArgs, Global},
    look, output,
};
use crate::{
    auth::{
        AuthError, AuthScheme,
        scheme::{BodyPlan, BodyUse, Hop, Outgoing, Ready, Round, Trace},
    },
    clock::Clock,
    config::Config,
    console::Redactor,
    loading,
    proxy::{
        Settings, Snapshot, check_host,
        client::Clients,
        connect::{self, Way},
        error::{ErrorId, ProxyError},
        framing::Framing,
        prepare::{Admitted, Asked, ask_upgrade, body_too_large, name_te, typed, without},
    },
    rules::{NamedAddresses, Rule, explain::Explanation},
    target::{Scheme, Target},
    upstream::{LinkError, address::is_denied},
};

/// What would become of a request, and why.
struct Explained {
    target: Target,
    trace: Trace,
    explanation: Explanation,
    credentials: Vec<String>,
    leaves: Result<Leaving, ProxyError>,
}

/// The request as it would leave.
struct Leaving {
    head: Parts,
    body: Option<Bytes>,
}

/// The request as a client would send it to the proxy.
struct Given {
    request: Request<()>,
    target: Target,
    body: Option<Bytes>,
}

pub(super) fn explain(global: &Global, args: &ExplainArgs) -> Result<u8, Failure> {
    let clock = clock(args)?;
    let given = given(args)?;
    let redactor = Redactor::default();
    let (runtime, ready, loader) = look::ready_with(global, clock.clone(), &redactor)?;
    let loading::Ready { loaded, rules, clients } = ready;
    let client = args.client.as_deref().map(|name| known(name, &clients)).transpose()?;
    let config = &loaded.config;
    redactor.set_names(&config.redact);
    let snapshot = Snapshot { rules: Arc::new(rules), settings: settings(config) };
    if let Some(context) = loader.context() {
        let rules = Arc::clone(&snapshot.rules);
        context.sources.bind_credentials(Arc::new(move |name| rules.credential(name)));
    }
    let explained = runtime.block_on(async {
        let explained = explained(given, &snapshot, client.as_ref(), config, &clock).await;
        if let Some(context) = loader.context() {
            context.tokens.settle().await;
        }
        explained
    });
    let mask = Mask { redactor: &redactor, off: args.show_secrets };
    if global.json {
        output::json(&show::as_json(&explained, &mask))?;
    } else {
        output::data(show::as_text(&explained, &mask))?;
    }
    let Err(error) = &explained.leaves else { return Ok(0) };
    let why = format!("the proxy would refuse this request: {}", show::refusal(error));
    Err(if error.id == ErrorId::LoginNeeded { Failure::LoginNeeded(why) } else { Failure::Failed(why) })
}

fn clock(args: &ExplainArgs) -> Result<Clock, Failure> {
    let now = match &args.at {
        None => SystemTime::now(),
        Some(text) => OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|_| Failure::Usage(format!("--at `{text}` is not a time like 2026-01-31T12:00:00Z")))?
            .into(),
    };
    if args.at.is_none() && args.nonce.is_none() {
        return Ok(Clock::system());
    }
    Ok(Clock::fixed(now, args.nonce.clone()))
}

/// The request that the arguments describe.
fn given(args: &ExplainArgs) -> Result<Given, Failure> {
    let usage = |why: String| Failure::Usage(why);
    let method = Method::from_bytes(args.method.as_bytes())
        .map_err(|_| usage(format!("`{}` is not a method", output::inert(&args.method))))?;
    if method == Method::CONNECT {
        return Err(usage("CONNECT opens a tunnel and meets no rule; explain a request inside it, such as GET".into()));
    }
    let (uri, target) = typed(&args.url).map_err(|why| usage(format!("`{}` {why}", output::inert(&args.url))))?;
    let mut request = Request::new(());
    *request.method_mut() = method;
    fields(&mut request, &target, &args.headers)?;
    *request.uri_mut() = uri;
    let body = match args.data.as_deref().map(|data| (data, data.strip_prefix('@'))) {
        None => None,
        Some((_, Some(file))) => {
            Some(std::fs::read(file).map_err(|error| Failure::failed(format!("cannot read {file}: {error}")))?.into())
        }
        Some((data, None)) => Some(Bytes::copy_from_slice(data.as_bytes())),
    };
    let headers = request.headers_mut();
    if let Some(body) = body.as_ref().filter(|_| !headers.contains_key(header::TRANSFER_ENCODING)) {
        headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(body.len()));
    }
    Ok(Given { request, target, body })
}

/// Header fields as a client sends them: `Host` first, unless the arguments have one.
fn fields(request: &mut Request<()>, target: &Target, lines: &[String]) -> Result<(), Failure> {
    let usage = |why: String| Failure::Usage(why);
    let mut given = Vec::with_capacity(lines.len());
    for line in lines {
        let (name, value) =
            line.split_once(':').ok_or_else(|| usage(format!("-H `{}` is not `Name: value`", output::inert(line))))?;
        let name = HeaderName::from_bytes(name.trim().as_bytes())
            .map_err(|_| usage(format!("`{}` is not the name of a header", output::inert(name))))?;
        let value = HeaderValue::from_bytes(value.trim().as_bytes())
            .map_err(|_| usage(format!("the value of header `{name}` holds a control character")))?;
        given.push((name, value));
    }
    let headers = request.headers_mut();
    if !given.iter().any(|(name, _)| name == header::HOST)
        && let Ok(host) = HeaderValue::from_str(&target.authority())
    {
        headers.insert(header::HOST, host);
    }
    for (name, value) in given {
        headers.append(name, value);
    }
    Ok(())
}

/// A client that may be named.
fn known(name: &str, clients: &[(Arc<str>, crate::secret::Secret)]) -> Result<Arc<str>, Failure> {
    clients.iter().map(|(client, _)| client).find(|client| ***client == *name).cloned().ok_or_else(|| {
        let names: Vec<_> = clients.iter().map(|(client, _)| output::inert(client)).collect();
        let there = if names.is_empty() { "it names nobody".to_owned() } else { format!("only {}", names.join(", ")) };
        Failure::Usage(format!("--client `{}` is not in `proxy.clients`, {there}", output::inert(name)))
    })
}

fn settings(config: &Config) -> Settings {
    Settings {
        unmatched: config.proxy.unmatched,
        connect_ports: config.proxy.connect_ports.clone(),
        limits: config.proxy.limits.clone(),
        clients: Clients::default(),
        own_client: "".into(),
        on_loopback: config.proxy.listen.ip().is_loopback(),
    }
}

async fn explained(
    given: Given,
    snapshot: &Snapshot,
    client: Option<&Arc<str>>,
    config: &Config,
    clock: &Clock,
) -> Explained {
    let Given { request, target, body } = given;
    let asked = Asked { snapshot, target: &target, client, recording: None };
    let lookup = asked.lookup(&request);
    let explanation = snapshot.rules.explain(&lookup);
    let rule = snapshot.rules.find(&lookup).map(AsRef::as_ref);
    let credentials = rule.map(|rule| rule.credentials.clone()).unwrap_or_default();
    let mut trace = Trace::default();
    let passage = Passage { asked, rule, config, clock };
    let leaves = passage.leave(request, body, &mut trace).await;
    Explained { target, trace, explanation, credentials, leaves }
}

/// What stands fast while a request goes through.
struct Passage<'a> {
    asked: Asked<'a>,
    rule: Option<&'a Rule>,
    config: &'a Config,
    clock: &'a Clock,
}

impl Passage<'_> {
    /// Takes the request through rule and credential as the proxy would.
    async fn leave(
        &self,
        mut request: Request<()>,
        mut body: Option<Bytes>,
        trace: &mut Trace,
    ) -> Result<Leaving, ProxyError> {
        let Asked { snapshot, target, .. } = self.asked;
        if target.scheme == Scheme::Https && connect::decide(snapshot, target)? == Way::Blind {
            trace.notes.push("no rule is for this host, so the tunnel to it is not opened".into());
            return Ok(Leaving { head: request.into_parts().0, body });
        }
        self.check_framing(&request)?;
        check_host(&request, target, request.uri().authority())?;
        let Admitted { auth, stripped } = self.asked.admit(&mut request, self.rule)?;
        if auth.is_none() && self.rule.is_some_and(|rule| rule.auth.is_some()) {
            trace.notes.push("a browser asks beforehand (CORS preflight): this goes without the credential".into());
        }
        let mut head = request.into_parts().0;
        let wanted = auth.is_some();
        let (auth, round) = self.asked.make_room(&mut head, self.rule, auth)?;
        if wanted && auth.is_none() {
            trace.notes.push("the request brings its own value, and the rule says `existing: keep`".into());
        }
        // Where the body is there already, or none comes, there is nothing to wait for.
        let is_read =
            auth.is_some_and(|auth| matches!(auth.body_use_in(&head, &round), BodyUse::Whole | BodyUse::Most));
        let waits = stripped.expect && !is_read && body.as_ref().is_some_and(|body| !body.is_empty());
        let other = match auth {
            Some(auth) => self.apply(auth, round, &mut head, body.as_ref(), trace).await?,
            None => self.check_address().map(|()| None)?,
        };
        body = other.or(body);
        if !waits {
            head.headers.remove(header::EXPECT);
        }
        if let Some(protocol) = &stripped.upgrade {
            ask_upgrade(&mut head.headers, protocol);
        }
        name_te(&mut head.headers);
        Ok(Leaving { head, body })
    }

    /// The head as bytes, before the eyes that the proxy reads it with.
    fn check_framing(&self, request: &Request<()>) -> Result<(), ProxyError> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri()).into_bytes();
        for (name, value) in request.headers() {
            bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        bytes.extend(b"\r\n");
        let read = Framing::new(self.config.proxy.limits.head_bytes).advance(&bytes);
        read.map(drop).map_err(|(_, violation)| ProxyError::new(ErrorId::BadRequest, violation.0))
    }

    /// An address that must not be dialled. What a name leads to is not asked here.
    fn check_address(&self) -> Result<(), ProxyError> {
        let Asked { snapshot, target, .. } = self.asked;
        match target.host.ip() {
            Some(ip) if is_denied(ip, &self.config.proxy.deny_addresses) && !snapshot.rules.names_address(ip) => {
                Err(LinkError::Denied { target: target.host_port(), address: ip.to_string() }.into())
            }
            _ => Ok(()),
        }
    }

    /// Applies the credential as for the first send. Gives the body that leaves in place of the client's, if there is
    /// one.
    async fn apply(
        &self,
        auth: &dyn AuthScheme,
        mut round: Round,
        head: &mut Parts,
        body: Option<&Bytes>,
        trace: &mut Trace,
    ) -> Result<Option<Bytes>, ProxyError> {
        let body = body.cloned().unwrap_or_default();
        let limit = self.config.proxy.limits.body_buffer;
        let seen = match auth.body_use_in(head, &round) {
            BodyUse::Whole if body.len() > limit => return Err(body_too_large(limit)),
            BodyUse::Most if body.len() > limit => Some(Bytes::new()),
            BodyUse::Whole | BodyUse::Most => Some(body.clone()),
            BodyUse::Prefix(bytes) => Some(body.slice(..bytes.min(body.len()))),
            BodyUse::Pass | BodyUse::Spare | BodyUse::Replay => None,
        };
        if let Ready::After(fetching) = auth.ready(self.clock, &round)
            && let Err(error) = fetching.await
        {
            let goes_on = without(error, auth, self.rule)?;
            trace.notes.push(goes_on.note);
            if goes_on.bare {
                return self.check_address().map(|()| None);
            }
        }
        self.check_address()?;
        let is_beginning = seen.as_ref().is_some_and(|seen| seen.len() < body.len());
        let mut lent = Trace::default();
        let mut out = Outgoing::new(head, self.asked.target, Hop::Origin, seen.as_ref(), self.clock, Some(&mut lent))
            .beginning(is_beginning);
        let applied = auth.apply(&mut out, &mut round);
        let plan = out.into_plan();
        applied?;
        trace.injected.extend(lent.injected);
        trace.canonical.extend(lent.canonical);
        trace.notes.extend(lent.notes);
        Ok(leaving_body(plan, &body)?)
    }
}

/// The body that leaves, if it is not the client's.
fn leaving_body(plan: BodyPlan, body: &Bytes) -> Result<Option<Bytes>, AuthError> {
    match plan {
        BodyPlan::AsIs => Ok(None),
        BodyPlan::Withheld => Ok(Some(Bytes::new())),
        BodyPlan::Replaced(body) => Ok(Some(body)),
        BodyPlan::Reframed(mut reframe) => {
            let mut out = BytesMut::new();
            reframe.data(body, &mut out)?;
            reframe.end(None, &mut out)?;
            Ok(Some(out.freeze()))
        }
    }
}
