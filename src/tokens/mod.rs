//! Tokens and secrets at rest.
