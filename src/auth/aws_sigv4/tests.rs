//! A conversation with the scheme, without a network.

mod bodies;
mod refusals;
mod sites;
mod vectors;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use http::{Request, request::Parts};
use serde_json::Value;

use crate::{
    auth::{
        AuthError, AuthScheme, SchemeConfig,
        scheme::{BodyPlan, BodyUse, Hop, Outgoing, Round, Trace},
        tests::{NoNetwork, context_with},
    },
    clock::Clock,
    target::Target,
};

/// `20150830T123600Z`
fn at(stamp: &str) -> std::time::SystemTime {
    let format = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
    time::PrimitiveDateTime::parse(stamp, format).unwrap().assume_utc().into()
}

/// A scheme at a fixed time.
struct Talk {
    scheme: Arc<dyn AuthScheme>,
    clock: Clock,
    round: Round,
}

/// What left.
struct Left {
    head: Parts,
    trace: Trace,
    plan: BodyPlan,
}

impl Left {
    fn header(&self, name: &str) -> &str {
        self.head.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn canonical(&self, label: &str) -> &str {
        &self.trace.canonical.iter().find(|(scheme, known, _)| *scheme == "aws_sigv4" && *known == label).unwrap().2
    }

    /// The body that leaves for `body`, given in pieces of this size.
    fn body(self, body: &[u8], piece: usize) -> Result<Vec<u8>, AuthError> {
        let BodyPlan::Reframed(mut reframe) = self.plan else { panic!("not reframed: {:?}", self.plan) };
        let mut out = BytesMut::new();
        for piece in body.chunks(piece) {
            reframe.data(piece, &mut out)?;
        }
        reframe.end(None, &mut out)?;
        Ok(out.to_vec())
    }
}

impl Talk {
    fn new(keys: Value, now: SystemTime) -> Self {
        let clock = Clock::fixed(now, None);
        let context = context_with(Arc::new(NoNetwork), clock.clone());
        let config = SchemeConfig::from_json("aws_sigv4", keys).unwrap();
        Self { scheme: config.build("aws", &context).unwrap(), clock, round: Round::new() }
    }

    /// Sends a request as the driver would: observed, emptied, the body read as the scheme asks, if it is not too long.
    fn send(&mut self, mut head: Parts, body: &[u8]) -> Result<Left, AuthError> {
        let limit = 1 << 20;
        self.scheme.observe(&head, &mut self.round);
        for slot in self.scheme.slots().iter().chain(self.scheme.clears()) {
            crate::auth::slots::strip(&mut head, slot);
        }
        let target = Target::from_uri(&head.uri).unwrap();
        if !head.headers.contains_key("host") {
            head.headers.insert("host", target.authority().parse().unwrap());
        }
        let body = Bytes::copy_from_slice(body);
        let (seen, complete) = match self.scheme.body_use_in(&head, &self.round) {
            _ if body.is_empty() => (Some(body.clone()), true),
            BodyUse::Whole => (Some(body.clone()), true),
            BodyUse::Most if body.len() <= limit => (Some(body.clone()), true),
            BodyUse::Most => (Some(body.slice(..limit)), false),
            _ => (None, true),
        };
        let mut trace = Trace::default();
        let mut out = Outgoing::new(&mut head, &target, Hop::Origin, seen.as_ref(), &self.clock, Some(&mut trace))
            .beginning(!complete);
        self.scheme.apply(&mut out, &mut self.round)?;
        let plan = out.into_plan();
        Ok(Left { head, trace, plan })
    }
}

fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut builder = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}
