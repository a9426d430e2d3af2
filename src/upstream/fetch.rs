//! Requests of our own, on behalf of schemes: over the same connections, roots and parent proxy as everything else,
//! and recorded like a send of the exchange that needs them.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::{Link, LinkError, Upstream, Want, body::SendBody};
use crate::{
    auth::{
        fetch::{Fetch, FetchError, FetchOptions, METADATA_ADDRESSES},
        scheme::{Hop, Trace},
    },
    console::record::{CURRENT, SendKind, SendRecording},
    target::{Scheme, Target},
    tls::client::TlsPolicy,
};

impl Fetch for Upstream {
    fn fetch(
        &self,
        request: Request<Bytes>,
        options: FetchOptions,
    ) -> BoxFuture<'static, Result<Response<Bytes>, FetchError>> {
        recorded(self.clone(), request, options, Way::Usual)
    }

    fn fetch_metadata(
        &self,
        request: Request<Bytes>,
        options: FetchOptions,
    ) -> BoxFuture<'static, Result<Response<Bytes>, FetchError>> {
        recorded(self.clone(), request, options, Way::Metadata)
    }

    fn detach(&self, work: BoxFuture<'static, ()>) {
        match CURRENT.try_with(Clone::clone) {
            Ok(current) => drop(tokio::spawn(CURRENT.scope(current, work))),
            Err(_) => drop(tokio::spawn(work)),
        }
    }

    fn carry_out(&self, work: BoxFuture<'static, ()>) {
        self.detach(Box::pin(self.0.work.track_future(work)));
    }
}

impl Upstream {
    /// Waits until nothing is being carried out.
    pub async fn finish_work(&self) {
        self.0.work.close();
        self.0.work.wait().await;
    }
}

/// Which connections may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Those for everything else.
    Usual,
    /// To a metadata service of this machine: directly.
    Metadata,
}

fn recorded(
    upstream: Upstream,
    request: Request<Bytes>,
    options: FetchOptions,
    way: Way,
) -> BoxFuture<'static, Result<Response<Bytes>, FetchError>> {
    Box::pin(async move {
        let kind = SendKind::Token { credential: options.credential.clone() };
        let recording = CURRENT.try_with(Clone::clone).ok().flatten().map(|current| current.send(kind));
        let work = exchange(&upstream, request, &options, way, recording.as_ref());
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

async fn exchange(
    upstream: &Upstream,
    request: Request<Bytes>,
    options: &FetchOptions,
    way: Way,
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
            // An endpoint may come out of a document that somebody else wrote, so no address is beyond doubt but the
            // well-known ones.
            named: way == Way::Metadata && is_well_known(&target),
            client: None,
            fresh,
        };
        let leased = match way {
            Way::Usual => upstream.link(want).await,
            Way::Metadata => upstream.direct_link(want).await,
        };
        let mut link = leased.map_err(|error| cannot_connect(&error))?;
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

/// True for a metadata service at its own address and port.
fn is_well_known(target: &Target) -> bool {
    target.scheme == Scheme::Http
        && target.is_default_port()
        && target.host.ip().is_some_and(|ip| METADATA_ADDRESSES.contains(&ip))
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
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_is_the_address_itself_at_its_own_port() {
        let target = |uri: &str| Target::from_uri(&uri.parse().unwrap()).unwrap();
        for known in [
            "http://169.254.169.254/latest",
            "http://[fd00:ec2::254]/",
            "http://169.254.170.2:80/x",
            "http://169.254.170.23/",
            "http://[fd00:ec2::23]/",
            "http://[::ffff:169.254.169.254]/",
        ] {
            assert!(is_well_known(&target(known)), "{known}");
        }
        for other in [
            "https://169.254.169.254/",
            "http://169.254.169.254:8080/",
            "http://169.254.169.253/",
            "http://metadata.test/",
            "http://127.0.0.1/",
            "http://[fe80::1]/",
        ] {
            assert!(!is_well_known(&target(other)), "{other}");
        }
    }

    #[test]
    fn well_known_addresses_are_denied_to_everybody_else() {
        let denied = crate::config::ProxyConfig::default().deny_addresses;
        let open: Vec<_> =
            METADATA_ADDRESSES.iter().filter(|ip| !super::super::address::is_denied(**ip, &denied)).collect();
        assert_eq!(open, ["fd00:ec2::23".parse::<std::net::IpAddr>().unwrap()].iter().collect::<Vec<_>>());
    }
}
