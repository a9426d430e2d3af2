//! What happens to the head of each request: the framing is checked, connection fields go, slots are emptied, the
//! credential is written.

use std::{hint::black_box, sync::Arc, time::Duration};

use countersign::{
    auth::{
        AuthScheme, Build, BuildContext,
        api_key::{ApiKeyConfig, Place},
        login::Logins,
        oauth2::SharedTokens,
        scheme::{Hop, Outgoing, Round},
        slots::{present, underscore_twin},
        sources::Sources,
    },
    clock::Clock,
    config::text::Text,
    proxy::{framing::Framing, hop},
    target::{Scheme, Target},
    tokens::MemoryStore,
    upstream::{Upstream, UpstreamSettings},
};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Request, Version, header, request::Parts};

const FIELDS: [(&str, &str); 9] = [
    ("host", "api.example.com"),
    ("user-agent", "python-requests/2.32.3"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept", "application/json"),
    ("connection", "keep-alive"),
    ("proxy-connection", "keep-alive"),
    ("content-type", "application/json"),
    ("cookie", "session=0123456789abcdef; theme=dark"),
    ("x-request-id", "2f9d2c6a-93a5-4b8e-8d8c-0e7d3c0a4a11"),
];

fn head() -> Parts {
    let mut request = Request::get("https://api.example.com/v1/orders/17?expand=lines");
    for (name, value) in FIELDS {
        request = request.header(name, value);
    }
    request.body(()).map(|request| request.into_parts().0).unwrap_or_else(|_| Request::new(()).into_parts().0)
}

fn scheme(place: Place, name: &str) -> Option<Arc<dyn AuthScheme>> {
    let context = BuildContext {
        clock: Clock::system(),
        fetch: Arc::new(Upstream::new(UpstreamSettings::default(), Clock::system())),
        sources: Arc::new(Sources::new(Duration::from_secs(300), Arc::new(|_, _| {}))),
        tokens: Arc::new(MemoryStore::default()),
        shared: SharedTokens::default(),
        logins: Logins::default(),
        environment: None,
    };
    let value = Text::literal("0123456789abcdef0123456789abcdef");
    ApiKeyConfig { name: name.to_owned(), value, place }.build("bench", &context).ok()
}

fn framing(c: &mut Criterion) {
    let mut text = "GET https://api.example.com/v1/orders/17?expand=lines HTTP/1.1\r\n".to_owned();
    for (name, value) in FIELDS {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let mut framing = Framing::new(64 << 10);
    c.bench_function("framing of a head", |b| b.iter(|| framing.advance(black_box(text.as_bytes())).is_ok()));
}

fn rewrite(c: &mut Criterion) {
    let strip = |mut headers: HeaderMap| {
        hop::strip_request(&mut headers, Version::HTTP_11);
        headers
    };
    c.bench_function("connection fields off", |b| {
        b.iter_batched(|| head().headers, strip, BatchSize::SmallInput);
    });
    let headers = head().headers;
    c.bench_function("copy of a head's fields", |b| b.iter(|| black_box(&headers).clone()));
}

fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply");
    let Ok(target) = Target::from_authority(Scheme::Https, "api.example.com") else { return };
    let clock = Clock::system();
    let cases = [
        ("header", Place::Header, header::AUTHORIZATION.as_str()),
        ("query", Place::Query, "key"),
        ("cookie", Place::Cookie, "key"),
    ];
    for (label, place, name) in cases {
        let Some(scheme) = scheme(place, name) else { continue };
        group.bench_function(label, |b| {
            let write = |mut head: Parts| {
                let clean = scheme.slots().iter().all(|slot| !present(&head, slot));
                let twin = underscore_twin(&head.headers, &header::AUTHORIZATION);
                let mut out = Outgoing::new(&mut head, &target, Hop::Origin, None, &clock, None);
                let written = scheme.apply(&mut out, &mut Round::default()).is_ok();
                assert!(clean && !twin && written);
                head
            };
            b.iter_batched(head, write, BatchSize::SmallInput);
        });
    }
    group.finish();
}

criterion_group!(benches, framing, rewrite, apply);
criterion_main!(benches);
