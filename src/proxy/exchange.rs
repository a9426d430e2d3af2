//! One request and its answer, from top to bottom: the rule, the credential, the sends, the delivery.
//!
//! This is the heart of the program. It knows phases, not schemes: what a credential needs it says through
//! [`AuthScheme`](crate::auth::AuthScheme), what it writes it writes into [`Outgoing`](crate::auth::scheme::Outgoing).
//! [`sending`] is one send of possibly several, [`again`] what happens between two.

mod again;
mod sending;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header, request, response};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use tokio::time::timeout;

use super::{
    Connection, Snapshot,
    body::{ReadError, RequestBody, ShutGate},
    delivery::{Ahead, Delivery, Lease, OutBody},
    error::{ErrorId, ProxyError},
    hop,
    prepare::{Admitted, Asked, GoesOn, body_too_large, without},
    reply, trace, tunnel,
};
use crate::{
    auth::{
        AuthScheme, challenge,
        scheme::{BodyUse, Hop, MAX_REPLY_PREFIX, Ready, Reply, Round, Verdict},
    },
    console::record::{CURRENT, Recording, SendRecording},
    metrics::{Measure, Outcome},
    rules::Rule,
    target::Target,
    upstream::{Link, Pins, body::Answer},
};

/// The first send and at most three more.
const MAX_SENDS: u8 = 4;
/// What the client did to its own body.
const BROKEN_OFF: &str = "the body broke off";
/// Time for the beginning of an answer's body that a credential wants to see.
const PREFIX_PATIENCE: Duration = Duration::from_secs(10);

/// Forwards one request and gives the answer for the client: the origin's, or our own.
pub async fn forward(conn: &Connection, mut request: Request<Incoming>, target: &Target) -> Response<OutBody> {
    let begun = Instant::now();
    let recording = conn.begin_recording();
    if let Some(recording) = &recording {
        recording.request(&request, Some(target));
    }
    let snapshot = conn.proxy.snapshot();
    let exchange = Exchange { conn, snapshot: &snapshot, target, recording: recording.as_ref(), begun };
    let rule = exchange.find_rule(&request);
    let mut measure = exchange.measure(&request, rule);
    if hop::ends_here(&mut request) {
        return exchange.end_here(request.method(), &mut measure);
    }
    let mut prepared = match exchange.prepare(request, rule) {
        Ok(prepared) => prepared,
        Err(error) => return exchange.refuse(error, &mut measure),
    };
    let result = exchange.run(&mut prepared, &mut measure).await;
    result.unwrap_or_else(|error| exchange.refuse(error, &mut measure))
}

/// Everything that holds for all sends of one exchange.
struct Exchange<'a> {
    conn: &'a Connection,
    snapshot: &'a Snapshot,
    target: &'a Target,
    recording: Option<&'a Recording>,
    begun: Instant,
}

/// The request as it goes out, and what must be known to send it again.
struct Prepared<'a> {
    head: request::Parts,
    body: RequestBody,
    rule: Option<&'a Rule>,
    auth: Option<&'a dyn AuthScheme>,
    round: Round,
    /// The connection of the last send, where a handshake goes on on it.
    link: Option<Link>,
    /// The client itself logs in to the connection that this leaves on.
    logs_in: bool,
    /// Where the connection stays afterwards, if it belongs to the client's.
    pins: Option<Arc<Pins>>,
    upgrade: Option<(HeaderValue, OnUpgrade)>,
    expect: bool,
}

impl Prepared<'_> {
    /// What the credential needs of the body, after what it has seen so far.
    fn body_use(&self) -> BodyUse {
        usage(self.auth, &self.head, &self.round)
    }

    /// The head for one send. A request that is hardly ever sent twice gives its own away and keeps a copy without its
    /// extensions: these hold the letter case of the field names, which is most of what a copy costs.
    fn head_for_send(&mut self, expects_another: bool) -> request::Parts {
        if expects_another {
            return self.head.clone();
        }
        let copy = copy(&self.head);
        std::mem::replace(&mut self.head, copy)
    }
}

fn usage(auth: Option<&dyn AuthScheme>, head: &request::Parts, round: &Round) -> BodyUse {
    auth.map_or(BodyUse::Pass, |auth| auth.body_use_in(head, round))
}

/// A head without its extensions.
fn copy(head: &request::Parts) -> request::Parts {
    let mut copy = Request::new(()).into_parts().0;
    copy.method = head.method.clone();
    copy.uri = head.uri.clone();
    copy.version = head.version;
    copy.headers = head.headers.clone();
    copy
}

/// What one send brought.
struct Sent {
    /// The request as it left, for credentials that expect to send twice and judge the answer by it.
    request: Option<Box<request::Parts>>,
    /// The body was kept for a later send.
    withheld: bool,
    response: Response<Answer>,
    /// What has been read of the answer's body.
    ahead: Option<Box<Ahead>>,
    link: Link,
    record: Option<SendRecording>,
    /// Holds the body back while it is not known whether this answer will do.
    gate: Option<ShutGate>,
}

impl<'a> Exchange<'a> {
    async fn run(&self, prepared: &mut Prepared<'_>, measure: &mut Measure) -> Result<Response<OutBody>, ProxyError> {
        if prepared.body_use() > BodyUse::Replay {
            Box::pin(self.read_body(prepared, measure)).await?;
        }
        for sends in 1..=MAX_SENDS {
            self.make_ready(prepared, measure).await?;
            let mut sent = self.send(prepared, sends == 1, measure).await?;
            let verdict = self.review(prepared, &mut sent, sends, measure).await?;
            if verdict == Verdict::Deliver {
                return self.deliver(prepared, sent, measure);
            }
            // Boxed, as all that is rare: the usual request should not carry the room for it.
            Box::pin(self.send_again(prepared, sent, verdict, measure)).await;
        }
        // `review` delivers the answer to the last send, whatever it is.
        Err(ProxyError::new(ErrorId::CredentialRejected, "no send was accepted"))
    }

    /// Begins to count the request.
    fn measure(&self, request: &Request<Incoming>, rule: Option<&Rule>) -> Measure {
        tracing::debug!(
            trace_id = trace::trace_id(request.headers()),
            target = %self.target,
            rule = rule.map(|rule| rule.name.as_str()),
            "request"
        );
        Measure::new(rule.map_or(&self.conn.proxy.meters.unmatched, |rule| &rule.meter), self.begun)
    }

    /// The answer is our own: why there is no other.
    #[cold]
    fn refuse(&self, error: ProxyError, measure: &mut Measure) -> Response<OutBody> {
        measure.refused(error.id.number());
        self.conn.shared.drop_interim();
        if let Some(recording) = self.recording {
            recording.refused(error.status(), error.id.as_str(), &error.detail);
            recording.finish(None);
        }
        error.into_response()
    }

    /// The request was to go no further than here (RFC 9110 section 7.6.2).
    #[cold]
    fn end_here(&self, method: &Method, measure: &mut Measure) -> Response<OutBody> {
        let mut response = Response::new(OutBody::Empty);
        if *method == Method::TRACE {
            // Nothing of a request is ever repeated.
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        }
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("OPTIONS"));
        let (head, body) = response.into_parts();
        measure.answered().set(Outcome::of(head.status));
        if let Some(recording) = self.recording {
            recording.response(&head);
            recording.finish(None);
        }
        Response::from_parts(head, body)
    }

    fn asked(&self) -> Asked<'a> {
        let Self { snapshot, target, recording, .. } = *self;
        Asked { snapshot, target, client: self.conn.name.get(), recording }
    }

    /// Finds the rule.
    fn find_rule(&self, request: &Request<Incoming>) -> Option<&'a Rule> {
        let rule = self.snapshot.rules.find(&self.asked().lookup(request));
        if let Some(rule) = rule {
            rule.decided.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(recording) = self.recording {
            recording.rule(rule);
        }
        rule.map(AsRef::as_ref)
    }

    /// Makes the request ready for its first send: its credential chosen, connection fields off, the slots empty.
    fn prepare(&self, mut request: Request<Incoming>, rule: Option<&'a Rule>) -> Result<Prepared<'a>, ProxyError> {
        let asked = self.asked();
        let Admitted { auth, stripped } = asked.admit(&mut request, rule)?;
        let upgrade = stripped.upgrade.map(|protocol| (protocol, hyper::upgrade::on(&mut request)));
        let (mut head, incoming) = request.into_parts();
        let (auth, round) = asked.make_room(&mut head, rule, auth)?;
        let limit = self.snapshot.settings.limits.body_buffer;
        let mut body = RequestBody::new(incoming, usage(auth, &head, &round), limit);
        if !body.is_empty() {
            body.guard(auth.and(rule).and_then(|rule| rule.auth.clone()));
        }
        let logs_in = auth.is_none() && challenge::logs_in_connection(&head.headers);
        let expect = stripped.expect;
        Ok(Prepared { head, body, rule, auth, round, link: None, logs_in, pins: None, upgrade, expect })
    }

    /// Reads what the credential needs of the body before the first send.
    async fn read_body(&self, prepared: &mut Prepared<'_>, measure: &mut Measure) -> Result<(), ProxyError> {
        let limit = self.snapshot.settings.limits.body_buffer;
        let (usage, converses) = (prepared.body_use(), hop::is_conversation(&prepared.head));
        let from = Instant::now();
        let read = prepared.body.read(usage, limit, converses).await;
        measure.client(from);
        read.map_err(|error| self.body_error(&error, limit))
    }

    fn body_error(&self, error: &ReadError, limit: usize) -> ProxyError {
        match error {
            ReadError::TooLarge => body_too_large(limit),
            ReadError::Endless => ProxyError::new(
                ErrorId::CredentialRejected,
                "the credential signs the whole body, and this one is a stream in both directions that does not end \
                 before its answer; give this path a credential that leaves the body out (`payload: unsigned`, a token)",
            )
            .closing(),
            ReadError::Broken => {
                let why = self.conn.shared.broken().map_or(BROKEN_OFF, |violation| violation.0);
                ProxyError::new(ErrorId::BadRequest, why).closing()
            }
        }
    }

    /// Waits for a credential that has to be fetched. Without one the rule's `on_unavailable` decides.
    async fn make_ready(&self, prepared: &mut Prepared<'_>, measure: &mut Measure) -> Result<(), ProxyError> {
        let Some(auth) = prepared.auth else { return Ok(()) };
        let Ready::After(fetching) = auth.ready(&self.conn.proxy.clock, &prepared.round) else { return Ok(()) };
        let from = Instant::now();
        let fetched = CURRENT.scope(self.recording.cloned(), fetching).await;
        measure.credential(from);
        let Err(error) = fetched else { return Ok(()) };
        let GoesOn { bare, note } = without(error, auth, prepared.rule)?;
        self.note(|| note);
        if bare {
            prepared.auth = None;
        }
        Ok(())
    }

    fn note(&self, text: impl FnOnce() -> String) {
        if let Some(recording) = self.recording {
            recording.note(text());
        }
    }

    /// Asks the credential whether the answer will do.
    async fn review(
        &self,
        prepared: &mut Prepared<'_>,
        sent: &mut Sent,
        sends: u8,
        measure: &mut Measure,
    ) -> Result<Verdict, ProxyError> {
        let status = sent.response.status();
        if sent.link.hop() == Hop::ParentProxy && status == Hop::ParentProxy.refusal() {
            let detail = "the parent proxy refused our credentials; check `proxy.upstream.auth`";
            return Err(ProxyError::new(ErrorId::UpstreamConnect, detail));
        }
        let Some(auth) = prepared.auth else { return Ok(Verdict::Deliver) };
        let wanted = auth.reply_prefix(status, sent.response.headers(), &prepared.round).min(MAX_REPLY_PREFIX);
        if wanted > 0 {
            // A slow answer is judged by what has come of it.
            let from = Instant::now();
            let reading = sent.ahead.get_or_insert_default().read(sent.response.body_mut(), wanted);
            let _ = timeout(PREFIX_PATIENCE, reading).await;
            measure.upstream(from);
        }
        let body = sent.ahead.as_ref().map(|ahead| ahead.bytes()).unwrap_or_default();
        let request = sent.request.as_deref().unwrap_or(&prepared.head);
        let answer = Reply {
            body: &body,
            body_complete: sent.ahead.as_ref().is_some_and(|ahead| ahead.is_complete()),
            trailers: sent.ahead.as_ref().and_then(|ahead| ahead.trailers()),
            ..Reply::new(status, sent.response.headers(), Hop::Origin, request, self.target)
        };
        prepared.round.challenges.clear();
        if answer.is_refusal() {
            prepared.round.challenges = challenge::parse(answer.headers, &Hop::Origin.challenge());
        }
        let mut verdict = auth.review(&answer, &mut prepared.round);
        for note in prepared.round.notes.drain(..) {
            self.note(|| note);
        }
        if let Some(refused) = prepared.round.refused.take() {
            self.note(|| refused.text());
            if let Some(record) = &sent.record {
                record.refused(refused);
            }
        }
        if verdict == Verdict::Refuse {
            return Err(auth.refusal(&prepared.round).into());
        }
        if answer.is_refusal() {
            // What was proved on it, or would have been, counts no more; it is used again only if the handshake succeeds.
            if auth.binding().is_some_and(|binding| binding.http1_only) {
                sent.link.set_doubtful();
            }
        } else if prepared.round.proved {
            sent.link.set_authenticated();
        }
        if verdict == Verdict::Deliver {
            return Ok(verdict);
        }
        if verdict == Verdict::Renew {
            // Also where this request cannot be sent again: the next one finds a better credential.
            let from = Instant::now();
            let renewed = CURRENT.scope(self.recording.cloned(), auth.renew(&prepared.round)).await;
            measure.credential(from);
            let renewed = renewed?;
            verdict = if renewed { Verdict::Retry } else { Verdict::Deliver };
        }
        if verdict != Verdict::Deliver && (sends == MAX_SENDS || !prepared.body.take_back()) {
            self.note(|| "refused, and the request cannot be sent again".to_owned());
            return Ok(Verdict::Deliver);
        }
        if verdict >= Verdict::Retry {
            prepared.round.attempt += 1;
        }
        Ok(verdict)
    }

    /// Streams the answer to the client, or joins both connections if it switches protocols.
    fn deliver(
        &self,
        prepared: &mut Prepared<'_>,
        sent: Sent,
        measure: &mut Measure,
    ) -> Result<Response<OutBody>, ProxyError> {
        let Sent { mut response, ahead, link, record, .. } = sent;
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let upstream = switched.then(|| hyper::upgrade::on(&mut response));
        let (mut head, incoming) = response.into_parts();
        let version = head.version;
        let upgrade = hop::strip_response(&mut head.headers, version).upgrade;
        if let Some(auth) = prepared.auth {
            auth.tidy(&mut head.headers, &prepared.round);
        }
        reply::protect(&mut head, prepared.auth, self.conn.is_intercepted());
        if prepared.auth.is_none() && self.conn.is_http1 {
            reply::announce_pins(&mut head);
        }
        head.version = Version::HTTP_11;
        match (upstream, prepared.upgrade.take()) {
            (Some(upstream), Some((asked, client))) => {
                let records = self.recording.cloned().zip(record);
                measure.answered().set(Outcome::of(head.status));
                self.switch(head, upgrade.unwrap_or(asked), client, upstream, records)
            }
            (Some(_), None) => {
                Err(ProxyError::new(ErrorId::UpstreamProtocol, format!("{} switched protocols unasked", self.target)))
            }
            (None, asked) => {
                // After a request to upgrade the client may have sent bytes that are no request.
                if asked.is_some() {
                    head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                if let Some(recording) = self.recording {
                    recording.response(&head);
                }
                let records = self.recording.cloned().zip(record);
                let request = std::mem::take(&mut prepared.body);
                let lease = Lease { link, request, pins: prepared.pins.take() };
                let ending = (measure.answered(), Outcome::of(head.status));
                let delivery = Delivery::new(ahead, incoming, lease, records, ending, self.conn.shared.running());
                Ok(Response::from_parts(head, OutBody::Delivery(delivery)))
            }
        }
    }

    fn switch(
        &self,
        mut head: response::Parts,
        protocol: HeaderValue,
        client: OnUpgrade,
        upstream: OnUpgrade,
        records: Option<(Recording, SendRecording)>,
    ) -> Result<Response<OutBody>, ProxyError> {
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(header::UPGRADE, protocol);
        if let Some(recording) = self.recording {
            recording.response(&head);
        }
        self.conn.shared.switch();
        let tasks = self.conn.proxy.tasks.clone();
        tasks.spawn(tunnel::join_upgrades(client, upstream, records));
        Ok(Response::from_parts(head, OutBody::Empty))
    }
}
