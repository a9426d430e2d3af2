//! Sending a recorded request again: through the proxy itself, as its client would, so that rules, credentials and the
//! recording apply to it like to any other.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::run_file::Login;
use crate::{
    console::curl::is_masked,
    target::{Scheme, Target},
};

/// The way into our own proxy.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// Where it listens.
    pub proxy: SocketAddr,
    /// A login that it accepts.
    pub login: Login,
    /// Our own authority, which intercepted connections show.
    pub authority: CertificateDer<'static>,
}

/// What came of a replay.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The address it was sent from: the exchange is recorded with it.
    pub from: SocketAddr,
    /// The status of the answer.
    pub status: u16,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// A request as it will be sent.
struct Again {
    method: Method,
    uri: Uri,
    target: Target,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    notes: Vec<String>,
}

/// Sends the request of `detail` again, with `edits` (`method`, `url`, `headers` as pairs, `body` or `body_base64`) in
/// place of what was recorded.
///
/// # Errors
/// The recorded request is not whole, an edit is wrong, or the proxy cannot be reached. In words for a person.
pub async fn replay(entrance: &Entrance, detail: &Value, edits: &Value) -> Result<Replayed, String> {
    let again = Again::new(detail, edits)?;
    match tokio::time::timeout(WAIT, send(entrance, again)).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} s", WAIT.as_secs())),
    }
}

impl Again {
    fn new(detail: &Value, edits: &Value) -> Result<Self, String> {
        let first = detail["sends"].as_array().into_iter().flatten().find(|send| send["kind"] == "request");
        let text = |name: &str| edits[name].as_str().or_else(|| detail[name].as_str());
        let method = text("method").and_then(|method| Method::from_bytes(method.as_bytes()).ok());
        let method = method.filter(|method| method != Method::CONNECT);
        let method = method.ok_or("this has no request that could be sent again")?;
        let url = text("url").unwrap_or_default();
        if is_masked(url) {
            return Err(
                "the URL held a secret, which is not kept: edit the URL, or leave the secret to a rule".to_owned()
            );
        }
        let uri: Uri = url.parse().map_err(|_| format!("`{url}` is not a URL like https://host/path"))?;
        let target = Target::from_uri(&uri).map_err(|error| format!("`{url}`: {error}"))?;
        let mut notes = Vec::new();
        let headers = if edits["headers"].is_array() { &edits["headers"] } else { &detail["request"]["headers"] };
        let headers = fields(headers, &mut notes)?;
        let body = body(first.map_or(&Value::Null, |send| &send["request"]), edits)?;
        Ok(Self { method, uri, target, headers, body, notes })
    }

    fn request(&self, absolute: bool, entrance: &Entrance) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri = if absolute { format!("{}{path}", self.target) } else { path.to_owned() };
        *request.uri_mut() = uri.parse().map_err(|_| format!("`{uri}` cannot be sent"))?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, value(&self.target.authority())?);
        for (name, value) in &self.headers {
            headers.append(name.clone(), value.clone());
        }
        if absolute {
            headers.insert(header::PROXY_AUTHORIZATION, entrance.authorization()?);
        }
        Ok(request)
    }
}

/// Header fields to send: what belongs to one connection or one body stays out, and what was masked.
fn fields(headers: &Value, notes: &mut Vec<String>) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let mut fields = Vec::new();
    for field in headers.as_array().into_iter().flatten() {
        let text = |at: usize| field.get(at).and_then(Value::as_str).unwrap_or_default();
        let (name, content) = (text(0), text(1));
        if LEFT_OUT.contains(&name.to_ascii_lowercase().as_str()) {
            continue;
        }
        if is_masked(content) {
            notes.push(format!("left out `{name}`: its value was masked when it was recorded"));
            continue;
        }
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no header name"))?;
        fields.push((parsed, value(content)?));
    }
    Ok(fields)
}

fn value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| "a header value holds a control character".to_owned())
}

/// Bodies are recorded without their content coding, so that goes too.
const LEFT_OUT: [&str; 12] = [
    "host",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "proxy-connection",
    "proxy-authorization",
];

fn body(recorded: &Value, edits: &Value) -> Result<Bytes, String> {
    let edited = edits["body"].is_string() || edits["body_base64"].is_string();
    let from = if edited { edits } else { recorded };
    if !edited && recorded["truncated"] == true {
        return Err("the body was longer than what is kept, so it cannot be sent again".to_owned());
    }
    if let Some(text) = from["body"].as_str() {
        if !edited && is_masked(text) {
            return Err("the body held a secret, which is not kept: edit the body".to_owned());
        }
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    }
    match from["body_base64"].as_str() {
        Some(encoded) => STANDARD.decode(encoded).map(Bytes::from).map_err(|_| "`body_base64` is no base64".to_owned()),
        None => Ok(Bytes::new()),
    }
}

impl Entrance {
    fn authorization(&self) -> Result<HeaderValue, String> {
        let pair = format!("{}:{}", self.login.user, self.login.password.expose());
        let mut value = value(&format!("Basic {}", STANDARD.encode(pair)))?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn tls(&self) -> Result<TlsConnector, String> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).map_err(|error| error.to_string())?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

async fn send(entrance: &Entrance, again: Again) -> Result<Replayed, String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    let stream =
        TcpStream::connect(entrance.proxy).await.map_err(|error| failed("the proxy cannot be reached", &error))?;
    let from = stream.local_addr().map_err(|error| error.to_string())?;
    let status = match again.target.scheme {
        Scheme::Http => exchange(TokioIo::new(stream), again.request(true, entrance)?).await?,
        Scheme::Https => {
            let tunnel = tunnel(entrance, &again.target, stream).await?;
            let name = rustls::pki_types::ServerName::try_from(again.target.host.to_string())
                .map_err(|_| format!("`{}` is no name for TLS", again.target.host))?;
            let why = "the proxy does not look into this host, so it cannot record a replay";
            let stream =
                entrance.tls()?.connect(name, TokioIo::new(tunnel)).await.map_err(|error| failed(why, &error))?;
            exchange(TokioIo::new(stream), again.request(false, entrance)?).await?
        }
    };
    Ok(Replayed { from, status, notes: again.notes })
}

/// Opens a tunnel to the target through the proxy.
async fn tunnel(entrance: &Entrance, target: &Target, stream: TcpStream) -> Result<hyper::upgrade::Upgraded, String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| format!("the proxy: {error}"))?;
    tokio::spawn(connection.with_upgrades());
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(target.host_port())
        .header(header::HOST, target.host_port())
        .header(header::PROXY_AUTHORIZATION, entrance.authorization()?)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| format!("the proxy: {error}"))?;
    if !response.status().is_success() {
        return Err(format!("the proxy refused the tunnel with {}", response.status()));
    }
    hyper::upgrade::on(response).await.map_err(|error| format!("the tunnel: {error}"))
}

/// One request on a connection of its own; the answer is read to its end and left to the recording.
async fn exchange<I>(io: I, request: Request<Full<Bytes>>) -> Result<u16, String>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .handshake(io)
        .await
        .map_err(|error| format!("the connection: {error}"))?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| format!("no answer: {error}"))?;
    let status = response.status().as_u16();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame.map_err(|error| format!("the answer broke off: {error}"))?;
    }
    connection.abort();
    Ok(status)
}

/// The answer to a replay: the number under which it was recorded.
pub fn answer(id: Option<u64>, done: &Replayed) -> Value {
    json!({ "id": id, "status": done.status, "notes": done.notes })
}

/// Time for one replay.
const WAIT: Duration = Duration::from_secs(60);
