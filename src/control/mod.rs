//! Speaking to a running proxy: the run file says where it is, a small HTTP interface on the console port answers.
//!
//! The interface is for the commands of the same user on the same machine, and for the page that it serves. It asks for
//! the token of the run file or the cookie of a page, wants a loopback name with the right port in `Host`, and answers
//! nothing that comes from another web page.

mod body;
pub mod client;
mod page;
pub mod replay;
pub mod run_file;
pub mod server;
pub mod session;
#[cfg(test)]
pub(crate) mod tests;
pub mod tokens;
mod traffic;

use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::{
    console::{Console, Redactor},
    metrics::Format,
    secret::Secret,
};
pub use body::ControlBody;

use self::tokens::Desk;

/// What the control interface can see and do. Implemented by the application.
pub trait ControlState: Send + Sync + 'static {
    /// What `status` prints: masked, for the owner's eyes.
    fn status(&self) -> Value;

    /// What `/metrics` says.
    fn metrics(&self, format: Format) -> String;

    /// The token with which other users of the machine may read `/metrics`, if one is configured.
    fn metrics_token(&self) -> BoxFuture<'_, Option<Secret>>;

    /// Set while the files on disk are not what is in force.
    fn is_stale(&self) -> bool;

    /// The recorded traffic.
    fn console(&self) -> &Console;

    /// What is masked in what comes from elsewhere.
    fn redactor(&self) -> &Redactor;

    /// The rules as a tree, as `rules --json` prints them.
    fn rules(&self) -> Value;

    /// Which rule the request of a recorded exchange meets now, and why; null if it has none.
    fn explain(&self, detail: &Value) -> Value;

    /// Sends a recorded request again, with edits; says under which number it was recorded.
    fn replay(&self, detail: Value, edits: Value) -> BoxFuture<'_, Result<Value, String>>;

    /// True once connections are served.
    fn is_ready(&self) -> bool;

    /// Reads the configuration again. `Ok` says what is in force now, `Err` why the old rules stay.
    fn reload(&self) -> BoxFuture<'_, Result<String, String>>;

    /// What `login`, `logout` and `token` ask for.
    fn tokens(&self) -> &Desk;

    /// Begins an orderly stop; returns at once.
    fn stop(&self);
}
