//! Conversations with the listener.
