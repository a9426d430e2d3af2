//! Speaking to a running proxy: the run file says where it is, a small HTTP interface on the console port answers.
//!
//! The interface is for the commands of the same user on the same machine. It asks for the token of the run file, wants
//! a loopback name with the right port in `Host`, and answers nothing that comes from a web page.

pub mod client;
pub mod run_file;
pub mod server;
pub mod tokens;

use futures_util::future::BoxFuture;

use self::tokens::Desk;

/// What the control interface can see and do. Implemented by the application.
pub trait ControlState: Send + Sync + 'static {
    /// What `status` prints: masked, for the owner's eyes.
    fn status(&self) -> serde_json::Value;

    /// True once connections are served.
    fn is_ready(&self) -> bool;

    /// Reads the configuration again. `Ok` says what is in force now, `Err` why the old rules stay.
    fn reload(&self) -> BoxFuture<'_, Result<String, String>>;

    /// What `login`, `logout` and `token` ask for.
    fn tokens(&self) -> &Desk;

    /// Begins an orderly stop; returns at once.
    fn stop(&self);
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::tokens::Desk;
    use crate::auth::{login::Logins, tests::NoNetwork};

    /// A desk without credentials.
    pub(crate) fn desk() -> Desk {
        Desk {
            find: Box::new(|_| None),
            names: Box::new(Vec::new),
            logins: Logins::default(),
            runner: Arc::new(NoNetwork),
        }
    }
}
