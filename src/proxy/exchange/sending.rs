//! One send of an exchange: a connection, the credential on the head, the request out, the head of the answer back.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Instant,
};

use http::{Extensions, Request, Response, StatusCode, Version, header, request};

use super::{
    super::{
        body::{Gate, RequestBody, ShutGate},
        error::{ErrorId, ProxyError},
        hop,
        prepare::{ask_upgrade, name_te},
        reply,
    },
    BROKEN_OFF, Exchange, Prepared, Sent, copy,
};
use crate::{
    auth::scheme::{BodyPlan, BodyUse, Hop, LinkState, Outgoing, Trace, request_target},
    console::record::{CURRENT, Recording, SendKind, SendRecording},
    metrics::Measure,
    rules::NamedAddresses,
    upstream::{
        self, Answered, Link, Want, Writes,
        body::{Answer, SendBody},
    },
};

impl Exchange<'_> {
    /// Leases a connection and sends the request on it. A pooled connection that turns out dead is replaced.
    pub(super) async fn send(
        &self,
        prepared: &mut Prepared<'_>,
        first: bool,
        measure: &mut Measure,
    ) -> Result<Sent, ProxyError> {
        let mut fresh = false;
        loop {
            let (mut link, state) = self.lease(prepared, fresh, measure).await?;
            let judges = prepared.body_use() > BodyUse::Spare;
            let mut head = prepared.head_for_send(judges);
            let (trace, plan) = self.apply(prepared, &mut head, &link, state)?;
            head.version = link.version();
            let record = self.record(&link, &head, trace);
            let sent = judges.then(|| Box::new(copy(&head)));
            let withheld = matches!(plan, BodyPlan::Withheld);
            let gate = self.gate(prepared, &mut head, &link, first && !withheld);
            let body = prepared.body.take(plan, gate.clone(), record.clone());
            link.tap(record.clone());
            let (idempotent, version) = (head.method.is_idempotent(), prepared.head.version);
            let request = Request::from_parts(head, body);
            let outgoing = self.outgoing(request, version, prepared, gate.clone(), record.as_ref());
            let sent_at = Instant::now();
            let writes = (!prepared.body.is_sent()).then(|| link.writes());
            let answer = {
                let mut sending = pin!(link.send(outgoing));
                self.answer(sending.as_mut(), sent_at, &prepared.body, writes.as_ref()).await?
            };
            measure.upstream(sent_at);
            match answer {
                Ok(mut response) => {
                    if let Some(record) = &record {
                        response = recorded(response, record);
                    }
                    hop::settle_answer(response.headers_mut()).map_err(|why| self.unusable(why, record.as_ref()))?;
                    let gate = gate.and_then(ShutGate::new);
                    return Ok(Sent { request: sent, withheld, response, ahead: None, link, record, gate });
                }
                Err(error) => {
                    if let Some(record) = &record {
                        record.failed(&error.why);
                    }
                    if let Some(fault) = prepared.body.fault() {
                        return Err(ProxyError::from(fault.clone()).closing());
                    }
                    let safe = error.unprocessed || (link.is_reused() && idempotent);
                    if fresh || !safe || !prepared.body.take_back() {
                        return Err(self.send_error(&error.why, &prepared.body));
                    }
                    if let Some(extensions) = error.unsent {
                        prepared.head.extensions = extensions;
                    }
                    fresh = true;
                }
            }
        }
    }

    /// The connection for the next send: the one of the send before if a handshake goes on on it, else a leased one.
    async fn lease(
        &self,
        prepared: &mut Prepared<'_>,
        fresh: bool,
        measure: &mut Measure,
    ) -> Result<(Link, LinkState), ProxyError> {
        if let Some(link) = prepared.link.take().filter(|_| !fresh) {
            return Ok((link, LinkState::Continued));
        }
        let binding = prepared.auth.and_then(|auth| auth.binding());
        let policy = prepared.rule.map_or(&self.conn.proxy.default_tls, |rule| &rule.tls);
        let want = Want {
            target: self.target,
            binding: binding.as_ref(),
            tls: policy,
            http1_only: prepared.upgrade.is_some(),
            prefer_http1: self.conn.is_http1 || prepared.logs_in,
            named: self.target.host.ip().is_some_and(|ip| self.snapshot.rules.names_address(ip)),
            client: prepared.round.client.as_deref(),
            fresh: fresh || prepared.logs_in,
        };
        if let Some(pins) = self.conn.pins.get().filter(|_| prepared.auth.is_none()) {
            let pinned = pins.take(&self.conn.proxy.upstream, &want).filter(|_| !fresh);
            prepared.pins = pinned.is_some().then(|| Arc::clone(pins));
            if let Some(link) = pinned {
                return Ok((link, LinkState::Fresh));
            }
        }
        let upstream = &self.conn.proxy.upstream;
        let link = match upstream.pooled(&want, self.begun)? {
            Some(link) => link,
            None => {
                let from = Instant::now();
                let leased = Box::pin(CURRENT.scope(self.recording.cloned(), upstream.link(want))).await;
                measure.upstream(from);
                leased?
            }
        };
        if prepared.logs_in && link.version() <= Version::HTTP_11 {
            // Of use to this client alone, and only where its requests come one by one.
            link.set_doubtful();
            prepared.pins = self.conn.is_http1.then(|| Arc::clone(self.conn.pins.get_or_init(Arc::default)));
        }
        let state = link.state();
        Ok((link, state))
    }

    /// Lets the credential write itself onto the head.
    fn apply(
        &self,
        prepared: &mut Prepared<'_>,
        head: &mut request::Parts,
        link: &Link,
        state: LinkState,
    ) -> Result<(Trace, BodyPlan), ProxyError> {
        let mut trace = Trace::default();
        let mut plan = BodyPlan::AsIs;
        if let Some(auth) = prepared.auth {
            prepared.round.link = state;
            let (body, complete) = prepared.body.seen();
            let lent = self.recording.is_some_and(Recording::wants_heads).then_some(&mut trace);
            prepared.round.proved = false;
            let mut out = Outgoing::new(head, self.target, Hop::Origin, body, &self.conn.proxy.clock, lent)
                .on(state, link.certificate())
                .beginning(!complete)
                .with_body(!prepared.body.is_empty());
            auth.apply(&mut out, &mut prepared.round)?;
            plan = out.into_plan();
        }
        if let Some((protocol, _)) = &prepared.upgrade {
            ask_upgrade(&mut head.headers, protocol);
        }
        if link.version() <= Version::HTTP_11 {
            name_te(&mut head.headers);
        }
        Ok((trace, plan))
    }

    fn record(&self, link: &Link, head: &request::Parts, trace: Trace) -> Option<SendRecording> {
        let send = self.recording?.send(SendKind::Request);
        send.link(link.info(), link.is_reused());
        send.request(head, self.target, &request_target(head, self.target, link.hop()), trace);
        Some(send)
    }

    /// Holds the body back for `Expect: 100-continue` where the origin can answer it; else drops the expectation.
    fn gate(&self, prepared: &Prepared<'_>, head: &mut request::Parts, link: &Link, first: bool) -> Option<Arc<Gate>> {
        if !prepared.expect {
            return None;
        }
        let streams = !prepared.body.is_empty() && prepared.body.whole().is_none();
        if first && streams && self.conn.is_http1 && link.version() <= Version::HTTP_11 {
            return Some(Arc::default());
        }
        head.headers.remove(header::EXPECT);
        None
    }

    /// The request for the HTTP library, listening for interim answers.
    fn outgoing(
        &self,
        mut request: Request<SendBody>,
        version: Version,
        prepared: &Prepared<'_>,
        gate: Option<Arc<Gate>>,
        record: Option<&SendRecording>,
    ) -> Request<SendBody> {
        if self.conn.is_http1 && version == Version::HTTP_11 {
            let shared = Arc::clone(&self.conn.shared);
            let auth = prepared.auth.and(prepared.rule).and_then(|rule| rule.auth.clone());
            let intercepted = self.conn.is_intercepted();
            let record = record.cloned();
            hyper::ext::on_informational(&mut request, move |interim| {
                if let Some(record) = &record {
                    record.interim(interim.status());
                }
                match (interim.status(), &gate) {
                    (StatusCode::CONTINUE, Some(gate)) => gate.open(),
                    (StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS, _) => {}
                    (status, _) => {
                        let headers = reply::interim_fields(status, interim.headers(), auth.as_deref(), intercepted);
                        shared.interim(&reply::interim(status, &headers));
                    }
                }
            });
        }
        request
    }

    /// Waits for the head of the answer, at most `response_timeout` after the request has left. Until it has, the origin
    /// may not stop for so long to take what there is of the body: as the kernel sees it, which may hear of nothing for a
    /// good while where an origin takes little at a time.
    async fn answer(
        &self,
        mut sending: Pin<&mut impl Future<Output = Answered>>,
        sent_at: Instant,
        body: &RequestBody,
        writes: Option<&Writes>,
    ) -> Result<Result<Response<Answer>, Failed>, ProxyError> {
        let limit = self.snapshot.settings.limits.response_timeout;
        let mut from = sent_at.into();
        loop {
            let before = (body.flow(), writes.map(Writes::count));
            match self.conn.shared.timer.limit(from, limit, sending.as_mut()).await {
                Some(Ok(response)) => {
                    if self.conn.is_http1 {
                        self.conn.shared.interim_written().await;
                    }
                    return Ok(Ok(response));
                }
                Some(Err(error)) => {
                    let unprocessed = error.unsent.is_some() || error.is_unprocessed();
                    let unsent = error.unsent.map(|request| request.into_parts().0.extensions);
                    return Ok(Err(Failed { why: upstream::describe(&error.error), unprocessed, unsent }));
                }
                None if before.0.sent => {
                    let detail = format!("{} did not answer within {} s", self.target, limit.as_secs());
                    return Err(ProxyError::new(ErrorId::UpstreamTimeout, detail));
                }
                None if !before.0.waits && before == (body.flow(), writes.map(Writes::count)) => {
                    let detail = format!("{} took nothing of the request for {} s", self.target, limit.as_secs());
                    return Err(ProxyError::new(ErrorId::UpstreamTimeout, detail).closing());
                }
                None => from = tokio::time::Instant::now(),
            }
        }
    }

    /// An answer that cannot be passed on as it is.
    #[cold]
    fn unusable(&self, why: &str, record: Option<&SendRecording>) -> ProxyError {
        if let Some(record) = record {
            record.failed(why);
        }
        ProxyError::new(ErrorId::UpstreamProtocol, format!("the answer of {}: {why}", self.target))
    }

    fn send_error(&self, why: &str, body: &RequestBody) -> ProxyError {
        match self.conn.shared.broken() {
            Some(violation) => ProxyError::new(ErrorId::BadRequest, violation.0).closing(),
            None if body.is_broken() => ProxyError::new(ErrorId::BadRequest, BROKEN_OFF).closing(),
            None if upstream::is_refusal(why) => {
                ProxyError::new(ErrorId::UpstreamTls, format!("{}: {}", self.target, upstream::refusal(why)))
            }
            None => ProxyError::new(ErrorId::UpstreamProtocol, format!("{}: {why}", self.target)),
        }
    }
}

/// Why a send failed.
struct Failed {
    why: String,
    /// The origin has not begun with it.
    unprocessed: bool,
    /// Set if not a byte of it reached the connection: what the head brought along besides its fields.
    unsent: Option<Extensions>,
}

fn recorded(response: Response<Answer>, record: &SendRecording) -> Response<Answer> {
    let (head, body) = response.into_parts();
    record.reply(&head);
    Response::from_parts(head, body)
}
