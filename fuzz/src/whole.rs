//! The whole proxy in memory: a client and origins that follow a script, and what must hold whatever they do.
//!
//! Everything is in one thread, and time is tokio's: it moves on when nothing else can, so a deadline takes no time and
//! one that is missing shows. A panic anywhere ends the program: libFuzzer's hook sees to that. What follows a CONNECT
//! needs a socket of the system and is not played; a connection can begin inside a tunnel instead.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use countersign::{
    clock::Clock,
    config::{ConnectPorts, Limits, Roots, Unmatched, load},
    console::Console,
    metrics::Meters,
    proxy::{Connection, Inner, Proxy, Settings, Snapshot, client::Clients, page::Page, serve},
    rules::RuleSet,
    target::{Scheme, Target},
    tls::{ca::Authority, client::TlsPolicy, leaf::Leaves},
    upstream::{Upstream, UpstreamSettings, fuzzing},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    oracles::{CANARY, MATCHED, Seen, holds, judge, learns},
    rules::Builder,
    strict::{Requests, Writer, answers},
};

/// The connection is a tunnel that ends here.
const INSIDE: u8 = 1;
/// Origins answer as soon as the head is there.
const EARLY: u8 = 2;
/// Few bytes fit on the way to the client and from it.
const NARROW: u8 = 4;
/// The client hangs up, where it else only ends its side.
const HANG_UP: u8 = 8;
/// Origins have an answer when the script has none left.
const WILLING: u8 = 16;
/// The client leaves its side open: the proxy has to end the connection.
const STAYS: u8 = 32;

/// Time in which all that can happen at once has happened.
const SETTLED: Duration = Duration::from_millis(1);
/// What a client waits for answers at the end; an origin waits as long for a request.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than all deadlines of all requests that fit into a script.
const FOREVER: Duration = Duration::from_secs(7200);

/// What one side does next.
pub enum Step {
    Write(Vec<u8>),
    Wait(Duration),
    /// Closes the side.
    End,
}

/// What happens.
#[derive(Default)]
pub struct Script {
    /// Of the constants above.
    pub flags: u8,
    pub client: Vec<Step>,
    /// For one request each.
    pub answers: VecDeque<Vec<Step>>,
}

impl Script {
    /// True if somebody already knows the canary.
    fn gives_away(&self) -> bool {
        learns(&written(&self.client)) || self.answers.iter().any(|answer| learns(&written(answer)))
    }
}

/// What one side writes before its end.
fn written(steps: &[Step]) -> Vec<u8> {
    let until = steps.iter().take_while(|step| !matches!(step, Step::End));
    until
        .filter_map(|step| if let Step::Write(bytes) = step { Some(&bytes[..]) } else { None })
        .collect::<Vec<_>>()
        .concat()
}

/// What origins have in common.
struct World {
    flags: u8,
    answers: Mutex<VecDeque<Vec<Step>>>,
    seen: Mutex<Vec<Seen>>,
}

impl World {
    /// Opens a connection to an origin.
    fn dial(self: &Arc<Self>, target: &Target, tunnel: bool) -> DuplexStream {
        let (near, far) = duplex(64 << 10);
        let mut seen = self.seen.lock().unwrap();
        seen.push(Seen { target: target.clone(), tunnel, bytes: Vec::new(), switched: None });
        tokio::spawn(self.clone().origin(seen.len() - 1, far));
        near
    }

    /// One origin's side of a connection.
    async fn origin(self: Arc<Self>, at: usize, mut io: DuplexStream) {
        let mut answered = 0;
        let mut space = [0; 4096];
        while let Ok(Ok(length @ 1..)) = timeout(PATIENCE, io.read(&mut space)).await {
            let asked = {
                let seen = &mut self.seen.lock().unwrap()[at];
                seen.bytes.extend_from_slice(&space[..length]);
                let read = Requests::read(&seen.bytes, Writer::Proxy(seen.switched));
                if self.flags & EARLY == 0 { read.whole } else { read.heads.len() }
            };
            while answered < asked {
                let next = self.answers.lock().unwrap().pop_front();
                let willing = || vec![Step::Write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into())];
                let Some(answer) = next.or_else(|| (self.flags & WILLING != 0).then(willing)) else { return };
                for step in answer {
                    match step {
                        Step::Write(bytes) => {
                            if holds(&bytes, b" 101") {
                                self.seen.lock().unwrap()[at].switched.get_or_insert(answered);
                            }
                            drop(io.write_all(&bytes).await);
                        }
                        Step::Wait(time) => sleep(time).await,
                        Step::End => return,
                    }
                }
                answered += 1;
            }
        }
    }
}

/// What a proxy is made of that takes long to make.
struct Parts {
    rules: Arc<RuleSet>,
    authority: Arc<Authority>,
}

static PARTS: LazyLock<Parts> = LazyLock::new(|| {
    let yaml = format!(
        "version: 1\ncredentials: {{c: {{type: bearer, token: {CANARY}}}}}\n\
         rules: [{{name: r, host: 'http://{MATCHED}', auth: c}}]\n"
    );
    let config = load::load_text("fuzz.yaml", &yaml).unwrap_or_else(|errors| panic!("{errors}")).config;
    let rules = RuleSet::compile(&config, None, &Builder).unwrap_or_else(|errors| panic!("{errors}")).into();
    let folder = tempfile::tempdir().unwrap();
    Parts { rules, authority: Arc::new(Authority::open(&folder.path().join("ca")).unwrap()) }
});

/// A proxy with short deadlines and tight bounds.
fn proxy(world: &Arc<World>) -> Arc<Proxy> {
    let limits = Limits {
        head_bytes: 1024,
        body_buffer: 256,
        connections: 8,
        header_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(1),
        response_timeout: Duration::from_secs(3),
    };
    let upstream_settings =
        UpstreamSettings { limits: limits.clone(), roots: Roots::Mozilla, ..UpstreamSettings::default() };
    let upstream = Upstream::new(upstream_settings, Clock::system());
    let origins = world.clone();
    fuzzing::dial(&upstream, Box::new(move |target, tunnel| origins.dial(target, tunnel)));
    let settings = Settings {
        unmatched: Unmatched::Tunnel,
        connect_ports: ConnectPorts::Any,
        limits,
        clients: Clients::default(),
        own_client: "fuzz".into(),
        on_loopback: true,
    };
    Arc::new(Proxy {
        current: ArcSwap::from_pointee(Snapshot { rules: PARTS.rules.clone(), settings }),
        upstream,
        leaves: Leaves::new(PARTS.authority.clone()).unwrap(),
        console: Console::default(),
        clock: Clock::system(),
        default_tls: Arc::new(TlsPolicy::DEFAULT),
        meters: Meters::default(),
        page: Page { ca_pem: PARTS.authority.certificate_pem().to_owned(), proxy: String::new() },
        tasks: TaskTracker::new(),
        closing: CancellationToken::new(),
    })
}

fn connection(proxy: Arc<Proxy>, flags: u8) -> Connection {
    let inner = (flags & INSIDE != 0).then(|| {
        let target = Target::from_authority(Scheme::Http, MATCHED).unwrap();
        Inner { authority: target.authority().parse().ok(), target, misdirected: false }
    });
    Connection {
        proxy,
        peer: SocketAddr::from(([127, 0, 0, 1], 1)),
        trusted: true,
        name: OnceLock::new(),
        shared: Arc::default(),
        is_http1: true,
        pins: OnceLock::new(),
        inner,
        last: Mutex::default(),
    }
}

/// Plays a script over HTTP/1 and judges all that was seen.
pub fn over_http1(script: Script) {
    let sent = written(&script.client);
    if let Some(received) = play(script, false) {
        let read = Requests::read(&sent, Writer::Client);
        // What is no request, or a part of one, is answered once, by a refusal.
        if let Err(wrong) = answers(&received, &read.heads, usize::from(read.more)) {
            panic!("the client got {wrong}: {}", received.escape_ascii());
        }
    }
}

/// Plays a script over HTTP/2 and judges what origins have seen, and that the client learns nothing.
pub fn over_http2(script: Script) {
    play(script, true);
}

/// What the client got; `None` if there is nothing to learn from the script.
fn play(script: Script, http2: bool) -> Option<Vec<u8>> {
    if script.gives_away() {
        return None;
    }
    let Script { flags, client, answers } = script;
    let world = Arc::new(World { flags, answers: Mutex::new(answers), seen: Mutex::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let received = runtime.block_on(async {
        let proxy = proxy(&world);
        let received =
            timeout(FOREVER, converse(&proxy, flags, client, http2)).await.expect("the connection has an end");
        proxy.tasks.close();
        timeout(FOREVER, proxy.tasks.wait()).await.expect("every task has an end");
        received
    });
    drop(runtime);
    for seen in &*world.seen.lock().unwrap() {
        judge(seen);
    }
    assert!(!learns(&received), "the client learns the secret: {}", received.escape_ascii());
    Some(received)
}

/// Does what the client does until its connection ends; gives what it got.
async fn converse(proxy: &Arc<Proxy>, flags: u8, steps: Vec<Step>, http2: bool) -> Vec<u8> {
    let (near, far) = duplex(if flags & NARROW != 0 { 64 } else { 64 << 10 });
    let conn = connection(proxy.clone(), flags);
    let serving =
        tokio::spawn(async move { if http2 { serve::http2(conn, far).await } else { serve::http1(conn, far).await } });
    let (mut from, mut to) = tokio::io::split(near);
    let received = Arc::new(Mutex::new(Vec::new()));
    let into = received.clone();
    let reading = tokio::spawn(async move {
        let mut space = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut space).await {
            into.lock().unwrap().extend_from_slice(&space[..length]);
        }
    });
    for step in steps {
        match step {
            Step::Write(bytes) => drop(to.write_all(&bytes).await),
            Step::Wait(time) => sleep(time).await,
            Step::End => break,
        }
        sleep(SETTLED).await;
    }
    if flags & HANG_UP != 0 {
        reading.abort();
    } else if flags & STAYS == 0 {
        if http2 {
            // The end of this side would be the end of all streams.
            sleep(PATIENCE).await;
        }
        drop(to.shutdown().await);
    }
    let stays = (flags & (STAYS | HANG_UP) == STAYS).then_some(to);
    serving.await.unwrap();
    drop(stays);
    drop(reading.await);
    Arc::into_inner(received).unwrap().into_inner().unwrap()
}
