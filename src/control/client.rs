//! The client side: one request to the proxy that the run file names.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
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
    /// Something answers, but not as our proxy would.
    #[error("the control interface at {console} answered strangely: {why}")]
    Strange {
        /// The console's address.
        console: String,
        /// What happened.
        why: String,
    },
}

/// Sends one request without a body.
pub async fn ask(info: &RunInfo, method: Method, path: &str) -> Result<Answer, ClientError> {
    ask_with(info, method, path, Bytes::new()).await
}

/// Asks for tokens or logins.
pub async fn ask_tokens(info: &RunInfo, request: &TokenRequest) -> Result<Answer, ClientError> {
    let body = serde_json::to_vec(request).unwrap_or_default();
    ask_with(info, Method::POST, "/api/tokens", body.into()).await
}

async fn ask_with(info: &RunInfo, method: Method, path: &str, body: Bytes) -> Result<Answer, ClientError> {
    let strange = |why: String| ClientError::Strange { console: info.console.clone(), why };
    match tokio::time::timeout(WAIT, exchange(info, method, path, body)).await {
        Ok(result) => result,
        Err(_) => Err(strange(format!("nothing within {WAIT:?}"))),
    }
}

async fn exchange(info: &RunInfo, method: Method, path: &str, body: Bytes) -> Result<Answer, ClientError> {
    let strange = |why: String| ClientError::Strange { console: info.console.clone(), why };
    let stream = TcpStream::connect(&info.console).await.map_err(|error| ClientError::Gone {
        console: info.console.clone(),
        pid: info.pid,
        why: error.to_string(),
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| strange(error.to_string()))?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, &info.console)
        .header(header::AUTHORIZATION, format!("Bearer {}", info.token.expose()))
        .header(header::CONNECTION, "close")
        .body(Full::new(body))
        .map_err(|error| strange(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(|error| strange(error.to_string()))?;
    let status = response.status();
    let body =
        Limited::new(response.into_body(), MAX_BODY).collect().await.map_err(|error| strange(error.to_string()))?;
    connection.abort();
    Ok(Answer { status, json: serde_json::from_slice(&body.to_bytes()).unwrap_or_default() })
}

/// A reload may have to read many files, and a token to come from a slow server.
const WAIT: Duration = Duration::from_secs(60);
const MAX_BODY: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::future::BoxFuture;
    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        control::{ControlState, run_file::tests::info, server, tests::desk, tokens::Desk},
        secret::Secret,
    };

    struct Fake(Desk);

    impl ControlState for Fake {
        fn status(&self) -> serde_json::Value {
            serde_json::json!({ "rules": 3 })
        }

        fn is_ready(&self) -> bool {
            true
        }

        fn reload(&self) -> BoxFuture<'_, Result<String, String>> {
            Box::pin(async { Ok("3 rules".into()) })
        }

        fn tokens(&self) -> &Desk {
            &self.0
        }

        fn stop(&self) {}
    }

    #[tokio::test]
    async fn client_and_server_understand_each_other() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let local = listener.local_addr().unwrap();
        let router = server::router(Arc::new(Fake(desk())), Secret::new("t0ken"), local);
        let server = tokio::spawn(router.serve(listener));
        let info = info(&local.to_string());
        let answer = ask(&info, Method::GET, "/api/status").await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.json["rules"]), (200, &serde_json::json!(3)));
        let answer = ask(&info, Method::POST, "/api/reload").await.unwrap();
        assert_eq!(answer.json["message"], "3 rules");
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
