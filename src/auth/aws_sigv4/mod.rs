//! `aws_sigv4`: AWS Signature Version 4 and 4a.
//!
//! `canonical` writes the canonical request, `sign` makes signatures, `keys` holds what signs.

pub mod canonical;
pub mod keys;
pub mod sign;
pub mod sources;
#[cfg(test)]
mod tests;
