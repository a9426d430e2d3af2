//! `explain`: which rule a request would meet, and how it would leave. Nothing is sent to its target.

use std::{fmt::Write as _, time::SystemTime};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, Uri, request::Parts};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Failure,
    args::{ExplainArgs, Global},
    look, output,
};
use crate::{
    auth::{
        AuthError, AuthScheme,
        scheme::{BodyPlan, BodyUse, Hop, Outgoing, Ready, Round, Trace, request_target},
        slots::complete_path,
    },
    clock::Clock,
    console::{Redactor, inert},
    proxy::slots::{ambiguous_path, make_room},
    rules::{Lookup, Rule, RuleSet, explain::Explanation},
    target::Target,
};

/// The request as it would leave.
struct Leaving {
    head: Parts,
    target: Target,
    body: Option<Bytes>,
    trace: Trace,
    explanation: Explanation,
    credentials: Vec<String>,
}

pub(super) fn explain(global: &Global, args: &ExplainArgs) -> Result<u8, Failure> {
    let clock = clock(args)?;
    let (head, target, body) = request(args)?;
    let redactor = Redactor::default();
    let (runtime, ready, loader) = look::ready_with(global, clock.clone(), &redactor)?;
    redactor.set_names(&ready.loaded.config.redact);
    let leaving = runtime.block_on(async {
        let leaving = leave(&ready.rules, head, target, body, &clock).await;
        if let Some(context) = loader.context() {
            context.tokens.settle().await;
        }
        leaving
    })?;
    let mask = Mask { redactor: &redactor, off: args.show_secrets };
    if global.json {
        output::json(&as_json(&leaving, &mask))?;
    } else {
        output::data(as_text(&leaving, &mask))?;
    }
    Ok(0)
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

/// The request as a client would send it to the proxy.
fn request(args: &ExplainArgs) -> Result<(Parts, Target, Option<Bytes>), Failure> {
    let usage = |why: String| Failure::Usage(why);
    let method = Method::from_bytes(args.method.as_bytes())
        .map_err(|_| usage(format!("`{}` is not a method", output::inert(&args.method))))?;
    let url = args.url.split('#').next().unwrap_or_default();
    let mut uri: Uri = url
        .parse()
        .map_err(|_| usage(format!("`{}` is not a URL like https://host/path", output::inert(&args.url))))?;
    if !complete_path(&mut uri) {
        return Err(usage("the URL is too long".to_owned()));
    }
    let target = Target::from_uri(&uri).map_err(|error| usage(format!("`{}`: {error}", output::inert(&args.url))))?;
    let mut request = http::Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    for line in &args.headers {
        let (name, value) =
            line.split_once(':').ok_or_else(|| usage(format!("-H `{}` is not `Name: value`", output::inert(line))))?;
        let name = HeaderName::from_bytes(name.trim().as_bytes())
            .map_err(|_| usage(format!("`{}` is not the name of a header", output::inert(name))))?;
        let value = HeaderValue::from_str(value.trim())
            .map_err(|_| usage(format!("the value of header `{name}` holds a control character")))?;
        request.headers_mut().append(name, value);
    }
    let body = match args.data.as_deref().map(|data| (data, data.strip_prefix('@'))) {
        None => None,
        Some((_, Some(file))) => {
            Some(std::fs::read(file).map_err(|error| Failure::failed(format!("cannot read {file}: {error}")))?.into())
        }
        Some((data, None)) => Some(Bytes::copy_from_slice(data.as_bytes())),
    };
    if let Some(body) = &body {
        request.headers_mut().entry(http::header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(body.len()));
    }
    Ok((request.into_parts().0, target, body))
}

/// Takes the request through rule and credential as the proxy would.
async fn leave(
    rules: &RuleSet,
    mut head: Parts,
    target: Target,
    mut body: Option<Bytes>,
    clock: &Clock,
) -> Result<Leaving, Failure> {
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let lookup =
        Lookup { target: &target, method: &head.method, path_and_query: &path, headers: &head.headers, client: None };
    let explanation = rules.explain(&lookup);
    let rule = rules.find(&lookup).cloned();
    if let Some(rule) = rule.as_ref().filter(|rule| rule.auth.is_some() && rules.is_ambiguous(&lookup, rule)) {
        let why = ambiguous_path(rule);
        return Err(Failure::failed(format!("the proxy would refuse this request: {why}")));
    }
    let credentials = rule.as_ref().map(|rule| rule.credentials.clone()).unwrap_or_default();
    let mut trace = Trace::default();
    let wanted = rule.as_ref().and_then(|rule| rule.auth.as_deref());
    let kept = wanted.is_some();
    let mut round = Round::new();
    let auth = make_room(&mut head, &target, rule.as_deref(), wanted, &mut round, None)
        .map_err(|error| Failure::failed(format!("the proxy would refuse this request: {}", error.detail)))?;
    match auth {
        Some(auth) => {
            let asked = Asked { rule: rule.as_deref(), target: &target, body: body.as_ref(), clock };
            if let Some(other) = apply(auth, &asked, round, &mut head, &mut trace).await {
                body = Some(other);
            }
        }
        None if kept => trace.notes.push("the request brings its own value, and the rule says `existing: keep`".into()),
        None => {}
    }
    Ok(Leaving { head, target, body, trace, explanation, credentials })
}

/// What stands fast while a credential is applied.
struct Asked<'a> {
    rule: Option<&'a Rule>,
    target: &'a Target,
    body: Option<&'a Bytes>,
    clock: &'a Clock,
}

/// Applies the credential as for the first send. Gives the body that leaves in place of the client's, if there is one.
async fn apply(
    auth: &dyn AuthScheme,
    asked: &Asked<'_>,
    mut round: Round,
    head: &mut Parts,
    trace: &mut Trace,
) -> Option<Bytes> {
    if let Ready::After(fetching) = auth.ready(asked.clock, &round)
        && let Err(error) = fetching.await
    {
        let policy = asked.rule.map(|rule| rule.on_unavailable).unwrap_or_default();
        trace.notes.push(format!("no credential now ({error}); `on_unavailable` is `{policy:?}`").to_lowercase());
        return None;
    }
    let body = asked.body.cloned().unwrap_or_default();
    let seen = match auth.body_use_in(head, &round) {
        BodyUse::Whole | BodyUse::Most => Some(body.clone()),
        BodyUse::Prefix(bytes) => Some(body.slice(..bytes.min(body.len()))),
        BodyUse::Pass | BodyUse::Spare | BodyUse::Replay => None,
    };
    let is_beginning = seen.as_ref().is_some_and(|seen| seen.len() < body.len());
    let mut lent = Trace::default();
    let mut out = Outgoing::new(head, asked.target, Hop::Origin, seen.as_ref(), asked.clock, Some(&mut lent))
        .beginning(is_beginning);
    let applied = auth.apply(&mut out, &mut round);
    let plan = out.into_plan();
    trace.injected.extend(lent.injected);
    trace.canonical.extend(lent.canonical);
    trace.notes.extend(lent.notes);
    let leaves = applied.and_then(|()| leaving_body(plan, &body));
    leaves.unwrap_or_else(|error| {
        trace.notes.push(format!("the proxy would refuse this request: {error}"));
        None
    })
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

/// Masks secrets unless a person asked not to.
struct Mask<'a> {
    redactor: &'a Redactor,
    off: bool,
}

impl Mask<'_> {
    fn header(&self, name: &HeaderName, value: &HeaderValue) -> String {
        if self.off {
            return String::from_utf8_lossy(value.as_bytes()).into_owned();
        }
        String::from_utf8_lossy(&self.redactor.mask_field(name.as_str(), value)).into_owned()
    }

    fn url(&self, url: &str) -> String {
        if self.off { url.to_owned() } else { self.redactor.mask_url(url).into_owned() }
    }

    fn text(&self, text: &str) -> String {
        if self.off { text.to_owned() } else { self.redactor.mask_text(text).into_owned() }
    }

    fn body(&self, body: &Bytes) -> Vec<u8> {
        if self.off { body.to_vec() } else { self.redactor.mask_bytes(body).into_owned() }
    }
}

fn as_json(leaving: &Leaving, mask: &Mask<'_>) -> Value {
    let Leaving { head, target, body, trace, explanation, credentials } = leaving;
    let rule = explanation
        .rule
        .as_ref()
        .map(|rule| json!({"name": rule.name, "file": rule.file, "line": rule.line, "path": rule.path}));
    let headers: Vec<_> =
        head.headers.iter().map(|(name, value)| json!([name.as_str(), mask.header(name, value)])).collect();
    let injected: Vec<_> =
        trace.injected.iter().map(|slot| json!({"where": slot.place(), "name": slot.name()})).collect();
    let mut canonical = Map::new();
    for (scheme, label, text) in &trace.canonical {
        let of_scheme = canonical.entry((*scheme).to_owned()).or_insert_with(|| json!({}));
        if let Value::Object(labels) = of_scheme {
            labels.insert((*label).to_owned(), Value::String(mask.text(text)));
        }
    }
    let notes: Vec<_> = trace.notes.iter().map(|note| mask.text(note)).collect();
    json!({
        "rule": rule,
        "credential": credentials,
        "request": {
            "method": head.method.as_str(),
            "url": mask.url(&head.uri.to_string()),
            "target": mask.url(&request_target(head, target, Hop::Origin)),
            "headers": headers,
            "body_base64": body.as_ref().map(|body| BASE64_STANDARD.encode(mask.body(body))),
        },
        "injected": injected,
        "canonical": canonical,
        "notes": notes,
        "considered": explanation.considered,
    })
}

fn as_text(leaving: &Leaving, mask: &Mask<'_>) -> String {
    let Leaving { head, target, body, trace, explanation, credentials } = leaving;
    let mut text = format!("{}\n", explanation.to_string().trim_end());
    let _ = match credentials.as_slice() {
        [] => writeln!(text, "\nno credential: the request leaves as it came"),
        names => writeln!(text, "\ncredential {}", inert::line(&names.join(" + "))),
    };
    let mut line = |sign: char, content: String| {
        let _ = writeln!(text, " {sign} {}", inert::line(&content));
    };
    line('>', format!("{} {} to {target}", head.method, mask.url(&request_target(head, target, Hop::Origin))));
    for (name, value) in &head.headers {
        let ours = trace.injected.iter().any(|slot| slot.place() == "header" && slot.name() == name.as_str());
        line(if ours { '+' } else { '>' }, format!("{name}: {}", mask.header(name, value)));
    }
    if let Some(body) = body {
        line('>', format!("({} bytes of body)", body.len()));
    }
    for (scheme, label, canonical) in &trace.canonical {
        let _ = writeln!(text, "\n{scheme}: {label}");
        for canonical_line in mask.text(canonical).split('\n') {
            let _ = writeln!(text, "   {}", inert::line(canonical_line));
        }
    }
    for note in &trace.notes {
        let _ = writeln!(text, "\nnote: {}", inert::line(&mask.text(note)));
    }
    text
}
