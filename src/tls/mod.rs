//! TLS on both sides: our certificate authority, the leaf certificates it signs, and the client side that verifies
//! upstream servers.

pub mod ca;
pub mod client;
pub mod leaf;
