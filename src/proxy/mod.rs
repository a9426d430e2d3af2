//! Serving one connection and handling one request: tunnel, own page, or forward.
