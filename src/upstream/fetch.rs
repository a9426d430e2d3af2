//! Requests of our own, on behalf of schemes: over the same connections, roots and parent proxy as everything else,
//! and recorded like a send of the exchange that needs them.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::{Link, LinkError, Upstream, Want, body::SendBody};
use crate::{
    auth::{
        fetch::{Fetch, FetchError, FetchOptions},
        scheme::{Hop, Trace},
    },
    console::record::{CURRENT, SendKind, SendRecording},
    target::Target,
    tls::client::TlsPolicy,
};

impl Fetch for Upstream {
    fn fetch(
        &self,
        request: Request<Bytes>,
        options: FetchOptions,
    ) -> BoxFuture<'static, Result<Response<Bytes>, FetchError>> {
        let upstream = self.clone();
        Box::pin(async move {
            let kind = SendKind::Token { credential: options.credential.clone() };
            let recording = CURRENT.try_with(Clone::clone).ok().flatten().map(|current| current.send(kind));
            let work = exchange(&upstream, request, &options, recording.as_ref());
            let result = tokio::time::timeout(options.timeout, work).await;
            let result = result.unwrap_or(Err(FetchError::Timeout(options.timeout)));
            match (&recording, &result) {
                (Some(recording), Err(error)) => recording.failed(&error.to_string()),
                (Some(recording), Ok(_)) => recording.end(),
                (None, _) => {}
            }
            result
        })
    }

    fn detach(&self, work: BoxFuture<'static, ()>) {
        match CURRENT.try_with(Clone::clone) {
            Ok(current) => drop(tokio::spawn(CURRENT.scope(current, work))),
            Err(_) => drop(tokio::spawn(work)),
        }
    }
}

async fn exchange(
    upstream: &Upstream,
    request: Request<Bytes>,
    options: &FetchOptions,
    recording: Option<&SendRecording>,
) -> Result<Response<Bytes>, FetchError> {
    let target = Target::from_uri(request.uri())
        .map_err(|error| FetchError::Connect(format!("the URL is unusable: {error}")))?;
    let (mut head, body) = request.into_parts();
    if !head.headers.contains_key(header::HOST) {
        let host = HeaderValue::from_str(&target.authority());
        head.headers.insert(header::HOST, host.map_err(|error| FetchError::Connect(error.to_string()))?);
    }
    let mut fresh = false;
    let mut link = loop {
        let want = Want {
            target: &target,
            binding: options.binding.as_ref(),
            tls: &TlsPolicy::DEFAULT,
            http1_only: false,
            prefer_http1: false,
            // An endpoint may come out of a document that somebody else wrote, so no address is beyond doubt.
            named: false,
            client: None,
            fresh,
        };
        let mut link = upstream.link(want).await.map_err(|error| cannot_connect(&error))?;
        record_request(recording, &link, &head, &target, &body);
        let outgoing = Request::from_parts(head.clone(), SendBody::Full(Some(body.clone())));
        match link.send(outgoing).await {
            Ok(answer) => break (link, answer),
            // A pooled connection that was closed under us: not a byte has left, so once more on a new one.
            Err(error) if error.unsent.is_some() && !fresh => fresh = true,
            Err(error) => return Err(FetchError::Protocol(describe(&error.error))),
        }
    };
    let (link_used, answer) = (&mut link.0, link.1);
    if link_used.hop() == Hop::ParentProxy && answer.status() == Hop::ParentProxy.refusal() {
        return Err(FetchError::Connect("the parent proxy refused our credentials".to_owned()));
    }
    let (reply, reply_body) = answer.into_parts();
    if let Some(recording) = recording {
        recording.reply(&reply);
    }
    let limit = options.max_body_bytes;
    let body = Limited::new(reply_body, limit).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            FetchError::TooLarge(limit)
        } else {
            FetchError::Protocol(error.to_string())
        }
    })?;
    let body = body.to_bytes();
    if let Some(recording) = recording {
        recording.reply_body(&body);
    }
    link.0.release();
    Ok(Response::from_parts(reply, body))
}

fn record_request(
    recording: Option<&SendRecording>,
    link: &Link,
    head: &http::request::Parts,
    target: &Target,
    body: &Bytes,
) {
    let Some(recording) = recording else { return };
    recording.link(link.info(), link.is_reused());
    let request_target = crate::auth::scheme::request_target(head, target, link.hop());
    recording.request(head, target, &request_target, Trace::default());
    if !body.is_empty() {
        recording.request_body(body);
    }
    link.tap(Some(recording.clone()));
}

fn cannot_connect(error: &LinkError) -> FetchError {
    FetchError::Connect(error.to_string())
}

/// An error with its causes; hyper's own text names only the outermost.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
