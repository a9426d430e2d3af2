//! x
pub(crate) mod crypt;
pub(crate) mod identity;
pub(crate) mod messages;
#[cfg(test)]
pub(crate) mod tests;
