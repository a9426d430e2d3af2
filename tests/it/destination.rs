//! One destination per request: whatever the names of CONNECT, SNI, Host, `:authority` and absolute URI say, a secret
//! arrives only where its rule points (T1, T2, T3, T5).

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::harness::{
    Client, Origin, Proxy, TestCa, canary,
    client::{collect, h1, h2},
    raw::RawConn,
};

/// Two ruled origins, one that the attacker owns, and a plain listener.
struct Scene {
    ca: TestCa,
    right: Origin,
    other: Origin,
    own: Origin,
    plain: Origin,
    right_secret: String,
    other_secret: String,
    proxy: Proxy,
}

impl Scene {
    async fn new() -> Self {
        let ca = TestCa::new();
        let both: &[&str] = &["h2", "http/1.1"];
        let serve = async |ip: &str| {
            Origin::serve(ip, Some(ca.server(both)), |_| Box::pin(async { crate::harness::text(200, "ok") })).await
        };
        let (right, other, own) = (serve("127.0.0.1").await, serve("127.0.0.2").await, serve("127.0.0.3").await);
        let plain = Origin::plain().await;
        let (right_secret, other_secret) = (canary("right"), canary("other"));
        let config = format!(
            "version: 1\nrules:\n  \
             - {{name: Right, host: \"https://localhost:{}\", auth: {{type: bearer, token: {right_secret}}}}}\n  \
             - {{name: Other, host: \"https://127.0.0.2:{}\", auth: {{type: bearer, token: {other_secret}}}}}\n",
            right.addr.port(),
            other.addr.port()
        );
        let proxy = Proxy::start(config, &ca).await;
        proxy.register_canary(&right_secret);
        proxy.register_canary(&other_secret);
        Self { ca, right, other, own, plain, right_secret, other_secret, proxy }
    }

    /// right, other ruled, own, address of the right one, empty.
    fn names(&self) -> [String; 5] {
        [
            format!("localhost:{}", self.right.addr.port()),
            self.other.addr.to_string(),
            self.own.addr.to_string(),
            self.right.addr.to_string(),
            String::new(),
        ]
    }

    fn client(&self) -> Client {
        Client::new(&self.proxy).trusting(&self.ca)
    }

    /// No secret is anywhere but at its own listener.
    fn nothing_leaked(&self, cell: &str) {
        for (origin, foreign) in [
            (&self.right, vec![&self.other_secret]),
            (&self.other, vec![&self.right_secret]),
            (&self.own, vec![&self.right_secret, &self.other_secret]),
            (&self.plain, vec![&self.right_secret, &self.other_secret]),
        ] {
            for seen in origin.seen() {
                for secret in &foreign {
                    let all = String::from_utf8_lossy(&seen.everything()).into_owned();
                    assert!(!all.contains(secret.as_str()), "{cell}: a secret at {}: {seen:?}", origin.addr);
                }
            }
        }
    }

    fn hits(&self) -> usize {
        self.right.hits() + self.other.hits() + self.own.hits() + self.plain.hits()
    }
}

/// Names that a client may put into the handshake. Addresses and nothing at all mean no SNI.
const SNI: [&str; 5] = ["localhost", "other.test", "own.test", "127.0.0.1", ""];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn matrix_over_http1() {
    let scene = Scene::new().await;
    let names = scene.names();
    let mut delivered = 0;
    for connect in &names {
        for sni in SNI {
            for host in &names {
                for absolute in &names {
                    let cell = format!("CONNECT {connect} SNI {sni} Host {host} URI {absolute}");
                    let target = if absolute.is_empty() { "/".to_owned() } else { format!("https://{absolute}/") };
                    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
                    let before = scene.right.hits();
                    let answer = cell_h1(&scene, connect, sni, &request).await;
                    let clean = connect == &names[0] && sni == "localhost" && host == &names[0];
                    if clean && (absolute.is_empty() || absolute == &names[0]) {
                        assert!(answer.starts_with("HTTP/1.1 200"), "{cell}: {answer}");
                        assert_eq!(scene.right.hits(), before + 1, "{cell}");
                        delivered += 1;
                    }
                }
            }
        }
    }
    scene.nothing_leaked("http/1.1");
    assert_eq!(delivered, 2);
    let injected = scene.right.seen().iter().filter(|seen| seen.headers.contains_key("authorization")).count();
    assert!(injected >= 2, "no secret arrived at all: the test proves nothing");
}

async fn cell_h1(scene: &Scene, connect: &str, sni: &str, request: &str) -> String {
    let client = scene.client();
    let Some(stream) = open(&client, connect, sni).await else { return String::new() };
    let mut conn = RawConn::new(stream);
    conn.send(request).await;
    String::from_utf8_lossy(&conn.read_to_end().await).into_owned()
}

/// A tunnel with a TLS session in it, if the proxy grants both.
async fn open(
    client: &Client,
    connect: &str,
    sni: &str,
) -> Option<tokio_rustls::client::TlsStream<Box<dyn crate::harness::raw::Stream>>> {
    let target = if connect.is_empty() { ":443" } else { connect };
    let (conn, head) = client.connect(target).await;
    if !head.starts_with("HTTP/1.1 200") {
        return None;
    }
    client.handshake(conn, if sni.is_empty() { "127.0.0.1" } else { sni }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn matrix_over_http2() {
    let scene = Scene::new().await;
    let names = scene.names();
    let mut delivered = 0;
    for connect in &names {
        for sni in SNI {
            let client = scene.client().h2();
            let Some(stream) = open(&client, connect, sni).await else { continue };
            if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                continue;
            }
            let sender = h2(stream).await;
            for host in &names {
                for authority in &names {
                    if authority.is_empty() {
                        continue; // hyper writes no h2 request without it; raw frames do, below
                    }
                    let cell = format!("h2: CONNECT {connect} SNI {sni} host {host} :authority {authority}");
                    let mut request = Request::get(format!("https://{authority}/"));
                    if !host.is_empty() {
                        request = request.header("host", host);
                    }
                    let before = scene.right.hits();
                    let request = request.body(Full::new(Bytes::new())).unwrap();
                    let mut sender = sender.clone();
                    let Ok(answer) = sender.send_request(request).await else { continue };
                    let answer = collect(answer).await;
                    let clean = connect == &names[0] && sni == "localhost" && authority == &names[0];
                    if clean && (host.is_empty() || host == &names[0]) {
                        assert_eq!(answer.unwrap().status, 200, "{cell}");
                        assert_eq!(scene.right.hits(), before + 1, "{cell}");
                        delivered += 1;
                    }
                }
            }
        }
    }
    scene.nothing_leaked("h2");
    assert_eq!(delivered, 2);
}

#[tokio::test]
async fn a_kept_connection_is_judged_per_request() {
    let scene = Scene::new().await;
    let names = scene.names();
    let stream = scene.client().tls(&names[0], "localhost").await.unwrap();
    let mut sender = h1(stream).await;
    let good = || Request::get("/").header("host", &names[0]).body(Full::new(Bytes::new())).unwrap();
    assert_eq!(collect(sender.send_request(good()).await.unwrap()).await.unwrap().status, 200);
    let wrong = Request::get("/").header("host", &names[2]).body(Full::new(Bytes::new())).unwrap();
    let refused = collect(sender.send_request(wrong).await.unwrap()).await.unwrap();
    refused.is_problem(421, "destination-mismatch");
    scene.nothing_leaked("second request");
    assert_eq!(scene.hits(), 1);
}

#[tokio::test]
async fn spellings_of_the_ruled_host_are_one_host() {
    let scene = Scene::new().await;
    let port = scene.right.addr.port();
    for spelling in ["LOCALHOST", "localhost.", "LocalHost."] {
        let authority = format!("{spelling}:{port}");
        let stream = scene.client().tls(&authority, "localhost").await.unwrap();
        let mut conn = RawConn::new(stream);
        conn.send(format!("GET / HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n")).await;
        let answer = String::from_utf8_lossy(&conn.read_to_end().await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200"), "{spelling}: {answer}");
    }
    let secret = format!("Bearer {}", scene.right_secret);
    for seen in scene.right.seen() {
        assert_eq!(seen.header("authorization"), Some(secret.as_str()));
    }
    for odd in ["local%68ost", "u@localhost", "loc\u{ad}alhost", "localhost:0", "[localhost]", "localhost:99999"] {
        let (_, head) = scene.client().connect(&format!("{odd}:{port}")).await;
        assert!(head.starts_with("HTTP/1.1 400"), "{odd}: {head}");
    }
}

/// T5: over plain HTTP, or at another port, the rule for https does not hold.
#[tokio::test]
async fn plain_http_and_other_ports_get_nothing() {
    let scene = Scene::new().await;
    let plain_port = scene.plain.addr.port();
    scene.client().get(&format!("http://localhost:{plain_port}/")).await;
    scene.client().get(&format!("http://localhost:{}/", scene.right.addr.port())).await;
    // Plain HTTP inside a tunnel to the ruled port.
    let mut conn = scene.client().tunnel(&format!("localhost:{}", scene.right.addr.port())).await;
    conn.send(format!("GET / HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\r\n", scene.right.addr.port()))
        .await;
    conn.read_to_end().await;
    scene.nothing_leaked("plain");
    assert_eq!(scene.plain.hits(), 1);
    assert_eq!(scene.right.hits(), 0);
}
