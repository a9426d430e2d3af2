//! x
pub(crate) mod spnego;
