//! What is kept of an exchange, and the handles through which the proxy writes it.
//!
//! A [`Recording`] exists only while somebody looks; without one an exchange pays nothing.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use bytes::Bytes;
use http::{StatusCode, request, response};

use crate::{auth::scheme::Trace, rules::Rule, target::Target, upstream::LinkInfo};

/// Receives exchanges. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Console {}

/// Where an exchange comes from.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// The client's address.
    pub peer: Option<SocketAddr>,
    /// The name it gave in `Proxy-Authorization`, if any.
    pub name: Option<Arc<str>>,
}

/// One exchange being recorded. Cheap to clone; the exchange is shown when the last step is finished.
#[derive(Clone, Debug)]
pub struct Recording {}

/// One send of an exchange being recorded.
#[derive(Clone, Debug)]
pub struct SendRecording {}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendKind {
    /// The client's request.
    Request,
    /// A request of our own on behalf of this credential (token endpoint).
    Token {
        /// Name of the credential.
        credential: Arc<str>,
    },
    /// CONNECT to a parent proxy.
    Connect,
}

impl Console {
    /// A recording for a new exchange, or `None` if nobody looks.
    pub fn begin(&self, _client: &Client, _at: SystemTime) -> Option<Recording> {
        todo!()
    }

    /// A blind tunnel has ended: one ticker line.
    pub fn tunnel(
        &self,
        _client: &Client,
        _target: &Target,
        _sent: u64,
        _received: u64,
        _started: SystemTime,
        _error: Option<&str>,
    ) {
        todo!()
    }

    /// Something a person should know: a reload, a refused file, a login that is needed.
    pub fn announce(&self, _message: &str) {
        todo!()
    }
}

impl Recording {
    /// The number of the exchange.
    pub fn id(&self) -> u64 {
        todo!()
    }

    /// The request as the client sent it. `head.uri` as received.
    pub fn request(&self, _head: &request::Parts, _target: Option<&Target>) {
        todo!()
    }

    /// The rule that decides, or `None`.
    pub fn rule(&self, _rule: Option<&Arc<Rule>>) {
        todo!()
    }

    /// Client values that were removed from a slot, and headers that were edited: `removed`, `set`.
    pub fn note(&self, _text: String) {
        todo!()
    }

    /// Begins a send.
    pub fn send(&self, _kind: SendKind) -> SendRecording {
        todo!()
    }

    /// The head that goes back to the client; its body is recorded by `delivered` and `finish`.
    pub fn response(&self, _head: &response::Parts) {
        todo!()
    }

    /// The answer is ours: the error id and its message.
    pub fn refused(&self, _status: StatusCode, _id: &'static str, _message: &str) {
        todo!()
    }

    /// Bytes of body that went back to the client.
    pub fn delivered(&self, _bytes: usize) {
        todo!()
    }

    /// The exchange is over; `error` says if it broke off.
    pub fn finish(&self, _error: Option<&str>) {
        todo!()
    }
}

impl SendRecording {
    /// True if the exact bytes on the connection are wanted.
    pub fn wants_raw(&self) -> bool {
        todo!()
    }

    /// The connection that carries it.
    pub fn link(&self, _info: &LinkInfo, _reused: bool) {
        todo!()
    }

    /// The request as it leaves, with what schemes wrote.
    pub fn request(&self, _head: &request::Parts, _target: &Target, _request_target: &str, _trace: Trace) {
        todo!()
    }

    /// A piece of the request body as it leaves.
    pub fn request_body(&self, _bytes: &Bytes) {
        todo!()
    }

    /// The answer's head.
    pub fn reply(&self, _head: &response::Parts) {
        todo!()
    }

    /// A piece of the answer's body as it came.
    pub fn reply_body(&self, _bytes: &Bytes) {
        todo!()
    }

    /// An interim answer (1xx).
    pub fn interim(&self, _status: StatusCode) {
        todo!()
    }

    /// Exact bytes written to the upstream connection (HTTP/1).
    pub fn raw_out(&self, _bytes: &[u8]) {
        todo!()
    }

    /// Exact bytes read from the upstream connection (HTTP/1).
    pub fn raw_in(&self, _bytes: &[u8]) {
        todo!()
    }

    /// The send failed.
    pub fn failed(&self, _message: &str) {
        todo!()
    }

    /// The answer is complete.
    pub fn end(&self) {
        todo!()
    }
}

tokio::task_local! {
    /// The recording under which requests of our own (token fetches) are made.
    pub static CURRENT: Option<Recording>;
}
