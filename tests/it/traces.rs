//! Trace Context goes through as it came, and can be found afterwards.

use http::HeaderValue;

use crate::harness::{
    Client, Origin, Seen, TestCa, TokenServer, canary,
    client::get,
    proxy::{self, command},
    text, until,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const STATE: &str = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE";

fn traced(url: &str) -> http::Request<bytes::Bytes> {
    let mut request = get(url);
    request.headers_mut().insert("traceparent", HeaderValue::from_static(PARENT));
    request.headers_mut().append("tracestate", HeaderValue::from_static(STATE));
    request.headers_mut().append("tracestate", HeaderValue::from_static("third=1"));
    request
}

fn is_untouched(seen: &Seen) {
    let all = |name: &str| {
        seen.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(all("traceparent"), [PARENT], "{seen:?}");
    assert_eq!(all("tracestate"), [STATE, "third=1"], "{seen:?}");
}

#[tokio::test]
async fn a_trace_passes_untouched_and_is_found() {
    let (ca, tokens, secret) = (TestCa::new(), TokenServer::start().await, canary("secret"));
    let judge = tokens.judge();
    // The first token is refused, so that there is a second send.
    let refused = std::sync::atomic::AtomicBool::new(false);
    let ruled = Origin::plain_with(move |seen| {
        let first = !refused.swap(true, std::sync::atomic::Ordering::SeqCst);
        let good = !first && judge(seen.header("authorization"));
        text(if good { 200 } else { 401 }, "")
    })
    .await;
    let (unruled, h2) = (Origin::plain().await, Origin::tls(ca.server(&["h2"])).await);
    let config = format!(
        "version: 1\nproxy: {{unmatched: inspect}}\ncredentials:\n  robot: {{type: oauth2, grant: client_credentials, \
         token_url: \"{}\", client_id: c, client_secret: {secret}}}\nrules: [{{name: Ruled, host: \"{}\", auth: robot}}]\n",
        tokens.url(),
        ruled.base(),
    );
    let proxy = proxy::with(config).trusting(&ca).canary(&secret).start().await;
    let client = Client::new(&proxy);
    assert_eq!(client.send(traced(&ruled.url("/ruled"))).await.status, 200);
    client.send(traced(&unruled.url("/unruled"))).await;
    client.clone().h2().send(traced(&h2.url("/h2"))).await;
    client.get(&unruled.url("/untraced")).await;
    let seen = ruled.seen();
    assert_eq!(seen.len(), 2, "sent twice");
    seen.iter().for_each(is_untouched);
    is_untouched(&unruled.seen()[0]);
    is_untouched(&h2.only());
    assert!(unruled.seen()[1].header("traceparent").is_none(), "we begin no traces");
    for asked in tokens.origin.seen() {
        assert!(asked.header("traceparent").is_none() && asked.header("tracestate").is_none(), "{asked:?}");
    }
    let data = proxy.data.display().to_string();
    let found = || {
        let filter = format!("header:{TRACE}");
        let (code, out, err) = command(proxy.dir.path(), &["--json", "--data-dir", &data, "log", &filter]);
        assert_eq!(code, 0, "{err}");
        out
    };
    let mut shown = String::new();
    // The command does not look at the origins of this thread.
    until("three exchanges of the trace", || {
        shown = found();
        shown.lines().count() == 3
    })
    .await;
    assert!(shown.contains("/ruled") && shown.contains("/h2") && !shown.contains("/untraced"), "{shown}");
    let logged = proxy.stderr();
    let line = logged.lines().find(|line| line.contains("trace_id") && line.contains(TRACE));
    assert!(line.is_some_and(|line| line.contains("DEBUG") && line.contains("Ruled")), "{line:?}");
}
