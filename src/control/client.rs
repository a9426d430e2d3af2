//! The client side: one request to the proxy that the run file names.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{run_file::RunInfo, tokens::TokenRequest};

/// What the proxy answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body as JSON; null if it is none.
    pub json: serde_json::Value,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens: the process is gone without having removed its run file.
    #[error(
        "the proxy that ran at {console} (process {pid}) does not answer: {why}; start it again with `countersign`"
    )]
    Gone {
        /// The console's address.
        console: String,
        /// The process.
        pid: u32,
        /// What the operating system said.
        why: String,
    },
    /// The proxy says no, in its words.
    #[error("{0}")]
    Refused(String),
    /// Something answers, but not as our proxy would.
    #[error("the control interface at {console} answered strangely: {why}")]
    Strange {
        /// The console's address.
        console: String,
        /// What happened.
        why: String,
    },
}

/// An answer whose body is not looked at.
#[derive(Clone, Debug)]
pub struct Raw {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

/// Sends one request without a body and reads JSON.
pub async fn ask(info: &RunInfo, method: Method, path: &str) -> Result<Answer, ClientError> {
    let answer = send(info, method, path, Bytes::new()).await?;
    Ok(Answer { status: answer.status, json: serde_json::from_slice(&answer.body).unwrap_or_default() })
}

/// Asks for tokens or logins.
pub async fn ask_tokens(info: &RunInfo, request: &TokenRequest) -> Result<Answer, ClientError> {
    let body = serde_json::to_vec(request).unwrap_or_default();
    let answer = send(info, Method::POST, "/api/tokens", body.into()).await?;
    Ok(Answer { status: answer.status, json: serde_json::from_slice(&answer.body).unwrap_or_default() })
}

/// Sends one request and reads the whole answer.
pub async fn send(info: &RunInfo, method: Method, path: &str, body: Bytes) -> Result<Raw, ClientError> {
    let work = async {
        let response = exchange(info, method, path, body).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let body = body.map_err(|error| strange(info, error.to_string()))?;
        Ok(Raw { status, body: body.to_bytes() })
    };
    match tokio::time::timeout(WAIT, work).await {
        Ok(result) => result,
        Err(_) => Err(strange(info, format!("nothing within {WAIT:?}"))),
    }
}

/// An answer that comes in pieces.
#[derive(Debug)]
pub struct Pieces {
    body: Incoming,
    console: String,
}

impl Pieces {
    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, ClientError>> {
        loop {
            let frame = match self.body.frame().await? {
                Ok(frame) => frame,
                Err(error) => {
                    return Some(Err(ClientError::Strange { console: self.console.clone(), why: error.to_string() }));
                }
            };
            if let Ok(data) = frame.into_data() {
                return Some(Ok(data));
            }
        }
    }
}

/// Asks for an answer that comes in pieces.
pub async fn pieces(info: &RunInfo, path: &str) -> Result<Pieces, ClientError> {
    let response = exchange(info, Method::GET, path, Bytes::new()).await?;
    let status = response.status();
    let body = response.into_body();
    if status.is_success() {
        return Ok(Pieces { body, console: info.console.clone() });
    }
    let text = Limited::new(body, MAX_BODY).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    Err(ClientError::Refused(json["error"].as_str().map_or_else(|| status.to_string(), str::to_owned)))
}

/// One server-sent event.
#[derive(Clone, Debug)]
pub struct ServerEvent {
    /// Its name.
    pub name: String,
    /// Its data as JSON.
    pub data: serde_json::Value,
}

/// Server-sent events as they come.
#[derive(Debug)]
pub struct Events {
    pieces: Pieces,
    text: Vec<u8>,
}

impl Events {
    /// The next event; `None` when the proxy is gone.
    pub async fn next(&mut self) -> Option<ServerEvent> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.text, b"\n\n") {
                let block: Vec<u8> = self.text.drain(..end + 2).collect();
                let block = String::from_utf8_lossy(&block);
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                if let Some(name) = field("event:") {
                    let data = field("data:").and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default();
                    return Some(ServerEvent { name: name.to_owned(), data });
                }
                continue;
            }
            self.text.extend_from_slice(&self.pieces.next().await?.ok()?);
        }
    }
}

/// Listens to the events at `path`.
pub async fn events(info: &RunInfo, path: &str) -> Result<Events, ClientError> {
    Ok(Events { pieces: pieces(info, path).await?, text: Vec::new() })
}

fn strange(info: &RunInfo, why: String) -> ClientError {
    ClientError::Strange { console: info.console.clone(), why }
}

async fn exchange(info: &RunInfo, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, ClientError> {
    let stream = TcpStream::connect(&info.console).await.map_err(|error| ClientError::Gone {
        console: info.console.clone(),
        pid: info.pid,
        why: error.to_string(),
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| strange(info, error.to_string()))?;
    // It ends with the answer, which says `close`.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, &info.console)
        .header(header::AUTHORIZATION, format!("Bearer {}", info.token.expose()))
        .header(header::CONNECTION, "close")
        .body(Full::new(body))
        .map_err(|error| strange(info, error.to_string()))?;
    sender.send_request(request).await.map_err(|error| strange(info, error.to_string()))
}

/// A reload may have to read many files, and a token to come from a slow server.
const WAIT: Duration = Duration::from_secs(60);
const MAX_BODY: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        control::{run_file::tests::info, server, tests::Fake},
        secret::Secret,
    };

    #[tokio::test]
    async fn client_and_server_understand_each_other() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let local = listener.local_addr().unwrap();
        let router = server::router(Arc::new(Fake::default()), Secret::new("t0ken"), local);
        let server = tokio::spawn(router.serve(listener));
        let info = info(&local.to_string());
        let answer = ask(&info, Method::GET, "/api/status").await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.json["rules"]), (200, &serde_json::json!(3)));
        let answer = ask(&info, Method::POST, "/api/reload").await.unwrap();
        assert_eq!(answer.json["error"], "line 3 is wrong");
        let answer = ask_tokens(&info, &TokenRequest::List).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.json), (200, &serde_json::json!([])));
        let show = TokenRequest::Show { credential: "x".into(), client: None };
        let answer = ask_tokens(&info, &show).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.json["login_needed"]), (422, &serde_json::json!(false)));
        let stranger = RunInfo { token: Secret::new("other"), ..info.clone() };
        assert_eq!(ask(&stranger, Method::GET, "/api/status").await.unwrap().status, 401);
        assert_eq!(ask_tokens(&stranger, &TokenRequest::List).await.unwrap().status, 401);
        server.abort();
        let _ = server.await;
        assert!(matches!(ask(&info, Method::GET, "/api/status").await, Err(ClientError::Gone { .. })));
    }
}
