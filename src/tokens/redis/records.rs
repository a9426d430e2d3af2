//! What stands in Redis, and the scripts that change it: each is one atomic step.
//!
//! A record is a hash: `v` the sealed value, `g` its generation, `id` which tells writes apart, `by` the fence under which
//! it was written, `fence` the last fence given out, `open` while a lease is held. The lease is a string beside it that
//! ends by itself. Both share a hash tag, so that a cluster keeps them together. Names are hashes of ours.

use std::sync::LazyLock;

use ::redis::{RedisResult, Script, aio::ConnectionLike, cmd};
use aws_lc_rs::digest::{SHA256, digest};

use crate::tokens::key::hex;

/// The names under which one entry stands.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) record: String,
    pub(super) lease: String,
    /// What is published when the entry changes or its lease ends.
    pub(super) hash: String,
}

impl Names {
    pub(super) fn of(prefix: &str, key: &str) -> Self {
        Self::of_hash(prefix, hex(&digest(&SHA256, key.as_bytes()).as_ref()[..16]))
    }

    pub(super) fn of_hash(prefix: &str, hash: String) -> Self {
        Self { record: format!("{prefix}:{{{hash}}}:record"), lease: format!("{prefix}:{{{hash}}}:lease"), hash }
    }
}

/// Where changes are told.
pub(super) fn channel(prefix: &str) -> String {
    format!("{prefix}:changed")
}

/// A record as it stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) value: Vec<u8>,
    pub(super) generation: u64,
    pub(super) id: String,
    /// The fence under which it was written.
    pub(super) by: String,
}

/// What came of asking for a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It is ours.
    Got {
        fence: u64,
        /// False if the last holder never gave it back: it may be dead, or only late.
        clean: bool,
        generation: u64,
    },
    /// Somebody else has it, for at most so many milliseconds.
    Busy(u64),
}

/// What came of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is there.
    Done,
    /// This generation is there instead.
    Conflict(u64),
    /// The lease has passed on.
    Lost,
}

/// A write, with what must hold for it.
pub(super) struct Write<'a> {
    pub(super) record: &'a Record,
    /// The generation that must be there...
    pub(super) replaces: u64,
    /// ...or one of these writes, or nothing, if it is not empty: earlier ones of the same line, which the server has
    /// fallen back to.
    pub(super) ancestors: &'a str,
    /// The fence that must not have been passed on; `None` for a write that restores what the server has lost.
    pub(super) fence: Option<u64>,
}

pub(super) async fn read<C: ConnectionLike + Send>(mut connection: C, names: &Names) -> RedisResult<Option<Record>> {
    let mut command = cmd("HMGET");
    command.arg(&names.record).arg(&["v", "g", "id", "by"]);
    let fields: Vec<Option<Vec<u8>>> = command.query_async(&mut connection).await?;
    let text = |at: usize| fields.get(at).cloned().flatten().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let Some(value) = fields.first().cloned().flatten() else { return Ok(None) };
    let generation = text(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(Some(Record { value, generation, id: text(2).unwrap_or_default(), by: text(3).unwrap_or_default() }))
}

pub(super) async fn acquire<C: ConnectionLike + Send>(
    mut connection: C,
    names: &Names,
    token: &str,
    milliseconds: u64,
) -> RedisResult<Asked> {
    let mut call = ACQUIRE.key(&names.record);
    let said: (String, String, String, String) =
        call.key(&names.lease).arg(token).arg(milliseconds).invoke_async(&mut connection).await?;
    let number = |text: &str| text.parse().unwrap_or(0);
    Ok(match said.0.as_str() {
        "got" => Asked::Got { fence: number(&said.1), clean: said.2 == "1", generation: number(&said.3) },
        _ => Asked::Busy(number(&said.1)),
    })
}

/// Makes a lease last longer; false if somebody else has it.
pub(super) async fn extend<C: ConnectionLike + Send>(
    mut connection: C,
    names: &Names,
    token: &str,
    fence: u64,
    milliseconds: u64,
) -> RedisResult<bool> {
    let mut call = EXTEND.key(&names.record);
    call.key(&names.lease).arg(token).arg(fence.to_string()).arg(milliseconds).invoke_async(&mut connection).await
}

/// Gives a lease back and wakes those who wait for it.
pub(super) async fn release<C: ConnectionLike + Send>(
    mut connection: C,
    names: &Names,
    token: &str,
    fence: u64,
    channel: &str,
) -> RedisResult<()> {
    let mut call = RELEASE.key(&names.record);
    let call = call.key(&names.lease).arg(token).arg(fence.to_string()).arg(channel).arg(&names.hash);
    call.invoke_async(&mut connection).await
}

pub(super) async fn write<C: ConnectionLike + Send>(
    mut connection: C,
    names: &Names,
    write: &Write<'_>,
    channel: &str,
) -> RedisResult<Written> {
    let mut call = WRITE.key(&names.record);
    let said: (String, String) = call
        .key(&names.lease)
        .arg(write.fence.map_or_else(|| "-".to_owned(), |fence| fence.to_string()))
        .arg(write.replaces.to_string())
        .arg(write.record.generation.to_string())
        .arg(&write.record.id)
        .arg(&write.record.value)
        .arg(&write.record.by)
        .arg(write.ancestors)
        .arg(channel)
        .arg(&names.hash)
        .invoke_async(&mut connection)
        .await?;
    Ok(match said.0.as_str() {
        "done" => Written::Done,
        "conflict" => Written::Conflict(said.1.parse().unwrap_or(0)),
        _ => Written::Lost,
    })
}

/// A fence is never lower than the clock of the server: one that has lost its data does not begin again at 1.
static ACQUIRE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local holder = redis.call('GET', KEYS[2])
local known = redis.call('HMGET', KEYS[1], 'fence', 'open', 'g')
if holder == ARGV[1] then return {'got', known[1] or '0', '1', known[3] or '0'} end
if holder then return {'busy', tostring(math.max(redis.call('PTTL', KEYS[2]), 0)), '', ''} end
local time = redis.call('TIME')
local fence = math.max((tonumber(known[1]) or 0) + 1, time[1] * 1000 + math.floor(time[2] / 1000))
fence = string.format('%.0f', fence)
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('HSET', KEYS[1], 'fence', fence, 'open', fence)
return {'got', fence, known[2] and '0' or '1', known[3] or '0'}
",
    )
});

/// A lease that ran out is taken again if nobody has had it since.
static EXTEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local holder = redis.call('GET', KEYS[2])
if holder == ARGV[1] then return redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
if holder or redis.call('HGET', KEYS[1], 'fence') ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
return 1
",
    )
});

static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
if redis.call('HGET', KEYS[1], 'open') == ARGV[2] then redis.call('HDEL', KEYS[1], 'open') end
redis.pcall('PUBLISH', ARGV[3], ARGV[4])
return redis.status_reply('OK')
",
    )
});

/// Writing the same once more changes nothing: an answer that was lost may be asked for again.
static WRITE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local known = redis.call('HMGET', KEYS[1], 'g', 'id', 'by', 'fence')
local generation, id, by, fence = known[1] or '0', known[2] or '', known[3] or '', tonumber(known[4]) or 0
if id == ARGV[4] then return {'done', generation} end
if generation ~= ARGV[2] then
  local fallen = ARGV[7] ~= '' and (id == '' or string.find(ARGV[7], id, 1, true))
  if not fallen then return {'conflict', generation} end
end
if ARGV[1] ~= '-' and fence > tonumber(ARGV[1]) and by ~= ARGV[1] then return {'lost', generation} end
redis.call('HSET', KEYS[1], 'v', ARGV[5], 'g', ARGV[3], 'id', ARGV[4], 'by', ARGV[6])
redis.pcall('PUBLISH', ARGV[8], ARGV[9])
return {'done', ARGV[3]}
",
    )
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_nothing_and_stand_together() {
        let names = Names::of("p", "oauth2/user/0123");
        assert!(names.record.starts_with("p:{") && !names.record.contains("user"));
        let tag = |name: &str| name[name.find('{').unwrap()..=name.find('}').unwrap()].to_owned();
        assert_eq!(tag(&names.record), tag(&names.lease));
        assert_ne!(names.hash, Names::of("p", "oauth2/user/0124").hash);
    }
}
