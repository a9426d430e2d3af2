//! Seeing what happens: the recorder that exchanges write to, and the viewers that read from it.
//!
//! [`record`] holds the record types, [`recording`] the handles through which the proxy fills them. A finished exchange
//! goes through a bounded [`queue`] to one thread ([`writer`]), which renders it as a ticker line or dump ([`terminal`]),
//! as exact bytes ([`raw`]) or as JSON ([`json`]). Nothing here ever makes the proxy wait.
//!
//! Whatever came from the network passes two gates before it is written: [`redact`] masks secrets, [`inert`] makes
//! control characters visible.

mod changes;
pub mod csv;
pub mod curl;
mod decode;
pub mod har;
pub mod inert;
mod json;
mod log;
mod names;
mod pretty;
pub mod preview;
mod queue;
mod raw;
pub mod record;
pub mod recording;
pub mod redact;
#[cfg(test)]
mod redact_tests;
mod sink;
pub mod store;
mod terminal;
#[cfg(test)]
mod tests;
mod token;
mod views;
mod writer;

pub use log::MaskedWriter;
pub use record::{Client, Exchange, Recording, SendKind, SendRecording};
pub use redact::Redactor;
pub use sink::{Console, ConsoleOptions, Counts, Level};
pub use store::{Keep, Store};
