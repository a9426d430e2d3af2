//! Logins that belong to a connection: what leaves on which connection, and when the body leaves. Whether the messages are
//! right is judged elsewhere, by implementations that are not ours.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::ServerConfig;

use crate::harness::{
    Client, RawConn, RawOrigin, TestCa, canary,
    client::{get, post},
    proxy, until,
};

/// A challenge: signature, type 2, no name, Unicode and NTLM with extended session security, eight bytes.
const CHALLENGE: &[u8; 56] = b"NTLMSSP\0\x02\0\0\0\0\0\0\0\x38\0\0\0\x01\x02\x08\0abcdefgh\0\0\0\0\0\0\0\0\0\0\0\0\x38\0\0\0\x0a\0\0\0\0\0\0\x0f";

/// One request as it arrived.
#[derive(Clone, Debug)]
struct Visit {
    connection: usize,
    line: String,
    head: String,
    /// Message type in the credential: 0 for none.
    message: u8,
    body: Vec<u8>,
    /// Whose connection it is after this request.
    account: Option<String>,
}

/// A door that wants a login of the connection.
#[derive(Clone, Default)]
struct Door {
    /// For a parent proxy.
    is_proxy: bool,
    /// Refuses every proof.
    refuses: bool,
    visits: Arc<Mutex<Vec<Visit>>>,
    connections: Arc<AtomicUsize>,
}

impl Door {
    async fn open(&self, tls: Option<Arc<ServerConfig>>) -> RawOrigin {
        let door = self.clone();
        RawOrigin::script(tls, move |conn| door.clone().serve(conn)).await
    }

    async fn serve(self, mut conn: RawConn) {
        let connection = self.connections.fetch_add(1, Ordering::SeqCst);
        let mut account = None;
        while let Some((head, body)) = conn.read_request().await {
            let own = if self.is_proxy { "proxy-authorization: ntlm " } else { "\r\nauthorization: ntlm " };
            let at = head.to_ascii_lowercase().find(own).map(|at| at + own.len());
            let token = at.map(|at| BASE64_STANDARD.decode(head[at..].lines().next().unwrap()).unwrap());
            let message = token.as_ref().map_or(0, |token| token[8]);
            let challenge = match (message, &account) {
                (0, Some(_)) => None,
                (0, None) => Some("NTLM".to_owned()),
                (1, _) => Some(format!("NTLM {}", BASE64_STANDARD.encode(CHALLENGE))),
                _ if self.refuses => Some("NTLM".to_owned()),
                _ => {
                    account = Some(user_of(token.as_ref().unwrap()));
                    None
                }
            };
            let line = head.lines().next().unwrap_or_default().to_owned();
            let visit =
                Visit { connection, line: line.clone(), head: head.clone(), message, body, account: account.clone() };
            self.visits.lock().unwrap().push(visit);
            if let Some(challenge) = challenge {
                let (status, name) =
                    if self.is_proxy { (407, "Proxy-Authenticate") } else { (401, "WWW-Authenticate") };
                conn.send(format!("HTTP/1.1 {status} Who\r\n{name}: {challenge}\r\nContent-Length: 3\r\n\r\nwho"))
                    .await;
            } else if let Some(to) = line.strip_prefix("CONNECT ") {
                let mut upstream = tokio::net::TcpStream::connect(to.split(' ').next().unwrap()).await.unwrap();
                conn.send("HTTP/1.1 200 OK\r\n\r\n").await;
                tokio::io::copy_bidirectional(&mut conn.into_stream(), &mut upstream).await.ok();
                return;
            } else if head.to_ascii_lowercase().contains("\r\nupgrade: echo") {
                conn.send("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await;
                let line = conn.read_until(b"\n").await;
                conn.send(line).await;
                return;
            } else {
                let name = account.clone().unwrap_or_default();
                conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len())).await;
            }
        }
    }

    fn visits(&self) -> Vec<Visit> {
        self.visits.lock().unwrap().clone()
    }
}

/// The user name in the last message.
fn user_of(message: &[u8]) -> String {
    let number = |at: usize| usize::from(message[at]) | usize::from(message[at + 1]) << 8;
    let name = &message[number(40)..number(40) + number(36)];
    name.chunks(2).map(|pair| char::from(pair[0])).collect()
}

fn config(base: &str, more: &str) -> String {
    format!(
        "version: 1\n{more}rules:\n  - {{name: N, host: \"{base}\", auth: {{type: ntlm, username: 'D\\ann', \
         password: \"${{env:PASSWORD}}\"}}}}\n"
    )
}

#[tokio::test]
async fn a_body_longer_than_the_buffer_streams_once_with_the_proof() {
    let (door, secret) = (Door::default(), canary("pw"));
    let origin = door.open(None).await;
    let base = format!("http://{}", origin.addr);
    let text = config(&base, "proxy: {limits: {body_buffer: 64KiB}}\n");
    let proxy = proxy::with(text).env("PASSWORD", &secret).canary(&secret).start().await;
    let body = vec![b'x'; 1 << 20];
    let client = Client::new(&proxy);
    let answer = client.send(post(&format!("{base}/a"), body.clone())).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "ann"));
    // Chunked, so that no length says beforehand that there is a body.
    let mut conn = client.raw().await;
    conn.send(format!(
        "POST {base}/b HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        origin.addr
    ))
    .await;
    conn.send(b"5\r\nhello\r\n0\r\n\r\n").await;
    assert!(String::from_utf8_lossy(&conn.read_to_end().await).ends_with("ann"));
    let visits = door.visits();
    assert_eq!(visits.iter().map(|visit| visit.message).collect::<Vec<_>>(), [1, 3, 0]);
    assert!(visits[0].body.is_empty() && visits[0].head.to_ascii_lowercase().contains("content-length: 0\r\n"));
    assert_eq!(visits[1].body, body);
    assert!(visits[2].body.starts_with(b"5\r\nhello"), "{visits:?}");
    origin.never_saw(&secret);
}

#[tokio::test]
async fn a_chunked_body_waits_for_the_proof_too() {
    let (door, secret) = (Door::default(), canary("pw"));
    let origin = door.open(None).await;
    let base = format!("http://{}", origin.addr);
    let proxy = proxy::with(config(&base, "")).env("PASSWORD", &secret).canary(&secret).start().await;
    let mut conn = Client::new(&proxy).raw().await;
    conn.send(format!("POST {base}/b HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n", origin.addr)).await;
    conn.send(b"5\r\nhello\r\n0\r\n\r\n").await;
    assert!(conn.read_head().await.starts_with("HTTP/1.1 200"));
    let visits = door.visits();
    assert!(visits[0].body.is_empty(), "{visits:?}");
    assert!(visits[1].body.starts_with(b"5\r\nhello"), "{visits:?}");
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_when_the_proof_leaves() {
    let (door, secret) = (Door::default(), canary("pw"));
    let origin = door.open(None).await;
    let base = format!("http://{}", origin.addr);
    let proxy = proxy::with(config(&base, "")).env("PASSWORD", &secret).canary(&secret).start().await;
    let mut conn = Client::new(&proxy).raw().await;
    conn.send(format!(
        "POST {base}/a HTTP/1.1\r\nHost: {}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n",
        origin.addr
    ))
    .await;
    assert!(conn.read_head().await.starts_with("HTTP/1.1 100"));
    conn.send("body").await;
    assert!(conn.read_head().await.starts_with("HTTP/1.1 200"));
    let visits = door.visits();
    assert_eq!(visits.iter().map(|visit| visit.body.len()).collect::<Vec<_>>(), [0, 4]);
    assert!(visits.iter().all(|visit| !visit.head.to_ascii_lowercase().contains("expect:")));
}

#[tokio::test]
async fn protocols_are_switched_after_the_proof() {
    let (door, secret) = (Door::default(), canary("pw"));
    let origin = door.open(None).await;
    let base = format!("http://{}", origin.addr);
    let proxy = proxy::with(config(&base, "")).env("PASSWORD", &secret).canary(&secret).start().await;
    let mut conn = Client::new(&proxy).raw().await;
    conn.send(format!(
        "GET {base}/a HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
        origin.addr
    ))
    .await;
    assert!(conn.read_head().await.starts_with("HTTP/1.1 101"));
    conn.send("hello\n").await;
    assert_eq!(conn.read_until(b"\n").await, b"hello\n");
    assert_eq!(door.visits().iter().map(|visit| visit.message).collect::<Vec<_>>(), [1, 3]);
}

#[tokio::test]
async fn a_refused_handshake_taints_its_connection() {
    let (door, secret) = (Door { refuses: true, ..Door::default() }, canary("wrong"));
    let origin = door.open(None).await;
    let base = format!("http://{}", origin.addr);
    let proxy = proxy::with(config(&base, "")).env("PASSWORD", &secret).canary(&secret).start().await;
    for n in 0..3 {
        let answer = Client::new(&proxy).get(&format!("{base}/{n}")).await;
        assert_eq!((answer.status.as_u16(), answer.header("www-authenticate")), (401, Some("NTLM")));
    }
    let visits = door.visits();
    let expected: Vec<_> = (0..3).flat_map(|connection| [(connection, 1), (connection, 3)]).collect();
    assert_eq!(visits.iter().map(|visit| (visit.connection, visit.message)).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_connection_serves_one_credential_and_one_client() {
    let (door, ca) = (Door::default(), TestCa::new());
    let (secret, a, b) = (canary("pw"), canary("a"), canary("b"));
    let origin = door.open(Some(ca.server(&["h2", "http/1.1"]))).await;
    let base = format!("https://{}", origin.addr);
    let text = format!(
        "version: 1\nproxy: {{clients: {{a: {a}, b: {b}}}}}\nrules:\n  - {{name: B, host: \"{base}\", path: /bob, auth: \
         {{type: ntlm, username: bob, password: {secret}}}}}\n  - {{name: P, host: \"{base}\", path: /plain}}\n  - \
         {{name: A, host: \"{base}\", auth: {{type: ntlm, username: ann, password: {secret}}}}}\n"
    );
    let proxy = proxy::with(text).trusting(&ca).canary(&secret).canary(&a).canary(&b).start().await;
    let of = |name: &str, password: &str| {
        let login = BASE64_STANDARD.encode(format!("{name}:{password}"));
        Client::new(&proxy).connect_headers(&format!("Proxy-Authorization: Basic {login}\r\n"))
    };
    let (a, b) = (of("a", &a), of("b", &b));
    // A client that speaks HTTP/2 gets the same, on connections of HTTP/1.1.
    assert_eq!(a.clone().h2().get(&format!("{base}/x")).await.text(), "ann");
    for _ in 0..2 {
        for (client, path, account) in [(&a, "/x", "ann"), (&b, "/x", "ann"), (&a, "/bob", "bob"), (&b, "/bob", "bob")]
        {
            assert_eq!(client.get(&format!("{base}{path}")).await.text(), account);
        }
        // Without a credential there is no riding on any of these.
        assert_eq!(a.get(&format!("{base}/plain")).await.status, 401);
    }
    let logins: Vec<_> = door.visits().into_iter().filter(|visit| visit.message == 3).collect();
    assert_eq!(logins.len(), 4, "one login for each client and account, none in the second round");
    let mut connections: Vec<_> = logins.iter().map(|visit| visit.connection).collect();
    connections.dedup();
    assert_eq!(connections.len(), 4);
}

/// A client that logs in by itself: its connection here and one upstream belong together, and to nobody else.
#[tokio::test]
async fn a_clients_own_login_stays_on_its_connection() {
    let ca = TestCa::new();
    for tls in [false, true] {
        let door = Door::default();
        let origin = door.open(tls.then(|| ca.server(&["http/1.1"]))).await;
        let authority = origin.addr.to_string();
        let base = format!("{}://{authority}", if tls { "https" } else { "http" });
        let text = "version: 1\nproxy: {unmatched: inspect}\nrules: []\n";
        let proxy = proxy::with(text).trusting(&ca).start().await;
        let client = Client::new(&proxy);
        let url = if tls { String::new() } else { base.clone() };
        let connect = async || if tls { client.raw_tls_h1(&authority).await } else { client.raw().await };
        let (mut ann, mut eve) = (connect().await, connect().await);
        let ask = |path: &str, login: &str| format!("GET {url}{path} HTTP/1.1\r\nHost: {authority}\r\n{login}\r\n");
        let read = async |conn: &mut RawConn| {
            let head = conn.read_head().await;
            let length = if head.starts_with("HTTP/1.1 401") || head.contains("Content-Length: 3") { 3 } else { 0 };
            (head, conn.read_exact(length).await)
        };
        ann.send(ask("/", "")).await;
        let (head, _) = read(&mut ann).await;
        assert!(
            head.starts_with("HTTP/1.1 401")
                && head.to_ascii_lowercase().contains("proxy-support: session-based-authentication"),
            "{head}"
        );
        let first = BASE64_STANDARD.encode(b"NTLMSSP\0\x01\0\0\0");
        ann.send(ask("/1", &format!("Authorization: NTLM {first}\r\n"))).await;
        assert!(read(&mut ann).await.0.starts_with("HTTP/1.1 401"));
        // Eve comes in between, and afterwards.
        eve.send(ask("/eve", "")).await;
        assert!(read(&mut eve).await.0.starts_with("HTTP/1.1 401"));
        let mut last = b"NTLMSSP\0\x03\0\0\0".to_vec();
        last.resize(64, 0);
        last[36..44].copy_from_slice(&[6, 0, 6, 0, 64, 0, 0, 0]);
        last.extend_from_slice(b"a\0n\0n\0");
        ann.send(ask("/3", &format!("Authorization: NTLM {}\r\n", BASE64_STANDARD.encode(&last)))).await;
        let (head, body) = read(&mut ann).await;
        assert!(head.starts_with("HTTP/1.1 200") && body == b"ann", "{head}");
        for _ in 0..2 {
            eve.send(ask("/eve", "")).await;
            assert!(read(&mut eve).await.0.starts_with("HTTP/1.1 401"));
            assert_eq!(client.get(&format!("{base}/other")).await.status, 401);
            ann.send(ask("/again", "")).await;
            let (head, body) = read(&mut ann).await;
            assert!(head.starts_with("HTTP/1.1 200") && body == b"ann", "{head}");
        }
        let visits = door.visits();
        let login = visits.iter().find(|visit| visit.message == 3).unwrap().connection;
        let there: Vec<_> =
            visits.iter().filter(|visit| visit.connection == login).map(|visit| visit.line.clone()).collect();
        assert!(there.iter().all(|line| !line.contains("/eve") && !line.contains("/other")), "{there:?}");
        assert_eq!(there.len(), 4, "{there:?}");
        // With the client's connection its counterpart ends: the origin sees a new one for whoever comes next.
        drop(ann);
        assert_eq!(client.get(&format!("{base}/late")).await.status, 401);
    }
}

#[tokio::test]
async fn a_parent_proxy_may_want_a_login_of_the_connection() {
    let (ca, secret) = (TestCa::new(), canary("parent"));
    let door = Door { is_proxy: true, ..Door::default() };
    let parent = door.open(None).await;
    let origin = crate::harness::Origin::tls(ca.server(&["http/1.1"])).await;
    let text = format!(
        "version: 1\nproxy: {{upstream: {{url: \"http://{}\", auth: corp}}, unmatched: inspect}}\ncredentials:\n  corp: \
         {{type: ntlm, username: 'D\\svc', password: {secret}}}\nrules: []\n",
        parent.addr
    );
    let proxy = proxy::with(text).trusting(&ca).canary(&secret).start().await;
    let client = Client::new(&proxy);
    // CONNECT: both messages on one connection, then the tunnel.
    assert_eq!(client.get(&origin.url("/")).await.text(), "ok");
    let connects = door.visits();
    assert_eq!(connects.iter().map(|visit| (visit.connection, visit.message)).collect::<Vec<_>>(), [(0, 1), (0, 3)]);
    assert!(connects.iter().all(|visit| visit.line.starts_with("CONNECT ")));
    // Plain requests: the body waits for the proof, and the next request rides on the connection.
    for n in 0..2 {
        let body = vec![b'y'; 200_000];
        let answer = client.send(post(&format!("http://plain.test/{n}"), body)).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "svc"));
    }
    assert_eq!(client.send(get("http://plain.test/get")).await.text(), "svc");
    let plain = door.visits().split_off(2);
    assert_eq!(plain.iter().map(|visit| visit.message).collect::<Vec<_>>(), [1, 3, 0, 0]);
    assert_eq!(plain.iter().map(|visit| visit.body.len()).collect::<Vec<_>>(), [0, 200_000, 200_000, 0]);
    assert!(plain.iter().all(|visit| visit.connection == 1));
    origin.never_saw("NTLM");
}

#[tokio::test]
async fn fifty_at_once_never_share_a_connection_while_it_is_in_use() {
    let (door, secret) = (Door::default(), canary("pw"));
    let origin = door.open(None).await;
    let base = format!("http://{}", origin.addr);
    let proxy = proxy::with(config(&base, "")).env("PASSWORD", &secret).canary(&secret).start().await;
    let client = Client::new(&proxy);
    let all: Vec<_> = (0..50)
        .map(|n| {
            let (client, url) = (client.clone(), format!("{base}/{n}"));
            tokio::spawn(async move { client.send(post(&url, format!("body {n}"))).await.text() })
        })
        .collect();
    for task in all {
        assert_eq!(task.await.unwrap(), "ann");
    }
    // On each connection: a first message, the proof, then requests that carry nothing.
    let visits = door.visits();
    for connection in 0..door.connections.load(Ordering::SeqCst) {
        let messages: Vec<_> =
            visits.iter().filter(|visit| visit.connection == connection).map(|visit| visit.message).collect();
        assert!(messages.is_empty() || messages[..2] == [1, 3], "{messages:?}");
        assert!(messages.iter().skip(2).all(|message| *message == 0), "{messages:?}");
    }
    until("all are through", || visits.iter().filter(|visit| visit.body.starts_with(b"body")).count() == 50).await;
}
