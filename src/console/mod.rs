//! Seeing what happens: the recorder that exchanges write to, and the viewers that read from it.

pub mod record;
