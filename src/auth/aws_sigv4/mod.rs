//! `aws_sigv4`: AWS Signature Version 4 and 4a.
//!
//! `canonical` writes the canonical request, `sign` makes signatures, `keys` holds what signs.

mod asymmetric;
pub mod canonical;
mod chunked;
mod dummy;
pub mod keys;
mod names;
pub mod sign;
mod table;
#[cfg(test)]
mod tests;
