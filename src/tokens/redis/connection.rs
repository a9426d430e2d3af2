//! A connection to one server or to a cluster, and what a server says of itself.

use std::time::Duration;

use ::redis::{
    Cmd, FromRedisValue, Pipeline, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster_async::ClusterConnection,
    cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr},
};

use super::fault::Fault;

/// A connection of either sort. Clones share it.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(one) => one.req_packed_command(command),
            Self::Cluster(one) => one.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(one) => one.req_packed_commands(pipeline, offset, count),
            Self::Cluster(one) => one.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(one) => one.get_db(),
            Self::Cluster(one) => one.get_db(),
        }
    }
}

impl Connection {
    /// A command without a key, to the server that keeps `key`.
    pub(super) async fn ask<T: FromRedisValue>(&mut self, command: Cmd, key: &str) -> RedisResult<T> {
        match self {
            Self::Single(one) => command.query_async(one).await,
            Self::Cluster(one) => {
                let node = SingleNodeRoutingInfo::SpecificNode(Route::new(slot(key), SlotAddr::Master));
                Ok(::redis::from_redis_value(one.route_command(command, RoutingInfo::SingleNode(node)).await?)?)
            }
        }
    }

    /// Hears what is published on `channel`, as push messages.
    pub(super) async fn subscribe(&mut self, channel: &str) -> RedisResult<()> {
        match self {
            Self::Single(one) => one.subscribe(channel).await,
            Self::Cluster(one) => one.subscribe(channel).await,
        }
    }
}

/// The slot of a key in a cluster: CRC-16/XMODEM of what stands in the first braces, or of all of it (Redis Cluster
/// specification, key distribution model).
fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let tag = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 })
    });
    crc % 16384
}

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Replicas that follow it now.
    pub(super) replicas: u64,
    /// How long it runs; `None` if it does not say.
    pub(super) uptime: Option<Duration>,
    /// `maxmemory_policy`
    policy: String,
}

impl Survey {
    /// Reads the answer to `INFO`.
    pub(super) fn read(text: &str) -> Self {
        let field = |name: &str| text.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
        Self {
            replicas: field("connected_slaves").and_then(|count| count.parse().ok()).unwrap_or(0),
            uptime: field("uptime_in_seconds").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs),
            policy: field("maxmemory_policy").unwrap_or_default().to_owned(),
        }
    }

    /// A server that throws keys away to make room would throw away refresh tokens.
    pub(super) fn check(&self) -> Result<(), Fault> {
        if !self.policy.starts_with("allkeys-") {
            return Ok(());
        }
        let mut fault = Fault::lasting(format!(
            "it is refused, because `maxmemory-policy {}` lets it throw away any key to make room, refresh tokens too; \
             set `maxmemory-policy noeviction` (or `volatile-ttl`), or use another server",
            self.policy
        ));
        fault.reconnect = false;
        Err(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::StoreError;

    #[test]
    fn slots_are_those_of_a_cluster() {
        // The check value of the algorithm, and `CLUSTER KEYSLOT` of a server.
        assert_eq!(slot("123456789"), 0x31c3);
        assert_eq!(slot("foo"), 12182);
        assert_eq!(slot("p:{foo}:lease"), 12182);
    }

    #[test]
    fn what_a_server_says_is_read_and_eviction_refused() {
        let said = "uptime_in_seconds:7\r\n# Memory\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n# Replication\r\nconnected_slaves:2\r\n";
        let survey = Survey::read(said);
        assert_eq!(survey, Survey { replicas: 2, uptime: Some(Duration::from_secs(7)), policy: "allkeys-lru".into() });
        assert!(
            matches!(survey.check().unwrap_err().at("r"), StoreError::Unavailable(why) if why.contains("noeviction"))
        );
        for fine in ["noeviction", "volatile-lru", ""] {
            assert!(Survey { policy: fine.into(), ..Survey::default() }.check().is_ok());
        }
    }
}
